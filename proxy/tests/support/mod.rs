//! Sidecars inside the test: the data path over a registry that the test fills itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests; each test uses some"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_certs::{
    Authority, LeafLifetime, MeshAcceptor, MeshAlpn, MeshConnector, WorkloadIdentity, WorkloadKey,
};
use outrigger_mesh::{
    Endpoint, Host, PortNumber, Protection, Resource, Service, ServiceName, SpiffeId, Transport, TrustDomain,
};
use outrigger_proxy::config::registry::{Change, Discovery, Registry};
use outrigger_proxy::data_path::{DataPath, Idle, Listening, Ports};
use outrigger_proxy::drain::Phase;
use outrigger_proxy::http::edges::Edges;
use outrigger_proxy::live::{EndpointLive, Live, OwnPorts};
use outrigger_proxy::worker::{Application, MeshTls, Shared};
use outrigger_testkit::resources;
use tokio::sync::watch;

/// Whoever signs the certificates of a mesh.
pub struct Mesh(Authority);

impl Mesh {
    /// A mesh of its own: no other believes it.
    pub fn new() -> Self {
        Self::of_domain(&resources::TRUST_DOMAIN.parse().unwrap())
    }

    /// A mesh of another trust domain.
    pub fn of_domain(domain: &TrustDomain) -> Self {
        Self(Authority::create(domain, SystemTime::now()).unwrap().0)
    }

    /// The sidecar of the client `id`, with ports of its own for `upstreams`.
    pub fn client_of(&self, id: &SpiffeId, upstreams: &[&str]) -> Sidecar {
        self.start(id, &[], upstreams, 1)
    }

    /// The certificate of `id`.
    pub fn identity(&self, id: &SpiffeId) -> Arc<WorkloadIdentity> {
        let key = WorkloadKey::generate().unwrap();
        let leaf = self.0.sign(&key.csr().unwrap(), id, LeafLifetime::default(), SystemTime::now()).unwrap();
        Arc::new(WorkloadIdentity::from_parts(&key, &leaf.chain, &self.0.trust()).unwrap())
    }

    /// Whom it believes.
    pub fn trust(&self) -> outrigger_mesh::Trust {
        self.0.trust()
    }

    /// A chain for `key` of whoever is to be `id`.
    pub fn sign(&self, key: &WorkloadKey, id: &SpiffeId, life: LeafLifetime) -> Vec<Vec<u8>> {
        self.0.sign(&key.csr().unwrap(), id, life, SystemTime::now()).unwrap().chain
    }

    /// A client's sidecar, with one worker.
    pub fn client(&self) -> Sidecar {
        self.start(&resources::identity("shop", "web"), &[], &[], 1)
    }

    /// A client's sidecar with ports of its own for `upstreams`.
    pub fn client_with(&self, upstreams: &[&str], workers: usize) -> Sidecar {
        self.start(&resources::identity("shop", "web"), &[], upstreams, workers)
    }

    /// The sidecar of an instance of `service` before the application at `application`.
    pub fn server(&self, service: &str, application: SocketAddr) -> Sidecar {
        self.server_within(Edges::default(), service, application)
    }

    /// The same, which holds its callers to `edges`.
    pub fn server_within(&self, edges: Edges, service: &str, application: SocketAddr) -> Sidecar {
        let name: ServiceName = service.parse().unwrap();
        let id = resources::identity(name.namespace().as_str(), name.name().as_str());
        let sidecar = self.start_within(edges, &id, &[(name, None, application)], &[], 1);
        sidecar.set(Resource::Inbound(resources::inbound(&id, &[&resources::service(service)])));
        sidecar
    }

    /// A client's sidecar of another service account than the usual one.
    pub fn client_as(&self, account: &str) -> Sidecar {
        self.start(&resources::identity("shop", account), &[], &[], 1)
    }

    /// The sidecar of an instance of `service` with so many workers, protected as said.
    pub fn protected(
        &self,
        service: &str,
        application: SocketAddr,
        workers: usize,
        protection: Protection,
    ) -> Sidecar {
        let name: ServiceName = service.parse().unwrap();
        let id = resources::identity(name.namespace().as_str(), name.name().as_str());
        let sidecar = self.start(&id, &[(name, None, application)], &[], workers);
        sidecar.protect(service, protection);
        sidecar
    }

    /// The sidecar of an instance of `service`, whose ports are served by `applications` in this order.
    pub fn server_of(&self, service: &Service, applications: &[SocketAddr]) -> Sidecar {
        let name = &service.name;
        let id = resources::identity(name.namespace().as_str(), name.name().as_str());
        let ports = service.ports.iter().zip(applications);
        let all: Vec<_> = ports.map(|(port, at)| (name.clone(), Some(port.number), *at)).collect();
        let sidecar = self.start(&id, &all, &[], 1);
        sidecar.set(Resource::Inbound(resources::inbound(&id, &[service])));
        sidecar
    }

    /// A client's sidecar, with one worker, that holds its callers to `edges`.
    pub fn client_within(&self, edges: Edges) -> Sidecar {
        self.start_within(edges, &resources::identity("shop", "web"), &[], &[], 1)
    }

    fn start(
        &self,
        id: &SpiffeId,
        applications: &[(ServiceName, Option<PortNumber>, SocketAddr)],
        upstreams: &[&str],
        workers: usize,
    ) -> Sidecar {
        self.start_within(Edges::default(), id, applications, upstreams, workers)
    }

