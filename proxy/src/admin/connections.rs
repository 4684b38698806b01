//! Connections of those who ask about the sidecar itself: its admin ports and its health port. There are never many, and none for
//! long.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::listen::descriptors::{self, Spare};

/// The open connections of one listener. Dropped, they end.
pub(crate) struct Connections {
    of: &'static str,
    open: JoinSet<()>,
    spare: Spare,
}

/// At a time; more wait.
const MOST: usize = 64;
/// After a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);
const HEADER_READ: Duration = Duration::from_secs(5);

impl Connections {
    /// None yet, of the listener of this name.
    pub(crate) fn of(name: &'static str) -> Self {
        Self { of: name, open: JoinSet::new(), spare: Spare::new() }
    }

    /// The next one, once there is room for it. Where descriptors ran out a spare one is given up for it.
    pub(crate) async fn next<S, A, F>(&mut self, accept: impl Fn() -> F) -> S
    where
        F: Future<Output = io::Result<(S, A)>>,
    {
        loop {
            while self.open.len() >= MOST {
                self.open.join_next().await;
            }
            while self.open.try_join_next().is_some() {}
            self.spare.refill();
            match accept().await {
                Ok((stream, _)) => return stream,
                Err(error) if descriptors::is_exhaustion(&error) && self.spare.give_up() => {
                    if let Ok((stream, _)) = accept().await {
                        return stream;
                    }
                }
                Err(error) => {
                    // No descriptor is free, or the peer is gone already.
                    tracing::warn!(of = self.of, %error, "accepting failed");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers what is asked over `io`, for at most `longest`.
    pub(crate) fn serve<IO, F, B>(
        &mut self,
        io: IO,
        longest: Duration,
        answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Response<B>> + Send,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.open.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ)
                .max_headers(64)
                .serve_connection(TokioIo::new(io), service);
            // A client that leaves or is too slow is not news.
            let _ended = timeout(longest, serving).await;
        });
    }
}
