//! `TrafficPolicy`: its timeouts, retries, balancing and health checks. Parts that are as by default are not written.

use std::time::Duration;

use http::HeaderName;
use outrigger_mesh::{
    Algorithm, Balance, CallerPolicy, ConnectionLimits, EndpointBreaker, HashKey, HealthCheck, Locality,
    Probe, RetryPolicy, ServiceBreaker, SessionEnd, SigningKey, Sticky, StickyBy, StickyTo, Timeouts,
    TraceShare, TrafficPolicy,
};

use super::field::{self, Fault, duration_from_pb, duration_to_pb};
use super::{breaker, bulkhead};
use crate::pb;

pub(super) fn to_pb(policy: &TrafficPolicy) -> pb::TrafficPolicy {
    let endpoint = &policy.endpoint_breaker;
    let service = &policy.service_breaker;
    pb::TrafficPolicy {
        timeouts: Some(timeouts_to_pb(&policy.timeouts)),
        retry: Some(retry_to_pb(&policy.retry)),
        endpoint_breaker: (*endpoint != EndpointBreaker::default())
            .then(|| breaker::endpoint_to_pb(endpoint)),
        service_breaker: (*service != ServiceBreaker::default()).then(|| breaker::service_to_pb(service)),
        bulkheads: bulkhead::all_to_pb(&policy.bulkheads),
        connections_per_endpoint: policy.connections.per_endpoint,
        connections_per_service: policy.connections.per_service,
        balance: (policy.balance != Balance::default()).then(|| balance_to_pb(&policy.balance)),
        health: policy.health.as_ref().map(health_to_pb),
        traced: policy.traced.map(TraceShare::millionths),
    }
}

pub(super) fn from_pb(policy: pb::TrafficPolicy) -> Result<TrafficPolicy, Fault> {
    let endpoint_breaker = policy.endpoint_breaker.map(breaker::endpoint_from_pb).transpose()?;
    let service_breaker = policy.service_breaker.map(breaker::service_from_pb).transpose()?;
    Ok(TrafficPolicy {
        timeouts: timeouts_from_pb(policy.timeouts)?,
        retry: retry_from_pb(policy.retry.ok_or_else(|| Fault::missing("policy.retry"))?)?,
        endpoint_breaker: endpoint_breaker.unwrap_or_default(),
        service_breaker: service_breaker.unwrap_or_default(),
        bulkheads: bulkhead::all_from_pb(policy.bulkheads)?,
        connections: ConnectionLimits {
            per_endpoint: policy.connections_per_endpoint,
            per_service: policy.connections_per_service,
        },
        balance: policy.balance.map(balance_from_pb).transpose()?.unwrap_or_default(),
        health: policy.health.map(health_from_pb).transpose()?,
        traced: policy.traced.map(traced_from_pb).transpose()?,
    })
}

pub(super) fn traced_from_pb(millionths: u32) -> Result<TraceShare, Fault> {
    TraceShare::of_millionths(millionths)
        .ok_or_else(|| Fault::new(format!("{millionths} millionths are more than all")))
}

pub(super) fn caller_to_pb(own: &CallerPolicy) -> pb::CallerPolicy {
    pb::CallerPolicy {
        callers: own.callers.iter().map(ToString::to_string).collect(),
        policy: Some(to_pb(&own.policy)),
    }
}

pub(super) fn caller_from_pb(own: pb::CallerPolicy) -> Result<CallerPolicy, Fault> {
    Ok(CallerPolicy {
        callers: own.callers.iter().map(|c| field::name(c)).collect::<Result<_, _>>()?,
        policy: from_pb(own.policy.ok_or_else(|| Fault::missing("the policy of a caller"))?)?,
    })
}

pub(super) fn timeouts_to_pb(timeouts: &Timeouts) -> pb::Timeouts {
    let duration = |d: Option<Duration>| d.map(duration_to_pb);
    pb::Timeouts {
        request: duration(timeouts.request),
        per_try: duration(timeouts.per_try),
        idle: duration(timeouts.idle),
        connect: duration(timeouts.connect),
        stream: duration(timeouts.stream),
    }
}

