//! `outrigger top`: the services and how it goes with them, over and over.

use std::process::ExitCode;
use std::time::Duration;

use outrigger_control::spec;
use serde_json::Value;

use crate::args::Printed;
use crate::client::Admin;
use crate::drawn::Drawn;
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};
use crate::tap::encoded;
use crate::top_routes::Counted;
use crate::topology::{millis, partly, rate, share};

/// The services, the busiest first: requests a second, the share that went well, how long half of them and 99 of 100 took
/// at most, and how many were refused.
///
/// On a terminal it is drawn anew every second or two until Ctrl-C; elsewhere, and with -o json or yaml, it is told once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// Only the services of this namespace.
    #[arg(short = 'n', long, env = "OUTRIGGER_NAMESPACE")]
    namespace: Option<String>,
    /// By route, as the callers' sidecars count it from now on: what is told lies between two looks, a window apart. Up to 256 sidecars
    /// are asked.
    #[arg(long)]
    routes: bool,
    /// Over how long the figures are taken: 10s to 1h; with --routes 1s to 10m.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    window: String,
    /// What the services are ordered by.
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// Tell it once, also on a terminal.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    printed: Printed,
}

const EXAMPLES: &str = "\
Examples:
  outrigger top                        everything you may read
  outrigger top -n shop --by success   the services of one namespace, the worst first
  outrigger top --once --window 5m     the last five minutes, once
  outrigger top --routes -n shop       along each route to the services of one namespace";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Requests a second, the most first.
    #[default]
    Rps,
    /// The share that went well, the worst first.
    Success,
    /// The time of 99 of 100, the longest first.
    P99,
    /// Namespace and name.
    Name,
}

impl Top {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let namespace = self.namespace.as_deref().map(|n| format!("&namespace={}", encoded(n)));
        let path = format!("/v1/topology?window={}{}", encoded(&self.window), namespace.unwrap_or_default());
        if self.routes {
            return self.by_route(admin).await;
        }
        if !self.is_live() {
            let told = admin.told(&path).await?;
            match self.printed.format {
                Format::Table => out::say(self.whole(&told)),
                format => out::value(&told["nodes"], format)?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut drawn = Drawn::default();
        let mut away = false;
        loop {
            match admin.told(&path).await {
                Ok(told) => {
                    away = false;
                    drawn.draw(&self.whole(&told));
                }
                Err(failure) if failure.exit() == Exit::Unreachable => {
                    if !std::mem::replace(&mut away, true) {
                        out::warn(format!("{failure}; trying again"));
                        drawn.leave();
                    }
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn is_live(&self) -> bool {
        !self.once && self.printed.format == Format::Table && out::on_terminal() && out::can_be_drawn_on()
    }

    async fn by_route(&self, admin: &Admin) -> Result<ExitCode, Failure> {
        let window = spec::Duration::parse(&self.window).map_err(Failure::usage)?.get();
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&window) {
            return Err(Failure::usage("with --routes a window is 1s to 10m: nobody keeps what was before"));
        }
        let (live, mut drawn) = (self.is_live(), Drawn::default());
        let mut before = Counted::now(admin).await?;
        if live {
            drawn.draw(&format!("counting for {}", self.window));
        }
        loop {
            tokio::time::sleep(window).await;
            let now = Counted::now(admin).await?;
            let mut routes = now.since(&before);
            routes.retain(|route| {
                self.namespace.is_none() || route["namespace"].as_str() == self.namespace.as_deref()
            });
            match self.printed.format {
                Format::Table if live => drawn.draw(&self.routes_told(&routes, now.silent())),
                Format::Table => out::say(self.routes_told(&routes, now.silent())),
                format => out::value(&Value::Array(routes), format)?,
            }
            if !live {
                return Ok(ExitCode::SUCCESS);
            }
            before = now;
        }
    }

    fn routes_told(&self, routes: &[Value], silent: usize) -> String {
        let mut routes: Vec<&Value> = routes.iter().collect();
        self.order(&mut routes);
        let rows = routes.into_iter().map(|route| {
            let text =
                |field: &str| route[field].as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
            vec![
                text("namespace"),
                text("name"),
                text("route"),
                rate(route["rps"].as_f64()),
                share(route["success"].as_f64()),
                millis(route["p50Ms"].as_f64()),
                millis(route["p99Ms"].as_f64()),
            ]
        });
        let table = out::table(&["namespace", "service", "route", "rps", "ok", "p50", "p99"], rows);
        if silent == 0 { table } else { format!("{silent} sidecars told nothing\n{table}") }
    }

    fn order(&self, nodes: &mut [&Value]) {
        let number = |node: &Value, field: &str, unless: f64| node[field].as_f64().unwrap_or(unless);
        // What has the same figures stays in the order of its names.
        nodes.sort_by(|a, b| match self.by {
            By::Rps => number(b, "rps", 0.0).total_cmp(&number(a, "rps", 0.0)),
            By::Success => number(a, "success", 2.0).total_cmp(&number(b, "success", 2.0)),
            By::P99 => number(b, "p99Ms", -1.0).total_cmp(&number(a, "p99Ms", -1.0)),
            By::Name => std::cmp::Ordering::Equal,
        });
    }

    fn whole(&self, told: &Value) -> String {
        let mut nodes: Vec<&Value> = told["nodes"].as_array().into_iter().flatten().collect();
        nodes.retain(|node| !matches!(node["kind"].as_str(), Some("workload" | "unauthenticated")));
        self.order(&mut nodes);
        let rows = nodes.into_iter().map(|node| {
            let text = |field: &str| node[field].as_str().unwrap_or("-").to_owned();
            let versions: Vec<&str> =
                node["versions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            vec![
                text("namespace"),
                text("name"),
                rate(node["rps"].as_f64()),
                share(node["success"].as_f64()),
                millis(node["p50Ms"].as_f64()),
                millis(node["p99Ms"].as_f64()),
                node["refused"].to_string(),
                if versions.is_empty() { "-".to_owned() } else { versions.join(",") },
            ]
        });
        let header = ["namespace", "service", "rps", "ok", "p50", "p99", "refused", "versions"];
        let table = out::table(&header, rows);
        match told["replicas"]["count"].as_u64().filter(|n| *n > 1) {
            Some(replicas) => format!("{}\n{table}", partly(replicas)),
            None => table,
        }
    }
}

/// So often it is drawn anew.
const EVERY: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        top: Top,
    }

    fn names(args: &[&str]) -> Vec<String> {
        let node = |name: &str, rps: f64, success: Option<f64>, p99: Option<f64>| {
            json!({
                "namespace": "shop", "name": name, "kind": "service", "versions": ["v1", "v2"], "rps": rps,
                "success": success, "p50Ms": p99, "p99Ms": p99, "refused": 0,
            })
        };
        let told = json!({"nodes": [
            node("cart", 3.0, Some(0.9), Some(9.0)),
            node("idle", 0.0, None, None),
            node("web", 30.0, Some(1.0), Some(12.0)),
            json!({"namespace": "", "name": "unauthenticated", "kind": "unauthenticated"}),
        ]});
        let top = Line::try_parse_from([&["top"], args].concat()).unwrap().top;
        let whole = top.whole(&told);
        whole.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
    }

    #[test]
    fn the_services_are_told_in_the_order_that_is_asked_for() {
        assert_eq!(names(&[]), ["web", "cart", "idle"]);
        assert_eq!(names(&["--by", "success"]), ["cart", "web", "idle"]);
        assert_eq!(names(&["--by", "p99"]), ["web", "cart", "idle"]);
        assert_eq!(names(&["--by", "name"]), ["cart", "idle", "web"]);
    }
}
