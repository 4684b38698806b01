//! Traced requests as spans.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::{Batches, Collector, NoCollector, Origin, PATIENCE, Spoken, scope};
use crate::telemetry::observe::Record;
use crate::telemetry::trace::{Counts, span};

/// Sends spans.
#[derive(Debug)]
pub struct Spans {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    counts: Arc<Counts>,
}

impl Spans {
    /// To `collector`, as those of `origin`.
    pub fn new(collector: &Collector, origin: Origin, counts: &Arc<Counts>) -> Result<Self, NoCollector> {
        let built = match collector.spoken {
            Spoken::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_endpoint(collector.address.clone())
                .with_timeout(PATIENCE)
                .build(),
            Spoken::Http => SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{}/v1/traces", collector.address))
                .with_timeout(PATIENCE)
                .build(),
        };
        let mut exporter = built.map_err(|why| NoCollector::new(collector, &why))?;
        exporter.set_resource(&origin.resource());
        Ok(Self { exporter, scope: scope(), counts: Arc::clone(counts) })
    }
}

impl Batches for Spans {
    const WHAT: &'static str = "spans";

    async fn send(&self, records: Vec<Arc<Record>>) -> (u64, OTelSdkResult) {
        let spans: Vec<SpanData> = records.iter().flat_map(|record| span::of(record, &self.scope)).collect();
        (spans.len() as u64, self.exporter.export(spans).await)
    }

    fn count(&self, count: u64, taken: bool) {
        let counter = if taken { &self.counts.exported } else { &self.counts.failed };
        counter.fetch_add(count, Relaxed);
    }
}
