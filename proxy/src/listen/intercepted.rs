//! What a redirected connection is for.
//!
//! Leaving: the address decides, and a Host only chooses among the routes of the service at that address. An application
//! can thus not be sent elsewhere by what a request says, and a name that it looked up long ago still means what it meant.
//! Addresses are looked up as host names are, under the reverse name of the address (`mesh::Hostname::of_address`,
//! `of_socket`). Arriving: the port decides which port of the application is meant.
//!
//! Deliberately elsewhere: how the original address is read ([`super::original_dst`]), and what happens to a request once
//! its service is known ([`crate::outbound`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use outrigger_mesh::{Hop, Host, Hostname, MeshSettings, OutboundMode, PortNumber, Reason};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::registry::{Discovery, Found, Registry};
use crate::error::Error;
use crate::http::connections::Guard;
use crate::http::reply::Asker;
use crate::http::serve;
use crate::listen::detect::{self, First};
use crate::listen::original_dst::OriginalDst;
use crate::listen::way::{self, Way};
use crate::live::{LiveService, Millis};
use crate::outbound;
use crate::request::told::LOOKUP_PATIENCE;
use crate::tcp;
use crate::tcp::outbound::Called;
use crate::tcp::relay;
use crate::telemetry::observe::Direction;
use crate::worker::{Application, Worker};

/// Where a redirected connection of the application goes.
#[derive(Debug)]
pub enum Course {
    /// To the service at that address; what is asked on it takes that service's routes. The host is a reserved name, and
    /// the name of an instance where the address is that of one ([`Hostname::socket`]).
    Service(Host),
    /// To where it was going, as it is.
    Outside(SocketAddr),
    /// To the service outside the mesh that its requests name, or its TLS, and nowhere else.
    Egress,
    /// Nowhere.
    Refused(Error),
}

/// Serves a connection that a listener for redirected ones, at `listening`, accepted from the application.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, guard: Guard, listening: SocketAddr) {
    let original = match OriginalDst::of(&stream, listening) {
        Ok(Some(original)) => original,
        // Called by its own address, as without redirection: Host decides.
        Ok(None) => return outbound::serve(worker, stream, guard, None).await,
        Err(error) => return tracing::warn!(%error, "the original address can not be read"),
    };
    let ours = stream.peer_addr().is_ok_and(|from| worker.shared.live.own_calls.contains(from.port()));
    let course =
        if ours { Course::Refused(loops(original.address())) } else { course(&worker, original).await };
    match course {
        Course::Service(host) => outbound::serve(worker, stream, guard, Some(Rc::new(host))).await,
        Course::Outside(to) => pass_on(&worker, stream, guard, to).await,
        Course::Egress => by_name(worker, stream, guard, original.address()).await,
        Course::Refused(error) => refuse(worker, stream, guard, error).await,
    }
}

/// Decides by the address. What is not known is asked for, and waited for a little.
pub async fn course(worker: &Worker, original: OriginalDst) -> Course {
    course_to(worker, original.address()).await
}

/// The same for an address that was named.
pub async fn course_to(worker: &Worker, to: SocketAddr) -> Course {
    let registry = &*worker.shared.registry;
    if worker.shared.own_ports.contains(to) {
        return Course::Refused(loops(to));
    }
    let Some((inside, mode)) = of_mesh(registry, to).await else {
        let why = format!("whether {to} is of the mesh can not be told: the control plane does not answer");
        return Course::Refused(Error::refused(Reason::DiscoveryUnavailable, why));
    };
    let looked = if !inside && worker.outsiders.contains(to) {
        Looked::Nobody
    } else {
        look_up(registry, to, inside).await
    };
    // The address of a service or an instance of which not everything is told yet is of the mesh, whatever the mesh's own ranges are.
    let of_service = || {
        [Hostname::of_address(to.ip()), Hostname::of_socket(to)]
            .iter()
            .any(|host| registry.is_of_service(host))
    };
    let inside = inside || (looked == Looked::NotTold && of_service());
    match (looked, inside) {
        (Looked::Service(host), _) => Course::Service(host),
        (Looked::Nobody, true) => {
            let why = format!("{to} is of the mesh, and no service has it");
            Course::Refused(Error::refused(Reason::UnknownService, why))
        }
        // It could be of anybody; what is meant for the mesh never leaves in plaintext.
        (Looked::NotTold, true) => {
            let why = format!("{to} can not be looked up: the control plane does not answer");
            Course::Refused(Error::refused(Reason::DiscoveryUnavailable, why))
        }
        (looked @ (Looked::Nobody | Looked::NotTold), false) => {
            if looked == Looked::Nobody {
                worker.outsiders.add(to);
            }
            match mode {
                OutboundMode::AllowAny => Course::Outside(to),
                OutboundMode::RegistryOnly => Course::Egress,
            }
        }
    }
}

