//! Circuit breakers, and what operators say of them.

use std::time::{Duration, SystemTime};

use http::HeaderValue;
use outrigger_mesh::{
    BreakerMode, BreakerOverride, EndpointBreaker, FailureRatio, Fallback, Recovery, ServiceBreaker,
    SlowCalls, Trip,
};

use super::field::{self, Fault, duration_from_pb, duration_to_pb};
use super::policy::header_name;
use crate::pb;

pub(super) fn endpoint_to_pb(breaker: &EndpointBreaker) -> pb::EndpointBreaker {
    pb::EndpointBreaker {
        trip: breaker.trip.as_ref().map(trip_to_pb),
        recovery: Some(recovery_to_pb(&breaker.recovery)),
        slow_start: breaker.slow_start,
        max_open_percent: breaker.max_open_percent,
        allow_all_open: breaker.allow_all_open,
    }
}

pub(super) fn endpoint_from_pb(breaker: pb::EndpointBreaker) -> Result<EndpointBreaker, Fault> {
    Ok(EndpointBreaker {
        trip: breaker.trip.map(trip_from_pb).transpose()?,
        recovery: recovery_from_pb(breaker.recovery)?,
        slow_start: breaker.slow_start,
        max_open_percent: breaker.max_open_percent,
        allow_all_open: breaker.allow_all_open,
    })
}

pub(super) fn service_to_pb(breaker: &ServiceBreaker) -> pb::ServiceBreaker {
    pb::ServiceBreaker {
        mode: mode_to_pb(breaker.mode),
        trip: Some(trip_to_pb(&breaker.trip)),
        recovery: Some(recovery_to_pb(&breaker.recovery)),
        fallback: breaker.fallback.as_ref().map(fallback_to_pb),
    }
}

pub(super) fn service_from_pb(breaker: pb::ServiceBreaker) -> Result<ServiceBreaker, Fault> {
    Ok(ServiceBreaker {
        mode: mode_from_pb(breaker.mode)?,
        trip: trip_from_pb(breaker.trip.ok_or_else(|| Fault::missing("trip"))?)?,
        recovery: recovery_from_pb(breaker.recovery)?,
        fallback: breaker.fallback.map(fallback_from_pb).transpose()?,
    })
}

pub(super) fn override_to_pb(over: &BreakerOverride) -> pb::BreakerOverride {
    let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    pb::BreakerOverride {
        route: over.route.as_ref().map(ToString::to_string),
        version: over.version.as_ref().map(ToString::to_string),
        mode: mode_to_pb(over.mode),
        until: over.until.map(|at| duration_to_pb(since(at))),
    }
}

pub(super) fn override_from_pb(over: &pb::BreakerOverride) -> Result<BreakerOverride, Fault> {
    let at = |d: Duration| {
        SystemTime::UNIX_EPOCH.checked_add(d).ok_or_else(|| Fault::new("an override ends beyond all time"))
    };
    Ok(BreakerOverride {
        route: field::name_if(over.route.as_deref())?,
        version: field::name_if(over.version.as_deref())?,
        mode: mode_from_pb(over.mode)?,
        until: over.until.map(duration_from_pb).transpose()?.map(at).transpose()?,
    })
}

fn mode_to_pb(mode: BreakerMode) -> i32 {
    match mode {
        BreakerMode::Observe => pb::BreakerMode::Observe,
        BreakerMode::Auto => pb::BreakerMode::Auto,
        BreakerMode::ForceOpen => pb::BreakerMode::ForceOpen,
        BreakerMode::ForceClosed => pb::BreakerMode::ForceClosed,
    }
    .into()
}

fn mode_from_pb(number: i32) -> Result<BreakerMode, Fault> {
    Ok(match field::value("mode", number)? {
        pb::BreakerMode::Unspecified => return Err(Fault::missing("mode")),
        pb::BreakerMode::Observe => BreakerMode::Observe,
        pb::BreakerMode::Auto => BreakerMode::Auto,
        pb::BreakerMode::ForceOpen => BreakerMode::ForceOpen,
        pb::BreakerMode::ForceClosed => BreakerMode::ForceClosed,
    })
}

fn trip_to_pb(trip: &Trip) -> pb::Trip {
    let share = |percent, min_requests| pb::Share { percent, min_requests };
    pb::Trip {
        consecutive: trip.consecutive,
        connect_failures: trip.connect_failures,
        failures: trip.ratio.map(|r| share(r.percent, r.min_requests)),
        slow: trip.slow.map(|s| share(s.percent, s.min_requests)),
        slow_over: trip.slow.map(|s| duration_to_pb(s.over)),
        window: Some(duration_to_pb(trip.window)),
    }
}

fn trip_from_pb(trip: pb::Trip) -> Result<Trip, Fault> {
    let slow = match trip.slow {
        None => None,
        Some(share) => Some(SlowCalls {
            over: field::duration("slow_over", trip.slow_over)?,
            percent: share.percent,
            min_requests: share.min_requests,
        }),
    };
    Ok(Trip {
        consecutive: trip.consecutive,
        connect_failures: trip.connect_failures,
        ratio: trip.failures.map(|s| FailureRatio { percent: s.percent, min_requests: s.min_requests }),
        slow,
        window: field::duration("window", trip.window)?,
    })
}

fn recovery_to_pb(recovery: &Recovery) -> pb::Recovery {
    pb::Recovery {
        open: Some(duration_to_pb(recovery.open)),
        max_open: Some(duration_to_pb(recovery.max_open)),
        successes: recovery.successes,
        ramp: Some(duration_to_pb(recovery.ramp)),
    }
}

fn recovery_from_pb(recovery: Option<pb::Recovery>) -> Result<Recovery, Fault> {
    let recovery = recovery.ok_or_else(|| Fault::missing("recovery"))?;
    Ok(Recovery {
        open: field::duration("open", recovery.open)?,
        max_open: field::duration("max_open", recovery.max_open)?,
        successes: recovery.successes,
        ramp: field::duration("ramp", recovery.ramp)?,
    })
}

fn fallback_to_pb(fallback: &Fallback) -> pb::Fallback {
    use pb::fallback::Fallback as Pb;
    let header = |(name, value): &(http::HeaderName, HeaderValue)| pb::NameBytes {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    pb::Fallback {
        fallback: Some(match fallback {
            Fallback::Service(name) => Pb::Service(name.to_string()),
            Fallback::Response { status, headers, body } => Pb::Response(pb::FixedResponse {
                status: (*status).into(),
                headers: headers.iter().map(header).collect(),
                body: body.to_string(),
            }),
        }),
    }
}

fn fallback_from_pb(fallback: pb::Fallback) -> Result<Fallback, Fault> {
    use pb::fallback::Fallback as Pb;
    let header = |h: pb::NameBytes| {
        let value = HeaderValue::from_bytes(&h.value).map_err(|_| {
            Fault::new(format!("the value of header {} can not be sent", super::shortened(&h.name)))
        })?;
        Ok((header_name(&h.name)?, value))
    };
    Ok(match fallback.fallback.ok_or_else(|| Fault::missing("what a fallback is"))? {
        Pb::Service(name) => Fallback::Service(field::name(&name)?),
        Pb::Response(response) => Fallback::Response {
            status: u16::try_from(response.status)
                .map_err(|_| Fault::new(format!("{} is not a status", response.status)))?,
            headers: response.headers.into_iter().map(header).collect::<Result<_, Fault>>()?,
            body: response.body.into(),
        },
    })
}