pub(super) fn timeouts_from_pb(timeouts: Option<pb::Timeouts>) -> Result<Timeouts, Fault> {
    let timeouts = timeouts.ok_or_else(|| Fault::missing("timeouts"))?;
    let duration = |d: Option<pb::Duration>| d.map(duration_from_pb).transpose();
    Ok(Timeouts {
        request: duration(timeouts.request)?,
        per_try: duration(timeouts.per_try)?,
        idle: duration(timeouts.idle)?,
        connect: duration(timeouts.connect)?,
        stream: duration(timeouts.stream)?,
    })
}

pub(super) fn retry_to_pb(retry: &RetryPolicy) -> pb::RetryPolicy {
    let usual = RetryPolicy::default();
    pb::RetryPolicy {
        retries: retry.retries,
        idempotent: retry.idempotent,
        budget_percent: retry.budget_percent,
        budget_floor: retry.budget_floor,
        replay_bytes: retry.replay_bytes,
        backoff: (retry.backoff != usual.backoff).then(|| duration_to_pb(retry.backoff)),
        max_backoff: (retry.max_backoff != usual.max_backoff).then(|| duration_to_pb(retry.max_backoff)),
        min_backoff: (retry.min_backoff != usual.min_backoff).then(|| duration_to_pb(retry.min_backoff)),
        codes: retry.codes.iter().map(|code| u32::from(*code)).collect(),
    }
}

pub(super) fn retry_from_pb(retry: pb::RetryPolicy) -> Result<RetryPolicy, Fault> {
    let usual = RetryPolicy::default();
    Ok(RetryPolicy {
        retries: retry.retries,
        idempotent: retry.idempotent,
        budget_percent: retry.budget_percent,
        budget_floor: retry.budget_floor,
        replay_bytes: retry.replay_bytes,
        backoff: retry.backoff.map_or(Ok(usual.backoff), duration_from_pb)?,
        max_backoff: retry.max_backoff.map_or(Ok(usual.max_backoff), duration_from_pb)?,
        min_backoff: retry.min_backoff.map_or(Ok(usual.min_backoff), duration_from_pb)?,
        codes: retry.codes.into_iter().map(field::status).collect::<Result<_, _>>()?,
    })
}

fn balance_to_pb(balance: &Balance) -> pb::Balance {
    let (algorithm, hash) = match &balance.algorithm {
        Algorithm::PeakEwma => (pb::Algorithm::PeakEwma, None),
        Algorithm::RoundRobin => (pb::Algorithm::RoundRobin, None),
        Algorithm::LeastRequest => (pb::Algorithm::LeastRequest, None),
        Algorithm::Random => (pb::Algorithm::Random, None),
        Algorithm::Maglev(key) => (pb::Algorithm::Maglev, Some(hash_to_pb(key))),
    };
    pb::Balance {
        algorithm: algorithm.into(),
        hash,
        ignore_zones: balance.locality == Locality::Off,
        panic_percent: balance.panic_percent,
        sticky: balance.sticky.as_ref().map(sticky_to_pb),
    }
}

fn balance_from_pb(balance: pb::Balance) -> Result<Balance, Fault> {
    let algorithm = match field::value("algorithm", balance.algorithm)? {
        pb::Algorithm::Unspecified => return Err(Fault::missing("algorithm")),
        pb::Algorithm::PeakEwma => Algorithm::PeakEwma,
        pb::Algorithm::RoundRobin => Algorithm::RoundRobin,
        pb::Algorithm::LeastRequest => Algorithm::LeastRequest,
        pb::Algorithm::Random => Algorithm::Random,
        pb::Algorithm::Maglev => Algorithm::Maglev(hash_from_pb(balance.hash)?),
    };
    Ok(Balance {
        algorithm,
        locality: if balance.ignore_zones { Locality::Off } else { Locality::PreferZone },
        panic_percent: balance.panic_percent,
        sticky: balance.sticky.map(sticky_from_pb).transpose()?,
    })
}

pub(super) fn hash_to_pb(key: &HashKey) -> pb::HashKey {
    use pb::hash_key::Key;
    let key = match key {
        HashKey::Header(name) => Key::Header(name.to_string()),
        HashKey::Cookie(name) => Key::Cookie(name.to_string()),
        HashKey::Query(name) => Key::Query(name.to_string()),
        HashKey::Claim(claim) => Key::Claim(claim.to_string()),
        HashKey::SourceIdentity => Key::SourceIdentity(pb::Nothing {}),
        HashKey::SourceAddress => Key::SourceAddress(pb::Nothing {}),
    };
    pb::HashKey { key: Some(key) }
}