/// The port of the application that a connection from the mesh means, by where it was going. `None` where it would come
/// back to this sidecar.
pub fn application(
    worker: &Worker,
    stream: &TcpStream,
    listening: SocketAddr,
    declared: &Arc<Application>,
) -> Option<Arc<Application>> {
    let original = match OriginalDst::of(stream, listening) {
        Ok(Some(original)) => original,
        Ok(None) => return Some(Arc::clone(declared)),
        Err(error) => {
            tracing::warn!(%error, "the original address can not be read");
            return None;
        }
    };
    let (to, shared) = (original.address(), &worker.shared);
    if to.port() == listening.port() || shared.own_ports.contains(to) {
        shared.live.counters.refused(Reason::LoopDetected, Hop::Server);
        return None;
    }
    let same_port = |a: &&Arc<Application>| a.address.port() == to.port();
    if let Some(application) = shared.applications.iter().find(same_port) {
        return Some(Arc::clone(application));
    }
    // At the address where it was going, not at a loopback one: what an application listens at for itself alone stays
    // closed to others.
    let Application { service, version, live, .. } = &**declared;
    Some(Arc::new(Application {
        service: service.clone(),
        service_port: PortNumber::new(to.port()),
        version: version.clone(),
        address: to,
        live: Arc::clone(live),
    }))
}

/// Addresses outside the mesh of which it is known that no service has them: asked again after a while, not each time.
#[derive(Debug, Default)]
pub struct Outsiders(RefCell<HashMap<SocketAddr, Millis>>);

impl Outsiders {
    fn contains(&self, address: SocketAddr) -> bool {
        self.0.borrow().get(&address).is_some_and(|at| Millis::now().0 < at.0 + OUTSIDER_MS)
    }

    fn add(&self, address: SocketAddr) {
        let mut known = self.0.borrow_mut();
        if known.len() >= MAX_OUTSIDERS {
            known.clear();
        }
        // One that is known keeps its time.
        let now = Millis::now();
        let at = known.entry(address).or_insert(now);
        if now.0 >= at.0 + OUTSIDER_MS {
            *at = now;
        }
    }
}

/// Whether an address is of the mesh, and what becomes of those that are not. `None` where that could not be learned.
async fn of_mesh(registry: &Registry, to: SocketAddr) -> Option<(bool, OutboundMode)> {
    let mut changed = registry.changed();
    let end = Instant::now() + LOOKUP_PATIENCE;
    loop {
        changed.borrow_and_update();
        if let Some(mesh) = registry.mesh() {
            return Some((mesh.contains(to.ip()), mesh.outbound_mode));
        }
        if registry.discovery() == Discovery::Complete {
            let virtual_ones = [MeshSettings::VIRTUAL_V4, MeshSettings::VIRTUAL_V6];
            let inside = virtual_ones.iter().any(|range| range.contains(to.ip()));
            return Some((inside, OutboundMode::default()));
        }
        timeout_at(end, changed.changed()).await.ok()?.ok()?;
    }
}

/// What is known of an address.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    Service(Host),
    /// No service has it.
    Nobody,
    /// Nobody could say.
    NotTold,
}

/// Looks an address up as a service's and as an instance's at once.
async fn look_up(registry: &Registry, to: SocketAddr, inside: bool) -> Looked {
    let (service, instance) = (Hostname::of_address(to.ip()), Hostname::of_socket(to));
    let mut changed = registry.changed();
    // What is outside is not held up while there is nobody to ask.
    let patience = match registry.discovery() {
        Discovery::Away if !inside => Duration::ZERO,
        Discovery::Away => AWAY_PATIENCE,
        _ => LOOKUP_PATIENCE,
    };
    let end = Instant::now() + patience;
    let mut told;
    loop {
        changed.borrow_and_update();
        // One that its cluster gave a service lies outside of what the mesh knows as its own ranges.
        match (registry.find(&service), registry.find(&instance)) {
            (Found::Known(_), _) => {
                return Looked::Service(Host { name: service, port: PortNumber::new(to.port()) });
            }
            (by_address, Found::Known(of)) => {
                if let Some(port) = port_of_instance(&of, to) {
                    return Looked::Service(Host { name: instance, port: Some(port) });
                }
                // Told of the address, but not of the instance: that comes by another way, or it has gone by now.
                told = matches!(by_address, Found::Unknown);
            }
            (Found::Unknown, Found::Unknown) => return Looked::Nobody,
            (Found::Asked, _) | (_, Found::Asked) => told = false,
        }
        if patience.is_zero() || !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            return if told { Looked::Nobody } else { Looked::NotTold };
        }
    }
}

