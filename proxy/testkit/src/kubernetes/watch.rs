//! A watch: changes after a count, line by line, until it is ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use super::answer::{Body, Ended};
use super::question::Question;
use super::shelf::Change;
use super::{Inner, Say, lock};

/// The body of a watch, after the count that was asked for.
pub(super) fn body(inner: Arc<Inner>, question: Question, after: u64) -> Body {
    let (lines, read) = mpsc::channel(64);
    // Subscribed before the answer begins: whoever has it is told of everything.
    let said = inner.say.subscribe();
    tokio::spawn(tell(inner, question, after, lines, said));
    let frames = stream::unfold(read, |mut read| async {
        let line: Result<String, Ended> = read.recv().await?;
        Some((line.map(|line| Frame::data(Bytes::from(line))), read))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

type Lines = mpsc::Sender<Result<String, Ended>>;

async fn tell(
    inner: Arc<Inner>,
    question: Question,
    mut at: u64,
    lines: Lines,
    mut said: broadcast::Receiver<Say>,
) {
    let mut changed = inner.changed.subscribe();
    let seconds = question.number("timeoutSeconds").unwrap_or(1_800);
    let until = Instant::now() + Duration::from_secs(seconds);
    // Who asks for what there is before what changes waits for a word where the one ends.
    let mut waits = question.is("sendInitialEvents");
    loop {
        changed.borrow_and_update();
        let (changes, now, forgotten) = {
            let shelf = inner.shelf();
            (shelf.after(at, &question.resource.id()), shelf.count(), shelf.forgotten)
        };
        if !lock(&inner.faults).mute {
            if at < forgotten {
                let line = json!({ "type": "ERROR", "object": gone() }).to_string();
                let _ = lines.send(Ok(line + "\n")).await;
                return;
            }
            for line in changes.iter().filter_map(|change| line(&question, change)) {
                if lines.send(Ok(line + "\n")).await.is_err() {
                    return;
                }
            }
            at = now;
            if std::mem::take(&mut waits) {
                let mut mark = bookmark(&question, at);
                mark["object"]["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
                let _ = lines.send(Ok(format!("{mark}\n"))).await;
            }
        }
        tokio::select! {
            // What changed before somebody asked for a bookmark is told before it.
            biased;
            () = lines.closed() => return,
            () = sleep_until(until) => return,
            changed = changed.changed() => if changed.is_err() { return },
            said = said.recv() => match said {
                Ok(Say::Cut) => {
                    let _ = lines.send(Err(Ended)).await;
                    return;
                }
                Ok(Say::End) | Err(broadcast::error::RecvError::Closed) => return,
                Ok(Say::Line(line)) => drop(lines.send(Ok(line + "\n")).await),
                Ok(Say::Bookmark) if question.is("allowWatchBookmarks") => {
                    let _ = lines.send(Ok(format!("{}\n", bookmark(&question, at)))).await;
                }
                Ok(Say::Bookmark) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            },
        }
    }
}

fn bookmark(question: &Question, at: u64) -> Value {
    let resource = &question.resource;
    json!({ "type": "BOOKMARK", "object": {
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": { "resourceVersion": at.to_string(), "creationTimestamp": null },
    }})
}

/// What is told of a change: an object that begins to fit is new, one that fits no more is gone.
fn line(question: &Question, change: &Change) -> Option<String> {
    let fits = |object: &Value| question.selects(&change.place, object);
    let (before, after) = (change.before.as_ref().is_some_and(fits), !change.deleted && fits(&change.object));
    let word = match (before, after) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    let mut object = change.object.clone();
    object["apiVersion"] = question.resource.api_version().into();
    Some(json!({ "type": word, "object": object }).to_string())
}

/// What is told of changes that are forgotten.
pub(super) fn gone() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
        "code": 410, "message": "too old resource version",
    })
}
