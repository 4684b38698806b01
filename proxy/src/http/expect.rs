//! `Expect: 100-continue`: the body waits until whoever asked for it wants it (RFC 9110, section 10.1.1).
//!
//! hyper tells a caller to go on when its body is first read, and reads it as soon as there is a connection to write to.
//! This gate stands between: it opens when the upstream says 100, so that an early final answer spares the upload. A
//! server that knows nothing of it is waited for a second, as its clients do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use tokio::time::Sleep;

use crate::http::body::Replay;

/// A body's wait.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    patience: Pin<Box<Sleep>>,
}

#[derive(Debug, Default)]
struct Shared {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// A gate that the upstream's answer to `request` opens. Atomics, since hyper could call from anywhere.
    pub fn before<B>(request: &mut Request<B>) -> Self {
        let shared = Arc::new(Shared::default());
        let opened = Arc::clone(&shared);
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                opened.open.store(true, Relaxed);
                opened.waker.wake();
            }
        });
        Self { shared, patience: Box::pin(tokio::time::sleep(PATIENCE)) }
    }

    /// Ready once the body may go.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.waker.register(cx.waker());
        if self.shared.open.load(Relaxed) { Poll::Ready(()) } else { self.patience.as_mut().poll(cx) }
    }
}

/// Says that the connection ends, where the final answer came while the body was still waited for: nobody can tell
/// whether the caller sends it now, and none of it may be taken for a request.
pub fn end_unless_sent(asked: bool, body: Option<&Replay>, answer: &mut HeaderMap) {
    if asked && body.is_some_and(|body| body.ended_at().is_none()) {
        answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
