//! Bulkheads and rate limits.

use outrigger_mesh::{Bulkhead, Bulkheads, Protection, RateKey, RateLimit};

use super::field::{self, Fault, duration_to_pb};
use super::policy::header_name;
use super::route::{match_from_pb, match_to_pb};
use crate::pb;

pub(super) fn to_pb(bulkhead: Bulkhead) -> pb::Bulkhead {
    pb::Bulkhead {
        max_in_flight: bulkhead.max_in_flight,
        max_queue: bulkhead.max_queue,
        queue_timeout: Some(duration_to_pb(bulkhead.queue_timeout)),
    }
}

pub(super) fn from_pb(bulkhead: pb::Bulkhead) -> Result<Bulkhead, Fault> {
    Ok(Bulkhead {
        max_in_flight: bulkhead.max_in_flight,
        max_queue: bulkhead.max_queue,
        queue_timeout: field::duration("queue_timeout", bulkhead.queue_timeout)?,
    })
}

/// The defaults, which nearly every service has, cost nothing.
pub(super) fn all_to_pb(all: &Bulkheads) -> Option<pb::Bulkheads> {
    (*all != Bulkheads::default()).then(|| pb::Bulkheads {
        service: Some(to_pb(all.service)),
        endpoint: all.endpoint,
        max_streams: all.max_streams,
    })
}

pub(super) fn all_from_pb(all: Option<pb::Bulkheads>) -> Result<Bulkheads, Fault> {
    let Some(all) = all else { return Ok(Bulkheads::default()) };
    let service = all.service.ok_or_else(|| Fault::missing("the bulkhead of the service"))?;
    Ok(Bulkheads { service: from_pb(service)?, endpoint: all.endpoint, max_streams: all.max_streams })
}

pub(super) fn rates_to_pb(protection: &Protection) -> Vec<pb::RateLimit> {
    protection.rate_limits.iter().map(rate_to_pb).collect()
}

pub(super) fn protection_from_pb(
    caller: Option<pb::Bulkhead>,
    rates: Vec<pb::RateLimit>,
) -> Result<Protection, Fault> {
    let protection = Protection {
        caller: caller.map(from_pb).transpose()?,
        rate_limits: rates.into_iter().map(rate_from_pb).collect::<Result<_, _>>()?,
    };
    protection.check().map_err(|e| Fault::new(e.to_string()))?;
    Ok(protection)
}

pub(super) fn rate_to_pb(limit: &RateLimit) -> pb::RateLimit {
    use pb::rate_limit::Key;
    pb::RateLimit {
        name: limit.name.to_string(),
        matches: limit.matches.iter().map(match_to_pb).collect(),
        key: Some(match &limit.key {
            RateKey::Service => Key::Service(pb::Nothing {}),
            RateKey::Caller => Key::Caller(pb::Nothing {}),
            RateKey::Header(name) => Key::Header(name.to_string()),
            RateKey::Claim(claim) => Key::Claim(claim.to_string()),
        }),
        requests: limit.requests,
        per: Some(duration_to_pb(limit.per)),
        burst: limit.burst,
    }
}

pub(super) fn rate_from_pb(limit: pb::RateLimit) -> Result<RateLimit, Fault> {
    use pb::rate_limit::Key;
    Ok(RateLimit {
        name: limit.name.into(),
        matches: limit.matches.into_iter().map(match_from_pb).collect::<Result<_, _>>()?,
        key: match limit.key.ok_or_else(|| Fault::missing("the key of a rate limit"))? {
            Key::Service(pb::Nothing {}) => RateKey::Service,
            Key::Caller(pb::Nothing {}) => RateKey::Caller,
            Key::Header(name) => RateKey::Header(header_name(&name)?),
            Key::Claim(claim) => RateKey::Claim(field::name(&claim)?),
        },
        requests: limit.requests,
        per: field::duration("per", limit.per)?,
        burst: limit.burst,
    })
}
