//! Where an attempt goes: a backend by weight, one of its endpoints, and who has to prove what there. The same for
//! requests and for connections whose bytes nobody looks into.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use outrigger_mesh::{
    Between, ConnectionLimits, MtlsMode, Port, PortNumber, Reason, Service, Timeouts, TokenTravel, Version,
};

use crate::attempt::balance::{self, Asked, Known, Nobody};
use crate::attempt::place::{Place, Secured};
use crate::breaker::Pass;
use crate::config::registry::Discovery;
use crate::config::routes::{RoutePlan, Target};
use crate::config::snapshot::{EndpointView, ServiceSnapshot, Subset};
use crate::error::Error;
use crate::live::{LiveService, Millis};
use crate::request::affinity::{Affinity, Named};
use crate::request::decided::Decided;
use crate::request::places;
use crate::request::service_breaker::{Shut, Watched};
use crate::request::told::look_while;
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
    /// What was decided of the request.
    pub decided: &'a Decided,
    /// What the request is known by.
    pub affinity: &'a Affinity,
}

impl<'a> Aim<'a> {
    /// The service of a target.
    fn service_of(self, target: &'a Target) -> &'a Arc<LiveService> {
        target.service.as_ref().unwrap_or(self.service)
    }

    /// The version that a target means at this moment: the one that it names, or its side of a divided service.
    fn version_at(self, at: usize, now: Millis) -> Option<&'a Version> {
        let target = &self.plan.targets[at];
        target.version.as_ref().or_else(|| {
            let service = self.service_of(target);
            let well = |version: &Version| service.endpoints.load().subset(Some(version)).well(now).count > 0;
            self.decided.version(at, |version| well(version) && !service.breakers.is_shut(version))
        })
    }
}

/// An endpoint, chosen for an attempt.
pub struct Chosen {
    /// Where it is.
    pub place: Place,
    /// The endpoint.
    pub view: Arc<EndpointView>,
    /// The place of the backend among those of the route; `None`: it was called by its own address.
    pub backend: Option<usize>,
    /// The port of its service.
    pub port: Port,
    /// What its sidecar is to be spoken to.
    pub between: Between,
    /// What becomes of tokens on the way there.
    pub travel: TokenTravel,
    /// Whether so few endpoints are well that it was chosen from all.
    pub panic: bool,
    /// Whether it is where the caller was before.
    pub stayed: bool,
    /// What the endpoint's breaker let pass; taken by the attempt.
    pub pass: Cell<Pass>,
    /// The same of the breaker over its version, where there is one.
    pub watched: Cell<Option<Watched>>,
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

    /// Whether there is no endpoint left to which a connection could be made, by what is known: each was tried, or the last
    /// that was heard of it is that there is none.
    pub fn is_nowhere_else(&self, service: &LiveService, tried: &[u64]) -> bool {
        if self.alone(tried) {
            return true;
        }
        let endpoints = service.endpoints.load();
        let of_service = self.view.endpoint.service == service.name;
        let mut ready = endpoints.subset(None).members.iter();
        of_service && ready.all(|view| tried.contains(&view.live.id) || view.live.breaker.is_unreachable())
    }
}

/// Chooses a backend by weight, then one of its endpoints. Endpoints that are still to be told are waited for a little.
pub async fn choose(worker: &Worker, aim: Aim<'_>, chance: u64, tried: &[u64]) -> Result<Chosen, Error> {
    if let Some(chosen) = choose_now(worker, aim, chance, tried)? {
        return Ok(chosen);
    }
    let registry = &worker.shared.registry;
    let may_come = || matches!(registry.discovery(), Discovery::Connecting | Discovery::Connected);
    let awaited = |s: &LiveService| !s.is_loaded() && (may_come() || s.is_looked_up());
    let any_awaited = || aim.plan.targets.iter().any(|target| awaited(aim.service_of(target)));
    let again = || choose_now(worker, aim, chance, tried);
    if let Some(chosen) = look_while(registry.changed(), any_awaited, again).await? {
        return Ok(chosen);
    }
    let trouble = aim.service.endpoints.load().trouble.clone().map(|t| format!(": {t}")).unwrap_or_default();
    let why = format!("no endpoint of {} takes requests{trouble}", aim.service.name);
    Err(Error::refused(Reason::NoEndpoint, why))
}

