//! What is said over the call of one sidecar: one page after the other, and taps that go on beside them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outrigger_wire::rpc::{Inspected, PageAnswer, PageAsk, Piece, RpcError, RpcErrorKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::pages::NoPage;

/// What a sidecar is asked.
#[derive(Debug)]
pub(super) enum Question {
    /// A page, once.
    Page {
        /// Which.
        page: &'static str,
        /// Who asks. He may have gone.
        answer: oneshot::Sender<Result<Vec<u8>, NoPage>>,
    },
    /// A page that goes on until it ends or nobody reads it any more.
    Tap {
        /// Which, with its filter.
        page: String,
        /// Who reads it.
        reader: Reader,
    },
}

/// Who reads a tap.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) pieces: mpsc::Sender<Result<Vec<u8>, NoPage>>,
    pub(super) left_out: Arc<AtomicU64>,
    /// Cancelled when he has gone.
    pub(super) gone: CancellationToken,
}

impl Reader {
    /// Hands on a piece, unless there is no room for it: whoever reads slowly holds up nobody.
    fn hand(&self, piece: Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let lines = piece.split(|byte| *byte == b'\n').count().saturating_sub(1) as u64;
        let told = piece.len() <= LARGEST_PIECE && self.pieces.try_send(Ok(piece)).is_ok();
        if !told {
            self.left_out.fetch_add(lines.max(1), Relaxed);
        }
    }
}

/// Asks over a call until it ends. What is asked when it ends is answered by that.
pub(super) async fn converse(
    mut call: Inspected,
    mut questions: mpsc::Receiver<Question>,
) -> Result<(), RpcError> {
    let mut talk = Talk::default();
    loop {
        tokio::select! {
            answer = call.next() => match answer? {
                Some(answer) => talk.hear(answer),
                None => return Ok(()),
            },
            question = questions.recv(), if talk.page.is_none() => {
                let Some(question) = question else {
                    let what = "another call of this process has taken the place of this one";
                    return Err(RpcError::new(RpcErrorKind::Conflict, what));
                };
                let ask = talk.ask(question);
                call.ask(ask).await?;
            }
            // One that does not answer is not asked for more: the call ends, and it makes another.
            () = late(talk.page.as_ref()) => return Err(RpcError::new(RpcErrorKind::Unavailable, "no answer came")),
            Some(id) = talk.left.next() => {
                if talk.taps.remove(&id).is_some() {
                    call.ask(PageAsk { id, page: "end".to_owned() }).await?;
                }
            }
        }
    }
}

/// Waits until the page that is being answered is late; for ever where there is none.
async fn late(asked: Option<&Asked>) {
    match asked {
        Some(asked) => sleep_until(asked.until).await,
        None => std::future::pending().await,
    }
}

/// What is under way.
#[derive(Default)]
struct Talk {
    last: u64,
    page: Option<Asked>,
    taps: HashMap<u64, Reader>,
    /// The taps whose readers have gone.
    left: FuturesUnordered<Pin<Box<dyn Future<Output = u64> + Send>>>,
}

/// A page that is being answered.
struct Asked {
    id: u64,
    until: Instant,
    page: Vec<u8>,
    is_too_large: bool,
    answer: oneshot::Sender<Result<Vec<u8>, NoPage>>,
}

impl Talk {
    fn ask(&mut self, question: Question) -> PageAsk {
        self.last += 1;
        let id = self.last;
        match question {
            Question::Page { page, answer } => {
                let until = Instant::now() + WITHIN;
                self.page = Some(Asked { id, until, page: Vec::new(), is_too_large: false, answer });
                PageAsk { id, page: page.to_owned() }
            }
            Question::Tap { page, reader } => {
                let gone = reader.gone.clone();
                self.left.push(Box::pin(async move {
                    gone.cancelled().await;
                    id
                }));
                self.taps.insert(id, reader);
                PageAsk { id, page }
            }
        }
    }

    fn hear(&mut self, PageAnswer { id, piece }: PageAnswer) {
        match self.page.take() {
            Some(asked) if asked.id == id => self.page = asked.with(piece),
            other => {
                self.page = other;
                self.hear_of_tap(id, piece);
            }
        }
    }

