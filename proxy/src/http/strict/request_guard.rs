//! Below a server's HTTP/1: follows what a caller sends, and shows nothing that has two readings.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::{Chunks, Followed};
use super::fields::Framing;
use super::head::{HeadReader, Progress, Request, Whole};
use super::held::Held;
use super::turns::{Broken, Turns};
use super::{Limits, Violation};
use crate::http::tap::{Tap, writes_through};

/// Follows the requests of a connection.
#[derive(Debug)]
pub struct RequestGuard<IO> {
    io: IO,
    turns: Rc<Turns>,
    held: Held,
    follower: Follower,
}

impl<IO> RequestGuard<IO> {
    /// A guard over a connection that has not been read from.
    pub fn new(io: IO, turns: Rc<Turns>, limits: &'static Limits) -> Self {
        turns.flushed.set(true);
        Self { io, turns, held: Held::default(), follower: Follower::new(limits) }
    }

    /// The connection, and what was read of it and never shown.
    pub fn into_parts(self) -> (IO, Vec<u8>) {
        (self.io, self.held.into_rest())
    }

    /// Follows the bytes that are held.
    fn follow_held(&mut self) {
        let free = self.follower.follow(self.held.rest(), &self.turns);
        self.held.free(free);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for RequestGuard<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.held.show(buf) {
                return Poll::Ready(Ok(()));
            }
            match this.follower.state {
                State::Opaque => return Pin::new(&mut this.io).poll_read(cx, buf),
                // The driver takes over when it is time. Nothing more is read.
                State::Broken => return Poll::Pending,
                State::Asked if this.turns.released.get() => {
                    this.follower.state = State::Opaque;
                    this.held.free_all();
                    continue;
                }
                State::Asked if this.turns.all_finished() => {
                    this.follower.state = State::Head;
                    this.follow_held();
                    continue;
                }
                State::Asked => {
                    this.turns.wait(cx);
                    if this.held.rest().len() >= Limits::MESH.head {
                        return Poll::Pending;
                    }
                }
                _ => {}
            }
            this.turns.part.set(this.follower.state == State::Head && !this.held.is_empty());
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if new.is_empty() {
                this.turns.unread.set(false);
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let shown = this.follower.follow(new, &this.turns);
                if this.follower.state != State::Broken {
                    this.held.keep(&new[shown..]);
                }
                buf.set_filled(before + shown);
                if shown > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.keep(new);
                buf.set_filled(before);
                this.follow_held();
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> Tap for RequestGuard<IO> {
    type Io = IO;

    fn io(&self) -> &IO {
        &self.io
    }

    fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    fn writes(&mut self) {
        self.turns.flushed.set(false);
    }

    fn flushed(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.turns.flushed.set(matches!(polled, Poll::Ready(Ok(()))));
        polled
    }

    fn closing(&mut self) {
        self.turns.closing.set(true);
    }
}

writes_through!(RequestGuard);

/// Where in the stream of requests the next byte belongs.
#[derive(Debug)]
struct Follower {
    state: State,
    head: HeadReader<Request>,
    /// Boxed: most connections never see one, and it is a state of many bytes.
    chunks: Option<Box<Chunks>>,
    /// Whether bytes behind this request wait for its answer.
    asks: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In a head, or before one.
    #[default]
    Head,
    /// In a body of known length.
    Length(u64),
    /// In a chunked body.
    Chunked,
    /// Behind a request that asked for another protocol, until that is decided.
    Asked,
    /// It is another protocol.
    Opaque,
    /// A rule was broken.
    Broken,
}

impl Follower {
    fn new(limits: &'static Limits) -> Self {
        Self { state: State::default(), head: HeadReader::new(limits), chunks: None, asks: false }
    }

    /// How many of `bytes` may be shown. The rest of them comes again, with more behind it.
    fn follow(&mut self, bytes: &[u8], turns: &Turns) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Head => match self.head.advance(rest) {
                    Ok(Progress::Partial) => break,
                    Ok(Progress::Whole(whole)) => {
                        at += whole.bytes;
                        turns.heads.set(turns.heads.get() + 1);
                        turns.http10.set(whole.start.http10);
                        self.enter(whole);
                    }
                    Err(violation) => self.broke(violation, Some(rest), turns),
                },
                State::Length(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    at += taken;
                    match left - taken as u64 {
                        0 => self.leave(),
                        left => self.state = State::Length(left),
                    }
                }
                State::Chunked => {
                    match self.chunks.get_or_insert_with(|| Box::new(Chunks::new())).follow(rest) {
                        Followed::All => at = bytes.len(),
                        Followed::Ended(taken) => {
                            at += taken;
                            self.leave();
                        }
                        Followed::Broken(taken, violation) => {
                            at += taken;
                            self.broke(violation, None, turns);
                        }
                    }
                }
                State::Asked | State::Broken => break,
                State::Opaque => at = bytes.len(),
            }
        }
        turns.unread.set(matches!(self.state, State::Length(_) | State::Chunked | State::Broken));
        at
    }

    fn enter(&mut self, head: Whole<Request>) {
        self.asks = head.start.connect || (head.upgrade && !head.start.http10);
        match head.framing {
            Framing::Chunked => self.state = State::Chunked,
            Framing::Length(length) if length > 0 => self.state = State::Length(length),
            Framing::Length(_) | Framing::None => self.leave(),
        }
    }

    fn leave(&mut self) {
        self.chunks = None;
        self.state = if self.asks { State::Asked } else { State::Head };
    }

    fn broke(&mut self, violation: Violation, head: Option<&[u8]>, turns: &Turns) {
        self.state = State::Broken;
        turns.broken.set(Some(Broken {
            violation,
            in_body: head.is_none(),
            json: head.is_some_and(asks_for_json),
            head: head.is_some_and(|h| h.trim_ascii_start().starts_with(b"HEAD ")),
        }));
    }
}

/// Whether a head that could not be read asks for JSON, as far as one can tell. Decides on nothing but the looks of the
/// refusal.
fn asks_for_json(head: &[u8]) -> bool {
    head.split(|b| *b == b'\n').skip(1).take_while(|line| line.len() > 1).any(|line| {
        line.split_first_chunk::<7>().is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case(b"accept:")
                && http::HeaderValue::from_bytes(value.trim_ascii())
                    .is_ok_and(|value| crate::http::reply::lists_json(&value))
        })
    })
}