/// Chooses, without waiting for anything.
pub fn choose_now(
    worker: &Worker,
    aim: Aim<'_>,
    chance: u64,
    tried: &[u64],
) -> Result<Option<Chosen>, Error> {
    if let Some(instance) = aim.instance {
        return choose_instance(worker, aim, instance);
    }
    let now = Millis::now();
    let policy = &aim.snapshot.service.policy;
    let asked = Asked {
        balance: &policy.balance,
        allow_all_open: policy.endpoint_breaker.allow_all_open,
        key: aim.affinity.key,
        tried,
        now,
    };
    if let Some(stayed) = stay(worker, aim, &asked)? {
        return Ok(Some(stayed));
    }
    if aim.plan.leads_nowhere() && aim.decided.backend.is_none() {
        return Err(nowhere(aim.plan, "no backend has a share"));
    }
    let Some(at) = backend(aim, chance, tried, now) else { return Ok(None) };
    let target = &aim.plan.targets[at];
    if let Some(why) = target.unresolved {
        return Err(nowhere(aim.plan, why.as_str()));
    }
    let service = aim.service_of(target);
    if target.service.is_some() && service.snapshot.load().is_none() {
        // Its endpoints may be told before it is.
        return Ok(None);
    }
    let version = aim.version_at(at, now);
    let over_version = version.map(|v| service.breakers.enter_version(&service.name, v));
    let watched = over_version.transpose().map_err(Shut::refuse)?.flatten();
    let endpoints = service.endpoints.load();
    let subset = endpoints.subset(version);
    let picked = match balance::pick(subset, &asked, || fastrand::u64(..)) {
        Ok(picked) => picked,
        Err(Nobody::Empty) => return Ok(None),
        Err(why) => return Err(nobody(service, subset, why)),
    };
    if service.balance.chosen(picked.panic, picked.spilled) {
        tell_of_panic(service, subset, picked.panic, now);
    }
    let pass = picked.view.live.breaker.take(now);
    let found = Found { view: picked.view, panic: picked.panic, of: subset.members.len() };
    let chosen = chosen(worker, aim, at, found)?;
    chosen.pass.set(pass);
    chosen.watched.set(watched);
    Ok(Some(chosen))
}

/// Where the caller was before, if that is there, may be used and was not tried: whatever the weights say by now. A
/// candidate that gets nothing keeps nobody, and neither does a version whose breaker is open.
fn stay(worker: &Worker, aim: Aim<'_>, asked: &Asked<'_>) -> Result<Option<Chosen>, Error> {
    let counts = &aim.service.balance;
    let first = asked.tried.is_empty();
    if aim.affinity.forged && first {
        counts.forged.fetch_add(1, Relaxed);
    }
    let Some(named) = &aim.affinity.place else { return Ok(None) };
    let resolved = |(_, target): &(usize, &Target)| target.unresolved.is_none();
    for (at, target) in aim.plan.targets.iter().enumerate().filter(resolved) {
        let service = aim.service_of(target);
        let endpoints = service.endpoints.load();
        let (view, of) = match named {
            Named::Endpoint(uid) => {
                let in_target = |v: &&Arc<EndpointView>| {
                    (target.version.is_none() || v.endpoint.version == target.version)
                        && aim.decided.keeps(at, v.endpoint.version.as_ref())
                        && !asked.tried.contains(&v.live.id)
                        && balance::may_use(v, asked.now)
                };
                let of = endpoints.subset(target.version.as_ref()).members.len();
                (endpoints.named(uid).filter(in_target), of)
            }
            Named::Subset(version) => {
                let meant = target.version.as_ref().is_none_or(|v| v == version)
                    && aim.decided.keeps(at, Some(version));
                let subset = endpoints.subset(Some(version));
                let picked = balance::pick(subset, asked, || fastrand::u64(..)).ok().filter(|_| meant);
                (picked.map(|picked| picked.view), subset.members.len())
            }
        };
        if let Some(view) = view {
            let by_version = target.version.is_some() || aim.decided.is_divided(at);
            let by_version = by_version || matches!(named, Named::Subset(_));
            let version = view.endpoint.version.as_ref().filter(|_| by_version);
            let over_version = version.map(|v| service.breakers.enter_version(&service.name, v));
            let Ok(watched) = over_version.transpose() else { continue };
            if first {
                counts.kept.fetch_add(1, Relaxed);
            }
            let watched = watched.flatten();
            let pass = view.live.breaker.take(asked.now);
            let chosen = chosen(worker, aim, at, Found { view, panic: false, of })?;
            chosen.pass.set(pass);
            chosen.watched.set(watched);
            return Ok(Some(Chosen { stayed: true, ..chosen }));
        }
    }
    if first {
        counts.moved.fetch_add(1, Relaxed);
    }
    Ok(None)
}

