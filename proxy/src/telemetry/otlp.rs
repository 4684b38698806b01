//! How spans and access lines reach a collector: OTLP, over gRPC or over HTTP with protobuf.
//!
//! One task for each on the side runtime takes records off a bounded queue, makes them what they are to be and sends that,
//! some at a time. A collector that is away, slow or wrong holds up nobody but that task: what finds no room in the queue meanwhile is
//! counted and gone, and so is what the collector does not take within its time.

mod courier; // brings one message at a time
mod grpc;
mod headers; // what else a collector wants to see
mod lines;
mod place; // where it is
mod spans;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use http::HeaderMap;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use outrigger_certs::{OutsideConnector, certificates_from_pem};
use outrigger_mesh::{EndpointUid, OutsideRoots, ServiceName, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::courier::{Courier, Signal};
pub use self::lines::Lines;
pub use self::place::Place;
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

/// A collector and how it is spoken to.
#[derive(Clone)]
pub struct Collector {
    /// Where it is.
    pub place: Place,
    /// What it is spoken to.
    pub spoken: Spoken,
    /// Whom we believe that it is the one, where its place wants TLS.
    tls: Option<OutsideConnector>,
    /// What else it wants to see: keys, mostly.
    headers: HeaderMap,
}

/// What an operator says of collectors beside where they are.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Whom to believe over TLS.
    pub roots: OutsideRoots,
    /// What each request has.
    pub headers: HeaderMap,
}

impl Collector {
    /// The one at `place`. An error says that TLS can not be set up, or that headers would be read on the way.
    pub fn new(place: Place, spoken: Spoken, terms: &Terms) -> Result<Self, String> {
        if !terms.headers.is_empty() && !place.is_private() {
            return Err(format!(
                "{place}: headers go over TLS (https://) or stay on this machine (127.0.0.1, ::1, localhost), since \
                 everybody on the way could read them"
            ));
        }
        let tls = place.tls().map(|_| OutsideConnector::new(&terms.roots)).transpose();
        let tls = tls.map_err(|why| format!("{place}: {why}"))?;
        Ok(Self { place, spoken, tls, headers: terms.headers.clone() })
    }
}

impl Terms {
    /// Reads the files that say it. Every mistake goes to `mistakes`.
    pub fn read(roots: Option<&Path>, headers: Option<&Path>, mistakes: &mut Vec<String>) -> Self {
        let mut terms = Self::default();
        if let Some(file) = roots {
            let pem = std::fs::read_to_string(file).map_err(|why| why.to_string());
            match pem.and_then(|pem| certificates_from_pem(&pem)) {
                Ok(roots) => terms.roots = OutsideRoots::Only(roots),
                Err(why) => mistakes.push(format!("--otlp-ca {}: {why}", file.display())),
            }
        }
        match headers.map(headers::read) {
            Some(Ok(headers)) => terms.headers = headers,
            Some(Err(why)) => mistakes.push(format!("--otlp-headers-file {why}")),
            None => {}
        }
        terms
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Collector");
        shown.field("place", &self.place).field("spoken", &self.spoken).finish_non_exhaustive()
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
#[error("--otlp-endpoint {place}: {why}")]
pub struct NoCollector {
    place: Place,
    why: String,
}

impl NoCollector {
    fn new(collector: &Collector, why: &impl ToString) -> Self {
        Self { place: collector.place.clone(), why: why.to_string() }
    }
}

/// What records become on their way to a collector.
pub trait Batches: Send + 'static {
    /// What they are, for people.
    const WHAT: &'static str;

    /// Sends what comes of `records`; how many that are, and why the collector did not take them, if it did not.
    fn send(&self, records: Vec<Arc<Record>>) -> impl Future<Output = (u64, Result<(), String>)> + Send;

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
            Err(why) if !failed_before => {
                tracing::warn!(why, "the collector does not take {}", B::WHAT);
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// What an exporter is told of where messages go: its courier knows better.
const EVERYWHERE: &str = "http://collector";
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