    /// A client's sidecar that runs in `zone`.
    pub fn client_in(&self, zone: &str) -> Sidecar {
        let live = Live::default();
        live.set_zone(zone.into());
        self.start_with(live, Edges::default(), &resources::identity("shop", "web"), &[], &[], 1)
    }

    /// A client's sidecar beside an instance with these labels.
    pub fn client_labelled(&self, labels: &[(&str, &str)]) -> Sidecar {
        let live = Live::default();
        live.set_labels(labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        self.start_with(live, Edges::default(), &resources::identity("shop", "web"), &[], &[], 1)
    }

    fn start_within(
        &self,
        edges: Edges,
        id: &SpiffeId,
        applications: &[(ServiceName, Option<PortNumber>, SocketAddr)],
        upstreams: &[&str],
        workers: usize,
    ) -> Sidecar {
        self.start_with(Live::default(), edges, id, applications, upstreams, workers)
    }

    fn start_with(
        &self,
        live: Live,
        edges: Edges,
        id: &SpiffeId,
        applications: &[(ServiceName, Option<PortNumber>, SocketAddr)],
        upstreams: &[&str],
        workers: usize,
    ) -> Sidecar {
        let live = Arc::new(live);
        live.set_identity(id.clone());
        let registry = Arc::new(Registry::new(id.namespace().clone(), Arc::clone(&live)));
        registry.set_discovery(Discovery::Complete);
        let identity = self.identity(id);
        let tls = MeshTls {
            acceptor: MeshAcceptor::new(&identity, &MeshAlpn::ALL).unwrap(),
            connector: MeshConnector::new(&identity).unwrap(),
        };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let ports = Ports {
            outbound: any,
            inbound: applications.first().map(|_| any),
            mapped: applications.iter().skip(1).map(|_| any).collect(),
            upstreams: upstreams.iter().map(|u| (u.parse::<Host>().unwrap(), 0)).collect(),
            transparent: outrigger_proxy::settings::Transparent::Off,
        };
        let listening = Listening::bind(&ports, workers).unwrap();
        let before = |(service, service_port, address): &(ServiceName, Option<PortNumber>, SocketAddr)| {
            let traffic = live.client_traffic(service, None);
            Application {
                service: service.clone(),
                service_port: *service_port,
                version: None,
                address: *address,
                live: Arc::new(EndpointLive::new("app".parse().unwrap(), traffic)),
            }
        };
        let applications = applications.iter().map(before).map(Arc::new).collect();
        let shared = Arc::new(Shared {
            registry: Arc::clone(&registry),
            live: Arc::clone(&live),
            tls: Some(tls),
            applications,
            own_ports: OwnPorts(listening.own_ports()),
            edges,
            edge: None,
        });
        let (outbound, inbound) = (listening.outbound, listening.inbound);
        let upstreams = listening.upstreams.iter().map(|(_, a)| *a).collect();
        let mapped = listening.mapped.clone();
        let (phase, phases) = watch::channel(Phase::Serving);
        let data_path = listening.start(&shared, &phases).unwrap();
        Sidecar {
            outbound,
            inbound,
            upstreams,
            mapped,
            registry,
            live,
            identity,
            phase,
            idle: data_path.idle(),
            _data_path: data_path,
        }
    }
}

/// A running sidecar. Dropped, its workers end.
pub struct Sidecar {
    pub outbound: SocketAddr,
    pub inbound: Option<SocketAddr>,
    pub upstreams: Vec<SocketAddr>,
    pub mapped: Vec<SocketAddr>,
    pub registry: Arc<Registry>,
    pub live: Arc<Live>,
    pub identity: Arc<WorkloadIdentity>,
    pub phase: watch::Sender<Phase>,
    pub idle: Idle,
    _data_path: DataPath,
}

impl Sidecar {
    /// Puts a resource in force.
    pub fn set(&self, resource: Resource) {
        self.registry.apply(Change::Set(resource)).unwrap();
    }

    /// Puts the protection of the service that it stands before in force.
    pub fn protect(&self, service: &str, protection: Protection) {
        let name: ServiceName = service.parse().unwrap();
        let id = resources::identity(name.namespace().as_str(), name.name().as_str());
        let mut inbound = resources::inbound(&id, &[&resources::service(service)]);
        inbound.services[0].protection = protection;
        self.set(Resource::Inbound(inbound));
    }

    /// Puts a service and its endpoints in force.
    pub fn knows(&self, service: Service, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.set(Resource::Service(service));
        for endpoint in endpoints {
            self.set(Resource::Endpoint(endpoint));
        }
    }

    /// The endpoint that this sidecar's inbound port is.
    pub fn endpoint(&self, service: &str, uid: &str) -> Endpoint {
        resources::endpoint(service, uid, self.inbound.unwrap())
    }
}

/// The service, reachable without sidecars.
pub fn open_service(name: &str) -> Service {
    Service { mtls: outrigger_mesh::MtlsMode::Permissive.into(), ..resources::service(name) }
}

/// An endpoint without a sidecar.
pub fn plain(service: &str, uid: &str, at: SocketAddr) -> Endpoint {
    Endpoint { transport: Transport::Plaintext, ..resources::endpoint(service, uid, at) }
}
