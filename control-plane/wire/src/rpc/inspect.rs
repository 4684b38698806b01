//! Pages of a sidecar that people ask for.
//!
//! A sidecar has no port that the control plane could reach. It keeps a call open, over which the control plane asks and
//! it answers, in pieces. What the pages are is deliberately elsewhere: here they are names and bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::convert::{from_status, invalid, is_node, to_status};
use super::server::{Caller, ControlHandler};
use super::{RpcError, RpcErrorKind};
use crate::codec::shortened;
use crate::pb;

/// A page that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAsk {
    /// The answer bears it.
    pub id: u64,
    /// Its name.
    pub page: String,
}

/// An answer, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAnswer {
    /// What it answers.
    pub id: u64,
    /// What it says.
    pub piece: Piece,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that more will follow.
    More(Vec<u8>),
    /// The last bytes.
    Last(Vec<u8>),
    /// There is no such page, for this reason.
    Failure(String),
}

/// The call as the control plane sees it: it asks.
pub struct Inspected {
    answers: Streaming<pb::InspectAnswer>,
    asks: mpsc::Sender<Result<pb::InspectAsk, Status>>,
}

impl Inspected {
    /// The next answer; `None` when the sidecar closed the call. May be dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<PageAnswer>, RpcError> {
        let message = self.answers.message().await.map_err(|s| from_status(&s))?;
        Ok(message.map(answer_from_pb))
    }

    /// Asks. A sidecar that does not take the question for ten seconds has gone.
    pub async fn ask(&self, ask: PageAsk) -> Result<(), RpcError> {
        let ask = pb::InspectAsk { id: ask.id, page: ask.page };
        let gone = |_| RpcError::new(RpcErrorKind::Unavailable, "the sidecar does not take what it is asked");
        self.asks.send_timeout(Ok(ask), SLOW_READER).await.map_err(gone)
    }
}

impl std::fmt::Debug for Inspected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspected").finish_non_exhaustive()
    }
}

/// Serves a call to its end. An error is the call's last word.
pub(super) async fn serve<H: ControlHandler>(
    handler: Arc<H>,
    caller: Caller<H::Peer>,
    mut answers: Streaming<pb::InspectAnswer>,
    asks: mpsc::Sender<Result<pb::InspectAsk, Status>>,
) {
    let ending = asks.clone();
    let session = async {
        let first = tokio::time::timeout(FIRST_MESSAGE, answers.message());
        let first = first.await.map_err(|_| invalid("no message came"))?.map_err(|s| from_status(&s))?;
        let Some(first) = first else { return Ok(()) };
        let node = first.node.filter(|node| is_node(node));
        let node = node.ok_or_else(|| invalid("the first message does not say who sends it"))?;
        handler.inspect(caller, node, Inspected { answers, asks }).await
    };
    if let Err(error) = session.await {
        // A reader that is gone or stuck does not hear it.
        let _ = ending.send_timeout(Err(to_status(error)), FIRST_MESSAGE).await;
    }
}

/// The call as the sidecar sees it: it is asked.
#[derive(Debug)]
pub struct Inspection {
    answers: mpsc::Sender<pb::InspectAnswer>,
    asks: Streaming<pb::InspectAsk>,
}

impl Inspection {
    pub(super) fn new(answers: mpsc::Sender<pb::InspectAnswer>, asks: Streaming<pb::InspectAsk>) -> Self {
        Self { answers, asks }
    }

    /// What is asked next; `None` when the control plane closed the call. May be dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<PageAsk>, RpcError> {
        let message = self.asks.message().await.map_err(|s| from_status(&s))?;
        Ok(message.map(|pb::InspectAsk { id, page }| PageAsk { id, page }))
    }

    /// Answers a question with a page, or with the reason why there is none.
    pub async fn answer(&self, id: u64, page: Result<Vec<u8>, String>) -> Result<(), RpcError> {
        let empty = || pb::InspectAnswer { id, ..pb::InspectAnswer::default() };
        match page {
            Err(why) => self.send(pb::InspectAnswer { failure: Some(shortened(&why)), ..empty() }).await,
            Ok(page) => {
                let mut pieces = page.chunks(PIECE).peekable();
                while let Some(piece) = pieces.next() {
                    let last = pieces.peek().is_none();
                    self.send(pb::InspectAnswer { piece: piece.to_vec(), last, ..empty() }).await?;
                }
                if page.is_empty() {
                    self.send(pb::InspectAnswer { last: true, ..empty() }).await?;
                }
                Ok(())
            }
        }
    }

    /// Sends a piece of an answer that goes on; the last one ends it.
    pub async fn piece(&self, id: u64, piece: Vec<u8>, last: bool) -> Result<(), RpcError> {
        self.send(pb::InspectAnswer { id, piece, last, ..pb::InspectAnswer::default() }).await
    }

    async fn send(&self, answer: pb::InspectAnswer) -> Result<(), RpcError> {
        let gone = |_| RpcError::new(RpcErrorKind::Unavailable, "the control plane does not take the answer");
        self.answers.send_timeout(answer, SLOW_READER).await.map_err(gone)
    }
}

fn answer_from_pb(answer: pb::InspectAnswer) -> PageAnswer {
    let pb::InspectAnswer { id, piece, last, failure, .. } = answer;
    let piece = match (failure, last) {
        (Some(why), _) => Piece::Failure(shortened(&why)),
        (None, true) => Piece::Last(piece),
        (None, false) => Piece::More(piece),
    };
    PageAnswer { id, piece }
}

/// How long a call may be open without its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a reader may take to accept a message.
const SLOW_READER: Duration = Duration::from_secs(10);
/// What one message carries of a page.
const PIECE: usize = 256 * 1024;
