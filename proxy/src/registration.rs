//! How this instance becomes known, stays known, and goes.
//!
//! It registers once it can serve: the inbound port is bound, its rules are here and the application accepts
//! connections. From then on it renews its lease, and at once when the control plane comes back. What it reports of its
//! traffic is the matter of `telemetry::reports`.
//!
//! A pod registers, too, but nothing hangs on it: its cluster knows where it is, and its own probes say whether it takes
//! requests. It is ready once its rules are here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{
    Endpoint, EndpointPort, EndpointState, EndpointUid, PortNumber, ServiceName, Transport, Version, Weight,
};
use outrigger_wire::rpc::{Registration as Request, RpcErrorKind, WithdrawReply};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::admin::{Condition, Readiness};
use crate::config::backoff::Backoff;
use crate::config::dial::Control;
use crate::config::registry::Registry;

/// The instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The service it is an instance of.
    pub service: ServiceName,
    /// Its name.
    pub uid: EndpointUid,
    /// The address where others reach its sidecar.
    pub ip: IpAddr,
    /// The ports of the service that it serves; never empty.
    pub ports: Vec<InstancePort>,
    /// Its version.
    pub version: Option<Version>,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Its weight.
    pub weight: Weight,
    /// Whether it is a pod of a cluster, which finds it by itself. Then registering is no condition of its readiness, and
    /// no refusal is the last word: the control plane may hear of the pod later than the pod of the control plane.
    pub in_cluster: bool,
}

/// A port of the service at this instance.
#[derive(Clone, Copy, Debug)]
pub struct InstancePort {
    /// The port where its sidecar listens.
    pub listen: PortNumber,
    /// The service's port; `None` means the first.
    pub service_port: Option<PortNumber>,
    /// Where the application listens.
    pub application: SocketAddr,
}

/// The control plane does not let this workload, which is no pod, serve this service, at the first try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane refuses {uid} as an instance of {service}: {why}")]
pub struct RegistrationRefused {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub uid: EndpointUid,
    /// The control plane's reason.
    pub why: String,
}

/// The way to withdraw. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Withdrawer(mpsc::Sender<Withdraw>);

#[derive(Debug)]
struct Withdraw {
    limit: Duration,
    done: oneshot::Sender<()>,
}

/// Keeps the instance registered.
pub struct Registrar {
    instance: Instance,
    control: Control,
    registry: Arc<Registry>,
    readiness: Readiness,
    reconnected: watch::Receiver<u64>,
    orders: mpsc::Receiver<Withdraw>,
}

impl Withdrawer {
    /// Takes the instance out of discovery. Returns once every subscriber has acknowledged that, `limit` has passed, or
    /// there is nobody to tell.
    pub async fn withdraw(&self, limit: Duration) {
        let (done, ended) = oneshot::channel();
        if self.0.send(Withdraw { limit, done }).await.is_ok() {
            // Dropped without a word means that the registrar is gone, and so is the registration's renewal.
            let _gone = ended.await;
        }
    }
}

impl Registrar {
    /// Registers `instance` as soon as it can serve. `reconnected` moves whenever the control plane is there again.
    pub fn new(
        instance: Instance,
        control: Control,
        registry: Arc<Registry>,
        readiness: Readiness,
        reconnected: watch::Receiver<u64>,
    ) -> (Self, Withdrawer) {
        let (withdraw, orders) = mpsc::channel(1);
        readiness.not_yet(Condition::Registration, "the instance is not registered yet");
        (Self { instance, control, registry, readiness, reconnected, orders }, Withdrawer(withdraw))
    }

    /// Runs until the instance is withdrawn, or, where it is no pod, is refused before it ever was registered.
    pub async fn run(self) -> Result<(), RegistrationRefused> {
        let Self { instance, control, registry, readiness, reconnected, mut orders } = self;
        let rules = rules_of_a_pod(instance.clone(), Arc::clone(&registry), readiness.clone());
        let mut known = Known { instance, control, registry, readiness, reconnected, registered: false };
        let order = tokio::select! {
            biased;
            order = orders.recv() => order,
            ((), refused) = async { tokio::join!(rules, known.keep()) } => return Err(refused),
        };
        let Some(Withdraw { limit, done }) = order else { return Ok(()) };
        known.withdraw(limit).await;
        // Whoever asked may have stopped waiting.
        let _gone = done.send(());
        // A second order finds the instance gone already.
        while let Some(again) = orders.recv().await {
            let _gone = again.done.send(());
        }
        Ok(())
    }
}

struct Known {
    instance: Instance,
    control: Control,
    registry: Arc<Registry>,
    readiness: Readiness,
    reconnected: watch::Receiver<u64>,
    registered: bool,
}

