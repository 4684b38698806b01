//! The breakers over a whole service, over a subset of it, and over a route: for a total outage. By default they observe
//! only. What a policy says of one can be overridden by an operator for a while; what is answered while one is open, too.
//!
//! The machine is `crate::breaker`; here is what makes it a service's: modes, overrides, fallbacks, and which breakers there
//! are. There are as many as the service has routes with a breaker and versions that routes or overrides name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use outrigger_mesh::{
    BreakerMode, BreakerOverride, Fallback, Reason, Route, RouteName, Service, ServiceBreaker, ServiceName,
    Version,
};
use serde_json::{Value, json};

use crate::attempt::endpoint_breaker::{dump, of_error};
use crate::breaker::{Breaker, Group, Outcome, Pass, Settings};
use crate::error::Error;
use crate::live::{LiveService, Millis};

/// All breakers of one service.
#[derive(Debug)]
pub struct ServiceBreakers {
    whole: Arc<Switch>,
    /// Whether there are others; most services have none.
    has_others: AtomicBool,
    others: ArcSwap<Others>,
    /// Those of routes at a gateway, which their plans keep.
    at_edge: Mutex<HashMap<RouteName, Weak<Switch>>>,
}

#[derive(Debug, Default)]
struct Others {
    routes: HashMap<RouteName, Arc<Switch>>,
    versions: HashMap<Version, Arc<Switch>>,
}

/// A breaker that somebody can switch.
#[derive(Debug)]
pub struct Switch {
    breaker: Arc<Breaker>,
    /// The mode that the policy says.
    mode: AtomicU8,
    /// The mode that an operator said, plus one; 0 for none.
    said: AtomicU8,
    /// Until when that holds, in milliseconds since 1970.
    until: AtomicU64,
    /// The mode that it acted by last.
    acts: AtomicU8,
    answers: ArcSwap<Answers>,
    /// How often something else was answered in its place.
    fallbacks: AtomicU64,
}

/// What is answered while it is open.
#[derive(Debug, Default)]
struct Answers {
    fallback: Option<Fallback>,
    /// The service that the fallback names.
    elsewhere: Option<Arc<LiveService>>,
}

/// What a request was let through under.
#[derive(Debug, Default)]
pub struct Passes {
    whole: Pass,
    route: Option<Watched>,
}

/// A request under one breaker, for as long as what comes of it is not known.
#[derive(Debug)]
pub struct Watched {
    switch: Arc<Switch>,
    pass: Pass,
}

impl Watched {
    /// Whether it is a probe.
    pub fn is_probe(&self) -> bool {
        self.pass.is_probe()
    }

    /// Notes what came of it.
    pub fn note(&mut self, outcome: Outcome) {
        self.switch.breaker.note(&mut self.pass, outcome, Millis::now(), fastrand::u64(..));
    }
}

/// A request that is not let through.
#[derive(Debug)]
pub struct Shut {
    switch: Arc<Switch>,
    wait: Duration,
    what: String,
}

impl Shut {
    /// What to answer in its place, and the service that is meant.
    pub fn fallback(&self) -> Option<(Fallback, Option<Arc<LiveService>>)> {
        let answers = self.switch.answers.load();
        Some((answers.fallback.clone()?, answers.elsewhere.clone()))
    }

    /// Counts that the fallback was taken.
    pub fn took_fallback(&self) {
        self.switch.fallbacks.fetch_add(1, Relaxed);
    }

    /// As a refusal.
    pub fn refuse(self) -> Error {
        let why = match self.switch.mode() {
            BreakerMode::ForceOpen => {
                format!("the breaker of {} was opened by an operator or its policy", self.what)
            }
            _ => format!("the breaker of {} is open", self.what),
        };
        let mut error = Error::refused(Reason::BreakerOpen, why);
        error.told_mut().retry_after = Some(self.wait.max(Duration::from_millis(1)));
        error
    }
}

impl Default for ServiceBreakers {
    fn default() -> Self {
        let whole = Arc::new(Switch::new(&ServiceBreaker::default()));
        let (has_others, others, at_edge) = Default::default();
        Self { whole, has_others, others, at_edge }
    }
}

