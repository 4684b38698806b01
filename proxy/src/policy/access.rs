//! Access policies at the sidecar of the service: the rules as last pushed, what is counted of them, and who asks.
//!
//! What comes of a request is decided in `mesh` (`AccessIndex`). Here is when: for each request after its one canonical
//! reading, for an opaque connection when it begins and again with each change of the rules.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use outrigger_mesh::{
    Access, AccessIndex, AskedBy, Because, Decision, Inbound, PortNumber, Reason, RequestHead, RuleName,
    ServiceName, SpiffeId,
};
use tokio::sync::watch;

use crate::error::Error;
use crate::live::Live;
use crate::policy::callers;
use crate::telemetry::access_log;
use crate::telemetry::observe::Note;
use crate::worker::Application;

/// The access policies of every service that this sidecar stands before.
#[derive(Debug)]
pub struct AccessTable {
    services: Mutex<HashMap<ServiceName, Arc<ServiceAccess>>>,
    /// Rules were pushed that this sidecar can not obey, and it has no older ones.
    unloaded: AtomicBool,
    /// A control plane tells the rules. While it has told none, or none any more, nobody is let in.
    expected: AtomicBool,
    /// Moves with each change of the rules.
    moved: watch::Sender<u64>,
}

impl Default for AccessTable {
    fn default() -> Self {
        let (unloaded, expected) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { services: Mutex::default(), unloaded, expected, moved: watch::Sender::new(0) }
    }
}

impl AccessTable {
    /// The policies of one. There are as many as this sidecar was told to stand before.
    pub fn of(&self, service: &ServiceName) -> Arc<ServiceAccess> {
        let mut all = lock(&self.services);
        let one = all.entry(service.clone()).or_insert_with(|| Arc::new(ServiceAccess::new(service.clone())));
        Arc::clone(one)
    }

    /// From here on rules are told by a control plane: none is not the same as no restriction.
    pub fn expect(&self) {
        self.expected.store(true, Relaxed);
    }

    /// The rules have changed, or are no more.
    pub fn pushed(&self) {
        self.unloaded.store(false, Relaxed);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Rules came that this sidecar can not obey. Where it has older ones those stay in force; else it refuses everybody
    /// until it has some.
    pub fn refused(&self) {
        self.unloaded.store(true, Relaxed);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Their metrics.
    pub fn write(&self, out: &mut String) {
        let all: Vec<Arc<ServiceAccess>> = lock(&self.services).values().map(Arc::clone).collect();
        let mut rows = vec![];
        for access in all {
            for (policy, counts) in lock(&access.counts).iter() {
                for (decision, count) in counts.told() {
                    rows.push((access.service.to_string(), Arc::clone(policy), decision, count));
                }
            }
        }
        rows.sort();
        let _never = writeln!(out, "# HELP {METRIC} What access policies said of requests and connections.");
        let _never = writeln!(out, "# TYPE {METRIC} counter");
        for (service, policy, decision, count) in rows {
            let labels = format!("service=\"{service}\",policy=\"{policy}\",decision=\"{decision}\"");
            let _never = writeln!(out, "{METRIC}{{{labels}}} {count}");
        }
    }
}

/// The access policies of one service.
#[derive(Debug)]
pub struct ServiceAccess {
    service: ServiceName,
    rules: ArcSwapOption<Rules>,
    /// By the name of the policy.
    counts: Mutex<HashMap<Arc<str>, Arc<Counts>>>,
    arranged: AtomicU64,
}

/// What was pushed, arranged.
#[derive(Debug)]
struct Rules {
    /// What it was made from.
    of: Arc<Inbound>,
    /// Tells it from those before and after.
    number: u64,
    index: AccessIndex,
    /// Of each policy, in the order of the index.
    counts: Vec<Arc<Counts>>,
    none: Arc<Counts>,
    default: Arc<Counts>,
    /// Whether the workload serves the service at all.
    serves: bool,
    /// The ports of the service; the first is meant where an application names none.
    ports: Vec<PortNumber>,
}

/// What a policy came to.
#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
    would_deny: AtomicU64,
}

impl Counts {
    fn told(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [("allowed", &self.allowed), ("denied", &self.denied), ("would_deny", &self.would_deny)];
        all.map(|(word, count)| (word, count.load(Relaxed))).into_iter().filter(|(_, count)| *count > 0)
    }
}

impl ServiceAccess {
    fn new(service: ServiceName) -> Self {
        let (rules, counts, arranged) = (ArcSwapOption::empty(), Mutex::default(), AtomicU64::new(0));
        Self { service, rules, counts, arranged }
    }

