//! Answers that end before they grow too large: a list as a whole, a watch line by line.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body that fails once it is larger than it may be.
pub(super) struct Bounded<B> {
    inner: B,
    seen: usize,
    most: usize,
    /// Whether each line is measured by itself.
    by_line: bool,
}

/// An answer of which there is too much, or one that was cut short.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError<E: std::error::Error> {
    #[error("an answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    Cut(E),
}

/// Pages have at most 500 objects of at most 1.5 MiB; most are a few kilobytes.
const WHOLE: usize = 64 << 20;
/// One object with its envelope; etcd takes 1.5 MiB.
const LINE: usize = 4 << 20;

impl<B> Bounded<B> {
    pub(super) fn new(inner: B, is_watch: bool) -> Self {
        Self { inner, seen: 0, most: if is_watch { LINE } else { WHOLE }, by_line: is_watch }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    type Data = Bytes;
    type Error = BodyError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame.map_err(BodyError::Cut)?;
        if let Some(data) = frame.data_ref() {
            let ended = data.iter().rposition(|b| *b == b'\n').filter(|_| self.by_line);
            self.seen = match ended {
                Some(at) => data.len() - at,
                None => self.seen + data.len(),
            };
            if self.seen > self.most {
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.most))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
