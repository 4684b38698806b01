//! The link to the control plane: one discovery stream, made again whenever it ends.
//!
//! It carries what the data path wants to the control plane, and what the control plane says to the registry. What the
//! registry refuses is answered with the reason and the last good resource stays in force. While the control plane is
//! away, everything known serves on.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::WorkloadIdentity;
use outrigger_mesh::{Hostname, Resource, ResourceKind, ResourceName, Selector, ServiceName};
use outrigger_wire::rpc::{DiscoverStream, Hello, RpcError, RpcErrorKind};
use outrigger_wire::session::{ClientSession, Delta, DeltaRequest, DeltaResponse, Rejected, Removed};
use outrigger_wire::{Bundle, Encoded, ResourceVersion};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::backoff::Backoff;
use crate::config::dial::Control;
use crate::config::registry::{Change, Discovery, Registry, Want, Wants};
use crate::config::status::LinkStatus;

/// What is in force, shared with whoever stores it.
pub type InForce = Arc<(u64, BTreeMap<ResourceName, Resource>)>;

/// The link. [`Link::run`] keeps it up.
pub struct Link {
    control: Control,
    hello: Hello,
    identity: Arc<WorkloadIdentity>,
    registry: Arc<Registry>,
    status: Arc<LinkStatus>,
    session: ClientSession,
    wants: Wants,
    /// Host names asked for and not answered.
    pending: HashSet<Hostname>,
    in_force: watch::Sender<InForce>,
    /// Whether it is a gateway's.
    at_edge: bool,
}

impl Link {
    /// A link as the workload of `hello` that has not connected yet. `declared` are the services it always wants.
    pub fn new(
        control: Control,
        hello: Hello,
        identity: Arc<WorkloadIdentity>,
        registry: Arc<Registry>,
        declared: &[ServiceName],
    ) -> Self {
        let mut session = ClientSession::new(hello.features.clone());
        session.subscribe(Selector::All(ResourceKind::Trust));
        session.subscribe(Selector::All(ResourceKind::Mesh));
        session.subscribe(Selector::All(ResourceKind::Issuer));
        session.subscribe(Selector::All(ResourceKind::Denylist));
        let id = &hello.identity;
        let own = ResourceName::Inbound(id.namespace().clone(), id.service_account().clone());
        session.subscribe(Selector::Named(own));
        for service in declared {
            // The registry remembers that it is wanted, so that it is not asked for twice.
            let _asked = registry.find_service(service);
        }
        let wants = registry.wants();
        Self {
            control,
            hello,
            identity,
            registry,
            status: Arc::default(),
            session,
            wants,
            pending: HashSet::new(),
            in_force: watch::Sender::default(),
            at_edge: false,
        }
    }

    /// How it is doing.
    pub fn status(&self) -> Arc<LinkStatus> {
        Arc::clone(&self.status)
    }

    /// What is in force; moves with every change.
    pub fn in_force(&self) -> watch::Receiver<InForce> {
        self.in_force.subscribe()
    }

    /// Puts a copy from an earlier life in force and subscribes to what it holds. Answers the resources that can not be
    /// obeyed any more; they are asked for again.
    pub fn seed(&mut self, bundle: Bundle) -> Vec<Rejected> {
        let mut refused = Vec::new();
        let mut services = HashSet::new();
        let mut with_endpoints = HashSet::new();
        for resource in bundle.resources {
            let Encoded { name, version, .. } = Encoded::new(&resource);
            if let ResourceName::Service(service) = &name {
                services.insert(service.clone());
            }
            if let ResourceName::Endpoint(service, _) = &name {
                with_endpoints.insert(service.clone());
            }
            match self.put_in_force(resource) {
                Ok(()) => self.session.seed(name, version),
                Err(reason) => {
                    refused.push(Rejected { name: name.to_string(), version: version.to_string(), reason });
                }
            }
        }
        for service in services {
            if !with_endpoints.contains(&service) {
                self.tell(Change::NoEndpoints(service.clone()));
            }
            self.want_service(service);
        }
        self.status.loaded_from_disk(bundle.revision);
        self.in_force.send_modify(|held| Arc::make_mut(held).0 = bundle.revision);
        refused
    }

    /// Wants a Gateway, too.
    pub fn follow_gateway(&mut self, name: ServiceName) {
        self.at_edge = true;
        self.session.subscribe(Selector::Named(ResourceName::Gateway(name)));
    }

