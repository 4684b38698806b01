//! A change, to those who asked for it.
//!
//! The hub knows who has subscribed to what, so that a publication costs what it touches: it marks the changed names at
//! their subscribers and wakes those. What they send, and when, is theirs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_mesh::{EndpointUid, Hostname, ResourceKind, ResourceName, Selector, ServiceName, SpiffeId};
use outrigger_wire::rpc::{RpcError, RpcErrorKind};
use tokio::sync::watch;
use tokio::time::Instant;

use super::catalog::{Difference, Position, Prepared, Shelf};
use super::denied::Denied;
use super::figures::{Figures, Publication};
use super::obeyed::Asked;
use super::pages::Pages;
use super::sessions::{Cut, Proxy, SessionId};
use super::status::ProxyStatus;
use crate::admin::Acknowledged;
use crate::compile::ResourceChange;
use crate::source::registration::Removal;

/// Everything to send, and everybody to send it to.
///
/// Locks are taken in this order: catalog, subscribers, a session's marks. None is held across an await.
#[derive(Debug)]
pub struct Hub {
    catalog: RwLock<Shelf>,
    subscribers: Mutex<HashMap<Selector, HashSet<SessionId>>>,
    sessions: Mutex<Sessions>,
    denied: Denied,
    asked: Asked,
    pages: Pages,
    figures: Arc<Figures>,
    /// Counts what makes a wait worth looking again: answers and ends of sessions.
    progress: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<SessionId, Arc<Proxy>>,
    /// The session of each process. A second one of the same process takes the place of the first.
    by_node: HashMap<(SpiffeId, String), SessionId>,
    /// How many were opened with each certificate.
    by_certificate: HashMap<String, usize>,
    last_id: u64,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// A hub with nothing to send.
    pub fn new() -> Self {
        Self {
            catalog: RwLock::default(),
            subscribers: Mutex::default(),
            sessions: Mutex::default(),
            denied: Denied::default(),
            asked: Asked::default(),
            pages: Pages::default(),
            figures: Arc::default(),
            progress: watch::Sender::new(0),
        }
    }

    /// Puts changes of the configuration's `revision` in force. On return they are marked for everybody concerned; a
    /// wait that begins now sees them.
    pub fn publish(&self, revision: u64, changes: Vec<ResourceChange>) {
        if self.denied.take_note(&changes) {
            self.cut_denied();
        }
        // Encoding is the expensive part, and it is done once, outside of the lock.
        let prepared: Vec<Prepared> = changes.into_iter().map(Prepared::new).collect();
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let difference = catalog.publish(revision, prepared);
        self.mark(&difference, self.figures.publication(catalog.position().publication));
        drop(catalog);
        self.progressed();
    }

    /// Whether this identity is revoked.
    pub(super) fn is_denied(&self, identity: &SpiffeId) -> bool {
        self.denied.holds(identity)
    }

    fn cut_denied(&self) {
        for proxy in self.all_sessions().into_iter().filter(|proxy| self.is_denied(proxy.identity())) {
            tracing::warn!(identity = %proxy.identity(), "the stream of a revoked identity ends");
            proxy.cut(Cut::Revoked);
        }
    }

    fn mark(&self, difference: &Difference, mut publication: Publication) {
        self.concerned(difference, |proxy, concern| proxy.mark(concern, &mut publication));
    }

    /// Meets everybody whom a difference concerns, once for each thing that it concerns him with, or more often.
    pub(super) fn concerned(&self, difference: &Difference, mut meet: impl FnMut(&Proxy, Concern<'_>)) {
        let subscribers = self.subscribers();
        let sessions = self.sessions();
        if sessions.by_id.is_empty() {
            // As at the start, when there is most to publish.
            return;
        }
        let mut each = |selector: &Selector, concern: Concern<'_>| {
            for id in subscribers.get(selector).into_iter().flatten() {
                if let Some(proxy) = sessions.by_id.get(id) {
                    meet(proxy, concern);
                }
            }
        };
        for name in &difference.names {
            let concern = Concern::Name(name);
            each(&Selector::Named(name.clone()), concern);
            match name {
                ResourceName::Endpoint(service, _) => each(&Selector::EndpointsOf(service.clone()), concern),
                ResourceName::Trust(_)
                | ResourceName::Mesh(_)
                | ResourceName::Issuer(_)
                | ResourceName::Denylist(_) => each(&Selector::All(name.kind()), concern),
                ResourceName::Service(_)
                | ResourceName::Inbound(..)
                | ResourceName::Gateway(_)
                | ResourceName::ConsumerRoutes(..) => {}
            }
        }
        for (name, host) in &difference.hosts_of_changed {
            each(&Selector::Host(host.clone()), Concern::Name(name));
        }
        for host in &difference.hosts {
            each(&Selector::Host(host.clone()), Concern::Host(host));
        }
    }

