//! Serving one connection.
//!
//! hyper does the protocol. Here is what it leaves open: how a connection is told to end, and what its beginning says it
//! speaks. Deliberately elsewhere: [`crate::http::h1`], which drives HTTP/1 and guards it, and
//! [`crate::http::connections`], which keeps an eye on all of them.

use std::any::Any;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::Error;
use crate::filter::Broken;
use crate::http::answering::{Asked, Streams};
use crate::http::body::ResponseBody;
use crate::http::connections::{Control, Guard, State};
use crate::http::h2_guard::Guarded;
use crate::http::one_by_one::OneByOne;
use crate::http::reply::Asker;
use crate::http::strict::Turns;
use crate::http::tap::{Tap, writes_through};
use crate::http::{edges, h1};
use crate::tcp;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Serves `io` until it ends, answering each request with `answer`, and with `refuse` what is no request.
pub async fn connection<IO, F, R>(io: IO, spoken: Spoken, guard: Guard, answer: F, refuse: R)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    F: AsyncFn(Request<Incoming>) -> Response<ResponseBody> + 'static,
    R: Fn(&Error, Asker) -> Response<ResponseBody>,
{
    let control = Rc::clone(&guard.control);
    control.http1.set(spoken == Spoken::Http1);
    let watched = Rc::clone(&control);
    match spoken {
        Spoken::Http1 => {
            let turns = Rc::new(Turns::default());
            let (answers, following) = (OneByOne::new(answer), Rc::clone(&turns));
            let service = service_fn(move |request| {
                let (asked, watched) = (Asked::http1(&watched, &following), Rc::clone(&watched));
                answers.ask(request).map(move |mut answer| {
                    whole(&answer)?;
                    say_goodbye(&watched, &mut answer);
                    Ok::<_, Broken>(answer.map(|body| asked.answer(body)))
                })
            });
            let io = Watched { io, control: Rc::clone(&control) };
            h1::serve(io, &control, turns, service, refuse).await;
        }
        Spoken::Http2 => {
            let streams = Streams::default();
            let (opened, answer) = (streams.clone(), Rc::new(answer));
            let service = service_fn(move |request| {
                let (asked, answer) = (Asked::http2(&watched, &opened), Rc::clone(&answer));
                async move {
                    let answer = answer(request).await;
                    whole(&answer)?;
                    Ok::<_, Broken>(answer.map(|body| asked.answer(body)))
                }
            });
            let io = TokioIo::new(Guarded::new(io, Rc::clone(&control)));
            let mut builder = http2::Builder::new(streams);
            builder
                .max_concurrent_streams(edges::MAX_STREAMS)
                // What is a little too long gets a refusal with its reason ([`crate::http::canonical`]).
                .max_header_list_size(control.limits.get().header_list() + edges::HEADER_LIST_MARGIN)
                .initial_stream_window_size(edges::STREAM_WINDOW)
                .initial_connection_window_size(edges::CONNECTION_WINDOW)
                .max_send_buf_size(edges::MAX_SEND_BUFFER)
                .max_pending_accept_reset_streams(edges::MAX_PENDING_RESETS)
                // Whether an upgrade is allowed is a question of the service; here it only can be asked.
                .enable_connect_protocol();
            let mut served = pin!(builder.serve_connection(io, service));
            drive(&control, |cx, end| {
                if end {
                    served.as_mut().graceful_shutdown();
                }
                served.as_mut().poll(cx)
            })
            .await;
        }
    }
}

/// Whether an answer is one, and not the place where its stream or its connection breaks off on purpose.
fn whole<B>(answer: &Response<B>) -> Result<(), Broken> {
    answer.extensions().get::<Broken>().copied().map_or(Ok(()), Err)
}

/// The last answer of a connection over HTTP/1.1 says that it is.
fn say_goodbye<B>(control: &Control, answer: &mut Response<B>) {
    let parting = control.state.get() >= State::Parting;
    if parting && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Polls a connection until it ends or is cut. `poll` is told once when the connection shall end in order.
async fn drive(control: &Control, mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<hyper::Result<()>>) {
    let mut told = false;
    std::future::poll_fn(|cx| {
        let state = control.poll(cx);
        if state == State::Cut {
            return Poll::Ready(());
        }
        let end = (state == State::Ending || (state == State::Parting && !control.http1.get()))
            && !std::mem::replace(&mut told, true);
        // An error is the peer's way to leave; whoever waited for an answer has been told by the request's own path.
        poll(cx, end).map(|_ended| ())
    })
    .await;
}

/// Notes when a head begins to arrive.
struct Watched<IO> {
    io: IO,
    control: Rc<Control>,
}

/// Over TLS an end without its word is an abort already.
impl<IO: 'static> h1::Abort for Watched<IO> {
    fn cut_on_close(&self) {
        if let Some(stream) = (&self.io as &dyn Any).downcast_ref::<TcpStream>() {
            tcp::cut_on_close(stream);
        }
    }

    fn end_on_close(&self) {
        if let Some(stream) = (&self.io as &dyn Any).downcast_ref::<TcpStream>() {
            tcp::end_on_close(stream);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        let control = &this.control;
        if control.busy.get() == 0 && control.head_since.get().is_none() && polled.is_ready() {
            control.head_since.set(Some(Instant::now()));
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> Tap for Watched<IO> {
    type Io = IO;

    fn io(&self) -> &IO {
        &self.io
    }

    fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    fn wrote(
        &mut self,
        _cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        _slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.control.wrote(&polled);
        polled
    }

    fn flushed(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.control.flushed(&polled);
        polled
    }
}

writes_through!(Watched);
