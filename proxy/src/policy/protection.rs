//! What protects the instance of a service, as it was last pushed, with the state that outlives the push.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use outrigger_mesh::{Bulkhead as Settings, Inbound, Reason, RequestHead, ServiceName, SpiffeId};
use tokio::time::Instant;

use crate::error::Error;
use crate::policy::callers::{self, Callers};
use crate::policy::rate_limit::{self, Asking, Buckets, Key, Limit, Nanos};
use crate::request::bulkhead::Bulkhead;
use crate::request::places::{Places, Table, Which, refused};

/// The protection of every service that this sidecar stands before.
#[derive(Debug, Default)]
pub struct Protections(Mutex<HashMap<ServiceName, Arc<Protection>>>);

impl Protections {
    /// The protection of one. There are as many as this sidecar was told to stand before.
    pub fn of(&self, service: &ServiceName) -> Arc<Protection> {
        let mut all = self.all();
        let one = all.entry(service.clone()).or_insert_with(|| Arc::new(Protection::new(service.clone())));
        Arc::clone(one)
    }

    /// Their metrics.
    pub fn write(&self, out: &mut String) {
        let all: Vec<Arc<Protection>> = self.all().values().map(Arc::clone).collect();
        let mut rows = Vec::new();
        for protection in &all {
            let Some(rules) = protection.rules.load_full() else { continue };
            for limit in &rules.limits {
                let names = (protection.service.to_string(), limit.name().to_string());
                rows.push((names, Arc::clone(limit.buckets())));
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rate_limit::write(rows.iter().map(|((s, l), buckets)| (s.as_str(), l.as_str(), &**buckets)), out);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServiceName, Arc<Protection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The protection of one service's instance.
#[derive(Debug)]
pub struct Protection {
    service: ServiceName,
    rules: ArcSwapOption<Rules>,
    callers: Callers,
    buckets: Mutex<HashMap<Arc<str>, Arc<Buckets>>>,
}

/// What was pushed, arranged.
#[derive(Debug)]
struct Rules {
    /// What it was made from.
    of: Arc<Inbound>,
    caller: Option<Settings>,
    limits: Vec<Limit>,
}

impl Protection {
    fn new(service: ServiceName) -> Self {
        let (rules, callers, buckets) = (ArcSwapOption::empty(), Callers::default(), Mutex::default());
        Self { service, rules, callers, buckets }
    }

    /// Lets a request of `who` in, or does not: first by how often it asks, then by how much it has under way. The
    /// places go with the answer.
    pub async fn admit(
        &self,
        inbound: Option<Arc<Inbound>>,
        who: &Requester,
        head: RequestHead<'_>,
        deadline: Option<Instant>,
        stream: bool,
        table: &Table,
    ) -> Result<Places, Error> {
        let settings = inbound.map(|inbound| self.check(inbound, who, head)).transpose()?.flatten();
        let Some(settings) = settings else { return Ok(Places::default()) };
        let bulkhead = who
            .bulkhead
            .get_or_init(|| self.callers.bulkhead(&self.service, who.id.as_ref(), settings, table));
        if !bulkhead.is_configured(&settings) {
            bulkhead.configure(settings, bulkhead.gauges().max_streams);
        }
        let entered = if stream { bulkhead.enter_stream() } else { bulkhead.enter(deadline).await };
        let name = || callers::name(who.id.as_ref());
        entered
            .map(Places::of_caller)
            .map_err(|full| refused(&Which::Caller(&name()), full, Reason::Deadline))
    }

    /// Counts a request under the limits; the settings of its caller's bulkhead, if callers have one.
    fn check(
        &self,
        inbound: Arc<Inbound>,
        who: &Requester,
        head: RequestHead<'_>,
    ) -> Result<Option<Settings>, Error> {
        let rules = self.rules.load();
        let arranged;
        let rules = match &*rules {
            Some(rules) if Arc::ptr_eq(&rules.of, &inbound) => rules,
            _ => {
                arranged = self.arrange(inbound);
                &arranged
            }
        };
        if !rules.limits.is_empty() {
            let now = Nanos::at(std::time::Instant::now());
            rate_limit::check(&rules.limits, &Asking { head, caller: who.key, now })?;
        }
        Ok(rules.caller)
    }

    /// Arranges what was pushed. A limit that keeps its name keeps its buckets.
    fn arrange(&self, of: Arc<Inbound>) -> Arc<Rules> {
        let protection = of.service(&self.service).map(|s| s.protection.clone()).unwrap_or_default();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|name, _| protection.rate_limits.iter().any(|rule| rule.name == *name));
        let now = Nanos::at(std::time::Instant::now());
        let limits = protection.rate_limits.into_iter().map(|rule| {
            let own = buckets.entry(Arc::clone(&rule.name)).or_default();
            Limit::new(rule, Arc::clone(own), now)
        });
        let rules = Arc::new(Rules { caller: protection.caller, limits: limits.collect(), of });
        self.rules.store(Some(Arc::clone(&rules)));
        rules
    }
}

/// Requester asks, for as long as its connection lives.
#[derive(Debug)]
pub struct Requester {
    id: Option<SpiffeId>,
    key: Key,
    bulkhead: std::cell::OnceCell<Arc<Bulkhead>>,
}

impl Requester {
    /// A caller that proved to be `id`, or proved nothing.
    pub fn new(id: Option<SpiffeId>) -> Self {
        let key = Key::of(callers::name(id.as_ref()).as_bytes());
        Self { id, key, bulkhead: std::cell::OnceCell::new() }
    }

    /// Who it proved to be, if it did.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.id.as_ref()
    }
}
