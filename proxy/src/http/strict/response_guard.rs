//! Below a client's HTTP/1: follows what an upstream answers. What has two readings fails the connection.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::{Chunks, Followed};
use super::fields::Framing;
use super::head::{HeadReader, Progress, Response, Whole};
use super::held::Held;
use super::limits::Limits;
use crate::http::tap::{Tap, writes_through};

/// Follows the answers on a connection. Whoever sends a request says first what it asks.
#[derive(Debug)]
pub struct ResponseGuard<IO> {
    io: IO,
    asked: Rc<Cell<Option<Asked>>>,
    held: Held,
    follower: Follower,
    /// The peer takes nothing more.
    deaf: bool,
}

/// What of a request decides how its answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// It is a HEAD: the answer has no body.
    pub head: bool,
    /// It is a CONNECT: behind an answer of 2xx the bytes are no HTTP.
    pub connect: bool,
    /// It asks for another protocol: the answer may be 101.
    pub upgrade: bool,
}

impl Asked {
    /// What `request` asks. `upgrade`: it has an Upgrade, which whoever wrote it knows.
    pub fn of<B>(request: &http::Request<B>, upgrade: bool) -> Self {
        Self {
            head: request.method() == http::Method::HEAD,
            connect: request.method() == http::Method::CONNECT,
            upgrade,
        }
    }
}

impl<IO> ResponseGuard<IO> {
    /// A guard over a connection that has not been read from. `asked` is set before each request.
    pub fn new(io: IO, asked: Rc<Cell<Option<Asked>>>, limits: &'static Limits) -> Self {
        Self { io, asked, held: Held::default(), follower: Follower::new(limits), deaf: false }
    }

    /// The connection, and what was read of it and never shown.
    pub fn into_parts(self) -> (IO, Vec<u8>) {
        (self.io, self.held.into_rest())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ResponseGuard<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.held.show(buf) {
                return Poll::Ready(Ok(()));
            }
            match this.follower.state {
                State::Broken(why) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                State::Opaque => return Pin::new(&mut this.io).poll_read(cx, buf),
                _ => {}
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let shown = this.follower.follow(new, &this.asked);
                // What broke a rule takes the rest of what came with it along: an answer is not shown in order and then
                // found to be followed by what nobody asked for.
                let shown = if matches!(this.follower.state, State::Broken(_)) { 0 } else { shown };
                this.held.keep(&new[shown..]);
                buf.set_filled(before + shown);
                if shown > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.keep(new);
                buf.set_filled(before);
                let free = this.follower.follow(this.held.rest(), &this.asked);
                if !matches!(this.follower.state, State::Broken(_)) {
                    this.held.free(free);
                }
            }
        }
    }
}

impl<IO> ResponseGuard<IO> {
    /// A server may answer early and close over the rest of the upload. Its answer can then be read and nothing be written
    /// any more; hyper, which would stop at the failed write, is told that it went well, and finds on the reading side
    /// what really happened.
    fn heard<T>(&mut self, written: Poll<io::Result<T>>, all: impl FnOnce() -> T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.deaf = true;
                Poll::Ready(Ok(all()))
            }
            other => other,
        }
    }
}

impl<IO: AsyncWrite + Unpin> Tap for ResponseGuard<IO> {
    type Io = IO;

    fn io(&self) -> &IO {
        &self.io
    }

    fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    fn is_deaf(&self) -> bool {
        self.deaf
    }

    fn wrote(
        &mut self,
        _cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.heard(polled, || slices.iter().map(|s| s.len()).sum())
    }

    fn flushed(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.heard(polled, || ())
    }
}

writes_through!(ResponseGuard);

/// Where in the stream of answers the next byte belongs.
#[derive(Debug)]
struct Follower {
    state: State,
    head: HeadReader<Response>,
    chunks: Option<Box<Chunks>>,
    interim: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody has asked anything.
    #[default]
    Idle,
    /// In a head, or before one.
    Head(Asked),
    /// In a body of known length.
    Length(u64),
    /// In a chunked body.
    Chunked,
    /// In a body that ends with the connection, or another protocol.
    Opaque,
    /// A rule was broken.
    Broken(&'static str),
}

impl Follower {
    fn new(limits: &'static Limits) -> Self {
        Self { state: State::default(), head: HeadReader::new(limits), chunks: None, interim: 0 }
    }

    /// How many of `bytes` may be shown. The rest of them comes again, with more behind it.
    fn follow(&mut self, bytes: &[u8], asked: &Cell<Option<Asked>>) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Idle => {
                    self.interim = 0;
                    self.state = match asked.take() {
                        Some(asked) => State::Head(asked),
                        None => State::Broken("bytes came that no request had asked for"),
                    };
                }
                State::Head(asked) => match self.head.advance(rest) {
                    Ok(Progress::Partial) => break,
                    Ok(Progress::Whole(whole)) => {
                        at += whole.bytes;
                        self.state = self.enter(asked, whole);
                    }
                    Err(violation) => self.state = State::Broken(violation.detail),
                },
                State::Length(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    at += taken;
                    self.state = length(left - taken as u64);
                }
                State::Chunked => {
                    match self.chunks.get_or_insert_with(|| Box::new(Chunks::new())).follow(rest) {
                        Followed::All => at = bytes.len(),
                        Followed::Ended(taken) => {
                            at += taken;
                            self.chunks = None;
                            self.state = State::Idle;
                        }
                        Followed::Broken(_, violation) => self.state = State::Broken(violation.detail),
                    }
                }
                State::Opaque => at = bytes.len(),
                State::Broken(_) => break,
            }
        }
        at
    }

    /// What follows a head (RFC 9112, section 6.3).
    fn enter(&mut self, asked: Asked, head: Whole<Response>) -> State {
        match head.start.status {
            101 if asked.upgrade => State::Opaque,
            101 => State::Broken("the answer is 101, and nothing else had been asked for"),
            100..200 => {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    State::Broken("the answer has more than 8 interim ones before it")
                } else {
                    State::Head(asked)
                }
            }
            200..300 if asked.connect => State::Opaque,
            204 | 304 => State::Idle,
            _ if asked.head => State::Idle,
            _ => match head.framing {
                Framing::Length(left) => length(left),
                Framing::Chunked => State::Chunked,
                Framing::None => State::Opaque,
            },
        }
    }
}

fn length(left: u64) -> State {
    if left == 0 { State::Idle } else { State::Length(left) }
}

const MAX_INTERIM: u8 = 8;
