//! Generators of sound policies. They are boxed: their trees, one within the other, are more than a thread's stack holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};
use outrigger_mesh::{
    Algorithm, Balance, BreakerMode, BreakerOverride, Bulkhead, Bulkheads, CallerPolicy, ConnectionLimits,
    EndpointBreaker, FailureRatio, Fallback, HashKey, HealthCheck, Locality, Longest, Probe, Protection,
    RateKey, RateLimit, Recovery, RetryPolicy, RouteName, RoutePolicy, ServiceBreaker, SessionEnd,
    SigningKey, SlowCalls, Sticky, StickyBy, StickyTo, Timeouts, TraceShare, TrafficPolicy, Trip,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::route::route_match;
use super::{identity, port_number, service_name, version};

pub(super) fn policy() -> BoxedStrategy<TrafficPolicy> {
    let breakers = (usually(endpoint_breaker()), usually(service_breaker()));
    let connections = (of(1_u32..9), of(9_u32..99))
        .prop_map(|(per_endpoint, per_service)| ConnectionLimits { per_endpoint, per_service });
    let bulkheads = (bulkhead(), 1_u32..9, 1_u32..9).prop_map(|(service, endpoint, max_streams)| Bulkheads {
        service,
        endpoint,
        max_streams,
    });
    (
        (timeouts(), retry()),
        breakers,
        usually(bulkheads),
        connections,
        usually(balance()),
        of(health()),
        of(traced()),
    )
        .prop_map(
            |(
                (timeouts, retry),
                (endpoint_breaker, service_breaker),
                bulkheads,
                connections,
                balance,
                health,
                traced,
            )| {
                TrafficPolicy {
                    timeouts,
                    retry,
                    endpoint_breaker,
                    service_breaker,
                    bulkheads,
                    connections,
                    balance,
                    health,
                    traced,
                }
            },
        )
        .boxed()
}

pub(super) fn for_callers() -> BoxedStrategy<Vec<CallerPolicy>> {
    let one =
        (vec(identity(), 1..2), policy()).prop_map(|(callers, policy)| CallerPolicy { callers, policy });
    vec(one, 0..2).boxed()
}

pub(super) fn overrides() -> BoxedStrategy<Vec<BreakerOverride>> {
    let until = (0_u64..9_999_999_999).prop_map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
    let route = "[!-~]{1,9}".prop_map(|text| RouteName::new(&text).unwrap());
    let one = (of(route), of(version()), mode(), of(until))
        .prop_map(|(route, version, mode, until)| BreakerOverride { route, version, mode, until });
    vec(one, 0..3).boxed()
}

pub(super) fn of_route() -> BoxedStrategy<RoutePolicy> {
    (of(service_breaker()), of(bulkhead()), of(traced()))
        .prop_map(|(breaker, bulkhead, traced)| RoutePolicy { breaker, bulkhead, traced })
        .boxed()
}

fn traced() -> BoxedStrategy<TraceShare> {
    (0_u32..=1_000_000).prop_map(|millionths| TraceShare::of_millionths(millionths).unwrap()).boxed()
}

pub(super) fn protection() -> BoxedStrategy<Protection> {
    (of(bulkhead()), vec(rate_limit(), 0..3))
        .prop_map(|(caller, rate_limits)| Protection { caller, rate_limits })
        .boxed()
}

pub(super) fn rate_limit() -> BoxedStrategy<RateLimit> {
    let key = prop_oneof![
        Just(RateKey::Service),
        Just(RateKey::Caller),
        header_name().prop_map(RateKey::Header),
        super::token::claim().prop_map(RateKey::Claim),
    ];
    ("[a-z0-9-]{1,9}", vec(route_match(), 0..2), key, 1_u32..99, 1_u64..99, 1_u32..99)
        .prop_map(|(name, matches, key, requests, seconds, burst)| RateLimit {
            name: name.into(),
            matches,
            key,
            requests,
            per: Duration::from_secs(seconds),
            burst,
        })
        .boxed()
}

pub(super) fn timeouts() -> impl Strategy<Value = Timeouts> {
    (of(duration()), of(duration()), of(duration()), of(duration()), of(duration())).prop_map(
        |(request, per_try, idle, connect, stream)| {
            let fits = request.is_none_or(|request| per_try.is_none_or(|per_try| per_try < request));
            Timeouts { request, per_try: per_try.filter(|_| fits), idle, connect, stream }
        },
    )
}

pub(super) fn longest() -> impl Strategy<Value = Longest> {
    usually(
        (duration(), of(duration()), duration(), of(duration()))
            .prop_map(|(request, grpc, idle, stream)| Longest { request, grpc, idle, stream }),
    )
}

pub(super) fn retry() -> impl Strategy<Value = RetryPolicy> {
    let usual = Just(RetryPolicy::default());
    let other = (
        0..=RetryPolicy::MAX_RETRIES,
        any::<bool>(),
        0_u32..=100,
        any::<u32>(),
        any::<u32>(),
        (0_u64..99, 0_u64..99, 0_u64..99),
        vec(400_u16..600, 0..3),
    )
        .prop_map(
            |(
                retries,
                idempotent,
                budget_percent,
                budget_floor,
                replay_bytes,
                (pause, more, least),
                codes,
            )| {
                RetryPolicy {
                    retries,
                    idempotent,
                    budget_percent,
                    budget_floor,
                    replay_bytes,
                    codes,
                    backoff: Duration::from_millis(pause),
                    max_backoff: Duration::from_millis(pause + more),
                    min_backoff: Duration::from_millis(least.min(pause + more)),
                }
            },
        );
    prop_oneof![usual, other]
}

/// The default as often as not.
fn usually<T: Clone + Default + std::fmt::Debug>(
    other: impl Strategy<Value = T>,
) -> impl Strategy<Value = T> {
    prop_oneof![Just(T::default()), other]
}

fn duration() -> impl Strategy<Value = Duration> {
    (0_u64.., 1_u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n))
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,9}".prop_map(|text| HeaderName::from_bytes(text.as_bytes()).unwrap())
}

