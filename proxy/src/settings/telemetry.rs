//! What the operator says of lines and spans.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::telemetry::access_log::Lines;
use crate::telemetry::access_log::select::{Select, Statuses};
use crate::telemetry::access_log::template::Format;
use crate::telemetry::observe::redact::{Redaction, Rule};
use crate::telemetry::otlp::{Collector, Spoken};
use crate::telemetry::trace::sample::{Share, Shares, of_route};

/// The flags.
#[derive(Debug, Args)]
pub struct TelemetryArgs {
    /// Which requests and opaque connections get a line of their own: none, those that access policies refuse (ten a second,
    /// in the log unless there is --access-log-file), or each.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_ACCESS_LOG",
        value_enum,
        default_value_t,
        help_heading = "Access log"
    )]
    access_log: Lines,
    /// The file for these lines [default: standard output]. One that is moved away is begun anew.
    #[arg(long, env = "OUTRIGGER_PROXY_ACCESS_LOG_FILE", help_heading = "Access log")]
    access_log_file: Option<PathBuf>,
    /// Sends these lines to the collector of --otlp-endpoint instead, as log records.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_ACCESS_LOG_OTLP",
        requires = "otlp_endpoint",
        conflicts_with = "access_log_file",
        help_heading = "Access log"
    )]
    access_log_otlp: bool,
    /// How a line is written: json, or a template with fields in braces, like '{time} {caller} "{method} {path}" {status}'.
    #[arg(long, env = "OUTRIGGER_PROXY_ACCESS_LOG_FORMAT", value_name = "json|TEMPLATE", default_value = "json", value_parser = str::parse::<Format>, help_heading = "Access log")]
    access_log_format: Format,
    /// Only what was answered with one of these: 404, 5xx, 400-499. With --access-log-slower: or what was slow. What access
    /// policies refuse has its line always.
    #[arg(long, env = "OUTRIGGER_PROXY_ACCESS_LOG_STATUS", value_name = "STATUS", value_delimiter = ',', value_parser = str::parse::<Statuses>, help_heading = "Access log")]
    access_log_status: Vec<Statuses>,
    /// Only what took at least as long as that, like 500ms.
    #[arg(long, env = "OUTRIGGER_PROXY_ACCESS_LOG_SLOWER", value_name = "TIME", value_parser = super::values::duration, help_heading = "Access log")]
    access_log_slower: Option<Duration>,
    /// How much of what went well gets its line: 0% to 100%. What failed is not left out.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_ACCESS_LOG_SAMPLE",
        value_name = "PERCENT",
        default_value = "100%",
        help_heading = "Access log"
    )]
    access_log_sample: Share,
    /// Segments of paths that lines, spans and taps do not tell: /users/{}/orders/*, where {} is hidden, * is not, and {**}
    /// at the end is all that follow. May be given several times, or with commas.
    #[arg(long, env = "OUTRIGGER_PROXY_REDACT_PATH", value_name = "PATTERN", value_delimiter = ',', value_parser = str::parse::<Rule>, help_heading = "Access log")]
    redact_path: Vec<Rule>,
    /// Tells segments that look like a secret, too: addresses of mail, numbers of cards, long random tokens.
    #[arg(long, env = "OUTRIGGER_PROXY_TELL_SECRETS_BY_LOOK", help_heading = "Access log")]
    tell_secrets_by_look: bool,
    /// Where a collector takes spans: http://127.0.0.1:4317. Without it nothing is traced, and trace context goes on as it
    /// came.
    #[arg(long, env = "OUTRIGGER_PROXY_OTLP_ENDPOINT", value_name = "URL", value_parser = Collector::address, help_heading = "Traces")]
    otlp_endpoint: Option<String>,
    /// What is spoken to the collector.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_OTLP_PROTOCOL",
        value_enum,
        default_value_t,
        requires = "otlp_endpoint",
        help_heading = "Traces"
    )]
    otlp_protocol: Spoken,
    /// How much of what begins a trace here is kept: 0% to 100%. What belongs to a trace of the mesh is kept if that is.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_TRACE_SAMPLE",
        value_name = "PERCENT",
        default_value = "1%",
        help_heading = "Traces"
    )]
    trace_sample: Share,
    /// The same for a route, or for one rule of it: shop/checkout=100%. May be given several times, or with commas.
    #[arg(long, env = "OUTRIGGER_PROXY_TRACE_SAMPLE_ROUTE", value_name = "ROUTE=PERCENT", value_delimiter = ',', value_parser = of_route, help_heading = "Traces")]
    trace_sample_route: Vec<(Box<str>, Share)>,
}

/// The same, proven.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Which requests get a line.
    pub lines: Select,
    /// How these are written.
    pub format: Format,
    /// The file for them.
    pub file: Option<PathBuf>,
    /// Whether they go to the collector instead.
    pub to_collector: bool,
    /// What of paths is told.
    pub redaction: Redaction,
    /// Where spans go, if anywhere.
    pub collector: Option<Collector>,
    /// How much of what begins here is traced.
    pub shares: Shares,
}

impl Default for Telemetry {
    /// What nobody said anything of.
    fn default() -> Self {
        Self {
            lines: Lines::Denied.into(),
            format: Format::Json,
            file: None,
            to_collector: false,
            redaction: Redaction::default(),
            collector: None,
            shares: Share::NONE.into(),
        }
    }
}

impl TelemetryArgs {
    /// Proves what was said. Every mistake goes to `mistakes`.
    pub fn proven(self, mistakes: &mut Vec<String>) -> Telemetry {
        let spoken = self.otlp_protocol;
        let lines = Select {
            lines: self.access_log,
            statuses: self.access_log_status,
            slower: self.access_log_slower,
            share: self.access_log_sample,
        };
        let limited = !lines.statuses.is_empty() || lines.slower.is_some() || lines.share != Share::ALL;
        if limited && lines.lines != Lines::All {
            mistakes.push(
                "--access-log-status, --access-log-slower and --access-log-sample say which of all requests get a line: \
                 they need --access-log all"
                    .into(),
            );
        }
        Telemetry {
            lines,
            format: self.access_log_format,
            file: self.access_log_file,
            to_collector: self.access_log_otlp,
            redaction: Redaction::new(self.redact_path, !self.tell_secrets_by_look),
            collector: self.otlp_endpoint.map(|address| Collector { address, spoken }),
            shares: Shares {
                others: self.trace_sample,
                routes: self.trace_sample_route.into_iter().collect(),
            },
        }
    }
}