    /// Arranges what was pushed. A policy that keeps its name keeps its counts.
    fn arrange(&self, of: &Arc<Inbound>) -> Arc<Rules> {
        let mut counts = lock(&self.counts);
        let service = of.service(&self.service);
        let nothing = Access::default();
        let access = service.map_or(&nothing, |s| &s.access);
        let index = AccessIndex::new(access);
        let known: Vec<&str> = access.policies.iter().map(|p| p.name.as_str()).collect();
        counts.retain(|name, _| !name.contains('/') || known.contains(&&**name));
        let mut of_name = |name: &str| {
            // Beyond a number nobody reads they are counted together.
            let full = counts.len() >= MOST_COUNTED && !counts.contains_key(name);
            Arc::clone(counts.entry(if full { "other" } else { name }.into()).or_default())
        };
        let (none, default) = (of_name("none"), of_name("default"));
        let rules = Arc::new(Rules {
            counts: known.into_iter().map(&mut of_name).collect(),
            none,
            default,
            index,
            ports: service.into_iter().flat_map(|s| &s.ports).map(|(port, _)| *port).collect(),
            serves: service.is_some(),
            number: self.arranged.fetch_add(1, Relaxed) + 1,
            of: Arc::clone(of),
        });
        self.rules.store(Some(Arc::clone(&rules)));
        rules
    }
}

/// Who asks, for as long as its connection lives.
#[derive(Debug)]
pub struct Asks {
    access: Arc<ServiceAccess>,
    caller: Option<SpiffeId>,
    port: Option<PortNumber>,
    /// Which rules it can meet, and by which of those pushed.
    settled: Cell<Option<(u64, AskedBy)>>,
}

impl Asks {
    /// Somebody who proved to be `caller`, or proved nothing, and asks for `application`.
    pub fn new(table: &AccessTable, application: &Application, caller: Option<&SpiffeId>) -> Self {
        let (access, port) = (table.of(&application.service), application.service_port);
        Self { access, caller: caller.cloned(), port, settled: Cell::new(None) }
    }

    /// Who asks, where somebody proved that.
    pub fn caller(&self) -> Option<&SpiffeId> {
        self.caller.as_ref()
    }

    /// Lets a request pass, or does not. Its head is the canonical one.
    pub fn check(
        &self,
        live: &Live,
        inbound: Option<&Arc<Inbound>>,
        head: RequestHead<'_>,
        note: Option<&Note>,
    ) -> Result<(), Error> {
        let to = Told { live, head: Some(&head), note };
        self.with_rules(&live.access, inbound, |rules| {
            if rules.index.is_open() {
                note.inspect(|note| note.decided(&OPEN));
                return Ok(());
            }
            let by = self.by(rules);
            for name in rules.index.audited(&by, &head) {
                self.on_trial(rules, name, "a request would be denied", to);
            }
            self.conclude(rules, &rules.index.decide(&by, &head), to)
        })
    }

    /// Lets an opaque connection begin, or does not.
    pub fn check_connection(
        &self,
        live: &Live,
        inbound: Option<&Arc<Inbound>>,
        note: Option<&Note>,
    ) -> Result<(), Error> {
        let to = Told { live, head: None, note };
        self.with_rules(&live.access, inbound, |rules| {
            if rules.index.is_open() {
                note.inspect(|note| note.decided(&OPEN));
                return Ok(());
            }
            let by = self.by(rules);
            for name in rules.index.audited_connection(&by) {
                self.on_trial(rules, name, "a connection would be denied", to);
            }
            self.conclude(rules, &rules.index.decide_connection(&by), to)
        })
    }

