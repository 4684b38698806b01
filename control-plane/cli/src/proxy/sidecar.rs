//! What one sidecar knows and does: asked at its own admin port, or, of one elsewhere, through the control plane.

use std::net::SocketAddr;

use serde_json::Value;

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::{Exit, Failure};
use crate::http::{Ask, ask};
use crate::out::{self, Format};

/// Where the sidecar is.
#[derive(Debug, clap::Args)]
pub(crate) struct At {
    /// The sidecar's admin port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15000", env = "OUTRIGGER_SIDECAR")]
    sidecar: SocketAddr,
    /// The sidecar of this name, wherever it is, through the control plane: `outrigger proxy status` lists them.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// Show everything the sidecar has been told, and what it makes of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(flatten)]
    at: At,
    /// The form of the answer; there is no table of it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

/// Show the certificate that the sidecar shows.
#[derive(Debug, clap::Args)]
pub(crate) struct Certs {
    #[command(flatten)]
    at: At,
    /// The form of the answer; there is no table of it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

/// Show every endpoint the sidecar knows: its state, its breaker, its load and its latency.
#[derive(Debug, clap::Args)]
pub(crate) struct Endpoints {
    /// Only those of this service: `name`, or `namespace/name`.
    service: Option<String>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    printed: Printed,
}

/// Show the policy of a service as it is in force at the sidecar.
#[derive(Debug, clap::Args)]
pub(crate) struct Policy {
    /// The service: `name`, or `namespace/name`.
    service: String,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    printed: Printed,
}

impl Config {
    pub(crate) async fn run(self, admin: &Admin) -> Result<(), Failure> {
        out::value(&self.at.page(admin, "config").await?, self.format)
    }
}

impl Certs {
    pub(crate) async fn run(self, admin: &Admin) -> Result<(), Failure> {
        out::value(&self.at.page(admin, "certs").await?, self.format)
    }
}

impl Endpoints {
    pub(crate) async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let told = self.at.page(admin, "endpoints").await?;
        let services = chosen(&told, self.service.as_deref())?;
        if self.printed.format != Format::Table {
            return out::value(&Value::Array(services.into_iter().cloned().collect()), self.printed.format);
        }
        out::say(table(&services));
        Ok(())
    }
}

impl Policy {
    pub(crate) async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let told = self.at.page(admin, "policies").await?;
        let services = chosen(&told, Some(&self.service))?;
        for service in services {
            out::value(service, self.printed.format)?;
        }
        Ok(())
    }
}

impl At {
    async fn page(&self, admin: &Admin, page: &str) -> Result<Value, Failure> {
        match &self.node {
            Some(node) => elsewhere(admin, node, page).await,
            None => self.here(page).await,
        }
    }

    async fn here(&self, page: &str) -> Result<Value, Failure> {
        let path = match page {
            "config" => "/config_dump",
            "endpoints" => "/clusters",
            "policies" => "/policies",
            _ => "/certs",
        };
        let unreachable = |what: String| {
            Failure::new(Exit::Unreachable, format!("the sidecar at http://{}: {what}", self.sidecar))
                .hint("is it running? give its admin address with --sidecar, or the name of one elsewhere with --node")
        };
        let answer = ask(self.sidecar, Ask::get(path)).await.map_err(|why| unreachable(why.to_string()))?;
        if !answer.status.is_success() {
            return Err(unreachable(format!("it answers {path} with {}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|e| unreachable(format!("no JSON: {e}")))
    }
}

/// A page of a sidecar that is not here.
async fn elsewhere(admin: &Admin, node: &str, page: &str) -> Result<Value, Failure> {
    if !node.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(Failure::usage("that is not the name of a sidecar: `outrigger proxy status` lists them"));
    }
    let mut told = admin.told(&format!("/v1/proxies/{node}/{page}")).await?;
    match told["items"].as_array_mut().map(Vec::as_mut_slice) {
        Some([one]) => Ok(one[page].take()),
        Some(all) => {
            let identities: Vec<&str> = all.iter().filter_map(|one| one["identity"].as_str()).collect();
            let who = identities.join(" and ");
            Err(Failure::failed(format!("{who} have each a sidecar called {node}"))
                .hint(format!("GET /v1/proxies/{node}/{page} tells of all of them")))
        }
        None => Err(Failure::failed("the control plane answered with something else than was asked for")),
    }
}

/// The services of a page, or the ones that are meant.
fn chosen<'a>(told: &'a Value, wanted: Option<&str>) -> Result<Vec<&'a Value>, Failure> {
    let all = told.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(wanted) = wanted else { return Ok(all.iter().collect()) };
    let meant = |one: &&Value| {
        let name = name(one);
        name == wanted || name.rsplit('/').next() == Some(wanted)
    };
    let found: Vec<&Value> = all.iter().filter(meant).collect();
    if found.is_empty() {
        return Err(Failure::failed(format!("the sidecar knows no service {wanted}"))
            .hint("it learns of a service when its application first calls it"));
    }
    Ok(found)
}

fn name(service: &Value) -> &str {
    service["service"].as_str().unwrap_or_default()
}

fn table(services: &[&Value]) -> String {
    let rows: Vec<Vec<String>> = services
        .iter()
        .flat_map(|service| {
            let all = service["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
            all.iter().map(|endpoint| row(name(service), endpoint))
        })
        .collect();
    if rows.is_empty() {
        return "no endpoint is known".into();
    }
    out::table(&HEADER, rows)
}

const HEADER: [&str; 12] = [
    "service",
    "endpoint",
    "address",
    "version",
    "zone",
    "weight",
    "state",
    "health",
    "breaker",
    "in flight",
    "failures",
    "latency",
];

fn row(service: &str, endpoint: &Value) -> Vec<String> {
    let text = |name: &str| match &endpoint[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        // What a mechanism tells of itself has its state in it.
        Value::Object(all) => all.get("state").and_then(Value::as_str).unwrap_or("-").to_owned(),
        other => other.to_string(),
    };
    let micros = endpoint["latencyMicros"].as_f64();
    let latency = micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.1} ms", micros / 1_000.0));
    let failures =
        endpoint["breaker"]["failuresInARow"].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
    let address = endpoint["addresses"][0].as_str().unwrap_or("-").to_owned();
    vec![
        service.to_owned(),
        text("uid"),
        address,
        text("version"),
        text("zone"),
        text("weight"),
        text("state"),
        text("health"),
        text("breaker"),
        text("inFlight"),
        failures,
        latency,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_told_with_their_breaker_load_and_latency() {
        let told = json!([
            {"service": "shop/cart", "endpoints": [{"uid": "cart-1", "addresses": ["10.0.0.1:80"], "version": "v1",
             "weight": 100, "state": "ready", "health": "unknown", "breaker": {"state": "open", "failuresInARow": 5},
             "inFlight": 3, "latencyMicros": 1500}]},
            {"service": "shop/web", "endpoints": []}
        ]);
        let row = "shop/cart  cart-1    10.0.0.1:80  v1       -     100     ready  unknown  open     3          5         1.5 ms";
        assert_eq!(table(&chosen(&told, Some("cart")).unwrap()).lines().nth(1), Some(row));
        assert_eq!(chosen(&told, None).unwrap().len(), 2);
        assert!(chosen(&told, Some("card")).is_err());
    }
}
