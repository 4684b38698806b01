//! Instances that their own sidecars register, with a lease.
//!
//! With several control planes on one store an instance is held by the one that its sidecar registers with. When that one
//! ends, the instance gets a whole lease more, in which its sidecar finds another; the control plane that leads takes away
//! what nobody holds by then. One that is cut off from the store takes nothing away: its sidecars are sent elsewhere.
//!
//! A lease is renewed by registering again. When it ends, or the sidecar withdraws, the instance goes. After a start of
//! the control plane every lease begins anew: that we were away is not the instances' fault.
//!
//! When most leases end together they are held back (`shrink`).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use outrigger_certs::Peer;
use outrigger_mesh::{EndpointState, EndpointUid, ServiceName, SpiffeId};
use outrigger_wire::rpc::{RegisterReply, Registration, RpcError, RpcErrorKind, WithdrawReply, Withdrawal};
use tokio::time::Instant;

use super::shrink::{Held, News, Seen, Shrink, Verdict};
use crate::audit::Author;
use crate::state::{Refusal, RefusalKind, State, held_name, is_found_by_the_cluster};
use crate::store::{Holder, StoreError};
use crate::world::World;

/// Who knows which sidecars have heard that an instance is gone.
pub trait Removal: Send + Sync + 'static {
    /// Waits, `wait` at most, until every subscriber of the service's endpoints has acknowledged that `uid` is not among
    /// them: how many subscribers there are, and how many have.
    fn removed<'a>(
        &'a self,
        service: &'a ServiceName,
        uid: &'a EndpointUid,
        wait: Duration,
    ) -> BoxFuture<'a, (u32, u32)>;
}

/// Leases of the instances that registered themselves.
pub struct Registrations {
    state: Arc<State>,
    removal: Arc<dyn Removal>,
    lease: Duration,
    deadlines: Mutex<HashMap<Instance, Instant>>,
    guard: Mutex<Guard>,
}

/// What keeps many leases from ending together.
#[derive(Debug)]
struct Guard {
    shrink: Shrink,
    /// When somebody last registered, or renewed.
    renewed: Option<Instant>,
}

/// Leases that have ended and are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// So many instances.
    pub instances: usize,
    /// Of so many.
    pub of: usize,
    /// For so long.
    pub lasting: Duration,
}

/// An instance of a service.
type Instance = (ServiceName, EndpointUid);

/// No withdrawal waits longer for acknowledgements: a sidecar that hangs must not keep an instance from ending.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// So often it is looked whether the cluster says of an instance that it ends.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// When the store is back every replica has found that out by then, and has told whom it holds.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// So many leases are ended together.
const AT_ONCE: usize = 256;

impl Registrations {
    /// Every instance that is registered already gets a whole lease from now.
    pub fn new(state: Arc<State>, removal: Arc<dyn Removal>, lease: Duration) -> Self {
        let until = Instant::now() + lease;
        let deadlines = registered(&state).into_iter().map(|key| (key, until)).collect();
        let guard = Guard { shrink: Shrink::new(lease), renewed: None };
        Self { state, removal, lease, deadlines: Mutex::new(deadlines), guard: Mutex::new(guard) }
    }

    /// Whether this workload may serve a service.
    pub fn may_serve(&self, identity: &SpiffeId, service: &ServiceName) -> bool {
        self.state.world().service(service).is_some_and(|entry| entry.checked.may_be_served_by(identity))
    }

    /// Whether there is such a service.
    pub fn is_service(&self, service: &ServiceName) -> bool {
        self.state.world().service(service).is_some()
    }

    /// Registers an instance, or renews its lease.
    pub async fn register(
        &self,
        peer: &Peer,
        from: SocketAddr,
        registration: Registration,
    ) -> Result<RegisterReply, RpcError> {
        self.register_as(&Author::workload(peer.id(), from), registration).await
    }

    async fn register_as(
        &self,
        author: &Author,
        registration: Registration,
    ) -> Result<RegisterReply, RpcError> {
        let endpoint = registration.endpoint;
        let key = (endpoint.service.clone(), endpoint.uid.clone());
        if let Err(refusal) = self.state.register_instance(endpoint, author).await {
            let (service, uid) = &key;
            let Author { who, from, .. } = author;
            tracing::warn!(who, from, %service, %uid, reason = %refusal, "refused a registration");
            return Err(told(&refusal));
        }
        // How long it is there the cluster says: it has no lease, nor is anything held that would have to be taken away.
        if is_found_by_the_cluster(&self.state.world(), &key.0) {
            return Ok(RegisterReply { lease: self.lease });
        }
        if let Err(error) = self.hold(&key).await {
            // It is registered; that it is here the others learn when the store answers.
            let (service, uid) = &key;
            tracing::debug!(%error, %service, %uid, "that it is held here could not be told");
        }
        let now = Instant::now();
        self.deadlines().insert(key, now + self.lease);
        self.guard().renewed = Some(now);
        Ok(RegisterReply { lease: self.lease })
    }

