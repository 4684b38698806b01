//! How long an answer may take after its head: how long it may be silent, and where somebody set a limit, how long it may
//! take in all. A timeout here ends the exchange in a way that nobody takes for a whole answer; it is never retried.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, Sleep};

use crate::tcp::relay;

/// The limits of an answer's body. Costs nothing until somebody has to wait, and a timer is set anew only when the old one
/// has run out, not at each frame.
#[derive(Debug)]
pub struct Patience {
    idle: Duration,
    until: Option<(Instant, Late)>,
    grpc: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    moved: bool,
    /// When somebody wants to be told besides, and whether that is now: one timer does for all.
    early: Option<Instant>,
    woken_early: bool,
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It was silent for too long.
    Idle,
    /// It took longer than the service lets one take.
    Stream,
    /// The gRPC caller's own deadline is over.
    Deadline,
}

impl Late {
    /// Every limit.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Stream, Self::Deadline];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stream => "stream",
            Self::Deadline => "deadline",
        }
    }

    /// What is said of it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Idle => "timeout_idle: the answer stopped coming",
            Self::Stream => "timeout_stream: the answer took too long",
            Self::Deadline => "deadline: the caller's deadline is over",
        }
    }
}

impl Patience {
    /// Silence of `idle` at most, and an end at `until`, if there is one.
    pub fn new(idle: Duration, until: Option<(Instant, Late)>, grpc: bool) -> Self {
        Self { idle, until, grpc, sleep: None, moved: false, early: None, woken_early: false }
    }

    /// How long it may be silent.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// The same limits for what becomes a tunnel.
    pub fn tunnel(&self) -> relay::Limits {
        relay::Limits { idle: self.idle, until: self.until.map(|(at, _)| at) }
    }

    /// Wakes at `early` besides, without ending anything.
    pub fn wake_at(&mut self, early: Option<Instant>) {
        self.early = early;
    }

    /// Whether it has woken at that moment since it was last asked.
    pub fn woken_early(&mut self) -> bool {
        std::mem::take(&mut self.woken_early)
    }

    /// Something came. Whether it came too late.
    pub fn moved(&mut self) -> Option<Late> {
        self.moved = true;
        let (at, late) = self.until?;
        (at <= Instant::now()).then(|| met(late))
    }

    /// Nothing has come yet: ready when a limit is met.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let (idle, until) = (self.idle, self.until);
        let next = |early: Option<Instant>| {
            let silent = Instant::now() + idle;
            [until.map(|(at, _)| at), early].into_iter().flatten().fold(silent, Instant::min)
        };
        let first = self.early;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next(first))));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if let Some((_, late)) = until.filter(|(at, _)| *at <= Instant::now()) {
                return Poll::Ready(met(late));
            }
            if self.early.take_if(|early| *early <= Instant::now()).is_some() {
                self.woken_early = true;
            } else if !std::mem::take(&mut self.moved) {
                return Poll::Ready(met(Late::Idle));
            }
            sleep.as_mut().reset(next(self.early));
        }
    }

    /// How a gRPC caller is told: over HTTP/2 a status can still follow.
    pub fn trailers(&self, late: Late) -> Option<HeaderMap> {
        self.grpc.then(|| {
            let status = ("grpc-status".parse().ok(), HeaderValue::from_static("4"));
            let message = ("grpc-message".parse().ok(), HeaderValue::from_static(late.text()));
            [status, message].into_iter().filter_map(|(name, value)| Some((name?, value))).collect()
        })
    }
}

/// Counts that a limit was met.
pub(super) fn met(late: Late) -> Late {
    ENDED[late as usize].fetch_add(1, Relaxed);
    late
}

/// Fires when nothing moved for a while. As cheap as [`Patience`], for what has no other limit.
#[derive(Debug)]
pub(super) struct IdleTimer {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    moved: bool,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, moved: false }
    }

    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(Instant::now() + self.limit);
        }
    }
}

/// How many answers met that limit. Counted for the process, since bodies know nothing of who holds the other counters.
pub fn ended(late: Late) -> u64 {
    ENDED[late as usize].load(Relaxed)
}

static ENDED: [AtomicU64; Late::ALL.len()] = [const { AtomicU64::new(0) }; Late::ALL.len()];

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_whatever_comes_does_not() {
        let mut patience = Patience::new(SECOND, None, false);
        let began = Instant::now();
        for _ in 0..5 {
            let waits = tokio::time::timeout(SECOND * 9 / 10, poll_fn(|cx| patience.poll(cx)));
            assert!(waits.await.is_err());
            assert_eq!(patience.moved(), None);
        }
        assert_eq!(poll_fn(|cx| patience.poll(cx)).await, Late::Idle);
        assert!(began.elapsed() >= SECOND * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_was_set_counts_whether_it_moves_or_not() {
        let end = Instant::now() + SECOND * 2;
        let new = || Patience::new(SECOND * 9, Some((end, Late::Stream)), true);
        let (mut still, mut moving) = (new(), new());
        assert_eq!(moving.moved(), None);
        assert_eq!(poll_fn(|cx| still.poll(cx)).await, Late::Stream);
        assert!(end.elapsed() <= Duration::from_millis(5));
        assert_eq!(moving.moved(), Some(Late::Stream));
        assert_eq!(moving.trailers(Late::Stream).unwrap()["grpc-status"], "4");
    }
}
