//! Follows the pushed Gateway: makes the table that requests read, opens the ports that are new and closes those that are
//! gone.
//!
//! One task for the process binds, once for each worker, and hands the sockets over: so a port is either open at every
//! worker or at none, and what keeps it from being opened is known in one place.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::PublicCertificates;
use outrigger_mesh::{Fallback, Gateway, Label, PortNumber};
use tokio::sync::mpsc;

use crate::admin::{Condition, Readiness};
use crate::config::registry::{Found, Registry};
use crate::config::snapshot::ServiceSnapshot;
use crate::gateway::Edge;
use crate::gateway::table::Table;
use crate::listen::bind;
use crate::live::{Live, LiveService};

/// What a worker is told.
#[derive(Debug)]
pub enum PortChange {
    /// Accept here.
    Open(PortNumber, TcpListener),
    /// No longer; what is open is finished.
    Close(PortNumber),
}

/// What was known of each service that the routes name.
type Snapshots = Vec<Option<Arc<ServiceSnapshot>>>;

/// The task that follows the Gateway.
pub struct Follower {
    edge: Arc<Edge>,
    registry: Arc<Registry>,
    live: Arc<Live>,
    readiness: Readiness,
    workers: Vec<mpsc::Sender<PortChange>>,
    certificates: Option<PublicCertificates>,
    open: BTreeMap<PortNumber, Result<SocketAddr, String>>,
    /// What the present table was made from.
    made_from: Option<(Arc<Gateway>, Snapshots)>,
    told: Vec<String>,
}

