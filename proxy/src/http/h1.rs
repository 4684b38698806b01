//! Driving one HTTP/1 connection of a caller: hyper above, the guard below, and the end that fits what happened.
//!
//! Each refusal is ours: hyper sees no request that it would refuse. Whoever broke a rule is answered once the requests
//! before it have been, and then let go in a way that lets the answer arrive.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::Error;
use crate::filter::Broken;
use crate::http::body::{BodyError, ResponseBody};
use crate::http::connections::{Control, State, TunnelBusy};
use crate::http::reply::{self, Asker};
use crate::http::strict::{Broken as BrokenRule, HEAD_BUFFER, RequestGuard, Turns, Verdict};

/// Serves a connection until it ends. `refuse` makes the answer to what is no request.
pub(super) async fn serve<IO, S, B, R>(io: IO, control: &Rc<Control>, turns: Rc<Turns>, service: S, refuse: R)
where
    IO: AsyncRead + AsyncWrite + Abort + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Broken>,
    B: Body<Error = BodyError> + 'static,
    R: Fn(&Error, Asker) -> Response<ResponseBody>,
{
    let guarded = RequestGuard::new(io, Rc::clone(&turns), control.limits.get());
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(control.keep_case.get());
    builder.max_buf_size(HEAD_BUFFER).keep_alive(control.state.get() < State::Ending);
    let mut served = builder.serve_connection(TokioIo::new(guarded), service);
    let mut told = false;
    let end = until(control, |cx, state| {
        // An error is the peer's way to leave; whoever waited for an answer has been told by the request's own path.
        if let Poll::Ready(ended) = Pin::new(&mut served).poll(cx) {
            return Poll::Ready(match ended {
                Err(e) if is_reset(&e) => End::Reset,
                Err(e) if e.is_user() => End::Cut,
                _ => End::Served,
            });
        }
        if state == State::Ending && !std::mem::replace(&mut told, true) {
            // Only now: a request that is already there has been seen, and is not closed upon.
            Pin::new(&mut served).graceful_shutdown();
            if Pin::new(&mut served).poll(cx).is_ready() {
                return Poll::Ready(End::Served);
            }
        }
        control.note_part(turns.has_part());
        match turns.verdict() {
            None => Poll::Pending,
            Some(Verdict::Refuse(broken)) => Poll::Ready(End::Refuse(broken)),
            Some(Verdict::Close) => Poll::Ready(End::Served),
            Some(Verdict::Cut) => Poll::Ready(End::Cut),
        }
    })
    .await;
    if let (End::Served, Some(tunnel)) = (end, control.tunnel()) {
        let _busy = TunnelBusy::new(control);
        let parts = served.into_parts();
        let (mut io, held) = parts.io.into_inner().into_parts();
        let ahead =
            if held.is_empty() { parts.read_buf } else { [&parts.read_buf[..], &held].concat().into() };
        // Boxed: no part of every other connection's future.
        let mut passing = Box::pin(async move {
            if tunnel.is_opaque() {
                io.cut_on_close();
            }
            if tunnel.over_http1(&mut io, ahead).await {
                io.end_on_close();
            }
        });
        until(control, |cx, _| passing.as_mut().poll(cx).map(|()| End::Cut)).await;
        return;
    }
    let refusal = match end {
        // HTTP/1.0 ends an answer with the connection: only an abort tells that it is not whole.
        End::Reset => return served.into_parts().io.into_inner().into_parts().0.abort(),
        End::Cut if turns.is_http10() => return served.into_parts().io.into_inner().into_parts().0.abort(),
        End::Cut => return,
        End::Served if !turns.has_unread() => return,
        End::Served => Vec::new(),
        End::Refuse(broken) => refusal(broken, refuse),
    };
    // With this everything goes that is still under way: an upload that broke off is cut upstream, too.
    let (mut io, _unread) = served.into_parts().io.into_inner().into_parts();
    let mut leaving = std::pin::pin!(timeout(LEAVE, leave(&mut io, &refusal)));
    until(control, |cx, _| leaving.as_mut().poll(cx).map(|_| End::Cut)).await;
}

/// A connection that can be ended so that the peer sees that something is missing.
pub(super) trait Abort: Sized {
    /// Sees to it that its end, whenever it is dropped, is one of those.
    fn cut_on_close(&self);

    /// Everything has been said: its end is none of those.
    fn end_on_close(&self);

    /// Ends it so.
    fn abort(self) {
        self.cut_on_close();
    }
}

/// How the serving of a connection ended.
#[derive(Clone, Copy)]
enum End {
    /// hyper has nothing more to do.
    Served,
    /// A caller broke a rule, and nothing stands before its refusal.
    Refuse(BrokenRule),
    /// At once, perhaps in the middle of an answer.
    Cut,
    /// The same on purpose, in place of an answer.
    Reset,
}

fn is_reset(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Broken>)
}

/// Polls until there is an end, or the connection is to be cut.
async fn until(control: &Control, mut poll: impl FnMut(&mut Context<'_>, State) -> Poll<End>) -> End {
    std::future::poll_fn(|cx| match control.poll(cx) {
        State::Cut => Poll::Ready(End::Cut),
        state => poll(cx, state),
    })
    .await
}

fn refusal(broken: BrokenRule, refuse: impl Fn(&Error, Asker) -> Response<ResponseBody>) -> Vec<u8> {
    let error = Error::downstream(broken.violation.reason, broken.violation.detail);
    let asker = Asker { grpc: false, json: broken.json, trusted: false, http2: false };
    reply::last_words(refuse(&error, asker), !broken.head)
}

/// Writes the last words and closes. What the peer still sends is read for a while: closing over it would make the
/// system take the answer back.
async fn leave(io: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) -> io::Result<()> {
    io.write_all(words).await?;
    io.flush().await?;
    io.shutdown().await?;
    let mut sink = [0; 4096];
    let mut left = LEAVE_BYTES;
    while left > 0 {
        match io.read(&mut sink).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// How long a peer may take to hear that it is let go.
const LEAVE: Duration = Duration::from_secs(1);
/// What is read of what it still sends.
const LEAVE_BYTES: usize = 1024 * 1024;
