//! `outrigger topology`: who calls whom, as a graph of text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};
use crate::tap::encoded;

/// Who calls whom, how much, and how it goes: from what the sidecars reported over the last minutes.
///
/// Each caller is followed by the services that it calls, with requests a second, the share that went well, how long half
/// of them and 99 of 100 took at most, and how many were refused. The control plane keeps an hour of it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Topology {
    /// One service, name or namespace/name: its callers, whom it calls, its versions, what is refused and why.
    service: Option<String>,
    /// The namespace of a name without one; without a service: only this namespace, and who calls it or is called by it.
    #[arg(short = 'n', long, env = "OUTRIGGER_NAMESPACE")]
    namespace: Option<String>,
    /// How far back: 10s to 1h.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    window: String,
    #[command(flatten)]
    printed: Printed,
}

const EXAMPLES: &str = "\
Examples:
  outrigger topology                      everything you may read
  outrigger topology -n shop --window 1h  one namespace, over the last hour
  outrigger topology shop/cart            one service, and why it refuses
  outrigger topology -o json | jq '.edges[] | select(.success < 0.99)'";

impl Topology {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let window = format!("?window={}", encoded(&self.window));
        let path = match (&self.service, &self.namespace) {
            (Some(service), _) => format!("/v1/topology/{}{window}", self.full(service)?),
            (None, Some(namespace)) => format!("/v1/topology{window}&namespace={}", encoded(namespace)),
            (None, None) => format!("/v1/topology{window}"),
        };
        let told = admin.told(&path).await?;
        if self.printed.format != Format::Table {
            out::value(&told, self.printed.format)?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(replicas) = told["replicas"]["count"].as_u64().filter(|n| *n > 1) {
            out::warn(partly(replicas));
        }
        out::say(if self.service.is_some() { one(&told) } else { graph(&told) });
        Ok(ExitCode::SUCCESS)
    }

    fn full(&self, service: &str) -> Result<String, Failure> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        let (namespace, name) = service.split_once('/').unwrap_or((namespace, service));
        if name.is_empty() || namespace.is_empty() || name.contains('/') {
            return Err(Failure::usage(format!("{service:?} is no service: write cart, or shop/cart")));
        }
        Ok(format!("{}/{}", encoded(namespace), encoded(name)))
    }
}

/// That not everything is seen here.
pub(crate) fn partly(replicas: u64) -> String {
    format!(
        "one of {replicas} control planes tells: the figures are those of the sidecars that are connected to it"
    )
}

/// Every caller, with what it calls.
fn graph(told: &Value) -> String {
    let mut callers: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for edge in told["edges"].as_array().into_iter().flatten() {
        callers.entry(caller(&edge["from"])).or_default().push(edge);
    }
    if callers.is_empty() {
        return "nobody called anybody".to_owned();
    }
    let mut text = String::new();
    for (from, edges) in callers {
        let _ = writeln!(text, "{from}");
        let rows: Vec<_> = edges.iter().map(|edge| (called(&edge["to"]), *edge)).collect();
        branches(&mut text, &rows);
    }
    text.trim_end().to_owned()
}

fn one(told: &Value) -> String {
    let mut text = format!("{}  {}\n", called(&told["service"]), figures(&told["now"]));
    let mut part = |title: &str, rows: Vec<(String, &Value)>| {
        if !rows.is_empty() {
            let _ = writeln!(text, "{title}");
            branches(&mut text, &rows);
        }
    };
    let each = |field: &str| told[field].as_array().map(Vec::as_slice).unwrap_or_default();
    part(
        "versions",
        each("versions").iter().map(|v| (v["version"].as_str().unwrap_or("-").to_owned(), v)).collect(),
    );
    part("called by", each("callers").iter().map(|edge| (caller(&edge["from"]), edge)).collect());
    part("calls", each("callees").iter().map(|edge| (called(&edge["to"]), edge)).collect());
    let refusals = each("refusals");
    if !refusals.is_empty() {
        let _ = writeln!(text, "refused");
        for (at, refusal) in refusals.iter().enumerate() {
            let branch = if at + 1 == refusals.len() { "└─" } else { "├─" };
            let _ = writeln!(
                text,
                "{branch} {}  {}",
                refusal["reason"].as_str().unwrap_or("-"),
                refusal["count"]
            );
        }
    }
    text.trim_end().to_owned()
}

