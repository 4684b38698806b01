//! Where an attempt goes: a backend by weight, one of its endpoints, and who has to prove what there. The same for
//! requests and for connections whose bytes nobody looks into.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{Between, MtlsMode, Port, PortNumber, Reason, Service, Timeouts};
use tokio::time::{Instant, timeout_at};

use crate::attempt::balance;
use crate::attempt::place::{Place, Secured};
use crate::config::registry::Discovery;
use crate::config::snapshot::{EndpointView, RoutePlan, ServiceSnapshot, Subset, Target};
use crate::error::Error;
use crate::live::{LiveService, Millis};
use crate::worker::Worker;

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// The service.
    pub service: &'a Arc<LiveService>,
    /// The service as it was when the way was decided.
    pub snapshot: &'a Arc<ServiceSnapshot>,
    /// Where its traffic goes.
    pub plan: &'a RoutePlan,
    /// The port that is meant.
    pub port: Port,
    /// The one instance that is meant, if it was called by the address of one.
    pub instance: Option<SocketAddr>,
}

/// An endpoint, chosen for an attempt.
pub struct Chosen {
    /// Where it is.
    pub place: Place,
    /// The endpoint.
    pub view: Arc<EndpointView>,
    /// The port of its service.
    pub port: Port,
    /// What its sidecar is to be spoken to.
    pub between: Between,
    /// How many endpoints there were to choose from.
    of: usize,
}

impl Chosen {
    /// Whether every endpoint there was has been tried.
    pub fn alone(&self, tried: &[u64]) -> bool {
        let mut all = tried.to_vec();
        all.sort_unstable();
        all.dedup();
        all.len() >= self.of
    }
}