/// The place of the backend for an attempt: the one that a partition names, else by the key of the request, else by
/// weight. One whose endpoints are all unwell takes nothing away from the others; a retry rather goes to another backend
/// than to where it has just failed.
fn backend(aim: Aim<'_>, chance: u64, tried: &[u64], now: Millis) -> Option<usize> {
    let plan = aim.plan;
    if aim.decided.backend.is_some() {
        return aim.decided.backend;
    }
    if plan.targets.len() == 1 {
        return plan.split.pick(chance);
    }
    let pick = |takes: &dyn Fn(&Subset) -> bool, any: bool| {
        let available = |at: usize| {
            let target = &plan.targets[at];
            if target.unresolved.is_some() {
                // Its share is refused, and nobody else's.
                return true;
            }
            let (service, version) = (aim.service_of(target), aim.version_at(at, now));
            if !any && version.is_some_and(|version| service.breakers.is_shut(version)) {
                return false;
            }
            takes(service.endpoints.load().subset(version))
        };
        match (aim.decided.key, &plan.chosen) {
            (Some(key), Some(chosen)) => plan.split.pick_by_key(key, |at| chosen.names[at], available),
            _ => plan.split.pick_where(chance, available),
        }
    };
    let well = |subset: &Subset| subset.well(now).count > 0;
    let untried = |subset: &Subset| subset.members.iter().any(|m| !tried.contains(&m.live.id));
    let again = if tried.is_empty() { None } else { pick(&|subset| well(subset) && untried(subset), false) };
    again.or_else(|| pick(&well, false)).or_else(|| pick(&|subset| !subset.members.is_empty(), true))
}

/// The refusal where a route, or a part of it, leads nowhere.
pub fn nowhere(plan: &RoutePlan, why: &str) -> Error {
    let name = plan.name.as_ref().map(ToString::to_string).unwrap_or_default();
    Error::refused(Reason::UnresolvedBackend, format!("the route {name} leads nowhere: {why}"))
}

/// An endpoint that was found, and among how many.
#[derive(Clone, Copy)]
struct Found<'a> {
    view: &'a Arc<EndpointView>,
    panic: bool,
    of: usize,
}

fn chosen(worker: &Worker, aim: Aim<'_>, at: usize, found: Found<'_>) -> Result<Chosen, Error> {
    let target = &aim.plan.targets[at];
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
    let place = place(worker, snapshot, found.view, port, connect_limit(aim))?;
    let (view, between) = (Arc::clone(found.view), snapshot.service.between);
    let travel = snapshot.service.tokens;
    let (pass, watched) = (Cell::default(), Cell::default());
    let (panic, of) = (found.panic, found.of);
    let (backend, stayed) = (Some(at), false);
    Ok(Chosen { place, view, backend, port, between, travel, panic, stayed, pass, watched, of })
}

