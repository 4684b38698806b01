//! `outrigger explain`: what would become of a request, and which rule says so.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

/// Tell what would become of a request: its route, and which access policy lets it pass or refuses it.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// What is asked for, as host[:port][/path]: cart.shop/items/7. The path is read as it would be sent.
    target: String,
    /// Who asks: namespace/service-account, or a whole SPIFFE id. Without: somebody who proves nothing.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
    /// The method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A header, as "name: value"; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// What its verified token says, as a JSON object.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    #[command(flatten)]
    printed: Printed,
}

impl Explain {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let told = admin.explain(&self.described()?).await?;
        match self.printed.format {
            Format::Table => out::say(lines(&told)),
            format => out::value(&told, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn described(&self) -> Result<Value, Failure> {
        let target = self.target.strip_prefix("http://").unwrap_or(&self.target);
        let (host, path) = target.find('/').map_or((target, "/"), |at| target.split_at(at));
        let header = |text: &String| {
            let (name, value) = text.split_once(':').ok_or_else(|| {
                Failure::usage(format!("{text:?} is not a header")).hint("write it as \"name: value\"")
            })?;
            Ok(json!([name.trim(), value.trim()]))
        };
        let headers = self.headers.iter().map(header).collect::<Result<Vec<_>, Failure>>()?;
        let claims: Option<Map<String, Value>> =
            self.claims.as_deref().map(serde_json::from_str).transpose().map_err(|e| {
                Failure::usage(format!("the claims are not a JSON object: {e}"))
                    .hint("write them as '{\"sub\": \"ada\", \"groups\": [\"admin\"]}'")
            })?;
        Ok(json!({
            "from": self.from, "host": host, "path": path, "method": self.method, "headers": headers,
            "claims": claims,
        }))
    }
}

fn lines(told: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut rows = vec![("caller", told["caller"].as_str().unwrap_or("unauthenticated").to_owned())];
    rows.push((
        "service",
        told["service"].as_str().map_or_else(|| format!("none ({})", text(&told["host"])), str::to_owned),
    ));
    if let Some(port) = told["port"]["number"].as_u64() {
        rows.push(("port", format!("{port}/{}", text(&told["port"]["protocol"]))));
    }
    if let Some(path) = told["path"].as_str() {
        rows.push(("path", path.to_owned()));
        rows.push(("route", route(&told["route"])));
    }
    if let Some(why) = told["refused"]["why"].as_str() {
        rows.push(("refused", format!("{}: {why}", text(&told["refused"]["reason"]))));
    }
    for access in told["access"].as_array().into_iter().flatten() {
        rows.push(("access", format!("{}: {}", text(&access["service"]), text(&access["why"]))));
        for audit in access["audits"].as_array().into_iter().flatten() {
            let by = format!("policy {}, rule {}", text(&audit["policy"]), text(&audit["rule"]));
            rows.push(("audit", format!("{}: would be denied by {by}", text(&access["service"]))));
        }
    }
    rows.iter().map(|(name, value)| format!("{name:<9}{value}")).collect::<Vec<_>>().join("\n")
}

fn route(route: &Value) -> String {
    let Some(rule) = route["rule"].as_str() else { return "none: to all endpoints of the service".into() };
    let backends = route["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |backend: &Value| {
        let version = backend["version"].as_str().map(|v| format!(" {v}")).unwrap_or_default();
        format!("{}{version} ({})", backend["service"].as_str().unwrap_or("-"), backend["weight"])
    };
    let backends: Vec<String> = backends.iter().map(told).collect();
    if backends.is_empty() {
        format!("{rule}, to nowhere")
    } else {
        format!("{rule}, to {}", backends.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_with_its_route_policy_and_rule() {
        let told = json!({
            "caller": "spiffe://mesh.local/ns/shop/sa/web", "service": "shop/cart", "path": "/admin",
            "port": {"number": 80, "protocol": "http"},
            "route": {"rule": "shop/canary/0", "backends": [{"service": "shop/cart", "version": "v2", "weight": 1}]},
            "access": [{"service": "shop/cart", "why": "denied by policy shop/p, rule 0", "audits": []}],
        });
        let expected = "caller   spiffe://mesh.local/ns/shop/sa/web\nservice  shop/cart\nport     80/http\npath     /admin\n\
             route    shop/canary/0, to shop/cart v2 (1)\naccess   shop/cart: denied by policy shop/p, rule 0";
        assert_eq!(lines(&told), expected);
    }
}
