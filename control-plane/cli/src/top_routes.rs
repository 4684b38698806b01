//! `outrigger top --routes`: how it goes along each route, as the sidecars of the callers count it.
//!
//! Reports have no routes: what the control plane keeps of an hour would grow by as many as there are. So the sidecars are asked, twice,
//! and what lies between is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::client::Admin;
use crate::failure::Failure;
use crate::proxy::items;

/// What the sidecars have counted until now.
#[derive(Debug)]
pub(crate) struct Counted {
    at: Instant,
    /// By sidecar, service and route.
    routes: BTreeMap<(String, String, String), Sums>,
    bounds: Vec<u64>,
    /// Sidecars that were not asked, or did not answer.
    silent: usize,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    requests: u64,
    failed: u64,
    counts: Vec<u64>,
}

impl Counted {
    /// Asks the sidecars, some at a time.
    pub(crate) async fn now(admin: &Admin) -> Result<Self, Failure> {
        let list = admin.list("proxies", None).await?;
        let mut nodes: Vec<&str> = items(&list).iter().filter_map(|proxy| proxy["node"].as_str()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let left_out = nodes.len().saturating_sub(MOST_ASKED);
        nodes.truncate(MOST_ASKED);
        let asked =
            nodes.iter().map(|node| async move { admin.told(&format!("/v1/proxies/{node}/routes")).await });
        let told: Vec<Result<Value, Failure>> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut counted =
            Self { at: Instant::now(), routes: BTreeMap::new(), bounds: vec![], silent: left_out };
        for one in told {
            match one {
                Ok(told) => items(&told).iter().for_each(|told| counted.add(told)),
                // One that has gone meanwhile.
                Err(_) => counted.silent += 1,
            }
        }
        Ok(counted)
    }

    fn add(&mut self, told: &Value) {
        let page = &told["routes"];
        let Some(routes) = page["routes"].as_array() else {
            self.silent += 1;
            return;
        };
        let numbers = |value: &Value| -> Vec<u64> {
            value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        self.bounds = numbers(&page["boundsMicros"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sidecar = format!("{} {}", text(&told["identity"]), text(&told["node"]));
        for route in routes {
            let key = (sidecar.clone(), text(&route["service"]), text(&route["route"]));
            let number = |field: &str| route[field].as_u64().unwrap_or_default();
            let sums = Sums {
                requests: number("requests"),
                failed: number("failed"),
                counts: numbers(&route["counts"]),
            };
            self.routes.insert(key, sums);
        }
    }

    /// What was counted since `before`, by route, in the form that services have in `top`. A sidecar that began between has
    /// counted from nothing.
    pub(crate) fn since(&self, before: &Self) -> Vec<Value> {
        let seconds =
            self.at.saturating_duration_since(before.at).max(Duration::from_millis(1)).as_secs_f64();
        let mut all = BTreeMap::<(&str, &str), Sums>::new();
        for (key, now) in &self.routes {
            let first = before.routes.get(key).filter(|first| first.requests <= now.requests);
            let sums = all.entry((&key.1, &key.2)).or_default();
            sums.add(now, first);
        }
        let told = |((service, route), sums): ((&str, &str), Sums)| {
            let (namespace, name) = service.split_once('/').unwrap_or(("", service));
            let good = sums.requests.saturating_sub(sums.failed);
            #[allow(clippy::cast_precision_loss, reason = "figures for people")]
            let (requests, good) = (sums.requests as f64, good as f64);
            json!({
                "namespace": namespace, "name": name, "route": route, "rps": requests / seconds,
                "success": (requests > 0.0).then(|| good / requests),
                "p50Ms": self.quantile(&sums, 50), "p99Ms": self.quantile(&sums, 99),
            })
        };
        all.into_iter().map(told).collect()
    }

    /// How many sidecars told nothing.
    pub(crate) fn silent(&self) -> usize {
        self.silent
    }

    /// The upper end of the bucket in which it lies; of the last one, which has none, its lower.
    fn quantile(&self, sums: &Sums, percent: u64) -> Option<f64> {
        let all: u64 = sums.counts.iter().sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut below = 0;
        let at = sums.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        let bound = self.bounds.get(at).or_else(|| self.bounds.last())?;
        #[allow(clippy::cast_precision_loss, reason = "microseconds of some seconds")]
        Some(*bound as f64 / 1_000.0)
    }
}

impl Sums {
    fn add(&mut self, now: &Self, first: Option<&Self>) {
        let since = |now: u64, first: Option<u64>| now.saturating_sub(first.unwrap_or_default());
        self.requests += since(now.requests, first.map(|first| first.requests));
        self.failed += since(now.failed, first.map(|first| first.failed));
        self.counts.resize(self.counts.len().max(now.counts.len()), 0);
        for (at, (sum, count)) in self.counts.iter_mut().zip(&now.counts).enumerate() {
            *sum += since(*count, first.and_then(|first| first.counts.get(at).copied()));
        }
    }
}

/// So many sidecars are asked; of a larger mesh Prometheus tells.
const MOST_ASKED: usize = 256;
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(at: Instant, pages: &[(&str, u64, u64, [u64; 3])]) -> Counted {
        let mut counted = Counted { at, routes: BTreeMap::new(), bounds: vec![], silent: 0 };
        for (node, requests, failed, counts) in pages {
            let route = json!({"service": "shop/cart", "route": "shop/pay/0", "requests": requests, "failed": failed, "counts": counts});
            let page = json!({"boundsMicros": [1_000, 50_000], "routes": [route]});
            counted.add(&json!({"identity": "web", "node": node, "routes": page}));
        }
        counted
    }

    #[test]
    fn what_lies_between_two_looks_is_told_whatever_began_or_ended_there() {
        let start = Instant::now();
        let before = counted(
            start,
            &[("a", 100, 10, [100, 0, 0]), ("gone", 7, 7, [7, 0, 0]), ("anew", 50, 0, [50, 0, 0])],
        );
        let now = counted(
            start + Duration::from_secs(10),
            &[("a", 190, 10, [100, 90, 0]), ("new", 5, 5, [0, 5, 0]), ("anew", 5, 0, [5, 0, 0])],
        );
        let told = now.since(&before);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["namespace"], &told[0]["name"]), (&json!("shop"), &json!("cart")));
        assert_eq!((&told[0]["route"], &told[0]["rps"]), (&json!("shop/pay/0"), &json!(10.0)));
        assert_eq!((&told[0]["success"], &told[0]["p50Ms"]), (&json!(0.95), &json!(50.0)));
        let nothing = now.since(&now);
        assert_eq!(
            (&nothing[0]["rps"], &nothing[0]["success"], &nothing[0]["p99Ms"]),
            (&json!(0.0), &Value::Null, &Value::Null)
        );
    }
}
