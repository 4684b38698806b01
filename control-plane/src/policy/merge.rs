//! One layer over another, in the written form.

use crate::spec::policy::{
    Balance, Bulkhead, Bulkheads, Connections, EndpointBreaker, EndpointBulkhead, FailureRatio, HealthCheck,
    PolicySettings, ServiceBreaker, SlowCalls, Tracing,
};
use crate::spec::{Retry, ServiceTimeouts};

/// All layers, the widest first, as one.
pub(super) fn layers<'a>(layers: impl Iterator<Item = &'a PolicySettings>) -> PolicySettings {
    layers.fold(PolicySettings::default(), |wider, narrower| over(narrower, &wider))
}

/// What `narrower` says, and where it says nothing, what `wider` does.
pub(super) fn over<T: Layered>(narrower: &T, wider: &T) -> T {
    narrower.over(wider)
}

/// Settings that can be laid over each other.
pub(super) trait Layered: Clone {
    fn over(&self, wider: &Self) -> Self;
}

/// A group of settings is laid over the other one; only one that is not written at all is taken whole.
fn group<T: Layered>(narrower: Option<&T>, wider: Option<&T>) -> Option<T> {
    match (narrower, wider) {
        (Some(narrower), Some(wider)) => Some(narrower.over(wider)),
        (one, other) => one.or(other).cloned(),
    }
}

macro_rules! layered {
    ($of:ty { $($value:ident),* ; $($group:ident),* }) => {
        impl Layered for $of {
            fn over(&self, wider: &Self) -> Self {
                Self {
                    $($value: self.$value.clone().or_else(|| wider.$value.clone()),)*
                    $($group: group(self.$group.as_ref(), wider.$group.as_ref()),)*
                }
            }
        }
    };
}

layered!(PolicySettings {
    slow_start, rate_limits;
    timeouts, retry, balance, endpoint_breaker, service_breaker, bulkhead, connections, health_check, tracing
});
layered!(ServiceTimeouts { request, per_try, idle, connect, stream; });
layered!(Retry {
    retries, idempotent, budget_percent, budget_floor, replay_bytes, backoff, max_backoff;
});
// What is hashed and what sticks are one choice each, never two halves of different layers.
layered!(Balance { algorithm, hash, locality, panic_percent, sticky; });
layered!(EndpointBreaker {
    enabled, consecutive_failures, connect_failures, window, open, max_open, successes, ramp, max_open_percent,
    allow_all_open;
    failure_ratio, slow_calls
});
layered!(ServiceBreaker {
    mode, consecutive_failures, connect_failures, window, open, max_open, successes, ramp, fallback;
    failure_ratio, slow_calls
});
layered!(FailureRatio { percent, min_requests; });
layered!(SlowCalls { over, percent, min_requests; });
layered!(Bulkheads { max_in_flight, max_queue, queue_timeout, max_streams; endpoint, caller });
layered!(EndpointBulkhead { max_in_flight; });
layered!(Bulkhead { enabled, max_in_flight, max_queue, queue_timeout; });
layered!(Connections { per_endpoint, per_service; });
layered!(Tracing { sample; });

impl Layered for HealthCheck {
    /// The probe is one choice: another one in the narrower layer replaces it.
    fn over(&self, wider: &Self) -> Self {
        let probe = if self.has_probe() { self } else { wider };
        Self {
            enabled: self.enabled.or(wider.enabled),
            http: probe.http.clone(),
            grpc: probe.grpc.clone(),
            tcp: probe.tcp.clone(),
            port: self.port.or(wider.port),
            interval: self.interval.or(wider.interval),
            timeout: self.timeout.or(wider.timeout),
            healthy: self.healthy.or(wider.healthy),
            unhealthy: self.unhealthy.or(wider.unhealthy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: serde_json::Value) -> PolicySettings {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_narrower_layer_says_only_what_it_says() {
        let wider = settings(serde_json::json!({
            "timeouts": {"request": "9s", "idle": "1m"}, "endpointBreaker": {"failureRatio": {"percent": 10}},
            "healthCheck": {"http": {"path": "/healthz"}, "interval": "3s"},
            "balance": {"hash": {"header": "x-a"}, "panicPercent": 1}
        }));
        let narrower = settings(serde_json::json!({
            "timeouts": {"request": "2s"}, "endpointBreaker": {"failureRatio": {"minRequests": 3}},
            "healthCheck": {"tcp": {}}, "balance": {"hash": {"cookie": "c"}}, "slowStart": true
        }));
        let expected = settings(serde_json::json!({
            "timeouts": {"request": "2s", "idle": "1m"},
            "endpointBreaker": {"failureRatio": {"percent": 10, "minRequests": 3}},
            "healthCheck": {"tcp": {}, "interval": "3s"},
            "balance": {"hash": {"cookie": "c"}, "panicPercent": 1}, "slowStart": true
        }));
        assert_eq!(layers([&wider, &narrower].into_iter()), expected);
        assert_eq!(layers([&wider].into_iter()), wider);
    }
}