fn branches(text: &mut String, rows: &[(String, &Value)]) {
    let widest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (at, (name, of)) in rows.iter().enumerate() {
        let branch = if at + 1 == rows.len() { "└─" } else { "├─" };
        let _ = writeln!(text, "{branch} {name:widest$}  {}", figures(of));
    }
}

/// The figures of something in a line.
fn figures(of: &Value) -> String {
    let mut line = format!(
        "{} rps  {} ok  p50 {}  p99 {}",
        rate(of["rps"].as_f64()),
        share(of["success"].as_f64()),
        millis(of["p50Ms"].as_f64()),
        millis(of["p99Ms"].as_f64())
    );
    if let Some(refused) = of["refused"].as_u64().filter(|n| *n > 0) {
        let _ = write!(line, "  {refused} refused");
    }
    line
}

/// Requests a second for people.
pub(crate) fn rate(rps: Option<f64>) -> String {
    match rps {
        None => "-".into(),
        Some(rps) if rps >= 100.0 => format!("{rps:.0}"),
        Some(rps) if rps >= 1.0 => format!("{rps:.1}"),
        Some(rps) => format!("{rps:.2}"),
    }
}

/// A share for people. Only what is whole is told as whole.
pub(crate) fn share(of: Option<f64>) -> String {
    match of {
        None => "-".into(),
        Some(share) if share >= 1.0 => "100 %".into(),
        Some(share) => format!("{:.2} %", (share * 10_000.0).floor() / 100.0),
    }
}

/// Milliseconds for people.
pub(crate) fn millis(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms >= 1_000.0 => format!("{:.1} s", ms / 1_000.0),
        Some(ms) if ms >= 10.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{ms:.1} ms"),
    }
}

fn caller(from: &Value) -> String {
    match (from["namespace"].as_str(), from["name"].as_str()) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => from["identity"].as_str().unwrap_or("?").to_owned(),
    }
}

fn called(to: &Value) -> String {
    format!("{}/{}", to["namespace"].as_str().unwrap_or("?"), to["name"].as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edge(from: &str, to: &str, success: f64) -> Value {
        json!({
            "from": {"identity": format!("spiffe://m/ns/shop/sa/{from}"), "namespace": "shop", "name": from},
            "to": {"namespace": "shop", "name": to},
            "rps": 12.34, "success": success, "p50Ms": 3.2, "p99Ms": 48.0, "refused": 0,
        })
    }

    #[test]
    fn every_caller_is_followed_by_what_it_calls() {
        let nobody = json!({
            "from": {"identity": "unauthenticated"}, "to": {"namespace": "shop", "name": "web"},
            "rps": 0.5, "success": null, "p50Ms": null, "p99Ms": null, "refused": 7,
        });
        let told = json!({"edges": [edge("web", "cart", 0.99999), edge("web", "offers", 1.0), nobody]});
        assert_eq!(
            graph(&told),
            "shop/web\n\
             ├─ shop/cart    12.3 rps  99.99 % ok  p50 3.2 ms  p99 48 ms\n\
             └─ shop/offers  12.3 rps  100 % ok  p50 3.2 ms  p99 48 ms\n\
             unauthenticated\n\
             └─ shop/web  0.50 rps  - ok  p50 -  p99 -  7 refused"
        );
        assert_eq!(graph(&json!({"edges": []})), "nobody called anybody");
    }

    #[test]
    fn one_service_is_told_with_its_versions_and_what_is_refused() {
        let told = json!({
            "service": {"namespace": "shop", "name": "cart"}, "now": edge("x", "y", 0.5),
            "versions": [{"version": "v1", "rps": 1.0, "success": 1.0, "p50Ms": 1.0, "p99Ms": 2000.0}],
            "callers": [edge("web", "cart", 0.5)], "callees": [],
            "refusals": [{"reason": "breaker_open", "count": 12}],
        });
        let text = one(&told);
        assert!(text.starts_with("shop/cart  12.3 rps  50.00 % ok"), "{text}");
        assert!(text.contains("versions\n└─ v1  1.0 rps  100 % ok  p50 1.0 ms  p99 2.0 s\n"), "{text}");
        assert!(text.contains("called by\n└─ shop/web  12.3 rps"), "{text}");
        assert!(!text.contains("calls\n") && text.ends_with("refused\n└─ breaker_open  12"), "{text}");
    }
}
