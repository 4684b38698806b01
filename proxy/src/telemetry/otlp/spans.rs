//! Traced requests as spans.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use opentelemetry::InstrumentationScope;
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::{Batches, Collector, Courier, EVERYWHERE, NoCollector, Origin, PATIENCE, Signal, scope};
use crate::telemetry::observe::Record;
use crate::telemetry::trace::{Counts, span};

/// Sends spans.
#[derive(Debug)]
pub struct Spans {
    exporter: SpanExporter,
    courier: Arc<Courier>,
    scope: InstrumentationScope,
    counts: Arc<Counts>,
}

impl Spans {
    /// To `collector`, as those of `origin`.
    pub fn new(collector: &Collector, origin: Origin, counts: &Arc<Counts>) -> Result<Self, NoCollector> {
        let courier = Arc::new(Courier::new(collector, Signal::Traces));
        let built = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&courier) as Arc<dyn HttpClient>)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(EVERYWHERE)
            .with_timeout(PATIENCE)
            .build();
        let mut exporter = built.map_err(|why| NoCollector::new(collector, &why))?;
        exporter.set_resource(&origin.resource());
        Ok(Self { exporter, courier, scope: scope(), counts: Arc::clone(counts) })
    }
}

impl Batches for Spans {
    const WHAT: &'static str = "spans";

    async fn send(&self, records: Vec<Arc<Record>>) -> (u64, Result<(), String>) {
        let spans: Vec<SpanData> = records.iter().flat_map(|record| span::of(record, &self.scope)).collect();
        let count = spans.len() as u64;
        let sent = self.exporter.export(spans).await;
        (count, sent.map_err(|why| self.courier.why().unwrap_or_else(|| why.to_string())))
    }

    fn count(&self, count: u64, taken: bool) {
        let counter = if taken { &self.counts.exported } else { &self.counts.failed };
        counter.fetch_add(count, Relaxed);
    }
}
