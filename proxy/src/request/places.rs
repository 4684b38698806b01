//! The bulkheads that a request meets on its way, and the places it holds in them until the body of its answer has ended.
//!
//! At the caller's sidecar: route, then service, both before the first attempt; then the endpoint of each attempt, where
//! nobody waits. At the service's sidecar: the caller's identity (`policy::callers`). How a bulkhead counts is in
//! `bulkhead`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderValue, Response, header};
use outrigger_mesh::{Bulkheads, Reason, Route, RouteName, Service};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::config::routes::RoutePlan;
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::live::{EndpointLive, LiveService};
use crate::request::bulkhead::{Bulkhead, Full, Gauges, Permit};

/// The places of one request. Dropped, they are free.
#[derive(Debug, Default)]
pub struct Places {
    route: Option<Permit>,
    /// In the bulkhead that counts long-lived streams apart: the service's, or the caller's.
    main: Option<Permit>,
    endpoint: Option<Permit>,
    /// When it counts as long-lived, where that depends on its age alone.
    ages_at: Option<Instant>,
}

impl Places {
    /// Waits for a place in the bulkheads of a route and its service. `until`: the end of the request's own time, and
    /// what is said when it is over. `stream`: whether it is long-lived from its beginning, an upgrade.
    pub async fn enter(
        service: &LiveService,
        plan: &RoutePlan,
        until: impl FnOnce() -> Option<(Instant, Reason)>,
        stream: bool,
    ) -> Result<Self, Error> {
        if plan.bulkhead.is_none()
            && !stream
            && let Some(main) = service.bulkheads.service.try_enter()
        {
            return Ok(Self { main: Some(main), ..Self::default() });
        }
        let until = until();
        let deadline = until.map(|(at, _)| at);
        let late = until.map_or(Reason::Deadline, |(_, reason)| reason);
        let main = &service.bulkheads.service;
        let of_service = |full| refused(&Which::Service(&service.name), full, late);
        if stream {
            return Ok(Self { main: Some(main.enter_stream().map_err(of_service)?), ..Self::default() });
        }
        let route = match &plan.bulkhead {
            None => None,
            Some(bulkhead) => {
                let which = |full| refused(&Which::Route(plan.name.as_ref()), full, late);
                Some(bulkhead.enter(deadline).await.map_err(which)?)
            }
        };
        let main = main.enter(deadline).await.map_err(of_service)?;
        Ok(Self { route, main: Some(main), ..Self::default() })
    }

    /// The place of a caller.
    pub fn of_caller(permit: Permit) -> Self {
        Self { main: Some(permit), ..Self::default() }
    }

    /// The place at the endpoint of an attempt.
    pub fn at_endpoint(permit: Permit) -> Self {
        Self { endpoint: Some(permit), ..Self::default() }
    }

    /// Does `work` while holding the places. A gRPC call counts as long-lived from a certain age: what its kind is does
    /// not show in how it looks.
    pub async fn around<F: Future>(&mut self, grpc: bool, mut work: Pin<&mut F>) -> F::Output {
        if !grpc {
            return work.await;
        }
        let ages_at = Instant::now() + LONG_LIVED;
        self.ages_at = Some(ages_at);
        if let Ok(done) = timeout_at(ages_at, work.as_mut()).await {
            return done;
        }
        self.age();
        work.await
    }

    /// The places go with the body of the answer. What turns out to be long-lived counts as such, or is refused.
    pub fn go_with(mut self, mut answer: Response<ResponseBody>) -> Result<Response<ResponseBody>, Error> {
        if is_event_stream(&answer)
            && let Some(main) = &mut self.main
            && let Err(full) = main.become_stream()
        {
            main.bulkhead().count_rejected();
            return Err(Error { unprocessed: false, ..refused(&Which::Streams, full, Reason::Deadline) });
        }
        answer.body_mut().hold(self);
        Ok(answer)
    }

    /// Takes over what `others` holds.
    pub fn join(&mut self, others: Self) {
        self.route = others.route.or(self.route.take());
        self.main = others.main.or(self.main.take());
        self.endpoint = others.endpoint.or(self.endpoint.take());
        self.ages_at = others.ages_at.or(self.ages_at);
        self.settle();
    }

    /// When it should be looked at again for its age.
    pub fn ages_at(&self) -> Option<Instant> {
        self.ages_at
    }

