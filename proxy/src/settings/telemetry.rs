//! What the operator says of lines and spans.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::telemetry::access_log::Lines;
use crate::telemetry::access_log::select::{Select, Statuses};
use crate::telemetry::access_log::template::Format;
use crate::telemetry::observe::redact::{Redaction, Rule};
use crate::telemetry::otlp::{Collector, Place, Spoken, Terms};
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
    /// Where a collector takes spans: http://127.0.0.1:4317, or https://otel.example.com. Without it nothing is traced, and
    /// trace context goes on as it came.
    #[arg(long, env = "OUTRIGGER_PROXY_OTLP_ENDPOINT", value_name = "URL", help_heading = "Traces")]
    otlp_endpoint: Option<Place>,
    /// A collector that metrics are pushed to: http://127.0.0.1:4317. Prometheus can read them all the same.
    #[arg(long, env = "OUTRIGGER_PROXY_OTLP_METRICS", value_name = "URL", help_heading = "Collectors")]
    otlp_metrics: Option<Place>,
    /// How often.
    #[arg(long, env = "OUTRIGGER_PROXY_OTLP_METRICS_EVERY", value_name = "TIME", default_value = "15s", value_parser = super::values::duration, help_heading = "Collectors")]
    otlp_metrics_every: Duration,
    /// What is spoken to collectors.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_OTLP_PROTOCOL",
        value_enum,
        default_value_t,
        help_heading = "Collectors"
    )]
    otlp_protocol: Spoken,
    /// Who vouches for collectors at https://, PEM [default: what the system trusts].
    #[arg(long, env = "OUTRIGGER_PROXY_OTLP_CA", value_name = "FILE", help_heading = "Collectors")]
    otlp_ca: Option<PathBuf>,
    /// Headers for collectors, a line each: NAME: VALUE. They are never shown, and go over TLS or to this machine only.
    #[arg(long, env = "OUTRIGGER_PROXY_OTLP_HEADERS_FILE", value_name = "FILE", help_heading = "Collectors")]
    otlp_headers_file: Option<PathBuf>,
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
    /// Where metrics are pushed to, if anywhere, and how often.
    pub push: Option<(Collector, Duration)>,
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
            push: None,
            shares: Share::NONE.into(),
        }
    }
}

impl TelemetryArgs {
    /// Proves what was said. Every mistake goes to `mistakes`.
    pub fn proven(self, mistakes: &mut Vec<String>) -> Telemetry {
        let (collector, push) = self.collectors(mistakes);
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
            collector,
            push: push.map(|collector| (collector, self.otlp_metrics_every.max(Duration::from_secs(1)))),
            shares: Shares {
                others: self.trace_sample,
                routes: self.trace_sample_route.into_iter().collect(),
            },
        }
    }

    /// Those that spans go to and metrics.
    fn collectors(&self, mistakes: &mut Vec<String>) -> (Option<Collector>, Option<Collector>) {
        let named = self.otlp_endpoint.is_some() || self.otlp_metrics.is_some();
        let files = [("--otlp-ca", &self.otlp_ca), ("--otlp-headers-file", &self.otlp_headers_file)];
        for (flag, _) in files.iter().filter(|(_, file)| file.is_some() && !named) {
            mistakes.push(format!(
                "{flag} says how collectors are spoken to: it needs --otlp-endpoint or --otlp-metrics"
            ));
        }
        let terms = Terms::read(self.otlp_ca.as_deref(), self.otlp_headers_file.as_deref(), mistakes);
        let mut collector = |flag: &str, place: &Option<Place>| {
            let made = Collector::new(place.clone()?, self.otlp_protocol, &terms);
            made.map_err(|why| mistakes.push(format!("{flag} {why}"))).ok()
        };
        (collector("--otlp-endpoint", &self.otlp_endpoint), collector("--otlp-metrics", &self.otlp_metrics))
    }
}