/// Chooses a backend by weight, then one of its endpoints. Endpoints that are still to be told are waited for a little.
pub async fn choose(worker: &Worker, aim: Aim<'_>, chance: u64, tried: &[u64]) -> Result<Chosen, Error> {
    if let Some(chosen) = choose_now(worker, aim, chance, tried)? {
        return Ok(chosen);
    }
    let mut changed = worker.shared.registry.changed();
    let end = Instant::now() + LOOKUP_PATIENCE;
    let may_come =
        || matches!(worker.shared.registry.discovery(), Discovery::Connecting | Discovery::Connected);
    let awaited = |s: &LiveService| !s.is_loaded() && (may_come() || s.is_looked_up());
    loop {
        if let Some(chosen) = choose_now(worker, aim, chance, tried)? {
            return Ok(chosen);
        }
        let service = |t: &Target| awaited(t.service.as_ref().unwrap_or(aim.service));
        let any = aim.plan.targets.iter().any(service);
        if !any || !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    let trouble = aim.service.endpoints.load().trouble.clone().map(|t| format!(": {t}")).unwrap_or_default();
    let why = format!("no endpoint of {} takes requests{trouble}", aim.service.name);
    Err(Error::refused(Reason::NoEndpoint, why))
}

fn choose_now(worker: &Worker, aim: Aim<'_>, chance: u64, tried: &[u64]) -> Result<Option<Chosen>, Error> {
    if let Some(instance) = aim.instance {
        return choose_instance(worker, aim, instance);
    }
    let plan = aim.plan;
    let service_of = |t: &Target| Arc::clone(t.service.as_ref().unwrap_or(aim.service));
    let untried = |subset: &Subset| subset.members.iter().any(|m| !tried.contains(&m.live.id));
    let available = |only_untried: bool| {
        move |at: usize| {
            let target = &plan.targets[at];
            let endpoints = target.service.as_ref().unwrap_or(aim.service).endpoints.load();
            let subset = endpoints.subset(target.version.as_ref());
            if only_untried { untried(subset) } else { !subset.members.is_empty() }
        }
    };
    // A retry rather goes to another backend than to where it has just failed.
    let picked = match tried {
        [] => plan.split.pick_where(chance, available(false)),
        _ => plan
            .split
            .pick_where(chance, available(true))
            .or_else(|| plan.split.pick_where(chance, available(false))),
    };
    let Some(target) = picked.map(|at| &plan.targets[at]) else { return Ok(None) };
    let service = service_of(target);
    let endpoints = service.endpoints.load();
    let subset = endpoints.subset(target.version.as_ref());
    let Some(view) = balance::pick(subset, tried, Millis::now(), || fastrand::u64(..)) else {
        return Ok(None);
    };
    let foreign = match &target.service {
        None => None,
        // A backend of another service is reached at that service's own port, and must prove that one's identity.
        Some(other) => Some(other.snapshot.load_full().ok_or_else(|| {
            Error::refused(Reason::NoEndpoint, format!("backend {} is not known", other.name))
        })?),
    };
    let snapshot = foreign.as_ref().unwrap_or(aim.snapshot);
    let port = match &foreign {
        None => aim.port,
        Some(other) => port_of(&other.service, target.port, aim.port)?,
    };
    let place = place(worker, aim, snapshot, view, port)?;
    let (view, between, of) = (Arc::clone(view), snapshot.service.between, subset.members.len());
    Ok(Some(Chosen { place, view, port, between, of }))
}

/// The port of another service that a route leads to: the one it says, else the one its caller meant, else the first.
fn port_of(service: &Service, said: Option<PortNumber>, meant: Port) -> Result<Port, Error> {
    let found = match said {
        Some(_) => service.port(said),
        None => service.port(Some(meant.number)).or_else(|| service.port(None)),
    };
    let none =
        || Error::refused(Reason::NoEndpoint, format!("the backend {} has no such port", service.name));
    found.copied().ok_or_else(none)
}

/// The instance that was called, and no other: whoever names one has a reason to.
fn choose_instance(worker: &Worker, aim: Aim<'_>, at: SocketAddr) -> Result<Option<Chosen>, Error> {
    let endpoints = aim.service.endpoints.load();
    let Some(view) = endpoints.everything.iter().find(|view| view.is_at(at)) else {
        let why = format!("{at} is no instance of {} any more", aim.service.name);
        return Err(Error::refused(Reason::NoEndpoint, why));
    };
    let place = place(worker, aim, aim.snapshot, view, aim.port)?;
    let between = aim.snapshot.service.between;
    Ok(Some(Chosen { place, view: Arc::clone(view), port: aim.port, between, of: 1 }))
}

fn place(
    worker: &Worker,
    aim: Aim<'_>,
    snapshot: &Arc<ServiceSnapshot>,
    view: &EndpointView,
    port: Port,
) -> Result<Place, Error> {
    let uid = &view.endpoint.uid;
    let address: SocketAddr = view.address(port.number).ok_or_else(|| {
        Error::refused(Reason::NoEndpoint, format!("endpoint {uid} does not serve port {}", port.number))
    })?;
    if view.resolved.is_some() != snapshot.is_looked_up() {
        // What protects it stands in the other configuration.
        return Err(Error::refused(
            Reason::NoEndpoint,
            format!("endpoint {uid} is of another configuration"),
        ));
    }
    if worker.shared.own_ports.contains(address) {
        return Err(Error::refused(
            Reason::LoopDetected,
            format!("endpoint {uid} is this sidecar's own port"),
        ));
    }
    let secured = match (view.is_mesh(), snapshot.service.mtls, &snapshot.outside) {
        (true, MtlsMode::Strict | MtlsMode::Permissive, _) => Secured::Mesh(Arc::clone(snapshot)),
        (false, MtlsMode::Strict, _) => {
            let why = format!("endpoint {uid} has no sidecar, and the service wants mutual TLS");
            return Err(Error::refused(Reason::TlsFailed, why));
        }
        (false, _, Some(outside)) => Secured::Outside(Arc::clone(outside)),
        (_, MtlsMode::Off, _) | (false, MtlsMode::Permissive, None) => Secured::No,
    };
    let connect = aim.plan.timeouts.connect.unwrap_or(Timeouts::CONNECT);
    let (endpoint, resolved) = (Arc::clone(&view.live), view.resolved.clone());
    let keep_case = snapshot.service.between == Between::Http1;
    Ok(Place { endpoint, address, secured, resolved, connect, keep_case })
}

/// How long endpoints that are still to be told are waited for.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);
