//! Begins what the operator wants to be told of requests, and ends it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::live::Live;
use crate::settings::telemetry::Telemetry;
use crate::telemetry::access_log::Lines;
use crate::telemetry::access_log::writer::{self, Output, Writer};
use crate::telemetry::observe::{Taker, Taking};
use crate::telemetry::otlp::{self, Batches, NoCollector, Origin, Sender};
use crate::telemetry::trace::Tracing;

/// Why it can not begin.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum NotTold {
    #[error("--access-log-file {path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Collector(#[from] NoCollector),
}

/// What is told until it is dropped, or finished.
#[derive(Debug, Default)]
pub struct Telling {
    lines: Option<Writer>,
    sending: Vec<Sending>,
    takings: Vec<Taking>,
}

/// A task that sends. Dropped, it sends what waits and ends.
#[derive(Debug)]
struct Sending {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

/// Begins, within a runtime that is not one of a worker.
pub fn start(wanted: &Telemetry, live: &Live, origin: Origin) -> Result<Telling, NotTold> {
    live.observe.redact(wanted.redaction.clone());
    let mut telling = Telling::default();
    telling.lines(wanted, live, &origin)?;
    telling.spans(wanted, live, origin)?;
    Ok(telling)
}

impl Telling {
    /// Tells what waits, for as long as `limit`.
    pub async fn finish(self, limit: Duration) {
        drop(self.takings);
        if let Some(lines) = self.lines {
            lines.finish(limit).await;
        }
        let tasks = self.sending.into_iter().map(|Sending { task, end }| {
            drop(end);
            task
        });
        let _too_late = tokio::time::timeout(limit, futures_util::future::join_all(tasks)).await;
    }

    fn lines(&mut self, wanted: &Telemetry, live: &Live, origin: &Origin) -> Result<(), NotTold> {
        if wanted.lines.lines == Lines::Off {
            live.access_log.turn_off();
            return Ok(());
        }
        if let (Some(collector), true) = (&wanted.collector, wanted.to_collector) {
            let counts = live.access_log.counts();
            let lines = otlp::Lines::new(collector, origin.clone(), wanted.format.clone(), counts)?;
            let (queue, records) = mpsc::channel(otlp::ROOM);
            live.access_log.send(wanted.lines.clone(), queue);
            self.takings.push(live.observe.add(Arc::clone(&live.access_log) as Arc<dyn Taker>));
            self.send(Sender::new(lines, records));
            return Ok(());
        }
        let (output, path) = match (wanted.lines.lines, &wanted.file) {
            (Lines::Denied | Lines::Off, None) => return Ok(()),
            (Lines::All, None) => (Output::To(Box::new(io::stdout())), PathBuf::from("-")),
            (_, Some(path)) => (Output::File(path.clone()), path.clone()),
        };
        let started = Writer::start(live, wanted.lines.clone(), wanted.format.clone(), output, writer::ROOM);
        self.lines = Some(started.map_err(|source| NotTold::File { path, source })?);
        Ok(())
    }

    fn spans(&mut self, wanted: &Telemetry, live: &Live, origin: Origin) -> Result<(), NotTold> {
        let Some(collector) = &wanted.collector else { return Ok(()) };
        let spans = otlp::Spans::new(collector, origin, &live.spans)?;
        let (tracing, records) = Tracing::new(wanted.shares.clone(), otlp::ROOM, &live.spans);
        live.observe.trace(Arc::new(tracing));
        self.send(Sender::new(spans, records));
        Ok(())
    }

    fn send<B: Batches>(&mut self, sender: Sender<B>) {
        let (end, ended) = oneshot::channel();
        self.sending.push(Sending { task: tokio::spawn(sender.run(ended)), end });
    }
}
