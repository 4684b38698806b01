//! The events of a tap: what some sidecars tell, one after the other, until it has an end.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use super::Place;
use crate::push::TapLines;

/// A sidecar that tells.
pub(super) struct Told {
    pub(super) node: String,
    pub(super) identity: String,
    pub(super) lines: TapLines,
}

/// What is sent.
pub(super) struct Events {
    /// What is to be sent before anything else.
    ready: String,
    told: SelectAll<BoxStream<'static, Heard>>,
    until: Instant,
    left: u32,
    /// The second of the tap, and how many were told in it.
    second: (u64, u32),
    began: Instant,
    left_out: u64,
    has_ended: bool,
    _place: Place,
}

/// What was heard of a sidecar.
enum Heard {
    Lines { node: String, identity: String, lines: Vec<u8>, left_out: u64 },
    Gone { node: String, why: Option<String> },
}

impl Events {
    pub(super) fn new(hello: &Json, told: Vec<Told>, until: Instant, limit: u32, place: Place) -> Self {
        let told = told.into_iter().map(heard).collect();
        let (ready, began) = (event("hello", hello), Instant::now());
        Self {
            ready,
            told,
            until,
            left: limit,
            second: (0, 0),
            began,
            left_out: 0,
            has_ended: false,
            _place: place,
        }
    }

    pub(super) fn stream(self) -> impl Stream<Item = Result<String, Infallible>> {
        stream::unfold(self, |mut events| async move { Some((Ok(events.next().await?), events)) })
    }

    async fn next(&mut self) -> Option<String> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready));
        }
        if self.has_ended {
            return None;
        }
        let beat = Instant::now() + BEAT;
        tokio::select! {
            biased;
            () = sleep_until(self.until) => Some(self.ends("time")),
            heard = self.told.next() => Some(match heard {
                None => self.ends("sidecars"),
                Some(Heard::Gone { node, why }) => event("gone", &json!({ "node": node, "why": why })),
                Some(Heard::Lines { node, identity, lines, left_out }) => {
                    self.lines(&node, &identity, &lines, left_out)
                }
            }),
            () = sleep_until(beat) => Some(":\n\n".to_owned()),
        }
    }

    /// The lines of a sidecar as events. They are read and written anew: a sidecar's word is no event of ours.
    fn lines(&mut self, node: &str, identity: &str, lines: &[u8], left_out: u64) -> String {
        let mut text = String::new();
        let mut dropped = left_out;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Ok(Json::Object(mut line)) = serde_json::from_slice::<Json>(line) else { continue };
            if let Some(n) = line.get("dropped").and_then(Json::as_u64) {
                dropped = dropped.saturating_add(n);
            } else if self.left > 0 && self.has_room() {
                self.left -= 1;
                line.insert("node".into(), node.into());
                line.insert("sidecar".into(), identity.into());
                text += &event("request", &Json::Object(line));
            } else if self.left > 0 {
                self.left_out += 1;
            }
        }
        if dropped > 0 {
            text += &event("dropped", &json!({ "node": node, "dropped": dropped }));
        }
        if self.left == 0 {
            text += &self.ends("limit");
        }
        if text.is_empty() { ":\n\n".to_owned() } else { text }
    }

    /// Whether another may be told in this second.
    fn has_room(&mut self) -> bool {
        let now = self.began.elapsed().as_secs();
        if self.second.0 != now {
            self.second = (now, 0);
        }
        self.second.1 += 1;
        self.second.1 <= A_SECOND
    }

    fn ends(&mut self, why: &str) -> String {
        self.has_ended = true;
        event("end", &json!({ "why": why, "dropped": self.left_out }))
    }
}

fn heard(Told { node, identity, lines }: Told) -> BoxStream<'static, Heard> {
    let of_it = stream::unfold(Some(lines), move |lines| {
        let (node, identity) = (node.clone(), identity.clone());
        async move {
            let mut lines = lines?;
            Some(match lines.next().await {
                Some(Ok(piece)) => {
                    let left_out = lines.left_out();
                    (Heard::Lines { node, identity, lines: piece, left_out }, Some(lines))
                }
                Some(Err(why)) => (Heard::Gone { node, why: Some(why.to_string()) }, None),
                None => (Heard::Gone { node, why: None }, None),
            })
        }
    });
    of_it.boxed()
}

fn event(name: &str, data: &Json) -> String {
    // JSON has no line breaks.
    format!("event: {name}\ndata: {data}\n\n")
}

/// So often something is sent, so that neither side takes a quiet tap for a broken one.
const BEAT: Duration = Duration::from_secs(10);
/// Requests that a tap tells in a second, of all its sidecars.
const A_SECOND: u32 = 500;
