//! CONNECT (RFC 9110, section 9.3.6; of HTTP/2: RFC 9113, section 8.5): an opaque connection that the application asks for
//! by HTTP, at the port that all services share.
//!
//! Where it may go is what holds for every other way in: a name is a service's, an address is looked up as a redirected
//! connection's is, and what nobody knows goes outside where the mesh lets everything out. The answer is a tunnel
//! ([`crate::http::upgrade::Tunnel`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::ext::Protocol as ExtendedProtocol;
use hyper::upgrade::OnUpgrade;
use outrigger_mesh::{
    Host, Hostname, Location, MeshSettings, OutboundMode, Port, PortNumber, Protocol, Reason, Side,
};

use crate::config::snapshot::ServiceSnapshot;
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::canonical;
use crate::http::glance::Glance;
use crate::http::upgrade::Tunnel;
use crate::listen::intercepted::{self, Course};
use crate::live::LiveService;
use crate::outbound;
use crate::tcp::outbound::{Called, Upstream, dial};
use crate::tcp::outside;
use crate::telemetry::observe::Note;
use crate::worker::{Named, Worker};

/// Whether a request asks for a tunnel to a host and a port, and for nothing in it (RFC 8441).
pub fn is_meant(parts: &Parts) -> bool {
    parts.method == Method::CONNECT && parts.extensions.get::<ExtendedProtocol>().is_none()
}

/// What the refusal of `request` says of its connection: what comes behind a CONNECT was meant for the tunnel, and must
/// never be read as a request.
pub fn closes<B>(request: &Request<B>) -> Option<HeaderValue> {
    let tunnel = request.method() == Method::CONNECT && request.version() != Version::HTTP_2;
    tunnel.then(|| HeaderValue::from_static("close"))
}

/// Answers it: a tunnel, once whoever is meant is connected. `fixed`: it came to a port that stands for one service.
pub async fn answer(
    worker: &Worker,
    mut parts: Parts,
    fixed: bool,
    note: Option<&Note>,
) -> Result<Response<ResponseBody>, (Error, Option<Arc<LiveService>>)> {
    let nobody = |error| (error, None);
    canonical::check(&parts, Glance::at(&parts.headers)).map_err(nobody)?;
    if fixed {
        return Err(nobody(bad("CONNECT is offered at the port for all services alone")));
    }
    let on = parts.extensions.remove::<OnUpgrade>();
    let on = on.ok_or_else(|| nobody(bad("this connection can not become a tunnel")))?;
    let authority = canonical::authority(&parts).map_err(nobody)?;
    note.inspect(|note| note.asked(&parts, authority, None));
    let (name, port) = target(authority).map_err(nobody)?;
    let goal = goal(worker, name, port).await.map_err(nobody)?;
    let tunnel = match goal {
        Goal::Outside(places) => {
            let upstream = anywhere_of(worker, &places).await.map_err(nobody)?;
            Tunnel::opaque(on, upstream, Arc::default())
        }
        Goal::Service(called) => {
            let Called { service, port, .. } = &called;
            let stats = worker.shared.live.ports.handle(Side::Client, &service.name, port.number.get());
            let dialled = match permitted(&called) {
                Ok(()) => Box::pin(dial(worker, &called, note)).await,
                Err(error) => Err(error),
            };
            let upstream = dialled.map_err(|error| {
                stats.refused(error.reason);
                (error, Some(Arc::clone(service)))
            })?;
            Tunnel::opaque(on, upstream, stats)
        }
    };
    Ok(Response::new(ResponseBody::Tunnel(Box::new(tunnel))))
}

/// Where a tunnel goes.
enum Goal {
    Service(Called),
    /// To the first of these places outside that answers.
    Outside(Vec<SocketAddr>),
}

/// Whom a CONNECT names: there is no port that could be meant silently.
fn target(authority: &str) -> Result<(&str, PortNumber), Error> {
    let (name, port) = authority.rsplit_once(':').ok_or_else(|| bad("CONNECT wants a host and a port"))?;
    let port = port.parse().ok().and_then(PortNumber::new);
    Ok((name, port.ok_or_else(|| bad("CONNECT wants a host and a port"))?))
}

async fn goal(worker: &Worker, name: &str, port: PortNumber) -> Result<Goal, Error> {
    if let Some(ip) = address(name) {
        return by_address(worker, SocketAddr::new(ip, port.get())).await;
    }
    let host = Host { name: canonical::mesh_host(name)?.name, port: Some(port) };
    match outbound::resolve_host(worker, format!("{name}:{port}").as_bytes(), || Ok(host.clone())).await {
        Ok(named) => service(&named, None),
        Err(error) if error.reason == Reason::UnknownService => {
            unknown(worker, &host.name, port, error).await
        }
        Err(error) => Err(error),
    }
}