    /// Takes an instance away and waits until those who could call it know.
    pub async fn withdraw(
        &self,
        peer: &Peer,
        from: SocketAddr,
        withdrawal: Withdrawal,
    ) -> Result<WithdrawReply, RpcError> {
        let author = Author::workload(peer.id(), from);
        self.withdraw_as(&author, from.ip().to_canonical(), withdrawal).await
    }

    async fn withdraw_as(
        &self,
        author: &Author,
        ip: IpAddr,
        withdrawal: Withdrawal,
    ) -> Result<WithdrawReply, RpcError> {
        let Withdrawal { service, uid, wait } = withdrawal;
        self.state.remove_instance(&service, &uid, author).await.map_err(|refusal| told(&refusal))?;
        let key = (service, uid);
        self.deadlines().remove(&key);
        self.let_go(&key).await;
        let (service, uid) = key;
        let until = Instant::now() + wait.min(MAX_WAIT);
        self.ends_in_the_cluster(&service, ip, until).await;
        let left = until.saturating_duration_since(Instant::now());
        let (subscribers, acknowledged) = self.removal.removed(&service, &uid, left).await;
        tracing::info!(who = author.who, %service, %uid, subscribers, acknowledged, "an instance withdrew");
        Ok(WithdrawReply { subscribers, acknowledged })
    }

