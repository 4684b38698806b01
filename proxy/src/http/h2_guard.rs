//! Watches the frames of an HTTP/2 connection of a server and cuts those who only keep it busy.
//!
//! h2 itself bounds what it stores: pending resets, the header list, CONTINUATIONs of one block, buffered small DATA. What
//! it does not bound is how much a peer may make it do. Here each frame is charged ([`crate::http::h2_account`]) by its head
//! alone ([`crate::http::h2_frames`]), between the socket and h2, so that a flood ends before h2 has looked at it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::connections::Control;
use crate::http::edges::Cut;
use crate::http::h2_account::Account;
use crate::http::h2_frames::{Follower, Frame, GOAWAY};
use crate::http::tap::{Tap, writes_through};

/// The connection with a client, its frames watched.
pub(super) struct Guarded<IO> {
    io: IO,
    control: Rc<Control>,
    received: Follower,
    sent: Follower,
    account: Account,
}

impl<IO> Guarded<IO> {
    /// Watches `io`, a connection that has not begun yet.
    pub(super) fn new(io: IO, control: Rc<Control>) -> Self {
        let (received, sent) = (Follower::of_client(), Follower::of_server());
        Self { io, control, received, sent, account: Account::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        let mut judged = Ok(());
        let Self { received, account, .. } = self;
        received.feed(bytes, |frame| judged = judged.and_then(|()| account.received(&frame)));
        let unfinished =
            !self.account.is_greeted() || self.received.is_within_control() || self.account.is_in_block();
        let since = self.control.head_since.get();
        if !unfinished {
            self.control.head_since.set(None);
        } else if since.is_none() {
            self.control.head_since.set(Some(Instant::now()));
        }
        judged
    }

    /// What was written to `io`, of which only the first `left` bytes count.
    fn gave<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>, mut left: usize) -> Result<(), Cut> {
        let mut judged = Ok(());
        let Self { sent, account, .. } = self;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            left -= part.len();
            sent.feed(part, |frame| {
                judged = judged.and(account.sent(&frame)).and(ended_by_h2(&frame));
            });
            if left == 0 {
                break;
            }
        }
        judged
    }
}

/// What the peer is told.
fn code(why: Cut) -> u32 {
    match why {
        Cut::Protocol => PROTOCOL_ERROR,
        Cut::FrameSize => FRAME_SIZE_ERROR,
        _ => ENHANCE_YOUR_CALM,
    }
}

/// h2 ends a connection with a word of its own: worth counting, and nothing to do.
fn ended_by_h2(frame: &Frame) -> Result<(), Cut> {
    match (frame.kind, frame.code) {
        (GOAWAY, Some(NO_ERROR)) => Ok(()),
        (GOAWAY, Some(ENHANCE_YOUR_CALM)) => Err(Cut::Calm),
        (GOAWAY, Some(_)) => Err(Cut::Protocol),
        _ => Ok(()),
    }
}

impl<IO: AsyncWrite + Unpin> Guarded<IO> {
    /// Cuts the connection, with a GOAWAY if the moment allows one.
    fn cut(&mut self, why: Cut, cx: &mut Context<'_>) -> io::Error {
        self.control.cut(why);
        if self.sent.is_between_frames() {
            let length = u32::try_from(8 + why.as_str().len()).unwrap_or(8).to_be_bytes();
            let farewell = [
                &length[1..],
                &[GOAWAY, 0],
                &0_u32.to_be_bytes(),
                &self.account.last_stream().to_be_bytes(),
                &code(why).to_be_bytes(),
                why.as_str().as_bytes(),
            ]
            .concat();
            let _best_effort = Pin::new(&mut self.io).poll_write(cx, &farewell);
            let _best_effort = Pin::new(&mut self.io).poll_flush(cx);
            let _best_effort = Pin::new(&mut self.io).poll_shutdown(cx);
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, why.as_str())
    }
}

impl<IO: AsyncWrite + Unpin> Tap for Guarded<IO> {
    type Io = IO;

    fn io(&self) -> &IO {
        &self.io
    }

    fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.control.wrote(&polled);
        if let Poll::Ready(Ok(written)) = polled {
            match self.gave(slices.iter().map(|s| &**s), written) {
                Ok(()) => {}
                Err(why @ (Cut::Calm | Cut::Protocol)) => self.control.note(why),
                Err(why) => return Poll::Ready(Err(self.cut(why, cx))),
            }
        }
        polled
    }

    fn flushed(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.control.flushed(&polled);
        polled
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(())))
            && let Err(why) = this.take(&buf.filled()[before..])
        {
            return Poll::Ready(Err(this.cut(why, cx)));
        }
        polled
    }
}

writes_through!(Guarded);

const NO_ERROR: u32 = 0x0;
const PROTOCOL_ERROR: u32 = 0x1;
const FRAME_SIZE_ERROR: u32 = 0x6;
const ENHANCE_YOUR_CALM: u32 = 0xb;