    /// It has come of age. Where there is no place for another long-lived stream it stays where it is: what runs is not
    /// cut for having run.
    pub fn age(&mut self) {
        self.ages_at = None;
        if let Some(main) = &mut self.main {
            let _stays_in_flight = main.become_stream();
        }
        self.settle();
    }

    /// A long-lived stream is no request under way, nowhere.
    fn settle(&mut self) {
        if self.main.as_ref().is_some_and(Permit::is_stream) {
            (self.route, self.endpoint) = (None, None);
        }
    }
}

/// A place at an endpoint; `None` where it is full. Nobody waits there.
pub fn at_endpoint(endpoint: &EndpointLive) -> Option<Permit> {
    endpoint.bulkhead.try_enter()
}

/// The refusal where every endpoint that could be chosen is full.
pub fn endpoints_full(service: &LiveService) -> Error {
    let limit = service.bulkheads.endpoint.load(Relaxed);
    refused(&Which::Endpoints(&service.name), Full::Queue { limit, waiting: 0 }, Reason::Deadline)
}

/// Which bulkhead has refused, as people are told.
pub enum Which<'a> {
    /// That of a service.
    Service(&'a outrigger_mesh::ServiceName),
    /// That of a route.
    Route(Option<&'a RouteName>),
    /// Those of all endpoints of a service.
    Endpoints(&'a outrigger_mesh::ServiceName),
    /// That of a caller.
    Caller(&'a str),
    /// That of long-lived streams, found out when the answer came.
    Streams,
}

impl fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Route(Some(name)) => write!(f, "route {name}"),
            Self::Route(None) => f.write_str("route"),
            Self::Endpoints(name) => write!(f, "endpoint (each of {name})"),
            Self::Caller(who) => write!(f, "caller {who}"),
            Self::Streams => f.write_str("streams"),
        }
    }
}

/// The refusal by a bulkhead. `late` is said where it was the request's own time that ran out.
pub fn refused(which: &Which<'_>, full: Full, late: Reason) -> Error {
    let reason = if matches!(full, Full::Deadline { .. }) { late } else { Reason::BulkheadFull };
    let mut error = Error::refused(reason, format!("bulkhead {which}: {full}"));
    error.told_mut().bulkhead = Some(which.to_string());
    error
}

/// The bulkheads before a service, at the sidecar of its callers. They outlive what is pushed.
#[derive(Debug)]
pub struct ServiceBulkheads {
    /// Over the whole service.
    pub service: Arc<Bulkhead>,
    routes: Mutex<BTreeMap<RouteName, Arc<Bulkhead>>>,
    /// Those of routes at a gateway, which their plans keep.
    at_edge: Mutex<BTreeMap<RouteName, Weak<Bulkhead>>>,
    /// What an endpoint takes.
    endpoint: AtomicU32,
}

impl Default for ServiceBulkheads {
    fn default() -> Self {
        let limits = Bulkheads::default();
        Self {
            service: Bulkhead::new(limits.service, limits.max_streams),
            routes: Mutex::default(),
            at_edge: Mutex::default(),
            endpoint: AtomicU32::new(limits.endpoint),
        }
    }
}

impl ServiceBulkheads {
    /// The limits that were pushed. A route that is gone takes its bulkhead along once nobody is in it.
    pub fn apply(&self, service: &Service, limits: &Bulkheads, table: &Table) {
        self.service.configure(limits.service, limits.max_streams);
        self.endpoint.store(limits.endpoint, Relaxed);
        table.show("service", service.name.to_string(), &self.service);
        let mut routes = self.routes();
        routes
            .retain(|name, _| service.routes.iter().any(|r| r.name == *name && r.policy.bulkhead.is_some()));
        for route in &service.routes {
            let Some(settings) = route.policy.bulkhead else { continue };
            let bulkhead =
                routes.entry(route.name.clone()).or_insert_with(|| Bulkhead::new(settings, u32::MAX));
            bulkhead.configure(settings, u32::MAX);
            table.show("route", route.name.to_string(), bulkhead);
        }
    }

    /// The bulkhead of a route, where it has one.
    pub fn of_route(&self, route: &Route) -> Option<Arc<Bulkhead>> {
        route.policy.bulkhead.and_then(|_| self.routes().get(&route.name).map(Arc::clone))
    }