fn mode() -> impl Strategy<Value = BreakerMode> {
    use BreakerMode::{Auto, ForceClosed, ForceOpen, Observe};
    select(&[Auto, ForceClosed, ForceOpen, Observe][..])
}

fn bulkhead() -> impl Strategy<Value = Bulkhead> {
    (1_u32..=Bulkhead::MOST, 0_u32..=Bulkhead::MOST, duration()).prop_map(
        |(max_in_flight, max_queue, queue_timeout)| Bulkhead { max_in_flight, max_queue, queue_timeout },
    )
}

fn trip() -> BoxedStrategy<Trip> {
    let ratio =
        (1_u32..=100, 1_u32..99).prop_map(|(percent, min_requests)| FailureRatio { percent, min_requests });
    let slow = (duration(), 1_u32..=100, 1_u32..99).prop_map(|(over, percent, min_requests)| SlowCalls {
        over,
        percent,
        min_requests,
    });
    (1_u32..9, of(1_u32..9), of(ratio), of(slow), 1_u64..600)
        .prop_map(|(consecutive, connect_failures, ratio, slow, window)| Trip {
            consecutive: Some(consecutive),
            connect_failures,
            ratio,
            slow,
            window: Duration::from_secs(window),
        })
        .boxed()
}

fn recovery() -> impl Strategy<Value = Recovery> {
    (1_u64..9, 0_u64..99, 1_u32..9, 0_u64..99).prop_map(|(open, more, successes, ramp)| Recovery {
        open: Duration::from_secs(open),
        max_open: Duration::from_secs(open + more),
        successes,
        ramp: Duration::from_secs(ramp),
    })
}

fn endpoint_breaker() -> BoxedStrategy<EndpointBreaker> {
    (of(trip()), recovery(), any::<bool>(), 1_u32..=100, any::<bool>())
        .prop_map(|(trip, recovery, slow_start, max_open_percent, allow_all_open)| EndpointBreaker {
            trip,
            recovery,
            slow_start,
            max_open_percent,
            allow_all_open,
        })
        .boxed()
}

fn service_breaker() -> BoxedStrategy<ServiceBreaker> {
    let header = (header_name(), "[!-~]{0,9}").prop_map(|(n, v)| (n, HeaderValue::from_str(&v).unwrap()));
    let fallback = prop_oneof![
        service_name().prop_map(Fallback::Service),
        (200_u16..=599, vec(header, 0..3), "\\PC{0,20}").prop_map(|(status, headers, body)| {
            Fallback::Response { status, headers, body: body.into() }
        }),
    ];
    (mode(), trip(), recovery(), of(fallback))
        .prop_map(|(mode, trip, recovery, fallback)| ServiceBreaker { mode, trip, recovery, fallback })
        .boxed()
}

pub(super) fn hash() -> BoxedStrategy<HashKey> {
    prop_oneof![
        header_name().prop_map(HashKey::Header),
        word().prop_map(HashKey::Cookie),
        word().prop_map(HashKey::Query),
        super::token::claim().prop_map(HashKey::Claim),
        Just(HashKey::SourceIdentity),
        Just(HashKey::SourceAddress),
    ]
    .boxed()
}

pub(super) fn sticky() -> BoxedStrategy<Sticky> {
    let by = prop_oneof![
        (word(), of(duration())).prop_map(|(name, ttl)| StickyBy::Cookie { name, ttl }),
        header_name().prop_map(StickyBy::Header),
    ];
    let end = (of(duration()), of(duration())).prop_map(|(absolute, idle)| SessionEnd { absolute, idle });
    (by, select(&[StickyTo::Endpoint, StickyTo::Subset][..]), end, any::<[u8; 32]>())
        .prop_map(|(by, to, end, key)| Sticky { by, to, end, key: SigningKey::new(key) })
        .boxed()
}

fn word() -> impl Strategy<Value = Arc<str>> {
    "[a-z]{1,9}".prop_map(Arc::<str>::from)
}

fn balance() -> BoxedStrategy<Balance> {
    let algorithm = prop_oneof![
        Just(Algorithm::PeakEwma),
        Just(Algorithm::RoundRobin),
        Just(Algorithm::LeastRequest),
        Just(Algorithm::Random),
        hash().prop_map(Algorithm::Maglev),
    ];
    let locality = select(&[Locality::PreferZone, Locality::Off][..]);
    (algorithm, locality, 0_u32..=100, of(sticky()))
        .prop_map(|(algorithm, locality, panic_percent, sticky)| Balance {
            algorithm,
            locality,
            panic_percent,
            sticky,
        })
        .boxed()
}

fn health() -> BoxedStrategy<HealthCheck> {
    let probe = prop_oneof![
        ("(/[a-z]{1,4}){1,3}", 100_u16..300, 300_u16..599)
            .prop_map(|(path, low, high)| Probe::Http { path: path.into(), expect: (low, high) }),
        "[a-z.]{0,9}".prop_map(|service| Probe::Grpc { service: service.into() }),
        Just(Probe::Tcp),
    ];
    (probe, of(port_number()), 1_u64..99, 1_u64..99, 1_u32..9, 1_u32..9)
        .prop_map(|(probe, port, timeout, more, healthy, unhealthy)| HealthCheck {
            probe,
            port,
            interval: Duration::from_secs(timeout + more),
            timeout: Duration::from_secs(timeout),
            healthy,
            unhealthy,
        })
        .boxed()
}
