//! From the written form to values: here, and only here, what nobody said gets its default.
//!
//! What is written has passed its tables and its check, so everything can be read; what could not would be as if it were
//! not written.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use outrigger_mesh::{
    Algorithm, Balance, Bulkhead, Bulkheads, ClaimPath, ConnectionLimits, EndpointBreaker, FailureRatio,
    Fallback, HashKey, HealthCheck, Label, Locality, PortNumber, Probe, Protection, RateKey, RateLimit,
    Recovery, RetryPolicy, Route, ServiceBreaker, ServiceName, SessionEnd, SigningKey, SlowCalls, Sticky,
    StickyBy, StickyTo, Timeouts, TraceShare, TrafficPolicy, Trip,
};

use super::merge;
use crate::check::{CheckedRule, read_match};
use crate::spec::policy::{self as written, PolicySettings};
use crate::spec::{self, Retry, RouteRetry, ServiceTimeouts};

/// The policy of a service, whole.
pub(super) fn policy(settings: &PolicySettings, namespace: &Label, key: &SigningKey) -> TrafficPolicy {
    TrafficPolicy {
        timeouts: settings.timeouts.as_ref().map(timeouts).unwrap_or_default(),
        retry: settings.retry.as_ref().map(retry).unwrap_or_default(),
        endpoint_breaker: endpoint_breaker(settings),
        service_breaker: settings
            .service_breaker
            .as_ref()
            .map(|b| service_breaker(b, namespace))
            .unwrap_or_default(),
        bulkheads: settings.bulkhead.as_ref().map(bulkheads).unwrap_or_default(),
        connections: settings.connections.as_ref().map_or_else(ConnectionLimits::default, |c| {
            ConnectionLimits { per_endpoint: c.per_endpoint, per_service: c.per_service }
        }),
        balance: settings.balance.as_ref().map(|b| balance(b, key)).unwrap_or_default(),
        health: settings.health_check.as_ref().and_then(health),
        traced: traced(settings),
    }
}

fn traced(settings: &PolicySettings) -> Option<TraceShare> {
    settings.tracing?.sample.map(written::Sample::get)
}

/// What protects each instance.
pub(super) fn protection(settings: &PolicySettings) -> Protection {
    let caller = settings.bulkhead.as_ref().and_then(|b| b.caller.as_ref());
    Protection {
        caller: caller
            .filter(|c| c.enabled != Some(false))
            .map(|c| bulkhead(c.max_in_flight, c.max_queue, c.queue_timeout)),
        rate_limits: settings.rate_limits.iter().flatten().map(rate_limit).collect(),
    }
}

/// A rule of a route with what its policy says, where `base` holds for the rest. What the route itself says of timeouts
/// and retries is written nearer to the rule than the service's, and the policy is about this rule: so the policy wins.
pub(super) fn rule(
    rule: &CheckedRule,
    own: Option<&PolicySettings>,
    base: &PolicySettings,
    namespace: &Label,
) -> Route {
    let mut compiled = rule.route.clone();
    let said = own.and_then(|own| own.retry.as_ref());
    if rule.retry.is_some() || said.is_some() {
        compiled.retry = Some(route_retry(rule.retry.as_ref(), said, base.retry.as_ref()));
    }
    let Some(own) = own else { return compiled };
    if let Some(own) = &own.timeouts {
        compiled.timeouts = timeouts(own).or(&rule.route.timeouts);
    }
    if let Some(own) = &own.service_breaker {
        let both = laid_over(own, base.service_breaker.as_ref());
        compiled.policy.breaker = Some(service_breaker(&both, namespace));
    }
    if let Some(own) = &own.bulkhead {
        let both = laid_over(own, base.bulkhead.as_ref());
        compiled.policy.bulkhead = Some(bulkhead(both.max_in_flight, both.max_queue, both.queue_timeout));
    }
    compiled.policy.traced = traced(own);
    compiled
}

/// The retry rule of a route: what its policy says, over what it says itself, over what its service says.
fn route_retry(route: Option<&RouteRetry>, policy: Option<&Retry>, base: Option<&Retry>) -> RetryPolicy {
    let written =
        route.map(|route| Retry { retries: route.attempts, backoff: route.backoff, ..Retry::default() });
    let layers = [policy, written.as_ref(), base].into_iter().flatten();
    let said = layers.cloned().reduce(|narrower, wider| merge::over(&narrower, &wider));
    let mut whole = retry(&said.unwrap_or_default());
    whole.codes = route.map(|route| route.codes.clone()).unwrap_or_default();
    // What a route says is the shortest pause (HTTPRouteRetry.backoff), what a policy says the longest of the first.
    let of_route = route.and_then(|route| route.backoff).map(spec::Duration::get);
    if let Some(least) = of_route.filter(|_| policy.is_none_or(|policy| policy.backoff.is_none())) {
        whole.min_backoff = least;
        whole.backoff = least.saturating_mul(2);
        whole.max_backoff = whole.max_backoff.max(whole.backoff);
    }
    whole
}

fn laid_over<T: merge::Layered>(own: &T, base: Option<&T>) -> T {
    base.map_or_else(|| own.clone(), |base| merge::over(own, base))
}

