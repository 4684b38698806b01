//! Pages of sidecars: what people ask of one through the control plane it is connected to.
//!
//! Each sidecar keeps a call open over which it is asked. Questions under way, the size of an answer and the time for it
//! are bounded; a sidecar whose call has ended, or that never made one, is told as such.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrigger_mesh::SpiffeId;
use outrigger_wire::rpc::{Inspected, RpcError, RpcErrorKind};
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hub::Hub;
use super::talk::{LARGEST, Question, Reader, WITHIN, converse};

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
        questions.try_send(Question::Page { page, answer }).map_err(|e| not_asked(&e))?;
        let page = timeout(WITHIN, answered).await.map_err(|_| NoPage::Late)?.map_err(|_| NoPage::Gone)??;
        serde_json::from_slice(&page).map_err(|_| NoPage::Unreadable)
    }

    /// Asks a sidecar for live requests; `page` is a filter's.
    pub fn tap(&self, identity: &SpiffeId, node: &str, page: String) -> Result<TapLines, NoPage> {
        let questions = self.pages().of(identity, node).ok_or(NoPage::NoCall)?;
        let (pieces, read) = mpsc::channel(UNREAD);
        let left_out = Arc::new(AtomicU64::new(0));
        let gone = CancellationToken::new();
        let reader = Reader { pieces, left_out: Arc::clone(&left_out), gone: gone.clone() };
        questions.try_send(Question::Tap { page, reader }).map_err(|e| not_asked(&e))?;
        Ok(TapLines { pieces: read, left_out, _gone: gone.drop_guard() })
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

fn not_asked(error: &mpsc::error::TrySendError<Question>) -> NoPage {
    match error {
        mpsc::error::TrySendError::Full(_) => NoPage::Busy,
        mpsc::error::TrySendError::Closed(_) => NoPage::Gone,
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

/// What a sidecar tells of live requests: lines of JSON, some to a piece. Dropped, it is told that nobody reads them.
#[derive(Debug)]
pub struct TapLines {
    pieces: mpsc::Receiver<Result<Vec<u8>, NoPage>>,
    left_out: Arc<AtomicU64>,
    _gone: DropGuard,
}

impl TapLines {
    /// The next ones; `None` when the tap has ended there. May be dropped while waiting.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, NoPage>> {
        self.pieces.recv().await
    }

    /// How many there was no room for here since this was asked last.
    pub fn left_out(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }
}

/// Questions to one sidecar that wait for the one under way.
const WAITING: usize = 4;
/// Pieces of a tap that wait to be read.
const UNREAD: usize = 32;
