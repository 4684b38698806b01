//! `outrigger tap`: live requests, a line each, until it is broken off or has its end.

use std::process::ExitCode;

use outrigger_mesh::TapFilter;
use owo_colors::OwoColorize;
use serde_json::Value;

use crate::args::Printed;
use crate::client::Admin;
use crate::events::Events;
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};

/// Live requests as they end: when, from whom, what was asked, how it went, how long it took, and why where it failed.
///
/// What is told is what the mesh itself knows: names, paths without their queries, statuses, times, reasons. Never a body, a
/// header, a token.
///
/// Who looks at what is written into the audit log; it takes the role editor in the namespace of the sidecars that tell:
/// the caller's, or the service's where no caller is named.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tap {
    /// The service or gateway that asks: name, or namespace/name. Its own sidecars tell of its requests, also of those that
    /// never arrived anywhere.
    from: Option<String>,
    /// The service that is asked: name, or namespace/name. Without a caller its sidecars tell of what comes in.
    #[arg(long, value_name = "SERVICE", required_unless_present = "from")]
    to: Option<String>,
    /// Only this path, without a query; * stands for anything: '/items*'.
    #[arg(long, value_name = "PATTERN")]
    path: Option<String>,
    /// Only answers with this status: 503, 5xx, several with commas between.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only this method.
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// Only what was refused or failed for this reason, like connect_failed; any: whatever it is.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// The namespace of names without one.
    #[arg(short = 'n', long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// End after so many requests, 1 to 10000.
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    limit: String,
    /// End after so long, up to 4m.
    #[arg(long = "for", value_name = "TIME", default_value = "4m")]
    lasts: String,
    /// With -o json a line for each request; with -o yaml a document.
    #[command(flatten)]
    printed: Printed,
}

const EXAMPLES: &str = "\
Examples:
  outrigger tap web --to cart --path '/items*' --status 5xx    what web asks of cart and gets no good answer to
  outrigger tap --to cart --reason any                         what cart's sidecars refuse, and why
  outrigger tap web -o json | jq .path                         every request of web, for a program";

impl Tap {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let query = self.query()?;
        let mut events = admin.tap(&query).await?;
        self.tell(&mut events).await
    }

    /// What is asked for. What can not be meant is told here, with the flag's name.
    fn query(&self) -> Result<String, Failure> {
        let full = |name: &String| {
            if name.contains('/') { name.clone() } else { format!("{}/{name}", self.namespace) }
        };
        let to = self.to.as_ref().map(full);
        let fields = [
            ("to", to.as_ref()),
            ("path", self.path.as_ref()),
            ("status", self.status.as_ref()),
            ("method", self.method.as_ref()),
            ("reason", self.reason.as_ref()),
            ("limit", Some(&self.limit)),
            ("for", Some(&self.lasts)),
        ];
        let mut filter = TapFilter::default();
        for (field, text) in fields.iter().filter_map(|(field, text)| Some((field, (*text)?))) {
            filter
                .set(field, text)
                .map_err(|bad| Failure::usage(format!("--{field} {text:?}: {}", bad.why)))?;
        }
        let mut query: Vec<String> =
            filter.fields().iter().map(|(field, text)| format!("{field}={}", encoded(text))).collect();
        query.extend(self.from.as_ref().map(|from| format!("from={}", encoded(&full(from)))));
        Ok(query.join("&"))
    }

    async fn tell(&self, events: &mut Events) -> Result<ExitCode, Failure> {
        let format = self.printed.format;
        let broken = |what: String| Failure::new(Exit::Unreachable, format!("the tap broke off: {what}"));
        while let Some(event) = events.next().await.map_err(|e| broken(e.to_string()))? {
            let told: Value = serde_json::from_str(&event.data).map_err(|e| broken(e.to_string()))?;
            match event.name.as_str() {
                "hello" => hello(&told),
                "request" if format == Format::Table => out::say(line(&told)),
                "request" if format == Format::Json => out::say(told.to_string()),
                "request" => out::say(format!("---\n{}", out::yaml(&told)?.trim_end())),
                "dropped" => out::warn(format!(
                    "{} more at {} were left out: narrow what you look at",
                    told["dropped"],
                    text(&told, "node")
                )),
                "gone" if told["why"].is_string() => {
                    out::warn(format!("{} tells nothing more: {}", text(&told, "node"), text(&told, "why")));
                }
                "end" => {
                    ended(&told);
                    return Ok(ExitCode::SUCCESS);
                }
                _ => {}
            }
        }
        Err(broken("the control plane ended it".into()))
    }
}