impl ServiceBreakers {
    /// Puts what `service` says in force; what was learnt stays. `resolve` gives the state of other services.
    pub fn configure(&self, service: &Service, mut resolve: impl FnMut(&ServiceName) -> Arc<LiveService>) {
        let policy = &service.policy.service_breaker;
        let said = |route: Option<&RouteName>, version: Option<&Version>| {
            service
                .overrides
                .iter()
                .find(|o| o.route.as_ref() == route && (route.is_some() || o.version.as_ref() == version))
        };
        self.whole.configure(policy, said(None, None), &mut resolve);
        let old = self.others.load();
        let mut others = Others::default();
        for route in &service.routes {
            let said = said(Some(&route.name), None);
            if route.policy.breaker.is_none() && said.is_none() {
                continue;
            }
            let kept = old.routes.get(&route.name).cloned();
            let policy = route.policy.breaker.as_ref().unwrap_or(policy);
            let switch = kept.unwrap_or_else(|| Arc::new(Switch::new(policy)));
            switch.configure(policy, said, &mut resolve);
            others.routes.insert(route.name.clone(), switch);
        }
        let of_routes = service.routes.iter().flat_map(|r| &r.backends);
        let of_routes = of_routes.filter(|b| b.service == service.name).filter_map(|b| b.version.as_ref());
        let of_overrides = service.overrides.iter().filter(|o| o.route.is_none());
        let of_division = service.division.iter().flat_map(|d| [&d.stable, &d.candidate]);
        let of_overrides = of_overrides.filter_map(|o| o.version.as_ref());
        for version in of_routes.chain(of_division).chain(of_overrides) {
            if others.versions.contains_key(version) || others.versions.len() >= MOST_VERSIONS {
                continue;
            }
            let kept = old.versions.get(version).cloned();
            let switch = kept.unwrap_or_else(|| Arc::new(Switch::new(policy)));
            switch.configure(policy, said(None, Some(version)), &mut resolve);
            others.versions.insert(version.clone(), switch);
        }
        self.has_others.store(!others.routes.is_empty() || !others.versions.is_empty(), Relaxed);
        self.others.store(Arc::new(others));
    }