    /// The connected sidecars, in the order of their names.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let position = self.read().position();
        let mut all: Vec<_> = self.all_sessions().iter().map(|proxy| proxy.status(position)).collect();
        all.sort_by(|a, b| (&a.identity, &a.node).cmp(&(&b.identity, &b.node)));
        all
    }

    /// Waits until every sidecar that is connected now has answered everything up to `revision` and all that was published
    /// before this, or for `timeout`. One that ends meanwhile is not waited for.
    pub async fn acknowledged(&self, revision: u64, timeout: Duration) -> Acknowledged {
        let everybody = self.all_sessions();
        // Instances come and go without a revision of their own.
        let published = self.read().position().publication;
        let answered = |proxy: &Proxy, now: Position| {
            let position = proxy.position(now);
            position.revision >= revision && position.publication >= published
        };
        let (everybody, seen) = self.wait(everybody, answered, timeout).await;
        let now = self.read().position();
        let mut missing = Vec::new();
        for proxy in &everybody {
            let status = proxy.status(now);
            if let Some(first) = status.rejected.first() {
                let more = status.rejected.len() - 1;
                let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
                missing.push((status.node, format!("rejected {}: {}{more}", first.name, first.reason)));
            } else if !seen.contains(&proxy.id()) {
                missing.push((status.node, NOT_ANSWERED.to_owned()));
            }
        }
        missing.sort();
        Acknowledged { acknowledged: everybody.len() - missing.len(), proxies: everybody.len(), missing }
    }

    /// Waits until each of `proxies` has answered, or for `timeout`. Tells those that are still connected, and who of them
    /// has. Who has answered once has: that it asks for something new a moment later takes nothing back.
    async fn wait(
        &self,
        mut proxies: Vec<Arc<Proxy>>,
        answered: impl Fn(&Proxy, Position) -> bool,
        timeout: Duration,
    ) -> (Vec<Arc<Proxy>>, HashSet<SessionId>) {
        let deadline = Instant::now() + timeout;
        let mut progress = self.progress.subscribe();
        let mut seen = HashSet::new();
        let mut late = false;
        loop {
            progress.mark_unchanged();
            proxies.retain(|proxy| !proxy.has_ended());
            let now = self.read().position();
            // All of them, also those behind one that has not: what is not noted now may look different later.
            for proxy in &proxies {
                if !seen.contains(&proxy.id()) && answered(proxy, now) {
                    seen.insert(proxy.id());
                }
            }
            if late || proxies.iter().all(|proxy| seen.contains(&proxy.id())) {
                return (proxies, seen);
            }
            late = tokio::time::timeout_at(deadline, progress.changed()).await.is_err();
            if !late {
                // Answers come in bursts, and each look is at everybody.
                tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)).await;
            }
        }
    }

    /// What is counted here.
    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// What is counted here, for Prometheus.
    pub fn metrics(&self) -> String {
        let subscriptions = self.all_sessions().iter().map(|proxy| proxy.subscriptions()).sum();
        self.figures.metrics(subscriptions)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session in. A session of the same process that is still here is ended.
    pub(super) fn enter(&self, make: impl FnOnce(SessionId) -> Proxy) -> Result<Arc<Proxy>, RpcError> {
        let mut sessions = self.sessions();
        if sessions.by_id.len() >= MAX_SESSIONS {
            return Err(RpcError::new(RpcErrorKind::Exhausted, "too many sidecars are connected"));
        }
        sessions.last_id += 1;
        let proxy = Arc::new(make(SessionId(sessions.last_id)));
        if let Some(proof) = proxy.proof() {
            let open = sessions.by_certificate.entry(proof.certificate.clone()).or_default();
            if *open >= MAX_OF_CERTIFICATE {
                let what = format!("{MAX_OF_CERTIFICATE} streams of one certificate are open already");
                return Err(RpcError::new(RpcErrorKind::Exhausted, what));
            }
            *open += 1;
        }
        sessions.by_id.insert(proxy.id(), proxy.clone());
        let before = sessions.by_node.insert(proxy.node(), proxy.id());
        if let Some(before) = before.and_then(|id| sessions.by_id.get(&id)) {
            before.replace();
        }
        Ok(proxy)
    }

    pub(super) fn leave(&self, proxy: &Proxy, selectors: impl Iterator<Item = Selector>) {
        proxy.end();
        let mut sessions = self.sessions();
        sessions.by_id.remove(&proxy.id());
        if let Some(proof) = proxy.proof()
            && let Some(open) = sessions.by_certificate.get_mut(&proof.certificate)
        {
            *open -= 1;
            if *open == 0 {
                sessions.by_certificate.remove(&proof.certificate);
            }
        }
        if sessions.by_node.get(&proxy.node()) == Some(&proxy.id()) {
            sessions.by_node.remove(&proxy.node());
        }
        drop(sessions);
        for selector in selectors {
            self.unsubscribe(&selector, proxy.id());
        }
        self.progressed();
    }

    pub(super) fn subscribe(&self, selector: Selector, id: SessionId) {
        self.subscribers().entry(selector).or_default().insert(id);
    }

    pub(super) fn unsubscribe(&self, selector: &Selector, id: SessionId) {
        let mut subscribers = self.subscribers();
        if let Some(ids) = subscribers.get_mut(selector) {
            ids.remove(&id);
            if ids.is_empty() {
                subscribers.remove(selector);
            }
        }
    }

    /// The services of which it is noted who obeys them.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The sidecars that can be asked for pages.
    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Whether a stream of this process is open.
    pub(super) fn is_connected(&self, identity: &SpiffeId, node: &str) -> bool {
        self.sessions().by_node.contains_key(&(identity.clone(), node.to_owned()))
    }

    pub(super) fn watch_progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub(super) fn progressed(&self) {
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn subscribers_of(&self, selector: &Selector) -> Vec<Arc<Proxy>> {
        let ids = self.subscribers().get(selector).cloned().unwrap_or_default();
        let sessions = self.sessions();
        ids.iter().filter_map(|id| sessions.by_id.get(id).cloned()).collect()
    }

    /// Whether a sidecar of this workload has asked for the endpoints of a service, as whoever calls it does.
    pub fn calls(&self, identity: &SpiffeId, service: &ServiceName) -> bool {
        let subscribers = self.subscribers();
        let Some(ids) = subscribers.get(&Selector::EndpointsOf(service.clone())) else { return false };
        let sessions = self.sessions();
        ids.iter().filter_map(|id| sessions.by_id.get(id)).any(|proxy| proxy.identity() == identity)
    }

    /// What a sidecar has subscribed to, in no order. Looks through all of it: for people, not for pushes.
    pub(super) fn selectors_of(&self, id: SessionId) -> Vec<Selector> {
        let subscribers = self.subscribers();
        let of_it = subscribers.iter().filter(|(_, ids)| ids.contains(&id));
        of_it.map(|(selector, _)| selector.clone()).collect()
    }

    pub(super) fn all_sessions(&self) -> Vec<Arc<Proxy>> {
        self.sessions().by_id.values().cloned().collect()
    }

    fn subscribers(&self) -> MutexGuard<'_, HashMap<Selector, HashSet<SessionId>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a difference concerns a sidecar with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Concern<'a> {
    /// This resource differs.
    Name(&'a ResourceName),
    /// This host name means something else.
    Host(&'a Hostname),
}

/// How long a wait lets answers gather before it looks again.
const LOOK: Duration = Duration::from_millis(2);
/// Why a sidecar is missing that does not reject anything.
pub(crate) const NOT_ANSWERED: &str = "has not answered";
/// One process of the control plane does not serve more.
const MAX_SESSIONS: usize = 20_000;
/// A process has one, and for a moment two when it comes back. One that pretends to be many must not take the room of all.
const MAX_OF_CERTIFICATE: usize = 4;

impl Removal for Hub {
    /// The removal must have been published. One sidecar that is not connected can not be asked; it hears of the removal
    /// when it comes back.
    fn removed<'a>(
        &'a self,
        service: &'a ServiceName,
        _: &'a EndpointUid,
        wait: Duration,
    ) -> BoxFuture<'a, (u32, u32)> {
        Box::pin(async move {
            let until = self.read().position().publication;
            let ends = Instant::now() + wait;
            // Who is just coming in may hold it, and has not said so yet.
            let coming = self.all_sessions().into_iter().filter(|proxy| !proxy.has_come_in()).collect();
            let (mut coming, _) = self.wait(coming, |proxy, _| proxy.has_come_in(), wait).await;
            let mut proxies = self.subscribers_of(&Selector::EndpointsOf(service.clone()));
            coming
                .retain(|proxy| !proxy.has_come_in() && proxies.iter().all(|other| other.id() != proxy.id()));
            proxies.extend(coming);
            let answered = |proxy: &Proxy, now: Position| {
                proxy.position_of(ResourceKind::Endpoint, now).publication >= until
            };
            let (proxies, seen) = self.wait(proxies, answered, ends - Instant::now()).await;
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let acknowledged = proxies.iter().filter(|proxy| seen.contains(&proxy.id())).count();
            (count(proxies.len()), count(acknowledged))
        })
    }
}

impl crate::state::Publish for Hub {
    fn publish(&self, revision: u64, changes: Vec<ResourceChange>) {
        self.publish(revision, changes);
    }
}