    /// The bulkhead of a route at a gateway, where it has one. Who is inside stays so for as long as somebody holds it.
    pub fn at_edge(&self, route: &Route) -> Option<Arc<Bulkhead>> {
        let settings = route.policy.bulkhead?;
        let mut all = self.at_edge.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, bulkhead| bulkhead.strong_count() > 0);
        let kept = all.get(&route.name).and_then(Weak::upgrade);
        let bulkhead = kept.unwrap_or_else(|| Bulkhead::new(settings, u32::MAX));
        bulkhead.configure(settings, u32::MAX);
        all.insert(route.name.clone(), Arc::downgrade(&bulkhead));
        Some(bulkhead)
    }

    /// Tells an endpoint what it may take.
    pub fn tell(&self, endpoint: &EndpointLive) {
        let limit = self.endpoint.load(Relaxed);
        if endpoint.bulkhead.gauges().limit != limit {
            endpoint.bulkhead.configure(Bulkhead::no_queue(limit), u32::MAX);
        }
    }

    fn routes(&self) -> MutexGuard<'_, BTreeMap<RouteName, Arc<Bulkhead>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bulkheads there are, for those who look. It keeps none of them alive.
#[derive(Debug, Default)]
pub struct Table(Mutex<BTreeMap<(&'static str, String), Weak<Bulkhead>>>);

impl Table {
    /// Shows a bulkhead under a name.
    pub fn show(&self, level: &'static str, name: String, bulkhead: &Arc<Bulkhead>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, bulkhead| bulkhead.strong_count() > 0);
        all.insert((level, name), Arc::downgrade(bulkhead));
    }

    /// Their metrics.
    pub fn write(&self, out: &mut String) {
        let all: Vec<_> = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().filter_map(|(key, b)| Some((key.clone(), b.upgrade()?.gauges()))).collect()
        };
        let metrics: [(&str, &str, &str, Read); 6] = [
            ("in_flight", "gauge", "Requests under way.", |g| g.in_flight.into()),
            ("queued", "gauge", "Requests that wait for a place.", |g| g.queued.into()),
            ("limit", "gauge", "How many requests may be under way.", |g| g.limit.into()),
            ("streams", "gauge", "Long-lived streams.", |g| g.streams.into()),
            ("streams_limit", "gauge", "How many long-lived streams there may be.", |g| g.max_streams.into()),
            ("rejected_total", "counter", "Requests and streams refused.", |g| g.rejected),
        ];
        for (name, kind, help, read) in metrics {
            let name = format!("outrigger_bulkhead_{name}");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for ((level, of), gauges) in &all {
                let _ = writeln!(out, "{name}{{level=\"{level}\",name=\"{of}\"}} {}", read(gauges));
            }
        }
    }
}

type Read = fn(&Gauges) -> u64;

/// A bulkhead for those who look.
pub fn dump(bulkhead: &Bulkhead) -> Value {
    let g = bulkhead.gauges();
    json!({
        "inFlight": g.in_flight, "queued": g.queued, "limit": g.limit, "rejected": g.rejected,
        "streams": g.streams, "maxStreams": (g.max_streams != u32::MAX).then_some(g.max_streams),
    })
}

fn is_event_stream(answer: &Response<ResponseBody>) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| {
        let kind = kind.split(|b| *b == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// The age from which a gRPC call is long-lived.
const LONG_LIVED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_grpc_call_is_long_lived_from_its_thirtieth_second_and_no_other_request_is() {
        let bulkheads = ServiceBulkheads::default();
        for (grpc, counted) in [(true, (0, 1)), (false, (1, 0))] {
            let mut places =
                Places { main: Some(bulkheads.service.try_enter().unwrap()), ..Places::default() };
            let counts = || {
                let g = bulkheads.service.gauges();
                (g.in_flight, g.streams)
            };
            let work = pin!(async {
                tokio::time::sleep(LONG_LIVED.saturating_sub(Duration::from_millis(1))).await;
                assert_eq!(counts(), (1, 0));
                tokio::time::sleep(Duration::from_millis(2)).await;
                tokio::task::yield_now().await;
                counts()
            });
            assert_eq!(places.around(grpc, work).await, counted);
            drop(places);
            assert_eq!(counts(), (0, 0));
        }
    }
}
