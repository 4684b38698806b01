//! The few kinds of bodies there are. None is boxed; none is buffered beyond what a retry may need.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outrigger_mesh::{Reason, RetryPolicy};
use tokio::time::Instant;

use crate::attempt::Exchange;
use crate::error::Error;
use crate::http::expect::Gate;
use crate::http::headers;
use crate::http::patience::{IdleTimer, Late, Patience};
use crate::http::upgrade::Tunnel;
use crate::request::handle::BodyEnd;
use crate::request::places::Places;
use crate::request::service_breaker::Watched;
use crate::telemetry::observe::{BodyEnd as NotedEnd, Note};

/// What every body fails with.
pub type BodyError = Box<dyn StdError + Send + Sync>;

/// The body of a response on its way to whoever asked.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every body is the large one, and a box would cost each an allocation"
)]
pub enum ResponseBody {
    /// Nothing, or nothing more.
    Empty,
    /// A text of our own.
    Text(Bytes),
    /// What an upstream sends. Ends the exchange with itself.
    Upstream(UpstreamBody),
    /// Nothing, and then no HTTP any more.
    Tunnel(Box<Tunnel>),
}

/// The body of an upstream's answer.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    exchange: Exchange,
    patience: Patience,
    late: bool,
    /// Of the access log.
    note: Option<Rc<Note>>,
}

impl UpstreamBody {
    /// A body that may take as long as `patience` lasts.
    pub fn new(incoming: Incoming, exchange: Exchange, patience: Patience) -> Self {
        Self { incoming, exchange, patience, late: false, note: None }
    }
}

impl UpstreamBody {
    /// Tells these when its end tells how the request went.
    pub fn watch(&mut self, watched: Vec<Watched>) {
        self.exchange.watch(watched);
    }
}

impl ResponseBody {
    /// Holds the places of its request to its end. One that has ended gives them back at once.
    pub fn hold(&mut self, places: Places) {
        match self {
            Self::Empty | Self::Text(_) => drop(places),
            Self::Upstream(body) => {
                body.patience.wake_at(places.ages_at());
                body.exchange.hold_places(places);
            }
            Self::Tunnel(tunnel) => tunnel.hold(places),
        }
    }

    /// Holds the note of its request to its end.
    pub fn hold_note(&mut self, note: Rc<Note>) {
        match self {
            Self::Empty => note.sent(0),
            Self::Text(text) => note.sent(text.len()),
            Self::Upstream(body) => {
                note.body(NotedEnd::Open);
                body.note = Some(note);
            }
            Self::Tunnel(tunnel) => tunnel.hold_note(note),
        }
    }

    /// How long it may be silent, where it comes from elsewhere. Whoever takes it may stand still for as long.
    pub fn idle_limit(&self) -> Option<Duration> {
        match self {
            Self::Empty | Self::Text(_) | Self::Tunnel(_) => None,
            Self::Upstream(body) => Some(body.patience.idle()),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match this {
            Self::Empty | Self::Tunnel(_) => return Poll::Ready(None),
            Self::Text(text) => {
                let text = std::mem::take(text);
                *this = Self::Empty;
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            Self::Upstream(body) => {
                let frame = ready!(body.poll(cx));
                if body.late {
                    // With it the exchange ends: the upstream learns that nobody waits any more.
                    *this = Self::Empty;
                    return Poll::Ready(frame);
                }
                frame
            }
        };
        if frame.is_none() {
            *this = Self::Empty;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Tunnel(_) => true,
            Self::Text(_) => false,
            Self::Upstream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Upstream(body) => body.incoming.size_hint(),
        }
    }
}

impl UpstreamBody {
    /// A limit was met: for gRPC a status ends the answer, for the rest nothing that could be taken for its end.
    fn late(&mut self, late: Late) -> Result<Frame<Bytes>, BodyError> {
        self.late = true;
        self.noted(NotedEnd::Broken);
        if late == Late::Idle {
            self.exchange.broken();
        }
        self.patience.trailers(late).map(Frame::trailers).ok_or_else(|| late.text().into())
    }

    fn noted(&self, end: NotedEnd) {
        if let Some(note) = &self.note {
            note.body(end);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                let late = self.patience.poll(cx);
                if self.patience.woken_early() {
                    self.exchange.age();
                }
                let late = ready!(late);
                Poll::Ready(Some(self.late(late)))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(late) = self.patience.moved().filter(|_| !frame.is_trailers()) {
                    return Poll::Ready(Some(self.late(late)));
                }
                if let Some(note) = &self.note {
                    note.sent(frame.data_ref().map_or(0, Bytes::len));
                    frame.trailers_ref().inspect(|trailers| note.trailers(trailers));
                }
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_trailers(trailers);
                    self.exchange.trailers(trailers);
                } else {
                    self.exchange.moved();
                }
                if self.incoming.is_end_stream() {
                    self.exchange.finish();
                    self.noted(NotedEnd::Whole);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                self.exchange.broken();
                self.noted(NotedEnd::Broken);
                Poll::Ready(Some(Err(e.into())))
            }
            Poll::Ready(None) => {
                self.exchange.finish();
                self.noted(NotedEnd::Whole);
                Poll::Ready(None)
            }
        }
    }
}

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// Words of our own.
    Text(Bytes),
    /// What the caller sends, kept as far as it may be needed again.
    Upload(Upload),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Upload(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_empty(),
            Self::Upload(upload) => upload.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Upload(upload) => upload.size_hint(),
        }
    }
}

