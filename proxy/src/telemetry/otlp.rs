//! How spans and access lines reach a collector: OTLP, over gRPC or over HTTP with protobuf.
//!
//! One task for each on the side runtime takes records off a bounded queue, makes them what they are to be and sends that,
//! some at a time. A collector that is away, slow or wrong holds up nobody but that task: what finds no room in the queue meanwhile is
//! counted and gone, and so is what the collector does not take within its time.

mod lines;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use outrigger_mesh::{EndpointUid, ServiceName, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::lines::Lines;
pub use self::spans::Spans;
use crate::telemetry::observe::Record;

/// What is spoken to a collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Spoken {
    /// OTLP over gRPC, mostly at port 4317.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf, mostly at port 4318; spans go to `/v1/traces` below the address, lines to `/v1/logs`.
    Http,
}

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Its address: `http://host:port`, and over HTTP a path where it wants one.
    pub address: String,
    /// What it is spoken to.
    pub spoken: Spoken,
}

impl Collector {
    /// Proves `text` to be the address of a collector.
    pub fn address(text: &str) -> Result<String, String> {
        let hint = "write it as http://host:port, like http://127.0.0.1:4317";
        let uri: http::Uri = text.parse().map_err(|why| format!("{text:?} is no address ({why}); {hint}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) if !host.is_empty() => {}
            (Some("https"), _) => {
                return Err(format!(
                    "{text:?}: a sidecar speaks to a collector beside it or on its node, in plaintext; {hint}"
                ));
            }
            _ => return Err(format!("{text:?} is no address of a collector; {hint}")),
        }
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(format!("{text:?}: neither a query nor a password belongs there; {hint}"));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }
}

/// Whose spans they are.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The service beside which this process stands, or the name of a gateway.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The name of this instance.
    pub instance: String,
    /// The version that runs here.
    pub version: Option<String>,
}

impl Origin {
    /// An instance of a service.
    pub fn of(service: &ServiceName, version: Option<&Version>, uid: &EndpointUid) -> Self {
        Self {
            service: service.name().to_string(),
            namespace: service.namespace().to_string(),
            instance: uid.to_string(),
            version: version.map(|version| version.as_str().to_owned()),
        }
    }

    fn resource(self) -> Resource {
        let mut all = vec![
            KeyValue::new("service.name", self.service),
            KeyValue::new("service.namespace", self.namespace),
            KeyValue::new("service.instance.id", self.instance),
        ];
        all.extend(self.version.map(|version| KeyValue::new("service.version", version)));
        Resource::builder_empty().with_attributes(all).build()
    }
}

/// Who tells it.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("outrigger").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("--otlp-endpoint {address}: {why}")]
pub struct NoCollector {
    address: String,
    why: String,
}

impl NoCollector {
    fn new(collector: &Collector, why: &impl ToString) -> Self {
        Self { address: collector.address.clone(), why: why.to_string() }
    }
}

/// What records become on their way to a collector.
pub trait Batches: Send + 'static {
    /// What they are, for people.
    const WHAT: &'static str;

    /// Sends what comes of `records`; how many that are, and whether the collector took them.
    fn send(&self, records: Vec<Arc<Record>>) -> impl Future<Output = (u64, OTelSdkResult)> + Send;

    /// So many were taken, or were not.
    fn count(&self, count: u64, taken: bool);
}

/// Sends what comes of records.
#[derive(Debug)]
pub struct Sender<B> {
    batches: B,
    records: mpsc::Receiver<Arc<Record>>,
    /// Whether the last were not taken: it is logged once until some are.
    failing: bool,
}

impl<B: Batches> Sender<B> {
    /// Makes ready to send what comes out of `records`. Connects when there is something to send.
    pub fn new(batches: B, records: mpsc::Receiver<Arc<Record>>) -> Self {
        Self { batches, records, failing: false }
    }

    /// Sends until there will be no more, or until `end` comes: then what waits is sent, as far as the collector takes it
    /// within a moment.
    pub async fn run(mut self, mut end: oneshot::Receiver<()>) {
        let mut waiting = Vec::with_capacity(AT_ONCE);
        loop {
            let ending = tokio::select! {
                biased;
                _ = &mut end => true,
                none = self.gather(&mut waiting) => none,
            };
            if ending {
                let _as_far_as_it_goes = timeout(LAST, self.flush(&mut waiting)).await;
                return;
            }
            self.send(&mut waiting).await;
        }
    }

    /// Waits for records, and a moment for more of them. Whether there will be none.
    async fn gather(&mut self, waiting: &mut Vec<Arc<Record>>) -> bool {
        if waiting.is_empty() && self.records.recv_many(waiting, AT_ONCE).await == 0 {
            return true;
        }
        let until = Instant::now() + MOMENT;
        while waiting.len() < AT_ONCE {
            match timeout_at(until, self.records.recv_many(waiting, AT_ONCE - waiting.len())).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        false
    }

    async fn flush(&mut self, waiting: &mut Vec<Arc<Record>>) {
        self.records.close();
        loop {
            if waiting.is_empty() && self.records.recv_many(waiting, AT_ONCE).await == 0 {
                return;
            }
            self.send(waiting).await;
        }
    }

    async fn send(&mut self, waiting: &mut Vec<Arc<Record>>) {
        let (count, sent) = self.batches.send(std::mem::take(waiting)).await;
        self.batches.count(count, sent.is_ok());
        let failed_before = std::mem::replace(&mut self.failing, sent.is_err());
        match sent {
            Ok(()) if failed_before => tracing::info!("the collector takes {} again", B::WHAT),
            Err(error) if !failed_before => {
                tracing::warn!(%error, "the collector does not take {}", B::WHAT);
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// As many records may wait: some megabytes at most.
pub const ROOM: usize = 2_048;
/// As many are sent at once.
const AT_ONCE: usize = 256;
/// For how long more are waited for.
const MOMENT: Duration = Duration::from_millis(500);
/// For how long a collector is asked to take some.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long it is when this process ends.
const LAST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_collectors_are_proven() {
        assert_eq!(Collector::address("http://127.0.0.1:4317/").unwrap(), "http://127.0.0.1:4317");
        assert_eq!(Collector::address("http://otel:4318/otlp").unwrap(), "http://otel:4318/otlp");
        for wrong in [
            "",
            "otel:4317",
            "/x",
            "grpc://otel:4317",
            "https://otel:4317",
            "http://a:b@otel",
            "http://otel/?x=1",
        ] {
            let why = Collector::address(wrong).unwrap_err();
            assert!(why.contains("http://host:port"), "{wrong}: {why}");
        }
    }
}
