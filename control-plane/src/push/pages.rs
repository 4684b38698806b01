//! Pages of sidecars: what people ask of one through the control plane it is connected to.
//!
//! Each sidecar keeps a call open over which it is asked. Questions under way, the size of an answer and the time for it
//! are bounded; a sidecar whose call has ended, or that never made one, is told as such.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_mesh::SpiffeId;
use outrigger_wire::rpc::{Inspected, PageAnswer, PageAsk, Piece, RpcError, RpcErrorKind};
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::hub::Hub;

/// The sidecars that can be asked.
#[derive(Debug, Default)]
pub(super) struct Pages {
    calls: Mutex<HashMap<(SpiffeId, String), Call>>,
    last: AtomicU64,
}

/// The call of a sidecar, by a number of its own: a later one of the same process takes its place.
#[derive(Debug)]
struct Call {
    number: u64,
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    page: &'static str,
    answer: oneshot::Sender<Result<Vec<u8>, NoPage>>,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPage {
    /// It keeps no call open.
    #[error("it can not be asked: it is not connected here, or older than this question")]
    NoCall,
    /// It went while it was asked.
    #[error("it went while it was asked")]
    Gone,
    /// Others ask, and it has not answered them yet.
    #[error("it is being asked too much already; try again")]
    Busy,
    /// It took too long.
    #[error("it did not answer within {} s", WITHIN.as_secs())]
    Late,
    /// It said why.
    #[error("{0}")]
    Refused(String),
    /// The answer is larger than is read.
    #[error("its answer is larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// The answer is no JSON.
    #[error("its answer can not be read")]
    Unreadable,
}

impl Hub {
    /// Asks a sidecar for a page.
    pub async fn page(&self, identity: &SpiffeId, node: &str, page: &'static str) -> Result<Json, NoPage> {
        let (answer, answered) = oneshot::channel();
        let questions = self.pages().of(identity, node).ok_or(NoPage::NoCall)?;
        questions.try_send(Question { page, answer }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => NoPage::Busy,
            mpsc::error::TrySendError::Closed(_) => NoPage::Gone,
        })?;
        let page = timeout(WITHIN, answered).await.map_err(|_| NoPage::Late)?.map_err(|_| NoPage::Gone)??;
        serde_json::from_slice(&page).map_err(|_| NoPage::Unreadable)
    }

    /// Asks over a sidecar's call until it ends. Only a process whose discovery stream is open may be asked: so there are
    /// no more calls than streams.
    pub(super) async fn inspect(
        &self,
        identity: SpiffeId,
        node: String,
        call: Inspected,
    ) -> Result<(), RpcError> {
        if !self.is_connected(&identity, &node) {
            let what = "no discovery stream of this process is open";
            return Err(RpcError::new(RpcErrorKind::Unavailable, what));
        }
        let (open, questions) = self.pages().open(identity, node);
        let end = converse(call, questions).await;
        drop(open);
        end
    }
}

impl Pages {
    fn of(&self, identity: &SpiffeId, node: &str) -> Option<mpsc::Sender<Question>> {
        self.calls().get(&(identity.clone(), node.to_owned())).map(|call| call.questions.clone())
    }

    fn open(&self, identity: SpiffeId, node: String) -> (Open<'_>, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(WAITING);
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let of = (identity, node);
        self.calls().insert(of.clone(), Call { number, questions });
        (Open { pages: self, of, number }, asked)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<(SpiffeId, String), Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is entered until this is dropped, unless a later one took its place.
struct Open<'a> {
    pages: &'a Pages,
    of: (SpiffeId, String),
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut calls = self.pages.calls();
        if calls.get(&self.of).is_some_and(|call| call.number == self.number) {
            calls.remove(&self.of);
        }
    }
}

/// Asks one question after the other. What is asked when the call ends is answered by that.
async fn converse(mut call: Inspected, mut questions: mpsc::Receiver<Question>) -> Result<(), RpcError> {
    let mut last = 0;
    loop {
        let question = tokio::select! {
            answer = call.next() => match answer? {
                // To a question that nobody waits for any more.
                Some(_) => continue,
                None => return Ok(()),
            },
            question = questions.recv() => question,
        };
        let Some(question) = question else {
            let what = "another call of this process has taken the place of this one";
            return Err(RpcError::new(RpcErrorKind::Conflict, what));
        };
        last += 1;
        call.ask(PageAsk { id: last, page: question.page.to_owned() }).await?;
        // One that does not answer is not asked for more: the call ends, and it makes another.
        let answered = timeout(WITHIN, collect(&mut call, last)).await;
        let answered = answered.map_err(|_| RpcError::new(RpcErrorKind::Unavailable, "no answer came"))??;
        // Whoever asked may have gone.
        let _ = question.answer.send(answered);
    }
}

/// The pieces of the answer to a question.
async fn collect(call: &mut Inspected, id: u64) -> Result<Result<Vec<u8>, NoPage>, RpcError> {
    let mut page = Vec::new();
    let mut is_too_large = false;
    loop {
        let answer = call.next().await?;
        let gone = || RpcError::new(RpcErrorKind::Unavailable, "the call ended");
        let PageAnswer { id: of, piece } = answer.ok_or_else(gone)?;
        if of != id {
            continue;
        }
        let (piece, is_last) = match piece {
            Piece::Failure(why) => return Ok(Err(NoPage::Refused(why))),
            Piece::More(piece) => (piece, false),
            Piece::Last(piece) => (piece, true),
        };
        is_too_large |= page.len() + piece.len() > LARGEST;
        if !is_too_large {
            page.extend_from_slice(&piece);
        }
        if is_last {
            return Ok(if is_too_large { Err(NoPage::TooLarge) } else { Ok(page) });
        }
    }
}

/// Questions to one sidecar that wait for the one under way.
const WAITING: usize = 4;
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// No page is larger: a mesh's whole configuration as one sidecar has it fits.
const LARGEST: usize = 32 << 20;
