//! Two streams made into one: what comes out of either goes into the other, until both have ended.
//!
//! An end passes on as an end, one direction at a time, and an abort as an abort: [`relay`] says which it was, and
//! whoever owns the sockets closes them accordingly ([`abort`]). Between two sidecars an end is `close_notify`, so that a
//! connection cut by somebody else is never taken for one that has ended.
//!
//! An idle connection costs no buffer: each thread reads into one of its own, and only what the other side does not take
//! at once is kept, 64 KiB a direction at most. While something is kept nothing more is read: that is the backpressure.
//!
//! Deliberately elsewhere: where a connection goes, what it counts for, and how it ends with its sidecar.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// How long a relay may go on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long neither side may send anything.
    pub idle: Duration,
    /// When it ends whatever passes.
    pub until: Option<Instant>,
}

impl Limits {
    /// Silence alone ends it.
    pub fn idle(idle: Duration) -> Self {
        Self { idle, until: None }
    }
}

/// Bytes that were read from a side before the relay began. They go in front.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    /// Those of `a`, on their way to `b`.
    pub from_a: Bytes,
    /// Those of `b`, on their way to `a`.
    pub from_b: Bytes,
}

/// Counts bytes while they pass. Many relays may share one.
#[derive(Debug, Default)]
pub struct Flow {
    /// From `a` to `b`.
    pub a_to_b: AtomicU64,
    /// From `b` to `a`.
    pub b_to_a: AtomicU64,
}

/// What passed, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes from `a` to `b`.
    pub a_to_b: u64,
    /// Bytes from `b` to `a`.
    pub b_to_a: u64,
    /// How it ended.
    pub end: End,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Each side has ended, and the other was told.
    Finished,
    /// A side broke off. The other must not see an end: [`abort`] it.
    Aborted(Party, io::Error),
    /// Nobody sent anything for too long.
    Idle,
    /// It went on for as long as it may.
    Late,
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The first.
    A,
    /// The second.
    B,
}

/// Passes bytes between `a` and `b` until both have ended, one breaks off, or both are silent for too long. Dropped
/// before that, the streams are where they are: the owner aborts them.
pub async fn relay<A, B>(a: &mut A, b: &mut B, ahead: Ahead, limits: Limits, flow: &Flow) -> Outcome
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Direction::new(ahead.from_a);
    let mut back = Direction::new(ahead.from_b);
    let idle = limits.idle.min(LONGEST_IDLE);
    let mut moved_at = Instant::now();
    let next = |moved_at: Instant| limits.until.map_or(moved_at + idle, |until| until.min(moved_at + idle));
    let mut patience = pin!(sleep_until(next(moved_at)));
    let end = std::future::poll_fn(|cx| {
        let before = (there.moved, back.moved);
        let polled = there.poll(cx, Pin::new(&mut *a), Pin::new(&mut *b), &flow.a_to_b);
        if let Some(error) = conclude(polled, &mut there, &mut back) {
            return Poll::Ready(error.of(Party::A, Party::B));
        }
        let polled = back.poll(cx, Pin::new(&mut *b), Pin::new(&mut *a), &flow.b_to_a);
        if let Some(error) = conclude(polled, &mut back, &mut there) {
            return Poll::Ready(error.of(Party::B, Party::A));
        }
        if there.is_over() && back.is_over() {
            return Poll::Ready(End::Finished);
        }
        if before != (there.moved, back.moved) {
            moved_at = Instant::now();
        }
        // The timer is moved when it rings, not with every byte.
        while patience.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if limits.until.is_some_and(|until| now >= until) {
                return Poll::Ready(End::Late);
            }
            if now >= moved_at + idle {
                return Poll::Ready(End::Idle);
            }
            patience.as_mut().reset(next(moved_at));
        }
        Poll::Pending
    })
    .await;
    Outcome { a_to_b: there.moved, b_to_a: back.moved, end }
}

/// Makes `stream` end with a reset when it is dropped, so that its peer does not take the end for a clean one.
pub fn abort(stream: &TcpStream) {
    let _best_effort = stream.set_zero_linger();
}

/// What becomes of the relay when one direction was polled.
fn conclude(polled: Poll<Result<(), Broken>>, own: &mut Direction, other: &mut Direction) -> Option<Broken> {
    match polled {
        // What made writing to it fail earlier is the better story.
        Poll::Ready(Err(Broken::Reading(error))) => {
            Some(Broken::Reading(other.refused.take().unwrap_or(error)))
        }
        Poll::Ready(Err(Broken::Writing(error))) if other.refused.is_some() => Some(Broken::Writing(error)),
        Poll::Ready(Err(Broken::Writing(error))) => {
            // Whoever takes nothing may still have said something: it is heard out first.
            own.refused = Some(error);
            other.doubted = true;
            None
        }
        Poll::Ready(Ok(())) | Poll::Pending => None,
    }
}

