//! `outrigger proxy`: the sidecars, as the control plane sees them, and as one of them sees itself (`sidecar`).

mod sidecar;

use std::process::ExitCode;

use owo_colors::OwoColorize;
use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Proxy {
    /// Show every connected sidecar: who it is, what it has acknowledged, what it rejected and why.
    Status(Status),
    /// Show every endpoint a sidecar knows: its state, its breaker, its load and its latency.
    Endpoints(sidecar::Endpoints),
    /// Show the policy of a service as it is in force at a sidecar.
    Policy(sidecar::Policy),
    /// Show everything a sidecar has been told, and what it makes of it.
    Config(sidecar::Config),
    /// Show the certificate that a sidecar shows.
    Certs(sidecar::Certs),
    /// Say that the instances whose leases are held back, because most ended together, are gone indeed.
    ConfirmLoss(ConfirmLoss),
}

/// Show every connected sidecar: who it is, what it has acknowledged, what it rejected and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    printed: Printed,
}

/// Say that the instances whose leases are held back, because most ended together, are gone indeed.
///
/// Until somebody does, or the others have renewed theirs through one whole lease more, callers go on with what they know;
/// `/readyz` of the control plane says how many are held back.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfirmLoss {
    #[command(flatten)]
    printed: Printed,
}

impl Proxy {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        match self {
            Self::Status(status) => status.run(admin).await?,
            Self::Endpoints(endpoints) => endpoints.run(admin).await?,
            Self::Policy(policy) => policy.run(admin).await?,
            Self::Config(config) => config.run(admin).await?,
            Self::Certs(certs) => certs.run(admin).await?,
            Self::ConfirmLoss(confirm) => confirm.run(admin).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ConfirmLoss {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let told = admin.ask("/v1/leases/confirm", &json!({})).await?;
        match self.printed.format {
            Format::Table => {
                out::say(format!("{} of {} instances are taken away", told["instances"], told["of"]));
                Ok(())
            }
            format => out::value(&told, format),
        }
    }
}

impl Status {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let list = admin.list("proxies", None).await?;
        match self.printed.format {
            Format::Table => out::say(table(&list)),
            format => out::value(&list, format)?,
        }
        Ok(())
    }
}

/// The sidecars that are connected.
pub(crate) fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn table(list: &Value) -> String {
    let items = items(list);
    if items.is_empty() {
        return "no sidecar is connected".into();
    }
    let rows = items.iter().map(|proxy| {
        let text = |field: &str| match &proxy[field] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![
            text("node"),
            text("identity"),
            text("service"),
            text("version"),
            synced(proxy, list["revision"].as_u64()),
            rejected(proxy).len().to_string(),
        ]
    });
    let header = ["proxy", "identity", "service", "version", "synced", "rejected"];
    let reasons = items.iter().flat_map(|proxy| {
        let node = proxy["node"].as_str().unwrap_or_default().to_owned();
        rejected(proxy).iter().map(move |one| reason(&node, one))
    });
    let reasons: Vec<String> = reasons.collect();
    let table = out::table(&header, rows);
    if reasons.is_empty() {
        return table;
    }
    let head = "Rejected; the last good one stays in force:".red();
    format!("{table}\n\n{head}\n{}", reasons.join("\n"))
}

fn synced(proxy: &Value, latest: Option<u64>) -> String {
    match (proxy["ackedRevision"].as_u64(), latest) {
        (Some(acked), Some(latest)) if acked < latest => format!("{acked} of {latest}"),
        (Some(acked), _) => acked.to_string(),
        (None, _) => "-".into(),
    }
}

fn rejected(proxy: &Value) -> &[Value] {
    proxy["rejected"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn reason(node: &str, one: &Value) -> String {
    let text = |field: &str| one[field].as_str().unwrap_or("?").to_owned();
    format!("  {node}: {} — {}", text("name"), text("reason"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sidecar_that_is_behind_and_what_it_rejected_are_told() {
        let list = json!({"revision": 9, "items": [
            {"node": "cart-1", "identity": "spiffe://mesh.local/ns/shop/sa/cart", "service": "shop/cart", "version": "v1",
             "ackedRevision": 9, "rejected": []},
            {"node": "web-1", "identity": "spiffe://mesh.local/ns/shop/sa/web", "ackedRevision": 7,
             "rejected": [{"name": "shop/prices", "version": "x", "reason": "needs the feature split"}]},
        ]});
        let text = anstream::adapter::strip_str(&table(&list)).to_string();
        assert!(text.contains("7 of 9"), "{text}");
        assert!(text.contains("web-1: shop/prices — needs the feature split"), "{text}");
        assert!(text.lines().nth(1).unwrap().ends_with("9       0"), "{text}");
    }
}
