//! What holds a connection to the proof that its peer gave: whoever is not believed any more loses the connections that we
//! made to it, and with them every stream, upgrade and byte under way.
//!
//! The other direction, connections that were made to us, is [`crate::http::connections`].

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use outrigger_certs::{Peer, TrustStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The tethers of one worker.
#[derive(Debug, Default)]
pub(super) struct Tethers(RefCell<Vec<Weak<Tether>>>);

impl Tethers {
    /// One more, for a connection that is about to be made.
    pub(super) fn tie(&self) -> Rc<Tether> {
        let tether = Rc::new(Tether::default());
        self.0.borrow_mut().push(Rc::downgrade(&tether));
        tether
    }

    /// Forgets those of connections that are gone.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain(|tether| tether.strong_count() > 0);
    }

    /// Cuts those whose peer `trust` does not believe any more.
    pub(super) fn judge(&self, trust: &TrustStore) {
        for tether in self.0.borrow().iter().filter_map(Weak::upgrade) {
            let refused = tether.peer.borrow().as_ref().and_then(|peer| trust.believes(peer).err());
            if let Some(why) = refused {
                tracing::warn!(%why, "an open connection is cut");
                tether.cut();
            }
        }
    }
}

/// The way to cut one connection, whoever holds it by now.
#[derive(Debug, Default)]
pub struct Tether {
    peer: RefCell<Option<Peer>>,
    cut: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Tether {
    /// Says who is at the other end.
    pub(super) fn is_with(&self, peer: &Peer) {
        *self.peer.borrow_mut() = Some(peer.clone());
    }

    fn cut(&self) {
        self.cut.set(true);
        [&self.reader, &self.writer].into_iter().filter_map(RefCell::take).for_each(Waker::wake);
    }
}

/// A connection on its tether.
#[derive(Debug)]
pub(super) struct Tethered<IO> {
    io: IO,
    tether: Rc<Tether>,
}

impl<IO> Tethered<IO> {
    pub(super) fn new(io: IO, tether: &Rc<Tether>) -> Self {
        Self { io, tether: Rc::clone(tether) }
    }

    /// What polling it came to, unless it is cut.
    fn held<T>(
        waker: &RefCell<Option<Waker>>,
        cx: &Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            let mut waker = waker.borrow_mut();
            if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        polled
    }

    fn is_cut(&self) -> Option<io::Error> {
        self.tether
            .cut
            .get()
            .then(|| io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is not believed"))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Tethered<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.is_cut() {
            return Poll::Ready(Err(error));
        }
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        Self::held(&this.tether.reader, cx, polled)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Tethered<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(error) = this.is_cut() {
            return Poll::Ready(Err(error));
        }
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        Self::held(&this.tether.writer, cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(error) = this.is_cut() {
            return Poll::Ready(Err(error));
        }
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        Self::held(&this.tether.writer, cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// When a connection over HTTP begins to end whose proof holds `until` then: a tenth of what is left before, half a
/// minute at most, so that what is under way is done in time.
pub(crate) fn ends_at(until: SystemTime) -> Instant {
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + left.saturating_sub((left / 10).min(LEAD))
}

const LEAD: Duration = Duration::from_secs(30);
