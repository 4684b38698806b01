//! Events on the owner of a pod that was refused, or did not become a member though somebody asked for it: the pod itself
//! may never be. They are written beside the way of the answer, few at a time, and dropped where there are too many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::api::Cluster;
use super::figures::Figures;

/// What happened to a pod of an owner.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) owner: Json,
    /// In one word, as `kubectl describe` shows it.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Takes what happened. Cheap to clone.
#[derive(Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<Happened>,
    figures: Arc<Figures>,
}

/// As many wait to be written.
const MOST_WAITING: usize = 64;
/// A controller tries again and again: once in so long is told.
const AGAIN: Duration = Duration::from_mins(5);
const MOST_REMEMBERED: usize = 1024;
const MOST_LETTERS: usize = 1000;

impl Events {
    pub(super) fn new(figures: Arc<Figures>) -> (Self, mpsc::Receiver<Happened>) {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        (Self { queue, figures }, waiting)
    }

    /// Never waits.
    pub(super) fn tell(&self, happened: Happened) {
        if self.queue.try_send(happened).is_err() {
            self.figures.events_dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Writes events until nobody tells any more.
pub(super) async fn write(
    cluster: Arc<dyn Cluster>,
    figures: Arc<Figures>,
    mut waiting: mpsc::Receiver<Happened>,
) {
    let mut told: BTreeMap<String, Instant> = BTreeMap::new();
    while let Some(happened) = waiting.recv().await {
        let (now, key) = (Instant::now(), format!("{} {}", happened.owner["uid"], happened.reason));
        told.retain(|_, at| now.duration_since(*at) < AGAIN);
        if told.contains_key(&key) || told.len() >= MOST_REMEMBERED {
            continue;
        }
        told.insert(key, now);
        let namespace = happened.owner["namespace"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{namespace}/events");
        if let Err(why) = cluster.create(&path, &event(&happened)).await {
            figures.events_dropped.fetch_add(1, Relaxed);
            tracing::warn!(why, "an event is not written");
        }
    }
}

fn event(happened: &Happened) -> Json {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
    let message: String = happened.message.chars().take(MOST_LETTERS).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "outrigger-", "namespace": happened.owner["namespace"]},
        "involvedObject": happened.owner,
        "reason": happened.reason,
        "message": message,
        "type": "Warning",
        "source": {"component": "outrigger-injector"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}
