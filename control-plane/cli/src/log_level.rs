//! `outrigger log-level`: what the control plane logs, and for how long.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

/// Show what the control plane logs, or have it log something else for a while. With several control planes, the one that answers.
///
/// Each sidecar is asked beside it: `outrigger-proxy log-level`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogLevel {
    /// What it is to log: error, warn, info, debug, trace, or a list such as info,outrigger_control=debug.
    filter: Option<String>,
    /// For how long, at most 24h; then it is as at the start again [default: 10m].
    #[arg(long = "for", value_name = "TIME", requires = "filter")]
    lasting: Option<String>,
    /// As at the start, now.
    #[arg(long, conflicts_with = "filter")]
    reset: bool,
    #[command(flatten)]
    printed: Printed,
}

const EXAMPLES: &str = "\
Examples:
  outrigger log-level                                   what is logged
  outrigger log-level debug --for 5m --why 'who is it'  more of it, for a while
  outrigger log-level --reset                           as at the start";

impl LogLevel {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let mut told = match &self.filter {
            Some(filter) => admin.set_log_level(&wanted(filter, self.lasting.as_deref())).await?,
            None => admin.told(PATH).await?,
        };
        if let Some(first) = told["atStart"].as_str().filter(|_| self.reset) {
            // What it is at the start already holds, whenever this ends.
            told = admin.set_log_level(&wanted(first, Some("1s"))).await?;
        }
        match self.printed.format {
            Format::Table => out::say(sentence(&told)),
            format => out::value(&told, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn wanted(filter: &str, lasting: Option<&str>) -> Value {
    match lasting {
        Some(lasting) => json!({ "filter": filter, "for": lasting }),
        None => json!({ "filter": filter }),
    }
}

fn sentence(told: &Value) -> String {
    let text = |field: &str| told[field].as_str().unwrap_or("?");
    let (filter, first) = (text("filter"), text("atStart"));
    match told["endsInSeconds"].as_u64().filter(|_| filter != first) {
        Some(seconds) => format!("{filter}, for {seconds} s; then {first} as at the start"),
        None => format!("{filter}, as at the start"),
    }
}

/// Where the control plane tells it.
pub(crate) const PATH: &str = "/v1/log-level";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_a_sentence() {
        for (told, sentence) in [
            (json!({"filter": "info", "atStart": "info"}), "info, as at the start"),
            (json!({"filter": "info", "atStart": "info", "endsInSeconds": 1}), "info, as at the start"),
            (
                json!({"filter": "debug", "atStart": "info", "endsInSeconds": 300}),
                "debug, for 300 s; then info as at the start",
            ),
        ] {
            assert_eq!(super::sentence(&told), sentence);
        }
    }
}
