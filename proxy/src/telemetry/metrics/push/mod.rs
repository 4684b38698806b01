//! Metrics pushed to a collector over OTLP, made of the same text that Prometheus reads.
//!
//! One task beside everything else sends all sums as they are, every now and then. What is sent is cumulative, so a push that
//! fails loses nothing but its moment: it is counted and not tried again. A collector that is away, slow or wrong holds up
//! nobody but that task.

mod encode;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use outrigger_mesh::{MetricKind, parse_exposition, write_family};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::telemetry::otlp::{Collector, Courier, Signal};
use encode::Source;

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
    (collector, every): (Collector, Duration),
    service: String,
    counts: Arc<Pushed>,
    text: impl Fn() -> String,
) {
    let courier = Courier::new(&collector, Signal::Metrics);
    let source = Source { service, began: SystemTime::now() };
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut well = true;
    loop {
        ticks.tick().await;
        let text = text();
        let body = encode::request(&source, &parse_exposition(&text), SystemTime::now());
        let sent = courier.deliver(body.into()).await.map(drop);
        match sent.and(courier.why().map_or(Ok(()), Err)) {
            Ok(()) => {
                counts.taken.fetch_add(1, Relaxed);
                well = true;
            }
            Err(why) => {
                counts.failed.fetch_add(1, Relaxed);
                if std::mem::take(&mut well) {
                    tracing::warn!(why, collector = %collector.place, "metrics can not be pushed");
                }
            }
        }
    }
}
