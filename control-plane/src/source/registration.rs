//! Instances that their own sidecars register, with a lease.
//!
//! With several control planes on one store an instance is held by the one that its sidecar registers with. When that one
//! ends, the instance gets a whole lease more, in which its sidecar finds another; the control plane that leads takes away
//! what nobody holds by then.
//!
//! A lease is renewed by registering again. When it ends, or the sidecar withdraws, the instance goes. After a start of
//! the control plane every lease begins anew: that we were away is not the instances' fault.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_certs::Peer;
use outrigger_mesh::{EndpointUid, ServiceName, SpiffeId};
use outrigger_wire::rpc::{RegisterReply, Registration, RpcError, RpcErrorKind, WithdrawReply, Withdrawal};
use tokio::time::Instant;

use crate::audit::Author;
use crate::state::{Refusal, RefusalKind, State, held_name};
use crate::store::{Holder, StoreError};

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
}

/// An instance of a service.
type Instance = (ServiceName, EndpointUid);

/// No withdrawal waits longer for acknowledgements: a sidecar that hangs must not keep an instance from ending.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Registrations {
    /// Every instance that is registered already gets a whole lease from now.
    pub fn new(state: Arc<State>, removal: Arc<dyn Removal>, lease: Duration) -> Self {
        let until = Instant::now() + lease;
        let deadlines = registered(&state).into_iter().map(|key| (key, until)).collect();
        Self { state, removal, lease, deadlines: Mutex::new(deadlines) }
    }

    /// Whether this workload may serve a service.
    pub fn may_serve(&self, identity: &SpiffeId, service: &ServiceName) -> bool {
        self.state.world().service(service).is_some_and(|entry| entry.checked.may_be_served_by(identity))
    }

    /// Registers an instance, or renews its lease.
    pub async fn register(
        &self,
        peer: &Peer,
        from: SocketAddr,
        registration: Registration,
    ) -> Result<RegisterReply, RpcError> {
        let endpoint = registration.endpoint;
        let key = (endpoint.service.clone(), endpoint.uid.clone());
        let author = Author::workload(peer.id(), from);
        if let Err(refusal) = self.state.register_instance(endpoint, &author).await {
            let (service, uid) = &key;
            tracing::warn!(peer = %peer.id(), %from, %service, %uid, reason = %refusal, "refused a registration");
            return Err(told(&refusal));
        }
        self.hold(&key).await.map_err(|e| told(&e.into()))?;
        self.deadlines().insert(key, Instant::now() + self.lease);
        Ok(RegisterReply { lease: self.lease })
    }

    /// Takes an instance away and waits until those who could call it know.
    pub async fn withdraw(
        &self,
        peer: &Peer,
        from: SocketAddr,
        withdrawal: Withdrawal,
    ) -> Result<WithdrawReply, RpcError> {
        let Withdrawal { service, uid, wait } = withdrawal;
        let author = Author::workload(peer.id(), from);
        self.state.remove_instance(&service, &uid, &author).await.map_err(|refusal| told(&refusal))?;
        let key = (service, uid);
        self.deadlines().remove(&key);
        self.let_go(&key).await;
        let (service, uid) = key;
        let (subscribers, acknowledged) = self.removal.removed(&service, &uid, wait.min(MAX_WAIT)).await;
        tracing::info!(peer = %peer.id(), %service, %uid, subscribers, acknowledged, "an instance withdrew");
        Ok(WithdrawReply { subscribers, acknowledged })
    }

    /// Takes away whatever is not renewed. Runs until it is dropped.
    pub async fn expire(&self) {
        let mut tick = tokio::time::interval(self.lease.min(Duration::from_secs(4)) / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.adopt();
            for (service, uid) in self.overdue() {
                let author = Author::system("its lease ended: its sidecar said nothing more");
                if let Err(e) = self.state.remove_instance(&service, &uid, &author).await {
                    tracing::error!(%service, %uid, error = %e, "an instance that is gone stays listed");
                    continue;
                }
                tracing::warn!(%service, %uid, "an instance's lease ended");
                let key = (service, uid);
                self.let_go(&key).await;
                self.forget(&key);
            }
        }
    }

    /// Gives a lease to what nobody holds any more, and leaves to other control planes what is theirs.
    fn adopt(&self) {
        let Some(replicas) = self.state.store().replicas() else { return };
        let until = Instant::now() + self.lease;
        let all: HashSet<Instance> = registered(&self.state).into_iter().collect();
        let mut deadlines = self.deadlines();
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

    fn overdue(&self) -> Vec<Instance> {
        let (now, replicas) = (Instant::now(), self.state.store().replicas());
        let deadlines = self.deadlines();
        let over = deadlines.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key);
        // What nobody holds is taken away once.
        let ours = |key: &&Instance| {
            replicas.as_ref().is_none_or(|replicas| {
                replicas.leads() || replicas.holder(&held_name(&key.0, &key.1)) == Holder::This
            })
        };
        over.filter(ours).cloned().collect()
    }

    /// Unless it was renewed while it was being taken away.
    fn forget(&self, key: &Instance) {
        let now = Instant::now();
        let mut deadlines = self.deadlines();
        if deadlines.get(key).is_some_and(|until| *until <= now) {
            deadlines.remove(key);
        }
    }

    fn deadlines(&self) -> std::sync::MutexGuard<'_, HashMap<Instance, Instant>> {
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
