//! Lines of the access log as log records: each field an attribute by its name, the line of the template as the text.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{LogExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use serde_json::Value;

use super::{Batches, Collector, Courier, EVERYWHERE, NoCollector, Origin, PATIENCE, Signal, scope};
use crate::telemetry::access_log::Counts;
use crate::telemetry::access_log::template::Format;
use crate::telemetry::observe::Record;

/// Sends lines.
#[derive(Debug)]
pub struct Lines {
    exporter: LogExporter,
    courier: Arc<Courier>,
    /// Makes empty records; nothing is ever told to it.
    maker: SdkLogger,
    scope: InstrumentationScope,
    format: Format,
    counts: Arc<Counts>,
}

impl Lines {
    /// To `collector`, as those of `origin`.
    pub fn new(
        collector: &Collector,
        origin: Origin,
        format: Format,
        counts: &Arc<Counts>,
    ) -> Result<Self, NoCollector> {
        let courier = Arc::new(Courier::new(collector, Signal::Logs));
        let built = LogExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&courier) as Arc<dyn HttpClient>)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(EVERYWHERE)
            .with_timeout(PATIENCE)
            .build();
        let mut exporter = built.map_err(|why| NoCollector::new(collector, &why))?;
        exporter.set_resource(&origin.resource());
        let maker = SdkLoggerProvider::builder().build().logger("outrigger");
        Ok(Self { exporter, courier, maker, scope: scope(), format, counts: Arc::clone(counts) })
    }

    fn made_of(&self, record: &Record) -> SdkLogRecord {
        let mut made = self.maker.create_log_record();
        made.set_timestamp(record.at);
        made.set_observed_timestamp(SystemTime::now());
        let failed = record.reason.is_some() || record.status.is_some_and(|status| status >= 500);
        let (severity, name) = if failed { (Severity::Warn, "WARN") } else { (Severity::Info, "INFO") };
        made.set_severity_number(severity);
        made.set_severity_text(name);
        made.set_body(self.text(record).into());
        if let Value::Object(fields) = record.fields() {
            made.add_attributes(
                fields.into_iter().filter_map(|(name, value)| Some((name, value_of(value)?))),
            );
        }
        if let Some(trace) = record.trace_id().and_then(|digits| TraceId::from_hex(digits).ok()) {
            let span = record
                .place
                .map_or(SpanId::INVALID, |place| SpanId::from_bytes(place.own.span.to_be_bytes()));
            let flags = record.place.map(|_| TraceFlags::SAMPLED);
            made.set_trace_context(trace, span, flags);
        }
        made
    }

    /// The line of the template, or in short what was asked and how it went.
    fn text(&self, record: &Record) -> String {
        if let Format::Template(_) = self.format {
            let mut line = Vec::new();
            record.write_to(&self.format, &mut line);
            return String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        }
        let (method, path) = (record.method.as_deref(), record.path.as_deref());
        let status = record.status.map_or_else(|| "-".into(), |status| status.to_string());
        format!("{} {} {status}", method.unwrap_or("-"), path.unwrap_or("-"))
    }
}

impl Batches for Lines {
    const WHAT: &'static str = "access lines";

    async fn send(&self, records: Vec<Arc<Record>>) -> (u64, Result<(), String>) {
        let made: Vec<SdkLogRecord> = records.iter().map(|record| self.made_of(record)).collect();
        let borrowed: Vec<_> = made.iter().map(|made| (made, &self.scope)).collect();
        let sent = self.exporter.export(LogBatch::new(&borrowed)).await;
        (made.len() as u64, sent.map_err(|why| self.courier.why().unwrap_or_else(|| why.to_string())))
    }

    fn count(&self, count: u64, taken: bool) {
        let counter = if taken { &self.counts.written } else { &self.counts.dropped };
        counter.fetch_add(count, Relaxed);
    }
}

fn value_of(value: Value) -> Option<AnyValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.into(),
        Value::Array(all) => AnyValue::ListAny(Box::new(all.into_iter().filter_map(value_of).collect())),
        Value::Object(all) => {
            all.into_iter().filter_map(|(name, value)| Some((name, value_of(value)?))).collect()
        }
    })
}
