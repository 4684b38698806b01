//! `outrigger explain`: what would become of a request, and which rule says so.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

/// Tell what would become of a request: its route, what is done to it, where it would go, and which access policy lets it
/// pass or refuses it. By the same decisions that sidecars make.
///
/// What only a sidecar knows is not told: which breakers are open, which endpoints fail their health checks.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// What is asked for: `GET http://cart/items`, or without the method cart.shop:80/items/7. The path is read as it would
    /// be sent.
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "URL"])]
    asked: Vec<String>,
    /// Who asks: a service account, namespace/service-account, or a whole SPIFFE id. Without: somebody who proves nothing.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
    /// The namespace of a service account that names none, and of a short host name.
    #[arg(short = 'n', long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// The method, where it is not written before the URL.
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// A header, as "name: value"; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// A claim of its verified token, as name=value; may be given several times, a name twice makes a list.
    #[arg(long = "claim", value_name = "CLAIM")]
    claim: Vec<String>,
    /// What its verified token says, as a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "claim")]
    claims: Option<String>,
    #[command(flatten)]
    printed: Printed,
}

const EXAMPLES: &str = "Examples:
  outrigger explain GET http://cart.shop/items -H 'x-user: 7' --claim role=beta --from shop/web
  outrigger explain cart/items --from web -n shop -o json";

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
        let (method, url) = match &self.asked[..] {
            [method, url] => (Some(method.clone()), url),
            [url, ..] => (None, url),
            [] => return Err(Failure::usage("there is no URL")),
        };
        if method.is_some() && self.method.is_some() {
            return Err(Failure::usage("the method is there twice"));
        }
        let target = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or(url);
        let (host, path) = target.find('/').map_or((target, "/"), |at| target.split_at(at));
        let header = |text: &String| {
            let (name, value) = text.split_once(':').ok_or_else(|| {
                Failure::usage(format!("{text:?} is not a header")).hint("write it as \"name: value\"")
            })?;
            Ok(json!([name.trim(), value.trim()]))
        };
        let headers = self.headers.iter().map(header).collect::<Result<Vec<_>, Failure>>()?;
        let from = self
            .from
            .as_ref()
            .map(|who| if who.contains('/') { who.clone() } else { format!("{}/{who}", self.namespace) });
        Ok(json!({
            "from": from, "host": self.completed(host), "path": path,
            "method": method.or_else(|| self.method.clone()).unwrap_or_else(|| "GET".into()),
            "headers": headers, "claims": self.claims()?,
        }))
    }

    /// A host name of one label is one of the caller's namespace, which completes it; of nobody's it is one of ours.
    fn completed(&self, host: &str) -> String {
        let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        if self.from.is_some() || name.contains('.') {
            return host.to_owned();
        }
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{name}.{}{port}", self.namespace)
    }

    fn claims(&self) -> Result<Option<Map<String, Value>>, Failure> {
        if let Some(text) = &self.claims {
            let hint = "write them as '{\"sub\": \"ada\", \"groups\": [\"admin\"]}'";
            let bad = |e| Failure::usage(format!("the claims are not a JSON object: {e}")).hint(hint);
            return serde_json::from_str(text).map(Some).map_err(bad);
        }
        let mut claims = Map::new();
        for text in &self.claim {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("{text:?} is not a claim")).hint("write it as name=value")
            })?;
            match claims.get_mut(name) {
                None => _ = claims.insert(name.to_owned(), value.into()),
                Some(Value::Array(values)) => values.push(value.into()),
                Some(one) => *one = json!([one.take(), value]),
            }
        }
        Ok((!claims.is_empty()).then_some(claims))
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
    }
    if let Some(why) = told["refused"]["why"].as_str() {
        rows.push(("refused", format!("{}: {why}", text(&told["refused"]["reason"]))));
    } else if let Some(why) = told["unknown"]["why"].as_str() {
        rows.push(("route", format!("unknown: {why}")));
    } else if told["path"].is_string() {
        rows.extend(way(told));
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

/// Route, filters, policy, shares and endpoints.
fn way(told: &Value) -> Vec<(&'static str, String)> {
    let route = &told["route"];
    let mut rows = vec![];
    match route["rule"].as_str() {
        None => rows.push(("route", "none: to the service as a whole".to_owned())),
        Some(rule) => {
            let number = route["match"].as_u64().map(|i| format!(", match {i}")).unwrap_or_default();
            rows.push(("route", format!("{rule}{number}")));
        }
    }
    for filter in route["filters"].as_array().into_iter().flatten() {
        rows.push(("filter", filter.as_str().unwrap_or("-").to_owned()));
    }
    let policy = &told["policy"];
    if let Some(timeout) = policy["timeout"].as_str() {
        let per_try = policy["perTry"].as_str().map(|t| format!(", {t} an attempt")).unwrap_or_default();
        rows.push(("policy", format!("timeout {timeout}{per_try}, {} retries", policy["retries"])));
    }
    let service = told["service"].as_str().unwrap_or("-");
    rows.extend(told["to"].as_array().into_iter().flatten().map(|to| ("to", subset(service, to, 100.0))));
    let backends = route["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    if route["rule"].is_string() && backends.is_empty() {
        rows.push(("to", "nowhere".to_owned()));
    }
    for backend in backends {
        let name = backend["service"].as_str().unwrap_or("-");
        let percent = backend["percent"].as_f64().unwrap_or_default();
        if let Some(why) = backend["unresolved"].as_str() {
            rows.push(("to", format!("{name}: {percent} %, refused: {why}")));
            continue;
        }
        if let Some(why) = backend["unknown"].as_str() {
            rows.push(("to", format!("{name}: {percent} %, {why}")));
            continue;
        }
        let to = backend["to"].as_array().into_iter().flatten();
        rows.extend(to.map(|to| ("to", subset(name, to, percent))));
    }
    if let Some(by) = route["settledBy"].as_str() {
        rows.push(("settled", format!("by its {by}")));
    }
    rows
}

/// `shop/cart v2: 10 %, 2 endpoints (cart-3, cart-4)`
fn subset(service: &str, to: &Value, of: f64) -> String {
    let version = to["version"].as_str().map(|v| format!(" {v}")).unwrap_or_default();
    let percent = to["percent"].as_f64().unwrap_or_default() * of / 100.0;
    let because = to["because"].as_str().map(|b| format!(" by {b}")).unwrap_or_default();
    let names: Vec<&str> =
        to["endpoints"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let ready = to["ready"].as_u64().unwrap_or_default();
    let s = if ready == 1 { "" } else { "s" };
    let named = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    format!("{service}{version}: {percent} %{because}, {ready} endpoint{s}{named}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_with_its_route_policy_and_rule() {
        let told = json!({
            "caller": "spiffe://mesh.local/ns/shop/sa/web", "service": "shop/cart", "path": "/admin",
            "port": {"number": 80, "protocol": "http"},
            "policy": {"timeout": "15s", "retries": 2},
            "route": {"rule": "shop/canary/0", "match": 1, "filters": ["request header x-a set"], "settledBy": "key",
                "backends": [{"service": "shop/cart", "version": "v2", "weight": 1, "percent": 100.0,
                    "to": [{"version": "v2", "percent": 100.0, "ready": 1, "endpoints": ["cart-3"]}]}]},
            "access": [{"service": "shop/cart", "why": "denied by policy shop/p, rule 0", "audits": []}],
        });
        let expected = "caller   spiffe://mesh.local/ns/shop/sa/web\nservice  shop/cart\nport     80/http\npath     /admin\n\
             route    shop/canary/0, match 1\nfilter   request header x-a set\npolicy   timeout 15s, 2 retries\n\
             to       shop/cart v2: 100 %, 1 endpoint (cart-3)\nsettled  by its key\n\
             access   shop/cart: denied by policy shop/p, rule 0";
        assert_eq!(lines(&told), expected);
    }

    #[test]
    fn the_request_is_written_as_people_write_requests() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            explain: Explain,
        }
        let line = [
            "x",
            "POST",
            "http://cart/items?a=1",
            "-n",
            "shop",
            "--from",
            "web",
            "-H",
            "x-user: 7",
            "--claim",
            "role=beta",
            "--claim",
            "role=tester",
            "--claim",
            "sub=ada",
        ];
        let described = Line::parse_from(line).explain.described().unwrap();
        let expected = json!({
            "from": "shop/web", "host": "cart", "path": "/items?a=1", "method": "POST",
            "headers": [["x-user", "7"]], "claims": {"role": ["beta", "tester"], "sub": "ada"},
        });
        assert_eq!(described, expected);
    }
}