/// One direction.
#[derive(Debug)]
struct Direction {
    /// What was read and not yet taken.
    kept: Bytes,
    moved: u64,
    /// Something was written that may still lie in the stream.
    dirty: bool,
    /// Nothing more comes.
    ended: bool,
    /// The other side was told so.
    told: bool,
    /// The other side takes nothing more.
    refused: Option<io::Error>,
    /// Writing to the side that is read here has failed: the system reports a reset once, and after that it looks like
    /// an end.
    doubted: bool,
}

/// Why a direction can not go on.
#[derive(Debug)]
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

impl Broken {
    fn of(self, reads: Party, writes: Party) -> End {
        match self {
            Self::Reading(error) => End::Aborted(reads, error),
            Self::Writing(error) => End::Aborted(writes, error),
        }
    }
}

impl Direction {
    fn new(ahead: Bytes) -> Self {
        Self { kept: ahead, moved: 0, dirty: false, ended: false, told: false, refused: None, doubted: false }
    }

    fn is_over(&self) -> bool {
        self.told || self.refused.is_some()
    }

    /// Moves what can be moved. Ready once the direction has ended and the other side was told.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        count: &AtomicU64,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        if self.is_over() {
            return Poll::Pending;
        }
        for _ in 0..ROUNDS {
            if !self.kept.is_empty() {
                ready!(self.write_kept(cx, to.as_mut(), count)).map_err(Broken::Writing)?;
            }
            if self.ended {
                ready!(to.as_mut().poll_shutdown(cx)).map_err(Broken::Writing)?;
                self.told = true;
                return Poll::Ready(Ok(()));
            }
            let read = with_scratch(|scratch| self.pass(cx, from.as_mut(), to.as_mut(), scratch, count));
            if read?.is_pending() {
                if self.dirty && self.kept.is_empty() {
                    ready!(to.as_mut().poll_flush(cx)).map_err(Broken::Writing)?;
                    self.dirty = false;
                }
                return Poll::Pending;
            }
        }
        // The others of this thread want a turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what is there and writes what is taken. Pending when there was nothing to read.
    fn pass<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        scratch: &mut [u8],
        count: &AtomicU64,
    ) -> Result<Poll<()>, Broken>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        let mut buffer = ReadBuf::new(scratch);
        let mut failed = None;
        // A TLS record is less than the buffer: several make one write.
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match from.as_mut().poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => failed = Some(error),
                Poll::Ready(Ok(())) if buffer.filled().len() > before => continue,
                Poll::Ready(Ok(())) if self.doubted => failed = Some(io::ErrorKind::ConnectionReset.into()),
                Poll::Ready(Ok(())) => self.ended = true,
            }
            break;
        }
        let mut rest = buffer.filled();
        let quiet = rest.is_empty() && !self.ended && failed.is_none();
        while !rest.is_empty() {
            match to.as_mut().poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(Broken::Writing(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => {
                    self.note(taken, count);
                    rest = &rest[taken..];
                }
                Poll::Ready(Err(error)) => return Err(Broken::Writing(error)),
                Poll::Pending => {
                    self.kept = Bytes::copy_from_slice(rest);
                    break;
                }
            }
        }
        match failed {
            Some(error) => Err(Broken::Reading(error)),
            None if quiet => Ok(Poll::Pending),
            None => Ok(Poll::Ready(())),
        }
    }

    fn write_kept<W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut W>,
        count: &AtomicU64,
    ) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let taken = ready!(to.as_mut().poll_write(cx, &self.kept))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.note(taken, count);
            self.kept.advance(taken);
        }
        self.kept = Bytes::new();
        Poll::Ready(Ok(()))
    }

    fn note(&mut self, taken: usize, count: &AtomicU64) {
        self.moved += taken as u64;
        self.dirty = true;
        count.fetch_add(taken as u64, Relaxed);
    }
}

/// Lends the thread's buffer. A stream that itself relays while it is read gets another one.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    }
    let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice());
    let worked = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    worked
}