    /// Keeps the link up until it is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let began = Instant::now();
            self.hello.elsewhere = self.control.knows_others();
            let ended = self.connection().await;
            if matches!(&ended, Err(error) if error.kind == RpcErrorKind::Elsewhere) {
                // It is known where to ask next: that takes a moment, in which nobody is away.
                tracing::info!(from = ?self.control.go_elsewhere(), "sent to another control plane");
                self.status.disconnected("sent to another control plane");
                backoff.reset();
                sleep(backoff.wait()).await;
                continue;
            }
            let error = match ended {
                Ok(()) => "the control plane closed the stream".to_owned(),
                Err(error) => self.control.explain(&error),
            };
            // It worked: one that is to connect again, with a newer certificate, is not to wait as if nobody were there.
            if began.elapsed() > WORKED {
                backoff.reset();
            }
            self.status.disconnected(&error);
            self.registry.set_discovery(Discovery::Away);
            let wait = backoff.wait();
            tracing::warn!(%error, retry_in = ?wait, "no link to the control plane; what is known serves on");
            sleep(wait).await;
        }
    }

    /// One connection, to its end.
    async fn connection(&mut self) -> Result<(), RpcError> {
        let (mut stream, first) = self.greet().await?;
        for request in first {
            send(&stream, request).await?;
        }
        // When nothing changed since the last connection the control plane says nothing; a refusal comes at once.
        let accepted = Instant::now() + REFUSAL;
        let mut up = false;
        loop {
            tokio::select! {
                response = stream.next() => match response? {
                    None => return Ok(()),
                    Some(response) => {
                        // What a gateway's routes do is said by the services, too.
                        let waits = matches!(response.kind, ResourceKind::Gateway | ResourceKind::Service);
                        self.on_response(response);
                        if self.at_edge && waits {
                            self.registry.obeyed.until(self.registry.changes()).await;
                        }
                        self.is_up(&mut up);
                    }
                },
                want = self.wants.next(), if self.pending.len() < MOST_PENDING => self.take_want(want),
                () = sleep_until(accepted), if !up => self.is_up(&mut up),
            }
            self.take_wants();
            self.send_all(&stream).await?;
        }
    }

    fn is_up(&self, up: &mut bool) {
        if !std::mem::replace(up, true) {
            self.status.connected();
            self.registry.set_discovery(Discovery::Connected);
            tracing::info!(control_plane = self.control.address(), "linked");
        }
    }

    /// Opens a stream, and says how many requests come first: those that tell all that is wanted and held.
    async fn greet(&mut self) -> Result<(DiscoverStream, Vec<DeltaRequest>), RpcError> {
        self.session.on_connect();
        self.take_wants();
        let first: Vec<_> = std::iter::from_fn(|| self.session.next_request()).collect();
        let requests = u32::try_from(first.len()).unwrap_or(u32::MAX);
        let hello = Hello { requests, ..self.hello.clone() };
        Ok((self.control.client().discover(hello).await?, first))
    }

    async fn send_all(&mut self, stream: &DiscoverStream) -> Result<(), RpcError> {
        while let Some(request) = self.session.next_request() {
            send(stream, request).await?;
        }
        Ok(())
    }

    fn on_response(&mut self, response: DeltaResponse) {
        let Delta { kind, revision, set, hosts, removed, undecodable, ticket, .. } =
            self.session.on_response(response);
        // From here on the service itself is followed. That its own callers' routes are awaited must be known before it is there.
        for (_, service) in &hosts {
            self.want_service(service.clone());
        }
        let rejected = self.put_all_in_force(set);
        for (host, service) in hosts {
            self.pending.remove(&host);
            self.tell(Change::HostIs { host: host.clone(), service });
            // The name would only count against the bounds, and asking for it again later must be answered again.
            self.session.unsubscribe(&Selector::Host(host));
        }
        for gone in removed {
            self.on_removed(gone);
        }
        let all: Vec<_> = undecodable.iter().chain(&rejected).cloned().collect();
        for one in &all {
            let Rejected { name, version, reason } = one;
            tracing::warn!(name, version, reason, "a resource is refused; the last good one stays in force");
        }
        if kind == ResourceKind::Inbound && !all.is_empty() {
            self.registry.inbound_refused();
        }
        self.session.answer(ticket, rejected);
        self.status.applied(revision, &all);
        self.in_force.send_modify(|held| {
            let held = Arc::make_mut(held);
            held.0 = held.0.max(revision);
        });
    }

    fn on_removed(&mut self, removed: Removed) {
        match removed {
            Removed::Name(ResourceName::Trust(domain)) if domain != *self.hello.identity.trust_domain() => {
                tracing::info!(%domain, "this trust domain is not believed any more");
                self.identity.trust().forget(&domain);
                let name = ResourceName::Trust(domain);
                self.in_force.send_modify(|held| drop(Arc::make_mut(held).1.remove(&name)));
            }
            Removed::Name(ResourceName::Trust(domain)) => {
                // Believing nobody would end every connection; roots are replaced, never merely taken away.
                tracing::warn!(%domain, "the control plane withdrew its roots; they are kept");
            }
            Removed::Name(name) => {
                self.status.recovered(&name.to_string());
                self.in_force.send_modify(|held| drop(Arc::make_mut(held).1.remove(&name)));
                self.tell(Change::Remove(name));
            }
            Removed::Selector(Selector::Host(host)) => {
                self.pending.remove(&host);
                self.tell(Change::HostUnknown(host));
            }
            Removed::Selector(Selector::EndpointsOf(service)) => self.tell(Change::NoEndpoints(service)),
            Removed::Selector(Selector::Named(_) | Selector::All(_)) => {}
        }
    }

    /// Hands on what came in one response, the endpoints of it at once, and remembers what was taken; answers what was not.
    fn put_all_in_force(&mut self, set: Vec<(Resource, ResourceVersion, Vec<Hostname>)>) -> Vec<Rejected> {
        let endpoints = set.iter().filter_map(|(resource, ..)| match resource {
            Resource::Endpoint(endpoint) => Some(endpoint.clone()),
            _ => None,
        });
        let endpoints: Vec<_> = endpoints.collect();
        // Whoever waits is woken only where there are any.
        let outcomes = if endpoints.is_empty() { Vec::new() } else { self.registry.set_endpoints(endpoints) };
        let mut of_endpoints = outcomes.into_iter();
        let mut rejected = Vec::new();
        for (resource, version, _aliases) in set {
            let name = resource.name().to_string();
            let outcome = match &resource {
                Resource::Endpoint(_) => of_endpoints.next().unwrap_or(Ok(())),
                _ => self.hand_on(&resource),
            };
            match outcome {
                Ok(()) => {
                    self.remember(resource);
                    self.status.recovered(&name);
                }
                Err(reason) => rejected.push(Rejected { name, version: version.to_string(), reason }),
            }
        }
        rejected
    }

    /// Hands a resource to whom it concerns, and remembers it if it was taken.
    fn put_in_force(&mut self, resource: Resource) -> Result<(), String> {
        self.hand_on(&resource)?;
        self.remember(resource);
        Ok(())
    }

    fn hand_on(&self, resource: &Resource) -> Result<(), String> {
        match resource {
            Resource::Trust(trust) => {
                self.identity.trust().update(trust).map(drop).map_err(|e| e.to_string())
            }
            Resource::Inbound(inbound) if inbound.identity != self.hello.identity => {
                Err(format!("it is for {}", inbound.identity))
            }
            _ => self.registry.apply(Change::Set(resource.clone())),
        }
    }

    fn remember(&self, resource: Resource) {
        self.in_force.send_modify(|held| drop(Arc::make_mut(held).1.insert(resource.name(), resource)));
    }

    /// Changes that the registry has no reason to refuse.
    fn tell(&self, change: Change) {
        if let Err(reason) = self.registry.apply(change) {
            tracing::error!(reason, "the registry refused what can not be refused");
        }
    }

    /// Takes what is wanted at this moment, so that it goes out together.
    fn take_wants(&mut self) {
        while self.pending.len() < MOST_PENDING
            && let Some(want) = self.wants.try_next()
        {
            self.take_want(want);
        }
    }

    fn take_want(&mut self, want: Want) {
        match want {
            Want::Host(host) => {
                self.pending.insert(host.clone());
                self.session.subscribe(Selector::Host(host));
            }
            Want::DropHost(host) => {
                self.pending.remove(&host);
                self.give_up(&Selector::Host(host));
            }
            Want::Service(service) => self.want_service(service),
            Want::DropService(service) => {
                if let Some(own) = self.own_routes_for(&service) {
                    self.give_up(&Selector::Named(own));
                }
                self.give_up(&Selector::EndpointsOf(service.clone()));
                self.give_up(&Selector::Named(ResourceName::Service(service)));
            }
        }
    }

    fn want_service(&mut self, service: ServiceName) {
        if let Some(own) = self.own_routes_for(&service) {
            self.tell(Change::ConsumerAwaited(service.clone()));
            self.session.subscribe(Selector::Named(own));
        }
        self.session.subscribe(Selector::Named(ResourceName::Service(service.clone())));
        self.session.subscribe(Selector::EndpointsOf(service));
    }

    /// What the own namespace may say of a service of another one. A gateway is nobody's consumer: its routes are its own.
    fn own_routes_for(&self, service: &ServiceName) -> Option<ResourceName> {
        let namespace = self.hello.identity.namespace();
        let foreign = !self.at_edge && service.namespace() != namespace;
        foreign.then(|| ResourceName::ConsumerRoutes(namespace.clone(), service.clone()))
    }

    /// The registry has forgotten it already; only our own copy is to be forgotten.
    fn give_up(&mut self, selector: &Selector) {
        let gone = self.session.unsubscribe(selector);
        if !gone.is_empty() {
            self.in_force.send_modify(|held| {
                let held = Arc::make_mut(held);
                held.1.retain(|name, _| !gone.contains(name));
            });
        }
    }
}

async fn send(stream: &DiscoverStream, request: DeltaRequest) -> Result<(), RpcError> {
    // A peer that reads nothing is cut by the keepalive; this only bounds what is stuck before it.
    tokio::time::timeout(STUCK, stream.send(request)).await.map_err(|_| hung())?
}

fn hung() -> RpcError {
    RpcError::new(RpcErrorKind::Unavailable, "the control plane does not answer")
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// A link that lasted for so long was no refusal.
const WORKED: Duration = Duration::from_secs(1);
/// A stream that lived so long was not refused.
const REFUSAL: Duration = Duration::from_millis(250);
/// How long a request may wait to be sent.
const STUCK: Duration = Duration::from_secs(10);
/// Host names asked for at a time. Together with three selectors for each of the registry's services this stays below
/// what the control plane allows one sidecar.
const MOST_PENDING: usize = 512;