    /// The breaker of a route at a gateway, if it has one of its own. What was learnt stays for as long as somebody holds
    /// it.
    pub fn at_edge(
        &self,
        route: &Route,
        mut resolve: impl FnMut(&ServiceName) -> Arc<LiveService>,
    ) -> Option<Arc<Switch>> {
        let policy = route.policy.breaker.as_ref()?;
        let mut all = self.at_edge.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, switch| switch.strong_count() > 0);
        let kept = all.get(&route.name).and_then(Weak::upgrade);
        let switch = kept.unwrap_or_else(|| Arc::new(Switch::new(policy)));
        switch.configure(policy, None, &mut resolve);
        all.insert(route.name.clone(), Arc::downgrade(&switch));
        Some(switch)
    }

    /// Lets a request through `now`, or not: first its route's breaker, then the service's. `at_edge`: that of a gateway's route.
    pub fn enter(
        &self,
        name: &ServiceName,
        route: Option<&RouteName>,
        at_edge: Option<&Arc<Switch>>,
        now: Millis,
    ) -> Result<Passes, Shut> {
        let at_edge = route.zip(at_edge).map(|(route, switch)| (route, Arc::clone(switch)));
        let of_service = route.filter(|_| self.has_others.load(Relaxed)).and_then(|route| {
            let others = self.others.load();
            Some((route, Arc::clone(others.routes.get(route)?)))
        });
        let route = match at_edge.or(of_service) {
            None => None,
            Some((route, switch)) => match switch.admit(now) {
                Ok(pass) => Some(Watched { switch, pass }),
                Err(wait) => return Err(Shut { switch, wait, what: format!("route {route} of {name}") }),
            },
        };
        match self.whole.admit(now) {
            Ok(whole) => Ok(Passes { whole, route }),
            Err(wait) => Err(Shut { switch: Arc::clone(&self.whole), wait, what: format!("service {name}") }),
        }
    }

    /// Notes what came of a request.
    pub fn leave(&self, mut passes: Passes, outcome: Outcome, now: Millis) {
        self.whole.breaker.note(&mut passes.whole, outcome, now, fastrand::u64(..));
        if let Some(route) = &mut passes.route {
            route.note(outcome);
        }
    }

    /// The same for a failure on the way.
    pub fn leave_failed(&self, passes: Passes, error: &Error) {
        self.leave(passes, of_error(error, false), Millis::now());
    }

    /// What came of a request is known later: what it passed under goes with its answer.
    pub fn later(&self, passes: Passes) -> Vec<Watched> {
        let whole = Watched { switch: Arc::clone(&self.whole), pass: passes.whole };
        passes.route.into_iter().chain([whole]).collect()
    }

    /// Whether the breaker over a version lets anything through; where none is, everything.
    pub fn is_shut(&self, version: &Version) -> bool {
        self.of_version(version).is_some_and(|switch| switch.is_shut(Millis::now()))
    }

    /// The breaker over a version, if it lets nothing through now.
    pub fn shut_version(&self, name: &ServiceName, version: &Version) -> Option<Shut> {
        let now = Millis::now();
        let switch = self.of_version(version).filter(|switch| switch.is_shut(now))?;
        switch.breaker.count_rejected();
        let wait = switch.wait(now);
        Some(Shut { switch, wait, what: format!("version {version} of {name}") })
    }

    /// Those of routes at a gateway.
    fn edges(&self) -> Vec<(RouteName, Arc<Switch>)> {
        let all = self.at_edge.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(|(name, switch)| Some((name.clone(), switch.upgrade()?))).collect()
    }

    /// Lets an attempt through to a version, where there is a breaker over it.
    pub fn enter_version(&self, name: &ServiceName, version: &Version) -> Result<Option<Watched>, Shut> {
        let Some(switch) = self.of_version(version) else { return Ok(None) };
        match switch.admit(Millis::now()) {
            Ok(pass) => Ok(Some(Watched { switch, pass })),
            Err(wait) => Err(Shut { switch, wait, what: format!("version {version} of {name}") }),
        }
    }

    fn of_version(&self, version: &Version) -> Option<Arc<Switch>> {
        if !self.has_others.load(Relaxed) {
            return None;
        }
        self.others.load().versions.get(version).cloned()
    }

    /// Everything, for people.
    pub fn dump(&self, now: Millis) -> Value {
        let others = self.others.load();
        let routes: serde_json::Map<_, _> =
            others.routes.iter().map(|(name, s)| (name.to_string(), s.dump(now))).collect();
        let edges = self.edges();
        let edges = edges.iter().map(|(name, s)| (name.to_string(), s.dump(now)));
        let routes: serde_json::Map<_, _> = routes.into_iter().chain(edges).collect();
        let versions: serde_json::Map<_, _> =
            others.versions.iter().map(|(name, s)| (name.to_string(), s.dump(now))).collect();
        json!({"service": self.whole.dump(now), "routes": routes, "versions": versions})
    }

    /// Every breaker with its labels, for metrics.
    pub fn for_each(&self, mut tell: impl FnMut(&str, &Switch)) {
        tell("", &self.whole);
        let others = self.others.load();
        let edges = self.edges();
        for (name, switch) in others.routes.iter().chain(edges.iter().map(|(name, s)| (name, s))) {
            tell(&format!(",route=\"{}\"", name.as_str().replace(['"', '\\'], "_")), switch);
        }
        for (name, switch) in &others.versions {
            tell(&format!(",version=\"{name}\""), switch);
        }
    }
}

impl Switch {
    fn new(policy: &ServiceBreaker) -> Self {
        let mode = number(policy.mode);
        let breaker = Arc::new(Breaker::new(Arc::new(Group::new(Settings::from(policy)))));
        breaker.group().watch_only(policy.mode != BreakerMode::Auto);
        Self {
            breaker,
            mode: AtomicU8::new(mode),
            said: AtomicU8::new(0),
            until: AtomicU64::new(0),
            acts: AtomicU8::new(mode),
            answers: ArcSwap::default(),
            fallbacks: AtomicU64::new(0),
        }
    }

    fn configure(
        &self,
        policy: &ServiceBreaker,
        said: Option<&BreakerOverride>,
        resolve: &mut impl FnMut(&ServiceName) -> Arc<LiveService>,
    ) {
        self.breaker.group().configure(Settings::from(policy));
        let elsewhere = match &policy.fallback {
            Some(Fallback::Service(name)) => Some(resolve(name)),
            _ => None,
        };
        self.answers.store(Arc::new(Answers { fallback: policy.fallback.clone(), elsewhere }));
        self.mode.store(number(policy.mode), Relaxed);
        // Taken back before its end is changed, so that the new end is never the old word's.
        self.said.store(0, Relaxed);
        if let Some(said) = said {
            self.until.store(said.until.map_or(u64::MAX, unix_millis), Relaxed);
            self.said.store(number(said.mode) + 1, Relaxed);
        }
    }

