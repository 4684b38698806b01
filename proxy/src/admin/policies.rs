//! The policies in force at this sidecar, for `/policies`: what came whole from the control plane, in the words it is
//! written with. Keys that sign something are never part of it.

use std::time::{Duration, SystemTime};

use outrigger_mesh::{
    Algorithm, Balance, BreakerOverride, Bulkhead, EndpointBreaker, Fallback, HashKey, HealthCheck, Inbound,
    InboundService, Locality, Probe, Protection, RateKey, RateLimit, Recovery, RetryPolicy, Route, Service,
    ServiceBreaker, SpiffeId, Sticky, StickyBy, StickyTo, Timeouts, TrafficPolicy, Trip,
};
use serde_json::{Map, Value, json};

use super::access;

/// The policy of a service for the requests of `own`, of its routes, and what operators say of its breakers.
pub(crate) fn of_service(service: &Service, own: Option<&SpiffeId>) -> Value {
    let for_own = own.is_some_and(|id| service.for_callers.iter().any(|c| c.callers.contains(id)));
    json!({
        "service": service.name.to_string(),
        "policy": policy(service.policy_for(own)),
        "ofThisCaller": for_own,
        "routes": service.routes.iter().map(of_route).collect::<Vec<_>>(),
        "overrides": service.overrides.iter().map(of_override).collect::<Vec<_>>(),
    })
}

/// What protects the own instance, by service.
pub(crate) fn of_inbound(inbound: &Inbound) -> Vec<Value> {
    let of = |s: &InboundService| {
        json!({
            "service": s.name.to_string(),
            "protection": protected(&s.protection),
            "access": access::access(&s.access),
        })
    };
    inbound.services.iter().map(of).collect()
}

fn policy(policy: &TrafficPolicy) -> Value {
    json!({
        "timeouts": timeouts(&policy.timeouts, true),
        "retry": retry(&policy.retry),
        "balance": balance(&policy.balance),
        "endpointBreaker": endpoint_breaker(&policy.endpoint_breaker),
        "slowStart": policy.endpoint_breaker.slow_start,
        "serviceBreaker": service_breaker(&policy.service_breaker),
        "bulkhead": {
            "maxInFlight": policy.bulkheads.service.max_in_flight,
            "maxQueue": policy.bulkheads.service.max_queue,
            "queueTimeout": time(policy.bulkheads.service.queue_timeout),
            "endpoint": {"maxInFlight": policy.bulkheads.endpoint},
            "maxStreams": policy.bulkheads.max_streams,
        },
        "connections": {
            "perEndpoint": policy.connections.per_endpoint,
            "perService": policy.connections.per_service,
        },
        "healthCheck": policy.health.as_ref().map(health),
        "tracing": {"sample": policy.traced.map(|share| share.to_string())},
    })
}

fn of_route(route: &Route) -> Value {
    json!({
        "route": route.name.as_str(),
        "timeouts": timeouts(&route.timeouts, false),
        "retry": route.retry.as_ref().map(retry),
        "serviceBreaker": route.policy.breaker.as_ref().map(service_breaker),
        "bulkhead": route.policy.bulkhead.as_ref().map(bulkhead),
        "tracing": {"sample": route.policy.traced.map(|share| share.to_string())},
    })
}

fn of_override(said: &BreakerOverride) -> Value {
    let unix = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "route": said.route.as_ref().map(outrigger_mesh::RouteName::as_str),
        "version": said.version.as_ref().map(outrigger_mesh::Version::as_str),
        "mode": said.mode.as_str(),
        "untilUnix": said.until.map(unix),
        "holds": said.holds(SystemTime::now()),
    })
}

fn protected(protection: &Protection) -> Value {
    let limit = |limit: &RateLimit| {
        let by = match &limit.key {
            RateKey::Service => "service".to_owned(),
            RateKey::Caller => "caller".to_owned(),
            RateKey::Header(name) => format!("header {name}"),
            RateKey::Claim(claim) => format!("claim {claim}"),
        };
        json!({
            "name": &*limit.name, "by": by, "requests": limit.requests, "per": time(limit.per), "burst": limit.burst,
            "matches": limit.matches.len(),
        })
    };
    json!({
        "bulkhead": {"caller": protection.caller.as_ref().map(bulkhead)},
        "rateLimits": protection.rate_limits.iter().map(limit).collect::<Vec<_>>(),
    })
}

/// With defaults, what nobody said is what it comes to; without, it is left out.
fn timeouts(timeouts: &Timeouts, defaults: bool) -> Value {
    let or = |said: Option<Duration>, default: Duration| said.or(defaults.then_some(default));
    let all = [
        ("request", or(timeouts.request, Timeouts::REQUEST)),
        ("perTry", timeouts.per_try),
        ("idle", or(timeouts.idle, Timeouts::IDLE)),
        ("connect", or(timeouts.connect, Timeouts::CONNECT)),
        ("stream", timeouts.stream),
    ];
    let said = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), time(value?).into())));
    Value::Object(said.collect::<Map<String, Value>>())
}

fn retry(retry: &RetryPolicy) -> Value {
    json!({
        "retries": retry.retries,
        "idempotent": retry.idempotent,
        "budgetPercent": retry.budget_percent,
        "budgetFloor": retry.budget_floor,
        "replayBytes": retry.replay_bytes,
        "backoff": time(retry.backoff),
        "maxBackoff": time(retry.max_backoff),
        "minBackoff": time(retry.min_backoff),
    })
}