impl RequestBody {
    /// Holds the body back until the gate opens.
    pub fn wait(&mut self, gate: Gate) {
        if let Self::Upload(upload) = self {
            upload.gate = Some(gate);
        }
    }

    /// The caller's body behind it, to ask later whether it has been sent to its end.
    pub fn upload(&self) -> Option<Replay> {
        match self {
            Self::Empty | Self::Text(_) => None,
            Self::Upload(upload) => Some(Replay(Rc::clone(&upload.source))),
        }
    }
}

/// A caller's body that can be sent more than once, as long as it is small.
///
/// The first attempt gets each frame as it comes; a copy (which shares the bytes) stays until the body outgrows its
/// limit. Only the newest attempt may read on: an older one that still tries gets an error, so that no byte goes to two
/// places.
#[derive(Clone, Debug)]
pub struct Replay(Rc<RefCell<Source<Incoming>>>);

impl Replay {
    /// A body that is kept up to the limit of `policy`, where there may be retries or it is `copied`, and may be
    /// silent for `idle` at most.
    pub fn new(incoming: Incoming, policy: &RetryPolicy, copied: bool, idle: Duration) -> Self {
        let kept = policy.retries > 0 || copied;
        let limit = if kept { policy.replay_bytes as usize } else { 0 };
        Self(Rc::new(RefCell::new(Source::new(incoming, limit, idle))))
    }

    /// The same, if it is no longer than `most`: refused at once where its length is declared, and else broken off where
    /// it grows beyond.
    pub fn within(self, most: Option<u64>) -> Result<Self, Error> {
        if let Some(most) = most {
            let mut source = self.0.borrow_mut();
            if source.size.lower() > most {
                return Err(too_large());
            }
            source.left = most;
        }
        Ok(self)
    }

    /// Why a request with that body failed: what the upstream's connection says of it, or that the body was too large.
    pub fn explain(body: Option<&Self>, error: Error) -> Error {
        if body.is_some_and(|b| b.0.borrow().too_large) { too_large() } else { error }
    }

    /// The whole body from its beginning, for a new attempt.
    pub fn attempt(&self) -> RequestBody {
        let mut source = self.0.borrow_mut();
        source.reader += 1;
        RequestBody::Upload(Upload {
            source: Rc::clone(&self.0),
            reader: source.reader,
            position: 0,
            gate: None,
        })
    }

    /// Ends the reading that is under way, for ever.
    pub fn give_up(&self) {
        let mut source = self.0.borrow_mut();
        source.reader += 1;
        if let Some(waker) = source.waker.take() {
            waker.wake();
        }
    }

    /// The whole of it, if it has come to its end and was kept.
    pub fn whole(&self) -> Option<Bytes> {
        let source = self.0.borrow();
        if source.outgrown || source.broken || source.ended_at.is_none() {
            return None;
        }
        let data = source.kept.iter().filter_map(|kept| match kept {
            Kept::Data(data) => Some(data),
            Kept::Trailers(_) => None,
        });
        Some(match &source.kept[..] {
            [Kept::Data(only)] => only.clone(),
            _ => data.flat_map(|data| data.iter().copied()).collect(),
        })
    }

    /// Whether another attempt would get the whole body.
    pub fn can_repeat(&self) -> bool {
        let source = self.0.borrow();
        !source.outgrown && !source.broken
    }

    /// Tells `end` when the caller's last byte has come.
    pub fn tell(&self, end: BodyEnd) {
        let mut source = self.0.borrow_mut();
        match source.ended_at {
            Some(at) => end.came(at),
            None => source.waits_for_end = Some(end),
        }
    }

    /// When the caller's last byte came; `None` while it still sends.
    pub fn ended_at(&self) -> Option<Instant> {
        self.0.borrow().ended_at
    }