/// Who tells, where requests do not go to standard output's reader.
fn hello(told: &Value) {
    let count = |field: &str| told[field].as_array().map_or(0, Vec::len);
    for silent in told["silent"].as_array().into_iter().flatten() {
        out::warn(format!("not asked: {}: {}", text(silent, "node"), text(silent, "failure")));
    }
    if told["leftOut"].as_u64().is_some_and(|n| n > 0) {
        out::warn(format!("{} sidecars more are not asked", told["leftOut"]));
    }
    if let Some(replicas) = told["replicas"]["count"].as_u64().filter(|n| *n > 1) {
        out::warn(format!(
            "one of {replicas} control planes tells: sidecars that are connected to the others are not here"
        ));
    }
    let seconds = told["seconds"].as_u64().unwrap_or(0);
    out::warn(format!("{} sidecars tell, for up to {seconds} s; Ctrl-C ends it", count("sidecars")));
}

fn ended(told: &Value) {
    match told["why"].as_str() {
        Some("limit") => out::warn("that is as many as were asked for (--limit)"),
        Some("time") => out::warn("the time is over (--for)"),
        _ => out::warn("no sidecar tells anything more"),
    }
    if told["dropped"].as_u64().is_some_and(|n| n > 0) {
        out::warn(format!("{} were left out", told["dropped"]));
    }
}

/// One request for people.
fn line(told: &Value) -> String {
    let time = text(told, "at");
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time.trim_end_matches('Z')).to_owned();
    let status = told["status"].as_u64().map_or_else(|| "-".to_owned(), |status| status.to_string());
    let status = match told["status"].as_u64() {
        Some(200..=399) => status.green().to_string(),
        Some(400..=499) => status.yellow().to_string(),
        _ => status.red().to_string(),
    };
    let from = told["from"].as_str().map_or_else(|| "?".to_owned(), short);
    let to = text(told, "service");
    let version = told["version"].as_str().map(|v| format!(" {v}")).unwrap_or_default();
    let asked = match told["method"].as_str() {
        Some(method) => format!("{method} {}", clean(told["path"].as_str().unwrap_or(""))),
        None => text(told, "kind"),
    };
    let took = told["durationMs"].as_f64().unwrap_or(0.0);
    let line = format!("{time}  {from} -> {to}{version}  {asked}  {status}  {took:.1} ms");
    let reason = told["reason"].as_str().map(|reason| {
        let hop = told["hop"].as_str().map(|hop| format!(" ({hop})")).unwrap_or_default();
        format!("  {}{hop}", reason.red())
    });
    let ended = told["ended"].as_str().map(|ended| format!("  {ended}"));
    let attempts = told["attempts"].as_u64().filter(|n| *n > 1).map(|n| format!("  {n} attempts"));
    [Some(line), reason, ended, attempts].into_iter().flatten().collect()
}

/// `shop/web` of `spiffe://mesh.local/ns/shop/sa/web`.
fn short(identity: &str) -> String {
    let parts: Vec<&str> = identity.split('/').collect();
    match parts.as_slice() {
        [.., "ns", namespace, "sa", account] => format!("{namespace}/{account}"),
        _ => clean(identity),
    }
}

fn text(told: &Value, field: &str) -> String {
    clean(told[field].as_str().unwrap_or("-"))
}

/// What came from a request moves no cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As it stands in a query.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/*,".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tap: Tap,
    }

    fn query(args: &[&str]) -> Result<String, Failure> {
        Line::try_parse_from([&["tap"], args].concat()).unwrap().tap.query()
    }

    #[test]
    fn names_get_their_namespace_and_everything_is_written_so_that_it_arrives() {
        let asked =
            query(&["web", "--to", "bank/ledger", "-n", "shop", "--path", "/a b*", "--status", "5xx,404"]);
        assert_eq!(
            asked.unwrap(),
            "to=bank/ledger&path=/a%20b*&status=5xx,404&limit=1000&for=240s&from=shop/web"
        );
    }

    #[test]
    fn what_can_not_be_meant_is_told_with_its_flag() {
        for (args, flag) in [
            (["web", "--status", "x"], "--status"),
            (["web", "--path", "/x?y"], "--path"),
            (["web", "--reason", "why"], "--reason"),
            (["web", "--for", "2h"], "--for"),
            (["web", "--limit", "0"], "--limit"),
        ] {
            let failure = query(&args).unwrap_err();
            assert!(failure.exit() == Exit::Usage && failure.message().starts_with(flag), "{failure}");
        }
        assert!(Line::try_parse_from(["tap"]).is_err(), "whose requests?");
    }

    #[test]
    fn a_request_is_a_line_and_moves_no_cursor() {
        let told = json!({
            "at": "2026-01-02T03:04:05.678Z", "from": "spiffe://mesh.local/ns/shop/sa/web", "service": "shop/cart",
            "version": "v2", "method": "GET", "path": "/items/\u{1b}[2J", "status": 503, "durationMs": 12.34,
            "reason": "connect_failed", "hop": "client", "attempts": 3,
        });
        let plain = anstream::adapter::strip_str(&line(&told)).to_string();
        assert_eq!(
            plain,
            "03:04:05.678  shop/web -> shop/cart v2  GET /items/\u{fffd}[2J  503  12.3 ms  connect_failed (client)  3 \
             attempts"
        );
    }
}
