//! What the plan server knows, and who is connected to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use outrigger_certs::{Authority, CertError, JoinToken, JoinTokenHash, LeafLifetime};
use outrigger_mesh::{
    Endpoint, EndpointUid, Hostname, Report, Resource, ResourceKind, ResourceName, Selector, ServiceName,
    SpiffeId,
};
use outrigger_wire::Encoded;
use outrigger_wire::rpc::{Hello, RpcError};
use outrigger_wire::session::{Catalog, Rejected};
use tokio::sync::watch;

pub(super) struct Shared {
    pub(super) authority: Authority,
    world: Mutex<World>,
    knobs: Mutex<Knobs>,
    sessions: Mutex<HashMap<u64, PlanProxy>>,
    /// Moves with every change of the world and of what sessions have acknowledged.
    pub(super) moved: watch::Sender<u64>,
}

/// A sidecar as the plan server sees it.
#[derive(Clone, Debug)]
pub struct PlanProxy {
    /// How it introduced itself.
    pub hello: Hello,
    /// The revision up to which it has answered everything it was sent.
    pub settled: u64,
    /// What it refused, in the form it holds now.
    pub rejected: Vec<(ResourceKind, Rejected)>,
    /// What it has subscribed to.
    pub selectors: Vec<Selector>,
}

/// How many certificates were signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigningCounts {
    /// For join tokens.
    pub joined: u64,
    /// For certificates that were about to end.
    pub renewed: u64,
}

pub(super) struct Knobs {
    pub(super) lifetime: LeafLifetime,
    pub(super) lease: Duration,
    pub(super) refuse_signing: Option<RpcError>,
    pub(super) refuse_registration: Option<RpcError>,
    pub(super) signed: SigningCounts,
    pub(super) registrations: u64,
    pub(super) reports: Vec<(SpiffeId, Report)>,
    tokens: HashMap<String, (JoinTokenHash, SpiffeId)>,
    next_session: u64,
}

/// The resources by name, with where host names lead.
#[derive(Default)]
pub(super) struct World {
    resources: BTreeMap<ResourceName, Encoded>,
    hosts: BTreeMap<Hostname, ServiceName>,
    registered: BTreeMap<(ServiceName, EndpointUid), Endpoint>,
    revision: u64,
}

impl Shared {
    pub(super) fn new(authority: Authority) -> Self {
        let mut world = World { revision: 1, ..World::default() };
        world.set(&Resource::Trust(authority.trust()));
        let knobs = Knobs {
            lifetime: LeafLifetime::default(),
            lease: Duration::from_secs(15),
            refuse_signing: None,
            refuse_registration: None,
            signed: SigningCounts::default(),
            registrations: 0,
            reports: Vec::new(),
            tokens: HashMap::new(),
            next_session: 0,
        };
        Self {
            authority,
            world: Mutex::new(world),
            knobs: Mutex::new(knobs),
            sessions: Mutex::default(),
            moved: watch::Sender::new(0),
        }
    }

    pub(super) fn knobs(&self) -> MutexGuard<'_, Knobs> {
        lock(&self.knobs)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Changes the world as one revision, and answers that.
    pub(super) fn change(&self, change: impl FnOnce(&mut World)) -> u64 {
        let revision = {
            let mut world = self.world();
            world.revision += 1;
            change(&mut world);
            world.revision
        };
        self.moved.send_modify(|n| *n += 1);
        revision
    }

    pub(super) fn sign(&self, csr: &[u8], id: &SpiffeId) -> Result<Vec<Vec<u8>>, CertError> {
        let lifetime = self.knobs().lifetime;
        self.sign_for(csr, id, lifetime)
    }

    pub(super) fn sign_for(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        lifetime: LeafLifetime,
    ) -> Result<Vec<Vec<u8>>, CertError> {
        Ok(self.authority.sign(csr, id, lifetime, SystemTime::now())?.chain)
    }