impl Follower {
    /// Follows what is pushed into `registry` and tells `workers`, and `readiness` whether a port is open.
    pub fn new(
        edge: Arc<Edge>,
        registry: Arc<Registry>,
        live: Arc<Live>,
        readiness: Readiness,
        workers: Vec<mpsc::Sender<PortChange>>,
    ) -> Self {
        readiness.not_yet(Condition::Listeners, NO_GATEWAY);
        let certificates = edge.settings.certificates.as_deref().map(Path::new).map(PublicCertificates::new);
        Self {
            edge,
            registry,
            live,
            readiness,
            workers,
            certificates,
            open: BTreeMap::new(),
            made_from: None,
            told: Vec::new(),
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut changed = self.registry.changed();
        // Certificates are files: nobody tells when they change.
        let mut look = tokio::time::interval(LOOK_AT_FILES);
        loop {
            let files = tokio::select! {
                moved = changed.changed() => match moved {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = look.tick() => true,
            };
            // A push changes many things at once; they make one table.
            tokio::time::sleep(SETTLE).await;
            // Before it is looked: what comes while the table is made makes another one.
            let change = *changed.borrow_and_update();
            self.follow(files).await;
            self.registry.obeyed.is(change);
        }
    }

    async fn follow(&mut self, files: bool) {
        let Some(gateway) = self.registry.gateway() else {
            self.close_all_but(&Table::default()).await;
            self.readiness.not_yet(Condition::Listeners, NO_GATEWAY);
            self.made_from = None;
            return;
        };
        let services = self.services(&gateway);
        let snapshots: Vec<_> = services.iter().map(|s| s.snapshot.load_full()).collect();
        if !files && self.is_made_from(&gateway, &snapshots) {
            return;
        }
        let certificates = &mut self.certificates;
        let certificate = |name: &Label| match certificates {
            Some(certificates) => certificates.get(name),
            None => Err(format!("the certificate {name}: no folder was given (--gateway-certificates)")),
        };
        let resolve = |name: &outrigger_mesh::ServiceName| {
            let found = services.iter().find(|s| s.name == *name).map(Arc::clone);
            found.unwrap_or_else(|| unknown(&self.live, name))
        };
        let (table, faults) = Table::new(&gateway, certificate, resolve, &self.live.filters.limits);
        for (name, bulkhead) in table.bulkheads() {
            self.live.bulkheads.show("route", name.to_string(), bulkhead);
        }
        self.close_all_but(&table).await;
        // A port that opens finds what is served there.
        self.edge.table.store(Arc::new(table.clone().opened(self.open.clone())));
        self.open_all(&table).await;
        self.edge.table.store(Arc::new(table.opened(self.open.clone())));
        self.tell_readiness();
        self.tell(faults);
        self.made_from = Some((gateway, snapshots));
    }

    /// The services that the routes name. Asking for them makes them known, if they are.
    fn services(&self, gateway: &Gateway) -> Vec<Arc<LiveService>> {
        let routes = || gateway.listeners.iter().flat_map(|l| &l.routes);
        let backends = routes().flat_map(|r| &r.route.backends).filter(|b| b.unresolved.is_none());
        let backends = backends.map(|backend| &backend.service);
        let mirrors = routes().flat_map(|r| &r.route.filters.mirrors).map(|mirror| &mirror.service);
        let stand_ins = routes().filter_map(|r| match &r.route.policy.breaker.as_ref()?.fallback {
            Some(Fallback::Service(name)) => Some(name),
            _ => None,
        });
        let mut names: Vec<_> = backends.chain(mirrors).chain(stand_ins).cloned().collect();
        names.sort();
        names.dedup();
        let known = |name| match self.registry.find_service(name) {
            Found::Known(service) => service,
            Found::Unknown | Found::Asked => {
                self.registry.live_service(name).unwrap_or_else(|| unknown(&self.live, name))
            }
        };
        names.iter().map(known).collect()
    }

    fn is_made_from(&self, gateway: &Arc<Gateway>, snapshots: &[Option<Arc<ServiceSnapshot>>]) -> bool {
        let Some((old, of)) = &self.made_from else { return false };
        let same = |(a, b): (&Option<Arc<ServiceSnapshot>>, &Option<Arc<ServiceSnapshot>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(old, gateway) && of.len() == snapshots.len() && of.iter().zip(snapshots).all(same)
    }

    async fn open_all(&mut self, table: &Table) {
        for number in table.numbers() {
            if matches!(self.open.get(&number), Some(Ok(_))) {
                continue;
            }
            let address = self.edge.settings.address(number);
            let bound = match bind::bind(address, self.workers.len()) {
                Ok(bound) => bound,
                Err(e) => {
                    self.open
                        .insert(number, Err(format!("port {number} can not be opened at {address}: {e}")));
                    continue;
                }
            };
            for (worker, listener) in self.workers.iter().zip(bound.listeners) {
                // A worker that is gone is at its end, as is everything else then.
                let _gone = worker.send(PortChange::Open(number, listener)).await;
            }
            tracing::info!(port = number.get(), address = %bound.address, "the gateway listens");
            self.open.insert(number, Ok(bound.address));
        }
    }

    async fn close_all_but(&mut self, table: &Table) {
        let gone: Vec<_> = self.open.keys().filter(|n| table.port(**n).is_none()).copied().collect();
        for number in gone {
            if let btree_map::Entry::Occupied(open) = self.open.entry(number)
                && open.remove().is_ok()
            {
                for worker in &self.workers {
                    let _gone = worker.send(PortChange::Close(number)).await;
                }
                tracing::info!(port = number.get(), "the gateway no longer listens");
            }
        }
        if table.numbers().next().is_none() {
            self.edge.table.store(Arc::default());
        }
    }

    /// One port that is open makes it worth sending somebody here.
    fn tell_readiness(&self) {
        let mut why = None;
        for open in self.open.values() {
            match open {
                Ok(_) => return self.readiness.met(Condition::Listeners),
                Err(error) => why = why.or(Some(error)),
            }
        }
        let why = why.map_or("the Gateway has no port that can be opened", String::as_str);
        self.readiness.not_yet(Condition::Listeners, why);
    }

    /// Each fault is told once, for as long as it lasts.
    fn tell(&mut self, mut faults: Vec<String>) {
        faults.extend(self.open.values().filter_map(|open| open.as_ref().err().cloned()));
        for fault in faults.iter().filter(|f| !self.told.contains(f)) {
            tracing::warn!(fault, "part of the gateway is not served");
        }
        self.told = faults;
    }
}

/// A service that nothing is known of: its requests are refused with that reason.
fn unknown(live: &Live, name: &outrigger_mesh::ServiceName) -> Arc<LiveService> {
    Arc::new(LiveService::new(name.clone(), live.client_traffic(name, None)))
}

const NO_GATEWAY: &str = "no Gateway of this name is known yet";
const LOOK_AT_FILES: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(5);
