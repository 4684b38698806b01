//! What the sidecars know of each other while things break: breakers, retries, budgets and bulkheads, from their own
//! admin pages. Every caller's sidecar has its own view of an endpoint; here they are counted together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use owo_colors::OwoColorize;
use serde_json::Value;

use super::plant::Plant;
use crate::http::{Ask, ask};
use crate::out;

/// A sidecar that is asked.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// `cart-1`.
    name: String,
    /// The name by which the others know its instance.
    uid: Option<String>,
    admin: SocketAddr,
}

/// What they know, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    services: BTreeMap<String, Service>,
    retries: u64,
    over_budget: u64,
    /// How often breakers of endpoints have opened, by who asked.
    opened: BTreeMap<SocketAddr, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Service {
    endpoints: BTreeMap<String, Endpoint>,
    /// The least that any caller has left.
    budget_left: Option<u64>,
    in_flight: u64,
    /// Of one caller.
    limit: Option<u64>,
    rejected: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Endpoint {
    /// At how many callers its breaker is in which state.
    breakers: BTreeMap<String, usize>,
    in_flight: u64,
    /// The slowest that any caller found it.
    micros: u64,
}

/// Everyone who can be asked.
pub(super) fn everyone(plant: &Plant) -> Vec<Watched> {
    let watched = plant.instances().iter().map(|i| Watched {
        name: i.name.clone(),
        uid: i.uid().map(str::to_owned),
        admin: i.admin(),
    });
    watched.collect()
}

/// Asks them all. Who does not answer is left out: he may just have been killed.
pub(super) async fn look(watched: &[Watched]) -> Picture {
    let answers =
        join_all(watched.iter().map(|w| async move {
            tokio::join!(get(w.admin, "/clusters"), get(w.admin, "/stats/prometheus"))
        }));
    let names: BTreeMap<&str, &str> =
        watched.iter().filter_map(|w| Some((w.uid.as_deref()?, w.name.as_str()))).collect();
    let mut picture = Picture::default();
    for (watched, (clusters, metrics)) in watched.iter().zip(answers.await) {
        picture.opened.insert(watched.admin, total_where(&metrics, OPENED, "to=\"open\""));
        picture.add(&serde_json::from_str(&clusters).unwrap_or_default(), &metrics, &names);
    }
    picture
}

impl Picture {
    /// What one sidecar tells.
    fn add(&mut self, clusters: &Value, metrics: &str, names: &BTreeMap<&str, &str>) {
        self.retries += total(metrics, "outrigger_retries_total");
        self.over_budget += total(metrics, "outrigger_retries_over_budget_total");
        for told in list(clusters) {
            let endpoints = list(&told["endpoints"]);
            let Some(name) = told["service"].as_str().filter(|_| !endpoints.is_empty()) else { continue };
            let service = self.services.entry(name.to_owned()).or_default();
            if let Some(left) = told["retryBudgetLeft"].as_u64() {
                service.budget_left = Some(service.budget_left.map_or(left, |known| known.min(left)));
            }
            service.in_flight += number(&told["bulkhead"]["inFlight"]);
            service.rejected += number(&told["bulkhead"]["rejected"]);
            service.limit = service.limit.max(told["bulkhead"]["limit"].as_u64());
            for told in endpoints {
                let uid = told["uid"].as_str().unwrap_or_default();
                let endpoint =
                    service.endpoints.entry(names.get(uid).map_or(uid, |n| *n).to_owned()).or_default();
                let breaker = told["breaker"]["state"].as_str().or(told["breaker"].as_str()).unwrap_or("-");
                *endpoint.breakers.entry(breaker.to_owned()).or_default() += 1;
                endpoint.in_flight += number(&told["inFlight"]);
                endpoint.micros = endpoint.micros.max(number(&told["latencyMicros"]));
            }
        }
    }

    /// The instances whose breaker is open or half-open somewhere.
    pub(super) fn open(&self) -> Vec<String> {
        let all = self.services.values().flat_map(|service| &service.endpoints);
        all.filter(|(_, e)| {
            e.breakers.keys().any(|state| !matches!(state.as_str(), "closed" | "ramping" | "-"))
        })
        .map(|(name, e)| format!("{name} ({})", e.told()))
        .collect()
    }

    /// How many breakers have opened since `before`, at the sidecars that are still there.
    pub(super) fn opened_since(&self, before: &Self) -> u64 {
        let since =
            |(at, now): (&SocketAddr, &u64)| now.saturating_sub(before.opened.get(at).copied().unwrap_or(0));
        self.opened.iter().map(since).sum()
    }

    /// All of it, as a table.
    pub(super) fn table(&self) -> String {
        let (mut rows, mut avoided) = (Vec::new(), vec![false]);
        for (name, service) in &self.services {
            for (n, (instance, endpoint)) in service.endpoints.iter().enumerate() {
                let first = |text: String| if n == 0 { text } else { String::new() };
                avoided.push(endpoint.avoided());
                rows.push(vec![
                    first(name.clone()),
                    instance.clone(),
                    endpoint.told(),
                    endpoint.in_flight.to_string(),
                    format!("{:.1} ms", endpoint.micros as f64 / 1000.0),
                    first(service.bulkhead()),
                    first(service.budget_left.map_or_else(|| "-".into(), |left| left.to_string())),
                ]);
            }
        }
        // Coloured by the line: colours within a column would count for its width.
        let table = out::table(&COLUMNS, rows);
        let lines = table.lines().zip(avoided);
        let lines =
            lines.map(|(line, avoided)| if avoided { line.red().to_string() } else { line.to_owned() });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What all sidecars did about it.
    pub(super) fn line(&self) -> String {
        let rejected: u64 = self.services.values().map(|service| service.rejected).sum();
        let open = self.open();
        let open = if open.is_empty() { "none".into() } else { open.join(", ") };
        format!(
            "sidecars: {} retries, {} refused by the budget, {rejected} requests refused by bulkheads; breakers not closed: {open}",
            self.retries, self.over_budget
        )
    }
}

impl Service {
    fn bulkhead(&self) -> String {
        self.limit.map_or_else(|| "-".into(), |limit| format!("{} of {limit}", self.in_flight))
    }
}

impl Endpoint {
    /// Whether any caller leaves it alone, or only begins to trust it again.
    fn avoided(&self) -> bool {
        self.breakers.keys().any(|state| !matches!(state.as_str(), "closed" | "-"))
    }

    /// `closed`, or `open 2, closed 1` where callers differ.
    fn told(&self) -> String {
        match self.breakers.iter().next() {
            Some((only, _)) if self.breakers.len() == 1 => only.clone(),
            _ => {
                let each = self.breakers.iter().rev().map(|(state, callers)| format!("{state} {callers}"));
                each.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

const COLUMNS: [&str; 7] =
    ["service", "instance", "breaker", "in flight", "latency", "bulkhead", "retries left"];
const OPENED: &str = "outrigger_endpoint_breaker_transitions_total";
const PATIENCE: Duration = Duration::from_secs(1);

/// A page of a sidecar; empty where there is none.
async fn get(admin: SocketAddr, path: &str) -> String {
    let asked = Ask { within: PATIENCE, ..Ask::get(path) };
    ask(admin, asked).await.map(|answer| answer.text()).unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The sum over all labels of a metric.
fn total(metrics: &str, name: &str) -> u64 {
    total_where(metrics, name, "")
}

/// The same of those that have a label.
fn total_where(metrics: &str, name: &str, label: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    samples
        .filter(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(breaker: &str, left: u64) -> Value {
        json!([{
            "service": "shop/cart", "retryBudgetLeft": left, "bulkhead": {"inFlight": 2, "limit": 1024, "rejected": 1},
            "endpoints": [{"uid": "u1", "breaker": {"state": breaker}, "inFlight": 1, "latencyMicros": 1500}],
        }, {"service": "shop/web", "endpoints": []}])
    }

    #[test]
    fn what_every_caller_knows_is_told_together() {
        let names = BTreeMap::from([("u1", "cart-1")]);
        let metrics = "# HELP outrigger_retries_total x\noutrigger_retries_total 3\noutrigger_retries_over_budget_total 4\n";
        let mut picture = Picture::default();
        picture.add(&told("open", 7), metrics, &names);
        picture.add(&told("closed", 5), metrics, &names);
        picture.add(&told("closed", 9), metrics, &names);
        let plain = anstream::adapter::strip_str(&picture.table()).to_string();
        assert_eq!(
            plain,
            "SERVICE    INSTANCE  BREAKER           IN FLIGHT  LATENCY  BULKHEAD   RETRIES LEFT\n\
             shop/cart  cart-1    open 1, closed 2  3          1.5 ms   6 of 1024  5"
        );
        assert_eq!(
            picture.line(),
            "sidecars: 9 retries, 12 refused by the budget, 3 requests refused by bulkheads; \
             breakers not closed: cart-1 (open 1, closed 2)"
        );
        assert_eq!(picture.open(), ["cart-1 (open 1, closed 2)"]);
        let opened = |counts: &[(u16, u64)]| {
            let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
            Picture { opened: counts.iter().map(|(p, n)| (at(*p), *n)).collect(), ..Picture::default() }
        };
        // One opened twice more, one is gone, one is new.
        assert_eq!(opened(&[(1, 5), (3, 1)]).opened_since(&opened(&[(1, 3), (2, 9)])), 3);
    }

    #[test]
    fn labels_are_summed_and_longer_names_are_others() {
        let text = "retries{a=\"1\"} 2\nretries{a=\"2\"} 3\nretries_over 7\n";
        assert_eq!(total(text, "retries"), 5);
        assert_eq!(total_where(text, "retries", "a=\"2\""), 3);
    }
}
