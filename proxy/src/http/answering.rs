//! An answer on its way to whoever asked, until its last byte has gone to the socket's side.
//!
//! HTTP/1.1: the body keeps its connection busy. HTTP/2: a stream whose window stays shut is not polled by hyper at all, so
//! that no timer inside the body could end it. Here each piece of the body is followed until it is written, and a stream of
//! which nothing moved for its idle time is given up (RST_STREAM), which lets go of what the upstream sends.
//!
//! Deliberately elsewhere: peers that take nothing of the whole connection ([`crate::http::connections`]).

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::http::body::{BodyError, ResponseBody};
use crate::http::connections::{Busy, Control, TunnelBusy};
use crate::http::fuse::Fuse;
use crate::http::patience::IdleTimer;
use crate::http::strict::{Turn, Turns};
use crate::http::upgrade::Tunnel;

/// The body of an answer, which keeps its connection busy.
#[derive(Debug)]
pub(super) struct Answering {
    body: ResponseBody,
    owner: Owner,
}

#[derive(Debug)]
enum Owner {
    /// The connection, which serves nothing else meanwhile.
    Http1(Busy, Turn),
    /// A stream of it.
    Http2(Rc<Stream>),
}

/// A request that has come, before there is an answer.
#[derive(Debug)]
pub(super) struct Asked(Owner);

impl Asked {
    /// Over HTTP/1.1.
    pub(super) fn http1(control: &Rc<Control>, turns: &Rc<Turns>) -> Self {
        Self(Owner::Http1(Busy::new(control), Turn::new(turns)))
    }

    /// Over HTTP/2. The stream is left with `streams`, for the future that hyper makes of it in the next moment.
    pub(super) fn http2(control: &Rc<Control>, streams: &Streams) -> Self {
        let stream = Rc::new(Stream::new(Busy::new(control), streams.clone()));
        streams.0.set(Some(Next::Stream(Rc::clone(&stream))));
        Self(Owner::Http2(stream))
    }

    /// There is an answer.
    pub(super) fn answer(self, body: ResponseBody) -> Answering {
        if let ResponseBody::Tunnel(tunnel) = body {
            return self.upgrade(tunnel);
        }
        let limit = body.idle_limit();
        match &self.0 {
            Owner::Http1(busy, turn) => {
                turn.begin();
                limit.inspect(|limit| busy.control().bear(*limit));
            }
            Owner::Http2(stream) => {
                limit.inspect(|limit| stream.bear(*limit));
            }
        }
        Answering { body, owner: self.0 }
    }

    /// The answer is the last of its HTTP. A tunnel begins behind it: on a stream by itself, on a connection once its
    /// driver has it back.
    fn upgrade(self, tunnel: Box<Tunnel>) -> Answering {
        match &self.0 {
            Owner::Http1(busy, turn) => {
                turn.begin();
                turn.release();
                busy.control().leave_tunnel(tunnel);
            }
            Owner::Http2(stream) => {
                let (busy, fuse) = (TunnelBusy::new(stream.busy.control()), Fuse::default());
                // In the next moment hyper has the rest of the stream sent by a future of its own.
                stream.streams.0.set(Some(Next::Tunnel(fuse.clone())));
                // Ends with the stream, and that with the connection.
                tokio::task::spawn_local(async move {
                    let _busy = busy;
                    tunnel.over_http2(fuse).await;
                });
            }
        }
        Answering { body: ResponseBody::Empty, owner: self.0 }
    }
}

impl Body for Answering {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let this = self.get_mut();
        let owner = &this.owner;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| owner.piece(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Owner {
    fn piece(&self, bytes: Bytes) -> Piece {
        let stream = match self {
            Self::Http1(..) => None,
            Self::Http2(stream) => {
                stream.out.set(stream.out.get() + 1);
                stream.moved.set(true);
                Some(Rc::clone(stream))
            }
        };
        Piece { bytes, stream }
    }
}

/// A piece of an answer's body, which knows when it has been written.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    stream: Option<Rc<Stream>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(stream) = &self.stream {
            stream.moved.set(true);
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.out.set(stream.out.get() - 1);
            stream.moved.set(true);
            if stream.answered.get() {
                stream.busy.control().left();
            }
        }
    }
}

/// A stream of an HTTP/2 connection, for as long as a piece of its answer is somewhere.
#[derive(Debug)]
struct Stream {
    busy: Busy,
    streams: Streams,
    /// Pieces handed out and not written.
    out: Cell<u32>,
    /// Whether any of them moved since somebody looked.
    moved: Cell<bool>,
    /// Whether hyper is done with it.
    answered: Cell<bool>,
    limit: Cell<Duration>,
}

impl Stream {
    fn new(busy: Busy, streams: Streams) -> Self {
        let limit = Cell::new(busy.control().edges().stalled);
        Self { busy, streams, out: Cell::new(0), moved: Cell::new(false), answered: Cell::new(false), limit }
    }

    fn bear(&self, limit: Duration) {
        self.limit.set(limit);
        self.busy.control().bear(limit);
    }
}

/// Runs the streams of one HTTP/2 connection on the worker's own runtime, and gives up those that stand still.
#[derive(Clone, Default)]
pub(super) struct Streams(Rc<Cell<Option<Next>>>);

/// What the next future is.
enum Next {
    /// That of a stream.
    Stream(Rc<Stream>),
    /// What sends for a tunnel.
    Tunnel(Fuse),
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streams")
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        // Owned by the runtime of the worker, and ended by the connection that asked for it.
        match self.0.take() {
            Some(Next::Stream(stream)) => drop(tokio::task::spawn_local(unless_stalled(future, stream))),
            Some(Next::Tunnel(fuse)) => drop(tokio::task::spawn_local(fuse.guard(future))),
            None => drop(tokio::task::spawn_local(future)),
        }
    }
}

async fn unless_stalled(future: impl Future<Output = ()>, stream: Rc<Stream>) {
    let mut future = pin!(future);
    let mut timer: Option<IdleTimer> = None;
    let stalled = std::future::poll_fn(|cx| {
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        if stream.out.get() == 0 {
            return Poll::Pending;
        }
        let timer = timer.get_or_insert_with(|| IdleTimer::new(stream.limit.get()));
        if stream.moved.take() {
            timer.moved();
        }
        timer.poll(cx).map(|()| true)
    })
    .await;
    let control = stream.busy.control();
    if stalled {
        control.gave_up_stream();
    } else if stream.out.get() > 0 {
        stream.answered.set(true);
        control.leaves(stream.out.get());
    }
}