    pub(super) fn expect_token(&self, token: &JoinToken, id: SpiffeId) {
        self.knobs().tokens.insert(token.id(), (token.hash(), id));
    }

    /// Whom a token is for; it is used up by asking.
    pub(super) fn consume_token(&self, token: &JoinToken) -> Option<SpiffeId> {
        let (hash, id) = self.knobs().tokens.remove(&token.id())?;
        (hash == token.hash()).then_some(id)
    }

    pub(super) fn proxies(&self) -> Vec<PlanProxy> {
        lock(&self.sessions).values().cloned().collect()
    }

    pub(super) fn registered(&self) -> Vec<Endpoint> {
        self.world().registered.values().cloned().collect()
    }

    pub(super) fn new_session(&self) -> u64 {
        let mut knobs = self.knobs();
        knobs.next_session += 1;
        knobs.next_session
    }

    pub(super) fn tell(&self, session: u64, state: PlanProxy) {
        lock(&self.sessions).insert(session, state);
        self.moved.send_modify(|n| *n += 1);
    }

    /// The revision up to which a session had settled when it last told.
    pub(super) fn proxies_settled(&self, session: u64) -> u64 {
        lock(&self.sessions).get(&session).map_or(0, |p| p.settled)
    }

    pub(super) fn ended(&self, session: u64) {
        lock(&self.sessions).remove(&session);
        self.moved.send_modify(|n| *n += 1);
    }

    pub(super) fn forget_connections(&self) {
        lock(&self.sessions).clear();
    }
}

impl World {
    pub(super) fn set(&mut self, resource: &Resource) {
        if let Resource::Service(service) = resource {
            self.hosts.retain(|_, to| to != &service.name);
            self.hosts.extend(service.hostnames.iter().map(|h| (h.clone(), service.name.clone())));
        }
        self.set_encoded(Encoded::new(resource));
    }

    pub(super) fn set_encoded(&mut self, encoded: Encoded) {
        self.resources.insert(encoded.name.clone(), encoded);
    }

    pub(super) fn remove(&mut self, name: &ResourceName) {
        self.resources.remove(name);
        if let ResourceName::Service(service) = name {
            self.hosts.retain(|_, to| to != service);
        }
    }

    pub(super) fn register(&mut self, endpoint: Endpoint) {
        self.set(&Resource::Endpoint(endpoint.clone()));
        self.registered.insert((endpoint.service.clone(), endpoint.uid.clone()), endpoint);
    }

    pub(super) fn is_registered(&self, endpoint: &Endpoint) -> bool {
        self.registered.get(&(endpoint.service.clone(), endpoint.uid.clone())) == Some(endpoint)
    }

    pub(super) fn withdraw(&mut self, service: &ServiceName, uid: &EndpointUid) {
        self.registered.remove(&(service.clone(), uid.clone()));
        self.remove(&ResourceName::Endpoint(service.clone(), uid.clone()));
    }

    pub(super) fn forget_registrations(&mut self) {
        for ((service, uid), _) in std::mem::take(&mut self.registered) {
            self.remove(&ResourceName::Endpoint(service, uid));
        }
    }
}

impl Catalog for World {
    fn get(&self, name: &ResourceName) -> Option<Encoded> {
        self.resources.get(name).cloned()
    }

    fn endpoints_of(&self, service: &ServiceName) -> Vec<Encoded> {
        let of = |name: &ResourceName| matches!(name, ResourceName::Endpoint(s, _) if s == service);
        self.resources.iter().filter(|(name, _)| of(name)).map(|(_, e)| e.clone()).collect()
    }

    fn all(&self, kind: ResourceKind) -> Vec<Encoded> {
        self.resources.iter().filter(|(name, _)| name.kind() == kind).map(|(_, e)| e.clone()).collect()
    }

    fn host(&self, host: &Hostname) -> Option<ServiceName> {
        self.hosts.get(host).cloned()
    }

    fn revision(&self) -> u64 {
        self.revision
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
