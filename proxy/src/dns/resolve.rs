//! Keeps the endpoints of services that are found by name.
//!
//! One task for each such service that is in use: it asks what is due, tells the registry what was found, and sleeps
//! until the next time to live is over. It ends with its service.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outrigger_certs::OutsideName;
use outrigger_mesh::{
    DnsTarget, Endpoint, EndpointPort, EndpointState, Location, MeshSettings, ServiceName, Transport,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::registry::{Alternate, Lookup, Registry, Resolved, uid_of};
use crate::config::snapshot::ServiceSnapshot;
use crate::dns::counters::Counters;
use crate::dns::names::{Found, Names, Outcome, Question};
use crate::dns::servers::Client;
use crate::live::{Live, LiveService, OwnPorts};

/// What keeps the endpoints of services that are found by name.
pub struct Resolve {
    client: Client,
    registry: Arc<Registry>,
    live: Arc<Live>,
    own_ports: OwnPorts,
    asking: Semaphore,
}

impl Resolve {
    /// Nothing is found at `own_ports`: a name that leads there would be a loop.
    pub fn new(client: Client, registry: Arc<Registry>, live: Arc<Live>, own_ports: OwnPorts) -> Self {
        Self { client, registry, live, own_ports, asking: Semaphore::new(MAX_ASKING) }
    }

    /// Runs for as long as the sidecar does.
    pub async fn run(self) {
        let this = Arc::new(self);
        let mut changed = this.registry.locations();
        let mut followed: HashMap<ServiceName, Followed> = HashMap::new();
        loop {
            changed.borrow_and_update();
            let wanted = this.registry.to_locate();
            followed.retain(|name, _| wanted.iter().any(|(live, _)| live.name == *name));
            for (service, snapshot) in wanted {
                let name = service.name.clone();
                let follow = |latest| tokio::spawn(Arc::clone(&this).follow(service, latest)).abort_handle();
                match followed.get(&name) {
                    Some(known) => known.now(snapshot),
                    None => drop(followed.insert(name, Followed::new(snapshot, follow))),
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the endpoints of one service.
    async fn follow(
        self: Arc<Self>,
        service: Arc<LiveService>,
        mut latest: watch::Receiver<Arc<ServiceSnapshot>>,
    ) {
        let mut names = Names::new(vec![]);
        let mut told = Told { stale: StaleMark::new(&self.live), last: None };
        loop {
            let snapshot = Arc::clone(&latest.borrow_and_update());
            names.aim_at(targets(&snapshot));
            self.ask_due(&mut names, &service, &snapshot, &mut told).await;
            self.tell(&names, &snapshot, &mut told);
            let next = names.next(Instant::now()).unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = sleep_until(next) => {}
                changed = latest.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks whatever is due. For a service of which nothing is known yet, the first addresses are told before all the
    /// answers are there: a slow one should not hold up a request that waits.
    async fn ask_due(
        &self,
        names: &mut Names,
        service: &LiveService,
        snapshot: &Arc<ServiceSnapshot>,
        told: &mut Told,
    ) {
        let mut asked: HashSet<Question> = HashSet::new();
        let mut pending = FuturesUnordered::new();
        let mut early: Option<Instant> = None;
        loop {
            for question in names.due(Instant::now()) {
                if asked.insert(question.clone()) {
                    pending.push(self.ask(question));
                }
            }
            tokio::select! {
                answer = pending.next() => {
                    let Some((question, outcome)) = answer else { return };
                    names.learn(question, outcome, Instant::now(), fastrand::f64());
                    if early.is_none() && !service.is_loaded() && !names.found().is_empty() {
                        early = Some(Instant::now() + FAMILY_PATIENCE);
                    }
                }
                () = sleep_until(early.unwrap_or_else(Instant::now)), if early.is_some() => {
                    early = None;
                    self.tell(names, snapshot, told);
                }
            }
        }
    }

    async fn ask(&self, question: Question) -> (Question, Outcome) {
        let counters = &self.live.dns;
        if let Some(why) = self.is_of_the_mesh(&question) {
            return (question, Outcome::Failed(why));
        }
        // Never closed; were it, asking without a permit harms nobody.
        let _permit = self.asking.acquire().await;
        counters.lookups.fetch_add(1, Relaxed);
        let outcome = self.client.ask(&question).await;
        if let Outcome::Failed(why) = &outcome {
            counters.lookup_failures.fetch_add(1, Relaxed);
            tracing::debug!(why, "a name can not be looked up");
        }
        (question, outcome)
    }

    /// Names of the mesh are never asked for outside: an answer could only be somebody else's.
    fn is_of_the_mesh(&self, question: &Question) -> Option<String> {
        let (Question::A(name) | Question::Aaaa(name)) = question else { return None };
        let mesh = self.registry.mesh()?;
        mesh.owns(name).then(|| format!("{name} is a name of the mesh, which no name server is asked for"))
    }

    /// Tells the registry what was found, if it is something new.
    fn tell(&self, names: &Names, snapshot: &Arc<ServiceSnapshot>, told: &mut Told) {
        let now = Instant::now();
        let found = names.found();
        let stale = names.is_stale(now);
        told.stale.set(stale);
        let mut lookup = Lookup { stale, error: names.error().map(Arc::from), refused: 0 };
        let mut endpoints = Vec::new();
        for found in &found {
            match self.endpoint(found, snapshot) {
                Some(endpoint) => endpoints.push(endpoint),
                None => lookup.refused += 1,
            }
        }
        let same = |(f, l, s): &(_, _, Arc<ServiceSnapshot>)| {
            *f == found && *l == lookup && Arc::ptr_eq(s, snapshot)
        };
        if told.last.as_ref().is_some_and(same) {
            return;
        }
        let name = &snapshot.service.name;
        tracing::debug!(service = %name, endpoints = endpoints.len(), ?lookup, "found by name");
        self.registry.set_located(name, endpoints, lookup.clone());
        told.last = Some((found, lookup, Arc::clone(snapshot)));
    }

    /// The endpoint at what was found; `None` for an address that must not be called.
    fn endpoint(&self, found: &Found, snapshot: &ServiceSnapshot) -> Option<(Endpoint, Arc<Resolved>)> {
        let service = &snapshot.service;
        let outside = service.location.is_outside();
        let port = |p: &outrigger_mesh::Port| EndpointPort::direct(p.number, found.port.unwrap_or(p.number));
        let ports: Arc<[EndpointPort]> = service.ports.iter().map(port).collect();
        let mesh = self.registry.mesh();
        let may_be_called = |ip: IpAddr| {
            let own = |p: &EndpointPort| self.own_ports.contains(SocketAddr::new(ip, p.listen.get()));
            is_callable(ip, outside, mesh.as_deref()) && !ports.iter().any(own)
        };
        if !may_be_called(found.ip) {
            return None;
        }
        let by_host = found.host.as_ref().or(service.hostnames.first().filter(|_| outside));
        let name = by_host.and_then(OutsideName::of_host);
        let name = name.unwrap_or_else(|| OutsideName::of_address(found.ip));
        let alternate = found.alternate.filter(|ip| may_be_called(*ip)).map(Alternate::new);
        let endpoint = Endpoint {
            service: service.name.clone(),
            uid: uid_of(found.ip, found.port)?,
            ip: found.ip,
            ports,
            version: None,
            zone: None,
            weight: found.weight,
            transport: Transport::Plaintext,
            state: EndpointState::Ready,
        };
        Some((endpoint, Arc::new(Resolved { name, alternate })))
    }
}

/// Whether a name may lead to `ip`. A service outside the mesh is not at an address of the mesh; one inside, without
/// sidecars, may be, but not at a virtual one.
fn is_callable(ip: IpAddr, outside: bool, mesh: Option<&MeshSettings>) -> bool {
    let ip = ip.to_canonical();
    let is_virtual = [MeshSettings::VIRTUAL_V4, MeshSettings::VIRTUAL_V6].iter().any(|r| r.contains(ip));
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let of_the_mesh = is_virtual || (outside && mesh.is_some_and(|mesh| mesh.contains(ip)));
    !(ip.is_unspecified() || ip.is_multicast() || broadcast || of_the_mesh)
}

fn targets(snapshot: &ServiceSnapshot) -> &[DnsTarget] {
    match &snapshot.service.location {
        Location::Dns { targets, .. } => targets,
        Location::Mesh => &[],
    }
}

/// A service that is followed, until this is dropped.
struct Followed {
    latest: watch::Sender<Arc<ServiceSnapshot>>,
    task: AbortHandle,
}

impl Followed {
    fn new(
        snapshot: Arc<ServiceSnapshot>,
        follow: impl FnOnce(watch::Receiver<Arc<ServiceSnapshot>>) -> AbortHandle,
    ) -> Self {
        let (latest, receiver) = watch::channel(snapshot);
        Self { latest, task: follow(receiver) }
    }

    /// The service is this now. What does not matter for its endpoints wakes nobody.
    fn now(&self, snapshot: Arc<ServiceSnapshot>) {
        self.latest.send_if_modified(|known| {
            let (a, b) = (&known.service, &snapshot.service);
            let other = a.location != b.location || a.ports != b.ports || a.hostnames != b.hostnames;
            *known = snapshot;
            other
        });
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the registry was told.
struct Told {
    stale: StaleMark,
    last: Option<(Vec<Found>, Lookup, Arc<ServiceSnapshot>)>,
}

/// Counts a service among the stale ones while it is.
struct StaleMark {
    live: Arc<Live>,
    set: bool,
}

impl StaleMark {
    fn new(live: &Arc<Live>) -> Self {
        Self { live: Arc::clone(live), set: false }
    }

    fn set(&mut self, stale: bool) {
        let Counters { stale_services, .. } = &self.live.dns;
        match (std::mem::replace(&mut self.set, stale), stale) {
            (false, true) => stale_services.fetch_add(1, Relaxed),
            (true, false) => stale_services.fetch_sub(1, Relaxed),
            _ => 0,
        };
    }
}

impl Drop for StaleMark {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// How long to sleep where there is nothing to ask: targets that are all addresses.
const IDLE: Duration = Duration::from_hours(1);
/// Questions under way at a time, of all services.
const MAX_ASKING: usize = 64;
/// How long the addresses of one family wait for those of the other (RFC 8305, section 3).
const FAMILY_PATIENCE: Duration = Duration::from_millis(50);