pub(super) fn timeouts(written: &ServiceTimeouts) -> Timeouts {
    let get = |d: Option<spec::Duration>| d.map(spec::Duration::get);
    Timeouts {
        request: get(written.request),
        per_try: get(written.per_try),
        idle: get(written.idle),
        connect: get(written.connect),
        stream: get(written.stream),
    }
}

fn retry(written: &Retry) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    RetryPolicy {
        retries: written.retries.unwrap_or(defaults.retries),
        idempotent: written.idempotent.unwrap_or(defaults.idempotent),
        budget_percent: written.budget_percent.unwrap_or(defaults.budget_percent),
        budget_floor: written.budget_floor.unwrap_or(defaults.budget_floor),
        replay_bytes: written.replay_bytes.unwrap_or(defaults.replay_bytes),
        codes: vec![],
        backoff: or(written.backoff, defaults.backoff),
        max_backoff: or(written.max_backoff, defaults.max_backoff),
        min_backoff: defaults.min_backoff,
    }
}

fn endpoint_breaker(settings: &PolicySettings) -> EndpointBreaker {
    let defaults = EndpointBreaker::default();
    let slow_start = settings.slow_start.unwrap_or(defaults.slow_start);
    let Some(written) = &settings.endpoint_breaker else { return EndpointBreaker { slow_start, ..defaults } };
    let trip = trip(
        (written.consecutive_failures, written.connect_failures, written.window),
        (written.failure_ratio, written.slow_calls),
        &Trip::default(),
    );
    EndpointBreaker {
        trip: (written.enabled != Some(false)).then_some(trip),
        recovery: recovery(written.open, written.max_open, written.successes, written.ramp),
        slow_start,
        max_open_percent: written.max_open_percent.unwrap_or(defaults.max_open_percent),
        allow_all_open: written.allow_all_open.unwrap_or(defaults.allow_all_open),
    }
}

fn service_breaker(written: &written::ServiceBreaker, namespace: &Label) -> ServiceBreaker {
    let defaults = ServiceBreaker::default();
    ServiceBreaker {
        mode: written.mode.map_or(defaults.mode, Into::into),
        trip: trip(
            (written.consecutive_failures, written.connect_failures, written.window),
            (written.failure_ratio, written.slow_calls),
            &defaults.trip,
        ),
        recovery: recovery(written.open, written.max_open, written.successes, written.ramp),
        fallback: written.fallback.as_ref().and_then(|f| fallback(f, namespace)),
    }
}

fn trip(
    (consecutive, connect, window): (Option<u32>, Option<u32>, Option<spec::Duration>),
    (ratio, slow): (Option<written::FailureRatio>, Option<written::SlowCalls>),
    defaults: &Trip,
) -> Trip {
    // A zero says that this opens nothing.
    let count = |written: Option<u32>, default| written.map_or(default, |n| (n > 0).then_some(n));
    let ratio = ratio.unwrap_or_default();
    let usual = defaults.ratio.unwrap_or_default();
    let slow = slow.unwrap_or_default();
    Trip {
        consecutive: count(consecutive, defaults.consecutive),
        connect_failures: count(connect, defaults.connect_failures),
        ratio: Some(FailureRatio {
            percent: ratio.percent.unwrap_or(usual.percent),
            min_requests: ratio.min_requests.unwrap_or(usual.min_requests),
        })
        .filter(|r| r.percent > 0),
        slow: slow
            .over
            .map(|over| SlowCalls {
                over: over.get(),
                percent: slow.percent.unwrap_or(80),
                min_requests: slow.min_requests.unwrap_or(10),
            })
            .filter(|s| s.percent > 0),
        window: or(window, defaults.window),
    }
}

fn recovery(
    open: Option<spec::Duration>,
    max_open: Option<spec::Duration>,
    successes: Option<u32>,
    ramp: Option<spec::Duration>,
) -> Recovery {
    let defaults = Recovery::default();
    Recovery {
        open: or(open, defaults.open),
        max_open: or(max_open, defaults.max_open),
        successes: successes.unwrap_or(defaults.successes),
        ramp: or(ramp, defaults.ramp),
    }
}

fn fallback(written: &written::Fallback, namespace: &Label) -> Option<Fallback> {
    if let Some(service) = &written.service {
        let name = Label::new(service).ok()?;
        return Some(Fallback::Service(ServiceName::new(namespace.clone(), name)));
    }
    let header = |(name, value): (&String, &String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    };
    Some(Fallback::Response {
        status: written.status?,
        headers: written.headers.iter().filter_map(header).collect(),
        body: written.body.as_deref().unwrap_or_default().into(),
    })
}

fn bulkheads(written: &written::Bulkheads) -> Bulkheads {
    let defaults = Bulkheads::default();
    let endpoint = written.endpoint.as_ref().and_then(|e| e.max_in_flight);
    Bulkheads {
        service: bulkhead(written.max_in_flight, written.max_queue, written.queue_timeout),
        endpoint: endpoint.unwrap_or(defaults.endpoint),
        max_streams: written.max_streams.unwrap_or(defaults.max_streams),
    }
}