impl Known {
    /// Registers and renews; returns only when it is refused at the start.
    async fn keep(&mut self) -> RegistrationRefused {
        self.application_accepts().await;
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut changes = self.registry.changed();
        loop {
            let endpoint = self.endpoint(&mut changes).await;
            self.reconnected.mark_unchanged();
            let reply = self.control.client().register(Request { endpoint: endpoint.clone() }).await;
            let wait = match reply {
                Ok(reply) => {
                    if !std::mem::replace(&mut self.registered, true) {
                        let Endpoint { service, uid, .. } = &endpoint;
                        tracing::info!(%service, %uid, lease = ?reply.lease, "registered");
                    }
                    if !self.instance.in_cluster {
                        self.readiness.met(Condition::Registration);
                    }
                    backoff.reset();
                    // A third of the lease, so that two renewals may be lost; not in step with others.
                    (reply.lease / 3).mul_f64(0.9 + fastrand::f64() / 5.0).max(FIRST_RETRY)
                }
                Err(error) => {
                    let why = self.control.explain(&error);
                    let final_word = matches!(error.kind, RpcErrorKind::Denied | RpcErrorKind::Invalid);
                    if final_word && !self.registered && !self.instance.in_cluster {
                        return self.refused(why);
                    }
                    let wait = backoff.wait();
                    tracing::warn!(%why, retry_in = ?wait, "the instance can not be registered");
                    if !self.registered {
                        self.not_yet(&format!("not registered: {why}"));
                    }
                    wait
                }
            };
            self.pause(wait).await;
        }
    }

    /// Waits, but no longer than until the control plane is there again, which may have forgotten us.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            moved = self.reconnected.changed() => {
                if moved.is_err() {
                    sleep(wait).await;
                }
            }
        }
    }

    /// The instance as it is to be known. Waits for the inbound rules: without them nothing could be served. When they
    /// do not name the service, the control plane is asked all the same, as it knows why.
    async fn endpoint(&self, changes: &mut watch::Receiver<u64>) -> Endpoint {
        let inbound = loop {
            changes.mark_unchanged();
            if let Some(inbound) = self.registry.inbound() {
                break inbound;
            }
            self.not_yet(NO_RULES);
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let first = inbound.service(&self.instance.service).and_then(|s| s.ports.first()).map(|p| p.0);
        let i = &self.instance;
        let port = |p: &InstancePort| EndpointPort {
            port: p.service_port.or(first).unwrap_or(PortNumber::HTTP),
            listen: p.listen,
            target: PortNumber::new(p.application.port()),
        };
        Endpoint {
            service: i.service.clone(),
            uid: i.uid.clone(),
            ip: i.ip,
            ports: i.ports.iter().map(port).collect(),
            version: i.version.clone(),
            zone: i.zone.clone(),
            weight: i.weight,
            transport: Transport::Mesh,
            state: EndpointState::Ready,
        }
    }

    /// Returns once the application accepts connections, at every port.
    async fn application_accepts(&self) {
        for port in &self.instance.ports {
            self.accepts(port.application).await;
        }
    }

    async fn accepts(&self, application: SocketAddr) {
        let patience = Instant::now() + SAY_SO;
        let mut said = false;
        loop {
            if let Ok(Ok(_accepted)) = timeout(PROBE, TcpStream::connect(application)).await {
                return;
            }
            let why = format!("the application does not accept connections at {application} yet");
            self.not_yet(&why);
            if Instant::now() > patience && !std::mem::replace(&mut said, true) {
                tracing::warn!("{why}");
            }
            sleep(PROBE_EVERY).await;
        }
    }

    /// Says why the instance is not registered, which keeps it from being ready unless it is a pod.
    fn not_yet(&self, why: &str) {
        if !self.instance.in_cluster {
            self.readiness.not_yet(Condition::Registration, why);
        }
    }

    fn refused(&self, why: String) -> RegistrationRefused {
        RegistrationRefused { service: self.instance.service.clone(), uid: self.instance.uid.clone(), why }
    }

    async fn withdraw(&self, limit: Duration) {
        let Instance { service, uid, .. } = &self.instance;
        // A registration may have been under way when the order came: withdrawn is withdrawn, registered or not.
        match self.control.client().withdraw(service, uid, limit).await {
            Ok(WithdrawReply { subscribers, acknowledged }) => {
                tracing::info!(%service, %uid, subscribers, acknowledged, "withdrawn");
            }
            Err(error) => {
                let why = self.control.explain(&error);
                tracing::warn!(%service, %uid, %why, "not withdrawn; the lease will end it");
            }
        }
    }
}

/// Returns once the rules of the inbound side name the service of a pod, which is then ready: without them its sidecar would turn
/// every request away. At once where it is no pod.
async fn rules_of_a_pod(instance: Instance, registry: Arc<Registry>, readiness: Readiness) {
    if !instance.in_cluster {
        return;
    }
    let mut changes = registry.changed();
    loop {
        changes.mark_unchanged();
        let why = match registry.inbound().map(|inbound| inbound.service(&instance.service).is_some()) {
            Some(true) => return readiness.met(Condition::Registration),
            Some(false) => format!("the rules of the inbound side do not name {} yet", instance.service),
            None => NO_RULES.to_owned(),
        };
        readiness.not_yet(Condition::Registration, &why);
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

const NO_RULES: &str = "the rules of the inbound side have not come yet";
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(100);
const SAY_SO: Duration = Duration::from_secs(5);
