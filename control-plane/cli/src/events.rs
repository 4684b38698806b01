//! Server-sent events of the control plane, one after the other (the HTML standard, section 9.2).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::http::NoAnswer;

/// An answer that goes on, event after event. Dropped, its connection ends.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    read: Vec<u8>,
    connection: JoinHandle<()>,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The place to go on from.
    pub(crate) id: Option<u64>,
    /// What it is, as the control plane calls it.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Events {
    pub(crate) fn new(body: Incoming, connection: JoinHandle<()>) -> Self {
        Self { body, read: Vec::new(), connection }
    }

    /// The next event that has data; `None` when there are no more.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, NoAnswer> {
        loop {
            while let Some(block) = take_block(&mut self.read) {
                let event = event(&block);
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
            }
            let Some(more) = self.more().await? else { return Ok(None) };
            if self.read.len() + more.len() > LARGEST {
                return Err(NoAnswer::Broken("an event is too large".into()));
            }
            self.read.extend_from_slice(&more);
        }
    }

    async fn more(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        let frame = timeout(SILENCE, self.body.frame()).await.map_err(|_| NoAnswer::Late(SILENCE))?;
        match frame {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(e)) => Err(NoAnswer::Broken(e.to_string())),
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What stands before the first empty line, taken off.
fn take_block(read: &mut Vec<u8>) -> Option<String> {
    let end = read.windows(2).position(|two| two == b"\n\n")?;
    let block: Vec<u8> = read.drain(..end + 2).collect();
    Some(String::from_utf8_lossy(&block).into_owned())
}

fn event(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = value.parse().ok(),
            "event" => value.clone_into(&mut event.name),
            "data" => event.data.push_str(value),
            _ => {}
        }
    }
    event
}

/// The control plane says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// A change can be of many objects.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whatever_pieces_they_come_in() {
        let text =
            "retry: 1000\n\n:\n\nid: 7\nevent: change\ndata: {\"a\":1}\n\nid: 8\ndata: {}\n\nid: 9\nda";
        for size in 1..text.len() {
            let (mut read, mut events) = (Vec::new(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                read.extend_from_slice(piece);
                while let Some(block) = take_block(&mut read) {
                    events.push(event(&block));
                }
            }
            events.retain(|event| !event.data.is_empty());
            let told: Vec<_> = events.iter().map(|e| (e.id, &*e.name, &*e.data)).collect();
            assert_eq!(told, [(Some(7), "change", "{\"a\":1}"), (Some(8), "", "{}")], "in pieces of {size}");
            assert_eq!(read, b"id: 9\nda");
        }
    }
}