fn bulkhead(in_flight: Option<u32>, queue: Option<u32>, timeout: Option<spec::Duration>) -> Bulkhead {
    let defaults = Bulkhead::default();
    Bulkhead {
        max_in_flight: in_flight.unwrap_or(defaults.max_in_flight),
        max_queue: queue.unwrap_or(defaults.max_queue),
        queue_timeout: or(timeout, defaults.queue_timeout),
    }
}

fn balance(written: &written::Balance, key: &SigningKey) -> Balance {
    use written::BalanceAlgorithm as Word;
    let defaults = Balance::default();
    let hashed = written.hash.as_ref().and_then(hash);
    Balance {
        algorithm: match (written.algorithm, hashed) {
            (Some(Word::PeakEwma), _) | (None, None) => Algorithm::PeakEwma,
            (Some(Word::RoundRobin), _) => Algorithm::RoundRobin,
            (Some(Word::LeastRequest), _) => Algorithm::LeastRequest,
            (Some(Word::Random), _) => Algorithm::Random,
            // Something to hash is said to be hashed.
            (Some(Word::Maglev) | None, Some(key)) => Algorithm::Maglev(key),
            (Some(Word::Maglev), None) => Algorithm::Maglev(HashKey::SourceAddress),
        },
        locality: match written.locality {
            None => defaults.locality,
            Some(written::Locality::PreferZone) => Locality::PreferZone,
            Some(written::Locality::Off) => Locality::Off,
        },
        panic_percent: written.panic_percent.unwrap_or(defaults.panic_percent),
        sticky: written.sticky.as_ref().and_then(|s| sticky(s, key)),
    }
}

pub(crate) fn hash(written: &written::HashOn) -> Option<HashKey> {
    if let Some(header) = &written.header {
        return Some(HashKey::Header(header.get().clone()));
    }
    if let Some(cookie) = &written.cookie {
        return Some(HashKey::Cookie(cookie.as_str().into()));
    }
    if let Some(query) = &written.query {
        return Some(HashKey::Query(query.as_str().into()));
    }
    if let Some(claim) = written.claim.as_deref().and_then(|claim| ClaimPath::new(claim).ok()) {
        return Some(HashKey::Claim(claim));
    }
    written.source.map(|source| match source {
        written::HashSource::Identity => HashKey::SourceIdentity,
        written::HashSource::Address => HashKey::SourceAddress,
    })
}

fn sticky(written: &written::Sticky, key: &SigningKey) -> Option<Sticky> {
    if written.enabled == Some(false) {
        return None;
    }
    let by = match (&written.cookie, &written.header) {
        (Some(cookie), _) => {
            StickyBy::Cookie { name: cookie.name.as_str().into(), ttl: cookie.ttl.map(spec::Duration::get) }
        }
        (None, Some(header)) => StickyBy::Header(header.get().clone()),
        (None, None) => return None,
    };
    let to = match written.to {
        None | Some(written::StickyTo::Endpoint) => StickyTo::Endpoint,
        Some(written::StickyTo::Subset) => StickyTo::Subset,
    };
    Some(Sticky { by, to, end: SessionEnd::default(), key: key.clone() })
}

fn health(written: &written::HealthCheck) -> Option<HealthCheck> {
    if written.enabled == Some(false) {
        return None;
    }
    let probe = match (&written.http, &written.grpc, &written.tcp) {
        (Some(http), ..) => Probe::Http {
            path: http.path.as_str().into(),
            expect: http.expect.map_or((200, 299), written::StatusRange::ends),
        },
        (None, Some(grpc), _) => Probe::Grpc { service: grpc.service.as_deref().unwrap_or_default().into() },
        (None, None, Some(_)) => Probe::Tcp,
        (None, None, None) => return None,
    };
    Some(HealthCheck {
        probe,
        port: written.port.and_then(PortNumber::new),
        interval: or(written.interval, HealthCheck::INTERVAL),
        timeout: or(written.timeout, HealthCheck::TIMEOUT),
        healthy: written.healthy.unwrap_or(HealthCheck::HEALTHY),
        unhealthy: written.unhealthy.unwrap_or(HealthCheck::UNHEALTHY),
    })
}

/// A rate limit as it is counted.
pub(crate) fn rate_limit(written: &written::RateLimit) -> RateLimit {
    let claim = written.claim.as_deref().and_then(|claim| ClaimPath::new(claim).ok());
    let key = match (written.by, &written.header, claim) {
        (Some(written::RateBy::Header), Some(header), _) => RateKey::Header(header.get().clone()),
        (Some(written::RateBy::Claim), _, Some(claim)) => RateKey::Claim(claim),
        (Some(written::RateBy::Caller), ..) => RateKey::Caller,
        _ => RateKey::Service,
    };
    RateLimit {
        name: written.name.as_str().into(),
        matches: written.matches.iter().filter_map(read_match).collect(),
        key,
        requests: written.requests,
        per: written.per.get(),
        burst: written.burst.unwrap_or(written.requests),
    }
}

fn or(written: Option<spec::Duration>, default: Duration) -> Duration {
    written.map_or(default, spec::Duration::get)
}
