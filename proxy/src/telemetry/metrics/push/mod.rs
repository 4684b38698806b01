//! Metrics pushed to a collector: OTLP over HTTP with protobuf, made of the same text that Prometheus reads.
//!
//! One task beside everything else sends all sums as they are, every now and then. What is sent is cumulative, so a push that
//! fails loses nothing but its moment: it is counted and not tried again. A collector that is away, slow or wrong holds up
//! nobody but that task.

mod encode;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_mesh::{MetricKind, parse_exposition, write_family};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use encode::Source;

/// Where a collector takes metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port.
    authority: String,
    path: String,
}

impl Target {
    /// Reads `http://127.0.0.1:4318`; below its path come `/v1/metrics`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no collector: write http://127.0.0.1:4318");
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(format!("{}; only http is spoken, so let it be on this machine", bad()));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(4318));
        Ok(Self { authority, path: format!("{}/v1/metrics", uri.path().trim_end_matches('/')) })
    }
}

/// What is counted of pushes.
#[derive(Debug, Default)]
pub struct Pushed {
    taken: AtomicU64,
    failed: AtomicU64,
}

impl Pushed {
    /// Writes it.
    pub fn write(&self, out: &mut String) {
        let name = "outrigger_metrics_pushes_total";
        write_family(
            out,
            name,
            MetricKind::Counter,
            "Pushes of metrics to a collector, by whether it took them.",
        );
        for (outcome, count) in [("taken", &self.taken), ("failed", &self.failed)] {
            let _never = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {}", count.load(Relaxed));
        }
    }

    /// How many were taken, and how many were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.taken.load(Relaxed), self.failed.load(Relaxed))
    }
}

/// Pushes what `text` gives, for as long as it runs.
pub async fn run(
    (target, every): (Target, Duration),
    service: String,
    counts: Arc<Pushed>,
    text: impl Fn() -> String,
) {
    let source = Source { service, began: SystemTime::now() };
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = true;
    loop {
        ticks.tick().await;
        let text = text();
        let body = encode::request(&source, &parse_exposition(&text), SystemTime::now());
        let sent = timeout(PATIENCE, send(&target, body.into())).await;
        match sent.unwrap_or_else(|_| Err(format!("it has not answered within {PATIENCE:?}"))) {
            Ok(()) => {
                counts.taken.fetch_add(1, Relaxed);
                well = true;
            }
            Err(why) => {
                counts.failed.fetch_add(1, Relaxed);
                if std::mem::take(&mut well) {
                    tracing::warn!(why, collector = target.authority, "metrics can not be pushed");
                }
            }
        }
    }
}

async fn send(target: &Target, body: Bytes) -> Result<(), String> {
    let stream = TcpStream::connect(&target.authority).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // Ends with this push.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let request = Request::post(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::USER_AGENT, "outrigger-proxy")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = answer.status();
    let _rest = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
    if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
}

const PATIENCE: Duration = Duration::from_secs(5);
const MOST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_an_address_and_is_asked_in_plaintext() {
        let target = Target::parse("http://otel:4318").unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("otel:4318", "/v1/metrics"));
        let target = Target::parse("http://[::1]/otlp/").unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("[::1]:4318", "/otlp/v1/metrics"));
        for bad in ["", "otel", "https://otel:4318", "http://", "http://otel/?a=b"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
