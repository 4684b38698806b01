//! What this process sends along each route, in whole numbers since its start: whoever looks twice knows what was between.

use std::collections::BTreeMap;

use outrigger_mesh::{Sample, Side};
use serde_json::{Value, json};

use super::buckets::WHOLE;
use super::table::RequestTable;

/// The counts of some requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// All of them.
    pub(super) requests: u64,
    /// Those that whoever was asked, or a proxy, did not answer well.
    pub(super) failed: u64,
    /// By how long they took.
    pub(super) counts: [u64; WHOLE.len() + 1],
}

impl Totals {
    /// Adds some of one outcome.
    pub(super) fn add(&mut self, counts: [u64; WHOLE.len() + 1], failed: bool) {
        let requests: u64 = counts.iter().sum();
        self.requests += requests;
        self.failed += if failed { requests } else { 0 };
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    fn and(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }
}

impl RequestTable {
    /// By service and route; as many at most as there are series.
    pub fn by_route(&self) -> Value {
        let mut all = BTreeMap::<(String, String), Totals>::new();
        for (labels, series) in self.all(Side::Client) {
            let sample = Sample { name: "", labels: &labels, value: "", exemplar: None };
            let label = |wanted: &str| {
                let found = sample.pairs().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| value.to_owned()).unwrap_or_default()
            };
            let totals = series.totals();
            if totals.requests > 0 {
                all.entry((label("service"), label("route"))).or_default().and(&totals);
            }
        }
        let told = |((service, route), totals): ((String, String), Totals)| {
            json!({
                "service": service, "route": route, "requests": totals.requests, "failed": totals.failed,
                "counts": totals.counts,
            })
        };
        let bounds: Vec<u64> = WHOLE.to_vec();
        json!({ "boundsMicros": bounds, "routes": all.into_iter().map(told).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, Method};
    use outrigger_mesh::{RouteName, ServiceName, Version};

    use super::super::method::MethodClass;
    use super::super::outcome::Outcome;
    use super::super::table::Parties;
    use super::*;

    #[test]
    fn versions_of_a_route_are_counted_together_and_routes_apart() {
        let table = RequestTable::default();
        let cart: ServiceName = "shop/cart".parse().unwrap();
        let record = |version: &str, route: &str, status: u16, millis: u64| {
            let (version, route) = (Version::new(version).unwrap(), RouteName::new(route).unwrap());
            let who = Parties {
                side: Side::Client,
                service: Some(&cart),
                version: Some(&version),
                caller: None,
                route: Some(&route),
            };
            let outcome =
                Outcome::of(MethodClass::of(&Method::GET), status, &HeaderMap::new(), (false, true));
            table.of(who).record(outcome, Duration::from_millis(millis), None);
        };
        record("v1", "shop/pay/0", 200, 1);
        record("v2", "shop/pay/0", 503, 30);
        record("v2", "shop/pay/0", 404, 30);
        record("v1", "shop/rest/0", 200, 1);
        let told = table.by_route();
        let routes = told["routes"].as_array().unwrap();
        assert_eq!(routes.len(), 2, "{told:#}");
        assert_eq!((&routes[0]["service"], &routes[0]["route"]), (&"shop/cart".into(), &"shop/pay/0".into()));
        assert_eq!((&routes[0]["requests"], &routes[0]["failed"]), (&3.into(), &1.into()));
        assert_eq!((&routes[0]["counts"][0], &routes[0]["counts"][5]), (&1.into(), &2.into()));
        assert_eq!((&told["boundsMicros"][5], &routes[1]["requests"]), (&50_000.into(), &1.into()));
    }
}