/// The same as for a connection that was redirected on its way there.
async fn by_address(worker: &Worker, to: SocketAddr) -> Result<Goal, Error> {
    match intercepted::course_to(worker, to).await {
        Course::Service(host) => {
            let named = outbound::resolve_fixed(worker, &host).await?;
            service(&named, host.name.socket())
        }
        Course::Outside(to) => Ok(Goal::Outside(vec![to])),
        Course::Egress => Err(denied(&to)),
        Course::Refused(error) => Err(error),
    }
}

/// A name that no service has. One of the mesh's own is never asked for outside.
async fn unknown(worker: &Worker, name: &Hostname, port: PortNumber, unknown: Error) -> Result<Goal, Error> {
    let live = &worker.shared.live;
    let mesh = worker.shared.registry.mesh();
    let assumed = || live.identity().map(|id| MeshSettings::new(id.trust_domain().clone()));
    let of_the_mesh = match &mesh {
        Some(mesh) => mesh.owns(name),
        None => assumed().is_none_or(|mesh| mesh.owns(name)),
    };
    if of_the_mesh || !name.as_str().contains('.') {
        return Err(unknown);
    }
    if mesh.is_some_and(|mesh| mesh.outbound_mode == OutboundMode::RegistryOnly) {
        return Err(denied(name));
    }
    let addresses = live.names_outside.find(name).await;
    let addresses = addresses.map_err(|why| Error::refused(Reason::NoEndpoint, why))?;
    let mut places = Vec::new();
    for ip in addresses {
        // A name outside leads nowhere inside.
        match intercepted::course_to(worker, SocketAddr::new(ip, port.get())).await {
            Course::Outside(to) => places.push(to),
            Course::Refused(error) => return Err(error),
            Course::Service(_) | Course::Egress => return Err(denied(name)),
        }
    }
    Ok(Goal::Outside(places))
}

fn service(named: &Named, instance: Option<SocketAddr>) -> Result<Goal, Error> {
    let service = Arc::clone(&named.service);
    let port = service.snapshot.load().as_ref().and_then(|s| s.service.port(named.port).copied());
    let none = || Error::refused(Reason::NoRoute, format!("{} does not have that port", service.name));
    let port = port.ok_or_else(none)?;
    Ok(Goal::Service(Called { service, port, instance }))
}

/// Whether bytes that nobody looks into may go there. Where HTTP may be spoken they would go around every rule for it, so
/// that the service has to allow it; the sidecar there has the last word.
fn permitted(called: &Called) -> Result<(), Error> {
    let Called { service, port, .. } = called;
    let snapshot = service.snapshot.load_full();
    let unknown = || Error::refused(Reason::UnknownService, format!("{} is not known", service.name));
    let snapshot = snapshot.ok_or_else(unknown)?;
    if port.protocol.is_opaque() || snapshot.service.http.connect || is_passed_on(&snapshot, *port) {
        return Ok(());
    }
    let why = if snapshot.service.location.is_outside() {
        format!(
            "port {} of {} is for plain HTTP: ask without CONNECT, or declare it tls",
            port.number, service.name
        )
    } else {
        format!(
            "port {} of {} may be one for HTTP, and the service does not allow CONNECT",
            port.number, service.name
        )
    };
    Err(Error::refused(Reason::UpgradeDenied, why))
}

/// Whether what the application sends to a service outside goes there as it is, whatever it is.
fn is_passed_on(snapshot: &ServiceSnapshot, port: Port) -> bool {
    matches!(&snapshot.service.location, Location::Dns { outside: true, tls: None, .. })
        && port.protocol == Protocol::Detect
}

async fn anywhere_of(worker: &Worker, places: &[SocketAddr]) -> Result<Upstream, Error> {
    let mut last = Error::refused(Reason::NoEndpoint, "the name has no address");
    for place in places {
        match Box::pin(outside::dial(worker, *place)).await {
            Ok(upstream) => return Ok(upstream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

fn denied(to: &dyn std::fmt::Display) -> Error {
    let why = format!("CONNECT to {to}, and the mesh lets nothing out but what is registered");
    Error::refused(Reason::EgressDenied, why)
}

fn bad(why: &'static str) -> Error {
    Error::downstream(Reason::BadRequest, why)
}