    /// The mode that holds now.
    pub fn mode(&self) -> BreakerMode {
        let said = self.said.load(Relaxed);
        // The wall clock is looked at only while there is something that ends by it.
        let holds = said != 0 && {
            let until = self.until.load(Relaxed);
            until == u64::MAX || unix_millis(SystemTime::now()) < until
        };
        mode_of(if holds { said - 1 } else { self.mode.load(Relaxed) })
    }

    /// The breaker itself.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// How often something else was answered in its place.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Relaxed)
    }

    fn admit(&self, now: Millis) -> Result<Pass, Duration> {
        match self.switched() {
            BreakerMode::Observe | BreakerMode::ForceClosed => Ok(self.breaker.pass()),
            BreakerMode::Auto => self.breaker.admit(now, fastrand::u64(..)),
            BreakerMode::ForceOpen => {
                self.breaker.count_rejected();
                Err(self.forced_wait())
            }
        }
    }

    fn is_shut(&self, now: Millis) -> bool {
        match self.switched() {
            BreakerMode::Observe | BreakerMode::ForceClosed => false,
            BreakerMode::Auto => self.breaker.share(now) == crate::breaker::Share::Shut,
            BreakerMode::ForceOpen => true,
        }
    }

    /// How long whoever is kept out now is to wait.
    fn wait(&self, now: Millis) -> Duration {
        match self.mode() {
            BreakerMode::ForceOpen => self.forced_wait(),
            _ => self.breaker.wait(now),
        }
    }

    /// The mode that holds now. When it is another than before, what was learnt under that one is forgotten.
    fn switched(&self) -> BreakerMode {
        let mode = self.mode();
        let wanted = number(mode);
        if self.acts.load(Relaxed) != wanted && self.acts.swap(wanted, Relaxed) != wanted {
            self.breaker.group().watch_only(mode != BreakerMode::Auto);
            self.breaker.reset();
        }
        mode
    }

    /// Until the operator's word ends, where that is soon.
    fn forced_wait(&self) -> Duration {
        let left = match self.until.load(Relaxed) {
            until if self.said.load(Relaxed) != 0 && until != u64::MAX => {
                Duration::from_millis(until.saturating_sub(unix_millis(SystemTime::now())))
            }
            _ => LONGEST_WAIT,
        };
        left.min(LONGEST_WAIT)
    }

    /// What it does to a request now.
    pub fn state(&self) -> &'static str {
        match self.mode() {
            BreakerMode::ForceOpen => "open",
            BreakerMode::ForceClosed | BreakerMode::Observe => "closed",
            BreakerMode::Auto => self.breaker.phase().as_str(),
        }
    }

    fn dump(&self, now: Millis) -> Value {
        let said = self.said.load(Relaxed);
        let mut dumped = dump(&self.breaker, now);
        if let Some(dumped) = dumped.as_object_mut() {
            dumped.insert("state".into(), self.state().into());
            dumped.insert("mode".into(), self.mode().as_str().into());
            dumped.insert("policyMode".into(), mode_of(self.mode.load(Relaxed)).as_str().into());
            dumped.insert("override".into(), (said != 0).then(|| mode_of(said - 1).as_str()).into());
            dumped.insert("rejected".into(), self.breaker.rejected().into());
            dumped.insert("wouldHaveOpened".into(), self.breaker.group().would_open().into());
            dumped.insert("fallbacks".into(), self.fallbacks().into());
        }
        dumped
    }
}

fn number(mode: BreakerMode) -> u8 {
    match mode {
        BreakerMode::Observe => 0,
        BreakerMode::Auto => 1,
        BreakerMode::ForceOpen => 2,
        BreakerMode::ForceClosed => 3,
    }
}

fn mode_of(number: u8) -> BreakerMode {
    match number {
        1 => BreakerMode::Auto,
        2 => BreakerMode::ForceOpen,
        3 => BreakerMode::ForceClosed,
        _ => BreakerMode::Observe,
    }
}

fn unix_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1)
}

/// How long callers are asked to wait at most while an operator keeps it open.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Versions with a breaker of their own.
const MOST_VERSIONS: usize = 1_024;