fn nobody(service: &LiveService, subset: &Subset, why: Nobody) -> Error {
    let (name, all) = (&service.name, subset.members.len());
    let unwell = subset.members.iter().filter(|m| m.live.health.known() == Known::Unwell).count();
    match why {
        Nobody::Empty => Error::refused(Reason::NoEndpoint, format!("{name} has no endpoint")),
        Nobody::Full => places::endpoints_full(service),
        Nobody::Unwell if unwell == all => Error::refused(
            Reason::NoEndpoint,
            format!("all {all} endpoints of {name} fail their health checks"),
        ),
        Nobody::Unwell => {
            let why = format!(
                "no endpoint of {name} may be used: {unwell} of {all} fail their health checks, the breakers of the \
                 others are open"
            );
            let now = Millis::now();
            let soonest = subset.members.iter().map(|m| m.live.breaker.wait(now)).min();
            let mut error = Error::refused(Reason::BreakerOpen, why);
            error.told_mut().retry_after = soonest;
            error
        }
    }
}

/// Tells that too few are well, or that there are enough again. Said once each time.
fn tell_of_panic(service: &LiveService, subset: &Subset, panic: bool, now: Millis) {
    let (name, all) = (&service.name, subset.members.len());
    let well = subset.members.iter().filter(|m| balance::is_well(&m.live, now)).count();
    if panic {
        tracing::warn!(service = %name, well, of = all, "too few endpoints are well: all are chosen from");
    } else {
        tracing::info!(service = %name, well, of = all, "enough endpoints are well again");
    }
}

/// The port of another service that a route leads to: the one it says, else the one its caller meant, else the first.
pub fn port_of(service: &Service, said: Option<PortNumber>, meant: Port) -> Result<Port, Error> {
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
    let place = place(worker, aim.snapshot, view, aim.port, connect_limit(aim))?;
    let (between, pass) = (aim.snapshot.service.between, Cell::new(view.live.breaker.pass()));
    let travel = aim.snapshot.service.tokens;
    let (view, watched) = (Arc::clone(view), Cell::default());
    let (backend, port, panic, stayed) = (None, aim.port, false, false);
    Ok(Some(Chosen { place, view, backend, port, between, travel, panic, stayed, pass, watched, of: 1 }))
}

fn connect_limit(aim: Aim<'_>) -> Duration {
    aim.plan.timeouts.connect.unwrap_or(Timeouts::CONNECT)
}

/// An endpoint as a connection sees it: where it is, and who has to prove what there.
pub(crate) fn place(
    worker: &Worker,
    snapshot: &Arc<ServiceSnapshot>,
    view: &EndpointView,
    port: Port,
    connect: Duration,
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
    // Where arriving connections are redirected, what a sidecar calls on its own host is not: it ends at the application itself, as it
    // would if that called itself without a mesh.
    let itself = worker.shared.applications.iter().any(|own| own.address == address);
    let secured = match (view.is_mesh(), snapshot.service.mtls.at(port.number), &snapshot.outside) {
        (true, _, _) if itself => Secured::No,
        (true, MtlsMode::Strict | MtlsMode::Permissive, _) => Secured::Mesh(Arc::clone(snapshot)),
        (false, MtlsMode::Strict, _) => {
            let why = format!("endpoint {uid} has no sidecar, and the service wants mutual TLS");
            return Err(Error::refused(Reason::TlsFailed, why));
        }
        (false, _, Some(outside)) => Secured::Outside(Arc::clone(outside)),
        (_, MtlsMode::Off, _) | (false, MtlsMode::Permissive, None) => Secured::No,
    };
    let (endpoint, resolved) = (Arc::clone(&view.live), view.resolved.clone());
    let keep_case = snapshot.service.between == Between::Http1;
    let is_limited = snapshot.connections != ConnectionLimits::default();
    let limited = is_limited.then(|| Arc::clone(snapshot));
    Ok(Place { endpoint, address, secured, resolved, connect, keep_case, limited })
}