    /// Waits until a change of the rules denies an opaque connection that has begun.
    pub async fn denied_later(
        &self,
        live: &Live,
        inbound: impl Fn() -> Option<Arc<Inbound>>,
        note: Option<&Note>,
    ) -> Error {
        let to = Told { live, head: None, note };
        let mut moved = live.access.moved.subscribe();
        loop {
            // What was pushed between the first look and this one counts, too.
            let inbound = inbound();
            let denied = self.with_rules(&live.access, inbound.as_ref(), |rules| {
                let decision = rules.index.decide_connection(&self.by(rules));
                if decision.allowed { Ok(()) } else { self.conclude(rules, &decision, to) }
            });
            if let Err(error) = denied {
                return error;
            }
            if moved.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn with_rules<T>(
        &self,
        table: &AccessTable,
        inbound: Option<&Arc<Inbound>>,
        decide: impl FnOnce(&Rules) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        T: Default,
    {
        let Some(inbound) = inbound else {
            if table.unloaded.load(Relaxed) {
                let why = "the access policies of the service can not be obeyed by this sidecar";
                return Err(Error::downstream(Reason::AuthzDenied, why));
            }
            if table.expected.load(Relaxed) {
                return Err(self.serves_nothing());
            }
            return Ok(T::default());
        };
        let rules = self.access.rules.load();
        let decide = |rules: &Rules| if rules.serves { decide(rules) } else { Err(self.serves_nothing()) };
        match &*rules {
            Some(rules) if Arc::ptr_eq(&rules.of, inbound) => decide(rules),
            _ => decide(&self.access.arrange(inbound)),
        }
    }

    /// Nothing is known of what protects the service: it was not told yet, or this workload serves it no longer. Another
    /// instance may do it.
    fn serves_nothing(&self) -> Error {
        let why = format!("this workload has no rules of {}: it does not serve it", self.access.service);
        Error::refused(Reason::DiscoveryUnavailable, why)
    }

    /// The rules it can meet, found again only when they have changed.
    fn by(&self, rules: &Rules) -> AskedBy {
        if let Some((number, by)) = self.settled.get()
            && number == rules.number
        {
            return by;
        }
        let port = self.port.or_else(|| rules.ports.first().copied()).unwrap_or(PortNumber::HTTP);
        let by = rules.index.asked_by(self.caller.as_ref(), port);
        self.settled.set(Some((rules.number, by)));
        by
    }

    /// A rule would refuse it if it were not on trial.
    fn on_trial(&self, rules: &Rules, name: &RuleName, what: &str, to: Told<'_>) {
        if let Some(counts) = rules.counts.get(name.number) {
            counts.would_deny.fetch_add(1, Relaxed);
        }
        to.note.inspect(|note| note.audited(name));
        self.tell(what, &format_args!("denied by {name}"), to);
    }

    fn conclude(&self, rules: &Rules, decision: &Decision<'_>, to: Told<'_>) -> Result<(), Error> {
        to.note.inspect(|note| note.decided(decision));
        let counts = match decision.because {
            Because::Rule(name) => rules.counts.get(name.number).unwrap_or(&rules.default),
            Because::NoneAllows => &rules.none,
            Because::Default => &rules.default,
        };
        if decision.allowed {
            counts.allowed.fetch_add(1, Relaxed);
            return Ok(());
        }
        counts.denied.fetch_add(1, Relaxed);
        self.tell("denied", decision, to);
        Err(Error::downstream(Reason::AuthzDenied, decision.to_string()))
    }

    /// One line of the log of the process, where no access log has it and there are not too many.
    fn tell(&self, what: &str, decision: &dyn std::fmt::Display, Told { live, head, .. }: Told<'_>) {
        if !live.access_log.is_elsewhere() || !access_log::within_bound() {
            return;
        }
        let (service, caller) = (&self.access.service, callers::name(self.caller.as_ref()));
        let (method, path) = (head.map(|h| h.method.as_str()), head.map(|h| h.path));
        tracing::warn!(%service, caller, method, path, %decision, "access policy: {what}");
    }
}

/// Of what a decision is told, and where.
#[derive(Clone, Copy)]
struct Told<'a> {
    live: &'a Live,
    head: Option<&'a RequestHead<'a>>,
    note: Option<&'a Note>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const METRIC: &str = "outrigger_access_decisions_total";
/// How many policies of a service are counted each by itself.
const MOST_COUNTED: usize = 256;
/// What comes of a request where there are no rules.
const OPEN: Decision<'static> = Decision { allowed: true, because: Because::Default };