/// Which port of its service the instance at `to` serves there.
fn port_of_instance(service: &LiveService, to: SocketAddr) -> Option<PortNumber> {
    let endpoints = service.endpoints.load();
    let view = endpoints.everything.iter().find(|view| view.is_at(to))?;
    view.endpoint.ports.iter().find(|port| port.application().get() == to.port()).map(|port| port.port)
}

/// Passes bytes between the application and a place outside the mesh.
async fn pass_on(worker: &Worker, mut stream: TcpStream, guard: Guard, to: SocketAddr) {
    let passing = guard.passes_on();
    // What ends before both sides have ended is a reset; as far as the application can tell, nobody listens there.
    tcp::cut_on_close(&stream);
    let of_nobody = Arc::default();
    let note = worker.shared.live.observe.note(Direction::Outbound);
    let note = note.as_deref();
    note.inspect(|note| note.goes_outside(to));
    match tcp::outside::dial(worker, to).await {
        Ok(there) => tokio::select! {
            biased;
            () = passing.cut() => {}
            in_order = there.carry(&mut stream, Bytes::new(), &of_nobody, note) => {
                if in_order {
                    tcp::end_on_close(&stream);
                }
            }
        },
        Err(error) => {
            note.inspect(|note| note.failed(&error));
            tracing::debug!(%error, "a place outside the mesh can not be reached");
        }
    }
}

/// Serves a connection to a place outside the mesh where only what is registered may be called: its requests may name
/// services outside, its TLS any service that has a port for it.
async fn by_name(worker: Rc<Worker>, stream: TcpStream, guard: Guard, to: SocketAddr) {
    let spoken = match detect::sniff(&stream, &guard).await {
        Ok(First::Plain(spoken)) => spoken,
        Ok(First::Tls) => {
            let Way::Opaque(service, port) = way::of_tls_outside(&worker, &stream, &guard, to).await else {
                return;
            };
            let called = Called { service, port, instance: None };
            return Box::pin(tcp::outbound::serve(&worker, stream, guard, &called)).await;
        }
        Err(_) => {
            worker.shared.live.counters.refused(Reason::EgressDenied, Hop::Client);
            tracing::info!(%to, "the mesh lets out only what is registered: neither HTTP nor TLS, refused");
            return relay::abort(&stream);
        }
    };
    let refuse = refusing(&worker);
    let answer = async move |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let named = outbound::resolve(&worker, &parts, None).await;
        let request = Request::from_parts(parts, body);
        let is_outside = |service: &LiveService| {
            service.snapshot.load().as_ref().is_some_and(|s| s.service.location.is_outside())
        };
        let error = match named {
            Ok(named) if is_outside(&named.service) => {
                return outbound::answer(&worker, request, None).await;
            }
            Err(error) if error.reason == Reason::DiscoveryUnavailable => error,
            _ => Error::refused(Reason::EgressDenied, "the mesh lets nothing out but what is registered"),
        };
        outbound::refused(&worker, &request, &error)
    };
    serve::connection(stream, spoken, guard, answer, refuse).await;
}

/// Refuses whatever is asked on a connection, where it is HTTP; else closes it.
async fn refuse(worker: Rc<Worker>, stream: TcpStream, guard: Guard, error: Error) {
    let Ok(Ok(First::Plain(spoken))) = timeout(REFUSAL_PATIENCE, detect::sniff(&stream, &guard)).await else {
        worker.shared.live.counters.refused(error.reason, Hop::Client);
        tracing::debug!(%error, "refused");
        return relay::abort(&stream);
    };
    let refuse = refusing(&worker);
    let answer = async move |request: Request<Incoming>| outbound::refused(&worker, &request, &error);
    serve::connection(stream, spoken, guard, answer, refuse).await;
}

fn refusing(
    worker: &Rc<Worker>,
) -> impl Fn(&Error, Asker) -> http::Response<crate::http::body::ResponseBody> + use<> {
    let worker = Rc::clone(worker);
    move |error, asker| outbound::refused_early(&worker, error, asker)
}

fn loops(to: SocketAddr) -> Error {
    let why =
        format!("a connection to {to} came back to this sidecar: is its own user exempt from redirection?");
    Error::refused(Reason::LoopDetected, why)
}

const AWAY_PATIENCE: Duration = Duration::from_millis(250);
/// How long a client that is to be refused has to say what it speaks. Where the server speaks first it says nothing.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
const OUTSIDER_MS: u64 = 10_000;
const MAX_OUTSIDERS: usize = 1_024;

#[cfg(test)]
mod tests;