    /// Is ready once the caller's last byte has come. One waits for it.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        let mut source = self.0.borrow_mut();
        if source.ended_at.is_some() {
            return Poll::Ready(());
        }
        source.end_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the caller went away, or was silent for too long, in the middle of its body.
    pub fn is_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// Whether the caller was silent for too long in the middle of its body.
    pub fn is_silent(&self) -> bool {
        self.0.borrow().silent
    }
}

/// One reading of a [`Replay`].
#[derive(Debug)]
pub struct Upload {
    source: Rc<RefCell<Source<Incoming>>>,
    reader: u32,
    position: usize,
    /// What it waits for before its first byte.
    gate: Option<Gate>,
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        if let Some(gate) = self.gate.as_mut().filter(|_| source.reader == self.reader) {
            if gate.poll(cx).is_pending() {
                source.waits(cx);
                return Poll::Pending;
            }
            self.gate = None;
        }
        let polled = source.poll(self.reader, &mut self.position, cx);
        if polled.is_pending() {
            source.waits(cx);
        }
        polled
    }

    fn is_end(&self) -> bool {
        let source = self.source.borrow();
        source.ended_at.is_some() && (source.outgrown || self.position >= source.kept.len())
    }

    fn size_hint(&self) -> SizeHint {
        if self.position == 0 { self.source.borrow().size } else { SizeHint::default() }
    }
}

fn too_large() -> Error {
    Error::downstream(Reason::PayloadTooLarge, "the body is longer than the service takes")
}

#[derive(Debug)]
struct Source<B> {
    body: B,
    size: SizeHint,
    kept: Vec<Kept>,
    bytes: usize,
    limit: usize,
    outgrown: bool,
    /// What may still come.
    left: u64,
    too_large: bool,
    broken: bool,
    silent: bool,
    ended_at: Option<Instant>,
    waits_for_end: Option<BodyEnd>,
    end_waker: Option<Waker>,
    reader: u32,
    waker: Option<Waker>,
    idle: IdleTimer,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl<B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin> Source<B> {
    fn new(body: B, limit: usize, idle: Duration) -> Self {
        Self {
            size: body.size_hint(),
            body,
            kept: Vec::new(),
            bytes: 0,
            limit,
            outgrown: false,
            left: u64::MAX,
            too_large: false,
            broken: false,
            silent: false,
            ended_at: None,
            waits_for_end: None,
            end_waker: None,
            reader: 0,
            waker: None,
            idle: IdleTimer::new(idle),
        }
    }

    /// Remembers who reads, to tell when it was given up.
    fn waits(&mut self, cx: &Context<'_>) {
        if self.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    fn poll(
        &mut self,
        reader: u32,
        position: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if reader != self.reader {
            return Poll::Ready(Some(Err("the attempt was given up".into())));
        }
        if !self.outgrown
            && let Some(kept) = self.kept.get(*position)
        {
            *position += 1;
            let frame = match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            };
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.broken {
            return Poll::Ready(Some(Err("the caller went away".into())));
        }
        if self.ended_at.is_some() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                ready!(self.idle.poll(cx));
                (self.broken, self.silent) = (true, true);
                Poll::Ready(Some(Err("timeout_idle: the caller stopped sending".into())))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                self.idle.moved();
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = self.left.checked_sub(length) else {
                    (self.too_large, self.broken) = (true, true);
                    return Poll::Ready(Some(
                        Err("payload_too_large: the body grew beyond the limit".into()),
                    ));
                };
                self.left = left;
                frame.trailers_mut().map(headers::clean_trailers);
                self.keep(&frame);
                *position += 1;
                if self.body.is_end_stream() {
                    self.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                self.broken = true;
                Poll::Ready(Some(Err(e.into())))
            }
            Poll::Ready(None) => {
                self.ended();
                Poll::Ready(None)
            }
        }
    }

    fn ended(&mut self) {
        let now = Instant::now();
        self.ended_at = Some(now);
        if let Some(end) = self.waits_for_end.take() {
            end.came(now);
        }
        if let Some(waker) = self.end_waker.take() {
            waker.wake();
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.outgrown {
            return;
        }
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => {
                self.bytes += data.len();
                Kept::Data(data.clone())
            }
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return,
        };
        // Tiny frames cost more than their bytes: their number is bounded as well.
        if self.bytes > self.limit || self.kept.len() >= MAX_FRAMES {
            self.outgrown = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(kept);
        }
    }
}

const MAX_FRAMES: usize = 1024;

#[cfg(test)]
mod tests;