    /// To a tap; or to a question that nobody waits for any more.
    fn hear_of_tap(&mut self, id: u64, piece: Piece) {
        match piece {
            Piece::More(piece) => {
                if let Some(reader) = self.taps.get(&id) {
                    reader.hand(piece);
                }
            }
            Piece::Last(piece) => {
                if let Some(reader) = self.taps.remove(&id) {
                    reader.hand(piece);
                }
            }
            Piece::Failure(why) => {
                if let Some(reader) = self.taps.remove(&id) {
                    // A reader who has so much to read hears that it has ended.
                    let _full = reader.pieces.try_send(Err(NoPage::Refused(why)));
                }
            }
        }
    }
}

impl Asked {
    /// With one piece more; `None` when that was the last one, and whoever asked has his answer.
    fn with(mut self, piece: Piece) -> Option<Self> {
        let (piece, is_last) = match piece {
            Piece::Failure(why) => return self.ends(Err(NoPage::Refused(why))),
            Piece::More(piece) => (piece, false),
            Piece::Last(piece) => (piece, true),
        };
        self.is_too_large |= self.page.len() + piece.len() > LARGEST;
        if !self.is_too_large {
            self.page.extend_from_slice(&piece);
        }
        if !is_last {
            return Some(self);
        }
        let page = std::mem::take(&mut self.page);
        let answer = if self.is_too_large { Err(NoPage::TooLarge) } else { Ok(page) };
        self.ends(answer)
    }

    fn ends(self, answer: Result<Vec<u8>, NoPage>) -> Option<Self> {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
        None
    }
}

/// How long an answer may take.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// No page is larger: a mesh's whole configuration as one sidecar has it fits.
pub(super) const LARGEST: usize = 32 << 20;
/// No piece of a tap is: one request has a few kilobytes.
const LARGEST_PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    type Read = mpsc::Receiver<Result<Vec<u8>, NoPage>>;

    fn tap() -> (Question, Read, Arc<AtomicU64>, CancellationToken) {
        let (pieces, read) = mpsc::channel(2);
        let (left_out, gone) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let reader = Reader { pieces, left_out: Arc::clone(&left_out), gone: gone.clone() };
        (Question::Tap { page: "tap".into(), reader }, read, left_out, gone)
    }

    fn more(talk: &mut Talk, id: u64, piece: &str) {
        talk.hear(PageAnswer { id, piece: Piece::More(piece.into()) });
    }

    #[tokio::test]
    async fn a_tap_goes_on_beside_pages_and_a_slow_reader_is_told_what_he_missed() {
        let mut talk = Talk::default();
        let (question, mut read, left_out, _gone) = tap();
        let tap = talk.ask(question).id;
        let (answer, page) = oneshot::channel();
        let asked = talk.ask(Question::Page { page: "certs", answer });
        assert_eq!((asked.page.as_str(), asked.id == tap), ("certs", false));
        more(&mut talk, asked.id, "{");
        more(&mut talk, tap, "a\n");
        talk.hear(PageAnswer { id: asked.id, piece: Piece::Last("}".into()) });
        assert_eq!(page.await.unwrap(), Ok(b"{}".to_vec()));
        assert!(talk.page.is_none());
        for piece in ["b\n", "c\nd\n", "e\n"] {
            more(&mut talk, tap, piece);
        }
        assert_eq!(left_out.load(Relaxed), 3, "lines, not pieces");
        more(&mut talk, tap + 9, "of nobody\n");
        more(&mut talk, tap, &"x".repeat(LARGEST_PIECE + 1));
        assert_eq!(left_out.load(Relaxed), 4);
        assert_eq!(read.recv().await, Some(Ok(b"a\n".to_vec())));
        talk.hear(PageAnswer { id: tap, piece: Piece::Last(vec![]) });
        assert_eq!(read.recv().await, Some(Ok(b"b\n".to_vec())));
        assert_eq!(read.recv().await, None, "it has ended there");
    }

    #[tokio::test]
    async fn a_tap_that_is_refused_says_why_and_one_that_nobody_reads_is_ended() {
        let mut talk = Talk::default();
        let (question, mut read, _, _gone) = tap();
        let id = talk.ask(question).id;
        talk.hear(PageAnswer { id, piece: Piece::Failure("full".into()) });
        assert_eq!(read.recv().await, Some(Err(NoPage::Refused("full".into()))));
        assert_eq!(read.recv().await, None);
        let (question, _read, _, gone) = tap();
        let id = talk.ask(question).id;
        gone.cancel();
        assert_eq!(talk.left.next().await, Some(id));
    }
}