    /// Waits until the cluster, where instances are those that it knows, takes the one at `ip` for one that ends: its sidecar
    /// may have heard of that first. An instance at another address than its sidecar calls from is not waited for.
    async fn ends_in_the_cluster(&self, service: &ServiceName, ip: IpAddr, until: Instant) {
        if !is_found_by_the_cluster(&self.state.world(), service) {
            return;
        }
        let world = self.state.world();
        let found = world.instances(service).map(|entry| &entry.checked.endpoint);
        let here: Vec<_> = found.filter(|endpoint| endpoint.ip == ip).map(|e| e.uid.clone()).collect();
        drop(world);
        let takes_requests = || {
            let world = self.state.world();
            let mut known = here.iter().filter_map(|uid| world.instance(service, uid));
            known.any(|entry| entry.checked.endpoint.state == EndpointState::Ready)
        };
        while takes_requests() && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes away whatever is not renewed. Runs until it is dropped.
    pub async fn expire(&self) {
        let mut tick = tokio::time::interval(self.lease.min(Duration::from_secs(4)) / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.adopt();
            let mut overdue = self.ended_by(Instant::now());
            let world = self.state.world();
            // What somebody has taken away meanwhile, alone or with its service, is no loss.
            overdue.retain(|key| world.instance(&key.0, &key.1).is_some() || self.forget(key));
            if self.may_go(overdue.len(), &world) {
                for some in overdue.chunks(AT_ONCE) {
                    // Together they cost one commit.
                    join_all(some.iter().map(|instance| self.end(instance))).await;
                }
            }
        }
    }

    /// Takes away an instance whose lease has ended.
    async fn end(&self, key: &Instance) {
        let (service, uid) = key;
        let author = Author::system("its lease ended: its sidecar said nothing more");
        if let Err(e) = self.state.remove_instance(service, uid, &author).await {
            tracing::error!(%service, %uid, error = %e, "an instance that is gone stays listed");
            return;
        }
        tracing::warn!(%service, %uid, "an instance's lease ended");
        self.let_go(key).await;
        self.forget(key);
    }

    /// Whether so many may go now.
    fn may_go(&self, overdue: usize, world: &World) -> bool {
        let is_listed = |(service, uid): &&Instance| world.instance(service, uid).is_some();
        let now = Instant::now();
        // They renew after a third of it.
        let silent = self.ended_by(now + self.lease / 2).iter().filter(is_listed).count();
        let listed = if silent == 0 { 0 } else { self.deadlines().keys().filter(is_listed).count() };
        let mut guard = self.guard();
        let (before, renewed) = (guard.shrink.held(), guard.renewed);
        match guard.shrink.judge(now, Seen { listed, overdue, silent, renewed }) {
            Verdict::Goes => {
                if let Some(held) = before {
                    let what = if overdue == 0 { "they have come back" } else { "what is left is confirmed" };
                    tracing::warn!(overdue, held = held.overdue, "leases are no longer held back: {what}");
                }
                true
            }
            Verdict::Stays(held, news) => {
                if news == News::First {
                    let Held { overdue, silent, listed, .. } = held;
                    tracing::error!(
                        overdue,
                        silent,
                        listed,
                        "most leases end together: they are held back until the others have renewed theirs once \
                         more, or an operator confirms it (POST /v1/leases/confirm)"
                    );
                }
                false
            }
        }
    }

    /// The leases that are held back, if any are.
    pub fn held_back(&self) -> Option<HeldBack> {
        let held = self.guard().shrink.held()?;
        Some(HeldBack { instances: held.overdue, of: held.listed, lasting: held.since.elapsed() })
    }

    /// An operator says that what is held back is gone. False when nothing is.
    pub fn confirm(&self) -> bool {
        self.guard().shrink.confirm()
    }

    /// What there is to tell of leases, for Prometheus.
    pub fn metrics(&self) -> String {
        let held = self.held_back().map_or(0, |held| held.instances);
        format!(
            "# HELP outrigger_control_leases Instances whose leases are kept here.\n\
             # TYPE outrigger_control_leases gauge\noutrigger_control_leases {}\n\
             # HELP outrigger_control_leases_held_back Leases that have ended and are held back, because most ended together.\n\
             # TYPE outrigger_control_leases_held_back gauge\noutrigger_control_leases_held_back {held}\n",
            self.deadlines().len()
        )
    }

    /// Gives a lease to what nobody holds any more, and leaves to other control planes what is theirs.
    fn adopt(&self) {
        let Some(replicas) = self.state.store().replicas() else { return };
        let until = Instant::now() + self.lease;
        let all: HashSet<Instance> = registered(&self.state).into_iter().collect();
        let mut deadlines = self.deadlines();
        if replicas.cut_off() {
            // Whoever went elsewhere did as he was told: no lease runs until it is known again where everybody is, which
            // the others have to tell first.
            let until = until + BACK_WITHIN;
            deadlines.values_mut().for_each(|deadline| *deadline = until.max(*deadline));
        }
        deadlines.retain(|key, _| all.contains(key));
        for key in all {
            match replicas.holder(&held_name(&key.0, &key.1)) {
                Holder::This => {}
                Holder::Another => drop(deadlines.remove(&key)),
                Holder::Nobody => drop(deadlines.entry(key).or_insert(until)),
            }
        }
    }

    /// Tells other control planes, if there are any, that this one has it.
    async fn hold(&self, (service, uid): &Instance) -> Result<(), StoreError> {
        let Some(replicas) = self.state.store().replicas() else { return Ok(()) };
        let name = held_name(service, uid);
        if replicas.holder(&name) == Holder::This { Ok(()) } else { replicas.hold(vec![name]).await }
    }

    async fn let_go(&self, (service, uid): &Instance) {
        let Some(replicas) = self.state.store().replicas() else { return };
        if let Err(error) = replicas.let_go(&held_name(service, uid)).await {
            // It ends with this control plane, and holds nothing that is there.
            tracing::debug!(%error, %service, %uid, "it is held a little longer");
        }
    }

    /// The leases kept here that end by then, unless they are renewed.
    fn ended_by(&self, then: Instant) -> Vec<Instance> {
        let replicas = self.state.store().replicas();
        let deadlines = self.deadlines();
        let over = deadlines.iter().filter(|(_, until)| **until <= then).map(|(key, _)| key);
        // What nobody holds is taken away once.
        let ours = |key: &&Instance| {
            replicas.as_ref().is_none_or(|replicas| {
                replicas.leads() || replicas.holder(&held_name(&key.0, &key.1)) == Holder::This
            })
        };
        over.filter(ours).cloned().collect()
    }

    /// Unless it was renewed while it was being taken away. False, for it is not to be kept.
    fn forget(&self, key: &Instance) -> bool {
        let now = Instant::now();
        let mut deadlines = self.deadlines();
        if deadlines.get(key).is_some_and(|until| *until <= now) {
            deadlines.remove(key);
        }
        false
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadlines(&self) -> MutexGuard<'_, HashMap<Instance, Instant>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every instance that registered itself.
fn registered(state: &State) -> Vec<Instance> {
    let world = state.world();
    let registered = world.all_instances().filter(|e| e.checked.registered_by.is_some());
    registered.map(|e| &e.checked.endpoint).map(|e| (e.service.clone(), e.uid.clone())).collect()
}

fn told(refusal: &Refusal) -> RpcError {
    let kind = match refusal.kind {
        RefusalKind::UnknownService => RpcErrorKind::NotFound,
        RefusalKind::NotAllowed => RpcErrorKind::Denied,
        RefusalKind::Invalid => RpcErrorKind::Invalid,
        RefusalKind::TooMany => RpcErrorKind::Exhausted,
        RefusalKind::TokenUnknown | RefusalKind::TokenUsed | RefusalKind::TokenExpired => {
            RpcErrorKind::Unauthenticated
        }
        RefusalKind::Unavailable => RpcErrorKind::Unavailable,
    };
    RpcError::new(kind, refusal.told())
}

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "registration_shared_tests.rs"]
mod shared_tests;
