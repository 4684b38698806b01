//! One thread of the data path: its runtime, its connections, and what it shares with the others.
//!
//! A request stays on the worker whose listener accepted its connection. Nothing here is `Send`, and nothing needs a
//! lock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use outrigger_certs::{MeshAcceptor, MeshConnector};
use outrigger_mesh::{Host, PortNumber, ServiceName, Version};

use crate::attempt::pool::{Limits, Pool};
use crate::belief::Belief;
use crate::config::registry::Registry;
use crate::gateway::Edge;
use crate::http::connections::Connections;
use crate::http::edges::Edges;
use crate::listen::intercepted::Outsiders;
use crate::live::{EndpointLive, Live, LiveService, OwnPorts};
use crate::quick::BuildQuick;
use crate::request::alarms::Alarms;

/// What all workers share.
pub struct Shared {
    /// The services that are known.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub live: Arc<Live>,
    /// The side of this workload in mutual TLS; `None` where everything is plaintext.
    pub tls: Option<MeshTls>,
    /// What the inbound side protects, in the order of its listeners; nothing for a client only.
    pub applications: Vec<Arc<Application>>,
    /// Where nothing is ever sent.
    pub own_ports: OwnPorts,
    /// How much of time and room a connection may take.
    pub edges: Edges,
    /// What is served at the edge of the mesh, in gateway mode.
    pub edge: Option<Arc<Edge>>,
}

/// Both directions of mutual TLS.
#[derive(Clone)]
pub struct MeshTls {
    /// Towards the application.
    pub acceptor: MeshAcceptor,
    /// Towards other sidecars.
    pub connector: MeshConnector,
}

/// A port of the application that this sidecar stands before.
#[derive(Debug)]
pub struct Application {
    /// The service it is an instance of.
    pub service: ServiceName,
    /// The service's port that it serves; the first when not said.
    pub service_port: Option<PortNumber>,
    /// Its version.
    pub version: Option<Version>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its load and failures.
    pub live: Arc<EndpointLive>,
}

/// One worker.
pub struct Worker {
    me: Weak<Self>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Connections to other sidecars and to plaintext endpoints.
    pub mesh: Pool,
    /// Connections to the application.
    pub application: Pool,
    /// Open connections from other sidecars.
    pub inbound: Connections,
    /// Open connections from the application.
    pub outbound: Connections,
    /// Addresses of which it is known that they are of no service.
    pub outsiders: Outsiders,
    /// Timers for the deadlines of requests.
    pub alarms: Alarms,
    names: RefCell<HashMap<Box<[u8]>, Named, BuildQuick>>,
    names_generation: Cell<u64>,
}

/// What a Host was found to mean.
#[derive(Clone, Debug)]
pub struct Named {
    /// The service.
    pub service: Arc<LiveService>,
    /// The port, where it was written.
    pub port: Option<PortNumber>,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new(shared: Arc<Shared>) -> Rc<Self> {
        let connector = shared.tls.as_ref().map(|tls| tls.connector.clone());
        let live = Arc::clone(&shared.live);
        let number = live.workers.fetch_add(1, Relaxed);
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            mesh: Pool::new(Arc::clone(&live), connector, Limits::MESH).of_worker(number),
            application: Pool::new(Arc::clone(&live), None, Limits::APPLICATION),
            inbound: Connections::new(shared.edges, &live),
            outbound: Connections::new(shared.edges, &live),
            outsiders: Outsiders::default(),
            alarms: Alarms::default(),
            names: RefCell::default(),
            names_generation: Cell::new(0),
            shared,
        })
    }

    /// Itself, for what goes on beside a request; `None` at its end.
    pub fn me(&self) -> Option<Rc<Self>> {
        self.me.upgrade()
    }

    /// What `host` meant before, if that still holds.
    pub fn remembered(&self, host: &[u8]) -> Option<Named> {
        let generation = self.shared.registry.names_generation();
        if self.names_generation.replace(generation) != generation {
            self.names.borrow_mut().clear();
            return None;
        }
        self.names.borrow().get(host).cloned()
    }

    /// Remembers what `host` means, until any name changes.
    pub fn remember(&self, text: &[u8], host: &Host, service: &Arc<LiveService>) {
        let mut names = self.names.borrow_mut();
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(text.into(), Named { service: Arc::clone(service), port: host.port });
    }

    /// Looks after idle connections, for as long as the worker lives.
    pub async fn housekeeping(self: Rc<Self>) {
        let mut every = tokio::time::interval(HOUSEKEEPING);
        let mut belief =
            self.shared.tls.as_ref().map(|tls| Belief::new(tls.acceptor.trust(), &self.shared.live));
        loop {
            match &mut belief {
                None => _ = every.tick().await,
                Some(belief) => tokio::select! {
                    _ = every.tick() => belief.judge(&self),
                    () = belief.revoked() => {
                        belief.judge(&self);
                        continue;
                    }
                },
            }
            self.mesh.sweep();
            self.application.sweep();
            self.inbound.sweep();
            self.outbound.sweep();
        }
    }
}

/// Spawns onto the worker's own runtime: what hyper wants to run beside a connection need not be `Send`.
#[derive(Clone, Copy, Debug)]
pub struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        // Owned by the runtime of the worker, and ended by the connection that asked for it.
        tokio::task::spawn_local(future);
    }
}

const MAX_NAMES: usize = 1_024;
const HOUSEKEEPING: Duration = Duration::from_secs(1);