fn endpoint_breaker(breaker: &EndpointBreaker) -> Value {
    let mut told = breaker.trip.as_ref().map_or_else(Map::new, |trip| tripping(trip, &breaker.recovery));
    told.insert("enabled".into(), breaker.trip.is_some().into());
    told.insert("maxOpenPercent".into(), breaker.max_open_percent.into());
    told.insert("allowAllOpen".into(), breaker.allow_all_open.into());
    Value::Object(told)
}

fn service_breaker(breaker: &ServiceBreaker) -> Value {
    let mut told = tripping(&breaker.trip, &breaker.recovery);
    told.insert("mode".into(), breaker.mode.as_str().into());
    let fallback = breaker.fallback.as_ref().map(|fallback| match fallback {
        Fallback::Response { status, headers, body } => {
            let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
            json!({"status": status, "headers": names, "bodyBytes": body.len()})
        }
        Fallback::Service(name) => json!({"service": name.to_string()}),
    });
    told.insert("fallback".into(), fallback.into());
    Value::Object(told)
}

fn tripping(trip: &Trip, recovery: &Recovery) -> Map<String, Value> {
    let ratio = trip.ratio.map(|r| json!({"percent": r.percent, "minRequests": r.min_requests}));
    let slow = |s: outrigger_mesh::SlowCalls| json!({"over": time(s.over), "percent": s.percent, "minRequests": s.min_requests});
    let told = [
        ("consecutiveFailures", trip.consecutive.unwrap_or(0).into()),
        ("connectFailures", trip.connect_failures.unwrap_or(0).into()),
        ("failureRatio", ratio.into()),
        ("slowCalls", trip.slow.map(slow).into()),
        ("window", time(trip.window).into()),
        ("open", time(recovery.open).into()),
        ("maxOpen", time(recovery.max_open).into()),
        ("successes", recovery.successes.into()),
        ("ramp", time(recovery.ramp).into()),
    ];
    told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn bulkhead(bulkhead: &Bulkhead) -> Value {
    json!({
        "maxInFlight": bulkhead.max_in_flight,
        "maxQueue": bulkhead.max_queue,
        "queueTimeout": time(bulkhead.queue_timeout),
    })
}

fn balance(balance: &Balance) -> Value {
    let (algorithm, hash) = match &balance.algorithm {
        Algorithm::PeakEwma => ("peakEwma", Value::Null),
        Algorithm::RoundRobin => ("roundRobin", Value::Null),
        Algorithm::LeastRequest => ("leastRequest", Value::Null),
        Algorithm::Random => ("random", Value::Null),
        Algorithm::Maglev(key) => ("maglev", hashed(key)),
    };
    let locality = match balance.locality {
        Locality::PreferZone => "preferZone",
        Locality::Off => "off",
    };
    json!({
        "algorithm": algorithm, "hash": hash, "locality": locality, "panicPercent": balance.panic_percent,
        "sticky": balance.sticky.as_ref().map(sticky),
    })
}

fn hashed(key: &HashKey) -> Value {
    match key {
        HashKey::Header(name) => json!({"header": name.as_str()}),
        HashKey::Cookie(name) => json!({"cookie": &**name}),
        HashKey::Query(name) => json!({"query": &**name}),
        HashKey::Claim(claim) => json!({"claim": claim.to_string()}),
        HashKey::SourceIdentity => json!({"source": "identity"}),
        HashKey::SourceAddress => json!({"source": "address"}),
    }
}

/// Without what signs it.
fn sticky(sticky: &Sticky) -> Value {
    let to = match sticky.to {
        StickyTo::Endpoint => "endpoint",
        StickyTo::Subset => "subset",
    };
    let mut told = match &sticky.by {
        StickyBy::Cookie { name, ttl } => {
            json!({"cookie": {"name": &**name, "ttl": ttl.map(time)}, "to": to})
        }
        StickyBy::Header(name) => json!({"header": name.as_str(), "to": to}),
    };
    for (word, end) in [("absolute", sticky.end.absolute), ("idle", sticky.end.idle)] {
        if let Some(end) = end {
            told[word] = time(end).into();
        }
    }
    told
}

fn health(check: &HealthCheck) -> Value {
    let (kind, probe) = match &check.probe {
        Probe::Http { path, expect } => {
            ("http", json!({"path": &**path, "expect": format!("{}-{}", expect.0, expect.1)}))
        }
        Probe::Grpc { service } => ("grpc", json!({"service": &**service})),
        Probe::Tcp => ("tcp", json!({})),
    };
    json!({
        kind: probe, "port": check.port.map(outrigger_mesh::PortNumber::get), "interval": time(check.interval),
        "timeout": time(check.timeout), "healthy": check.healthy, "unhealthy": check.unhealthy,
    })
}

fn time(time: Duration) -> String {
    format!("{time:?}")
}

#[cfg(test)]
mod tests {
    use outrigger_mesh::{SessionEnd, SigningKey};

    use super::*;

    #[test]
    fn what_signs_is_not_shown() {
        let key = SigningKey::new([7; 32]);
        let by = StickyBy::Cookie { name: "place".into(), ttl: None };
        let sticky = Sticky { by, to: StickyTo::Endpoint, end: SessionEnd::default(), key };
        let whole = TrafficPolicy {
            balance: Balance { sticky: Some(sticky), ..Balance::default() },
            ..TrafficPolicy::default()
        };
        let told = policy(&whole);
        assert_eq!(
            told["balance"]["sticky"],
            json!({"cookie": {"name": "place", "ttl": null}, "to": "endpoint"})
        );
        assert_eq!((&told["timeouts"]["request"], &told["retry"]["retries"]), (&json!("15s"), &json!(2)));
    }
}