const BUFFER: usize = 64 * 1024;
/// How often a direction may fill the buffer before others get a turn.
const ROUNDS: usize = 16;
/// What a clock can add without running over.
const LONGEST_IDLE: Duration = Duration::from_hours(24 * 365);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    const LONG: Limits = Limits { idle: Duration::from_mins(5), until: None };

    /// A relay between two ends that the test holds.
    fn between(
        size: usize,
        ahead: Ahead,
        limits: Limits,
    ) -> (DuplexStream, DuplexStream, JoinHandle<Outcome>) {
        let ((left, mut a), (mut b, right)) = (duplex(size), duplex(size));
        let relaying =
            tokio::spawn(async move { relay(&mut a, &mut b, ahead, limits, &Flow::default()).await });
        (left, right, relaying)
    }

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    async fn read(stream: &mut DuplexStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut left, mut right, relaying) = between(16, Ahead::default(), LONG);
        left.write_all(b"question").await.unwrap();
        left.shutdown().await.unwrap();
        let mut all = Vec::new();
        right.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"question");
        right.write_all(b"a long answer after the end of the question").await.unwrap();
        drop(right);
        all.clear();
        left.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 43);
        let outcome = relaying.await.unwrap();
        assert!(matches!(outcome.end, End::Finished), "{outcome:?}");
        assert_eq!((outcome.a_to_b, outcome.b_to_a), (8, 43));
    }

    #[tokio::test]
    async fn what_was_read_before_goes_in_front() {
        let ahead = Ahead { from_a: Bytes::from_static(b"GE"), from_b: Bytes::from_static(b"+O") };
        let (mut left, mut right, _relaying) = between(1, ahead, LONG);
        let (mut wrote, mut answered) = (Vec::new(), Vec::new());
        let writing = async {
            left.write_all(b"T /").await.unwrap();
            answered = read(&mut left, 3).await;
        };
        let reading = async {
            wrote = read(&mut right, 5).await;
            right.write_all(b"K").await.unwrap();
        };
        tokio::join!(writing, reading);
        assert_eq!((&wrote[..], &answered[..]), (&b"GET /"[..], &b"+OK"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_in_either_direction_keeps_both_alive() {
        let idle = Duration::from_secs(10);
        let (mut left, mut right, relaying) = between(16, Ahead::default(), Limits::idle(idle));
        let began = Instant::now();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            right.write_all(b"x").await.unwrap();
            read(&mut left, 1).await;
        }
        let outcome = relaying.await.unwrap();
        assert!(matches!(outcome.end, End::Idle), "{outcome:?}");
        assert_eq!(began.elapsed().as_secs(), 37);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_only_go_on_for_so_long_ends_then_though_bytes_pass() {
        let began = Instant::now();
        let limits = Limits { until: Some(began + Duration::from_secs(20)), ..LONG };
        let (mut left, mut right, relaying) = between(16, Ahead::default(), limits);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(6)).await;
            right.write_all(b"x").await.unwrap();
            read(&mut left, 1).await;
        }
        let outcome = relaying.await.unwrap();
        assert!(matches!(outcome.end, End::Late), "{outcome:?}");
        assert_eq!(began.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_stops_the_other_from_writing() {
        let (mut left, _right, _relaying) = between(1024, Ahead::default(), LONG);
        let mut taken = 0;
        while tokio::time::timeout(Duration::from_secs(1), left.write_all(&[0; 512])).await.is_ok() {
            taken += 512;
        }
        assert!(taken <= BUFFER + 3 * 1024, "{taken} bytes were taken for a reader that reads nothing");
    }

    #[tokio::test]
    async fn a_reset_is_no_end() {
        let ((left, mut a), (mut b, mut right)) = (tcp().await, tcp().await);
        abort(&left);
        drop(left);
        let outcome = relay(&mut a, &mut b, Ahead::default(), LONG, &Flow::default()).await;
        assert!(matches!(outcome.end, End::Aborted(Party::A, _)), "{outcome:?}");
        abort(&b);
        drop(b);
        let seen = right.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(seen.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn last_words_before_a_reset_are_heard() {
        let ((mut left, mut a), (mut b, mut right)) = (tcp().await, tcp().await);
        right.write_all(b"go away").await.unwrap();
        // Closed with something unread: a reset follows the last words.
        left.write_all(b"unread").await.unwrap();
        b.write_all(b"unread").await.unwrap();
        right.readable().await.unwrap();
        drop(right);
        let outcome = relay(&mut a, &mut b, Ahead::default(), LONG, &Flow::default()).await;
        assert!(matches!(outcome.end, End::Aborted(Party::B, _)), "{outcome:?}");
        let mut words = [0; 7];
        left.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"go away");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn every_byte_arrives_once_and_in_order(
            chunks in prop::collection::vec((any::<bool>(), 1_usize..200_000), 0..6), size in 1_usize..70_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (left, right, relaying) = between(size, Ahead::default(), LONG);
                let of = |side: bool| chunks.iter().filter(|c| c.0 == side).map(|c| c.1).collect::<Vec<_>>();
                let (from_left, from_right) = (of(true), of(false));
                let sent = (from_left.iter().sum::<usize>(), from_right.iter().sum::<usize>());
                let (at_left, at_right) = tokio::join!(talk(left, from_left), talk(right, from_right));
                assert_eq!((at_right, at_left), sent);
                let outcome = relaying.await.unwrap();
                assert_eq!((outcome.a_to_b, outcome.b_to_a), (sent.0 as u64, sent.1 as u64));
                assert!(matches!(outcome.end, End::Finished));
            });
        }
    }

    /// Sends `chunks` of counted bytes, ends, and checks what comes meanwhile; returns how much that was.
    async fn talk(stream: DuplexStream, chunks: Vec<usize>) -> usize {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let write = async {
            let mut at = 0_usize;
            for len in chunks {
                let bytes: Vec<u8> = (at..at + len).map(|i| u8::try_from(i % 251).unwrap()).collect();
                writing.write_all(&bytes).await.unwrap();
                at += len;
            }
            writing.shutdown().await.unwrap();
        };
        let read = async {
            let mut all = Vec::new();
            reading.read_to_end(&mut all).await.unwrap();
            assert!(all.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
            all.len()
        };
        tokio::join!(write, read).1
    }
}