pub(super) fn hash_from_pb(key: Option<pb::HashKey>) -> Result<HashKey, Fault> {
    use pb::hash_key::Key;
    Ok(match key.and_then(|k| k.key).ok_or_else(|| Fault::missing("the key of a hash"))? {
        Key::Header(name) => HashKey::Header(header_name(&name)?),
        Key::Cookie(name) => HashKey::Cookie(name.into()),
        Key::Query(name) => HashKey::Query(name.into()),
        Key::Claim(claim) => HashKey::Claim(field::name(&claim)?),
        Key::SourceIdentity(pb::Nothing {}) => HashKey::SourceIdentity,
        Key::SourceAddress(pb::Nothing {}) => HashKey::SourceAddress,
    })
}

pub(super) fn sticky_to_pb(sticky: &Sticky) -> pb::Sticky {
    use pb::sticky::By;
    let by = match &sticky.by {
        StickyBy::Cookie { name, ttl } => {
            By::Cookie(pb::StickyCookie { name: name.to_string(), ttl: ttl.map(duration_to_pb) })
        }
        StickyBy::Header(name) => By::Header(name.to_string()),
    };
    let to_subset = sticky.to == StickyTo::Subset;
    pb::Sticky {
        by: Some(by),
        to_subset,
        key: sticky.key.secret().to_vec(),
        absolute: sticky.end.absolute.map(duration_to_pb),
        idle: sticky.end.idle.map(duration_to_pb),
    }
}

pub(super) fn sticky_from_pb(sticky: pb::Sticky) -> Result<Sticky, Fault> {
    use pb::sticky::By;
    let by = match sticky.by.ok_or_else(|| Fault::missing("what names the place of sticky callers"))? {
        By::Cookie(cookie) => {
            StickyBy::Cookie { name: cookie.name.into(), ttl: cookie.ttl.map(duration_from_pb).transpose()? }
        }
        By::Header(name) => StickyBy::Header(header_name(&name)?),
    };
    let key = <[u8; 32]>::try_from(sticky.key.as_slice())
        .map_err(|_| Fault::new("the key of sticky callers is not 32 bytes long"))?;
    let to = if sticky.to_subset { StickyTo::Subset } else { StickyTo::Endpoint };
    let end = SessionEnd {
        absolute: sticky.absolute.map(duration_from_pb).transpose()?,
        idle: sticky.idle.map(duration_from_pb).transpose()?,
    };
    Ok(Sticky { by, to, end, key: SigningKey::new(key) })
}

fn health_to_pb(check: &HealthCheck) -> pb::HealthCheck {
    use pb::health_check::Probe as Pb;
    let probe = match &check.probe {
        Probe::Http { path, expect: (lowest, highest) } => Pb::Http(pb::HttpProbe {
            path: path.to_string(),
            lowest: (*lowest).into(),
            highest: (*highest).into(),
        }),
        Probe::Grpc { service } => Pb::Grpc(service.to_string()),
        Probe::Tcp => Pb::Tcp(pb::Nothing {}),
    };
    pb::HealthCheck {
        probe: Some(probe),
        port: check.port.map(|p| p.get().into()),
        interval: Some(duration_to_pb(check.interval)),
        timeout: Some(duration_to_pb(check.timeout)),
        healthy: check.healthy,
        unhealthy: check.unhealthy,
    }
}

fn health_from_pb(check: pb::HealthCheck) -> Result<HealthCheck, Fault> {
    use pb::health_check::Probe as Pb;
    let status = |n: u32| u16::try_from(n).map_err(|_| Fault::new(format!("{n} is not a status")));
    let probe = match check.probe.ok_or_else(|| Fault::missing("the probe of a health check"))? {
        Pb::Http(http) => {
            Probe::Http { path: http.path.into(), expect: (status(http.lowest)?, status(http.highest)?) }
        }
        Pb::Grpc(service) => Probe::Grpc { service: service.into() },
        Pb::Tcp(pb::Nothing {}) => Probe::Tcp,
    };
    Ok(HealthCheck {
        probe,
        port: check.port.map(field::port_number).transpose()?,
        interval: field::duration("interval", check.interval)?,
        timeout: field::duration("timeout", check.timeout)?,
        healthy: check.healthy,
        unhealthy: check.unhealthy,
    })
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Fault::new(format!("{:?} is not a header's name", super::shortened(text))))
}
