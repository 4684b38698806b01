//! Answers that end before they grow too large: a list as a whole, a watch line by line.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Uri;
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
/// What was asked, a token of 16 KiB at most with it, and the groups of whoever has it.
const REVIEW: usize = 64 << 10;

/// What is answered, by which it is known how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// An object, or a page of them.
    Whole,
    /// Line by line, without an end.
    Watch,
    /// To a question of who somebody is, or what he may.
    Review,
}

impl Sort {
    /// Of the answer to a request.
    pub(super) fn of(uri: &Uri) -> Self {
        if uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true")) {
            Self::Watch
        } else if uri.path().ends_with("reviews") {
            Self::Review
        } else {
            Self::Whole
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Whole => WHOLE,
            Self::Watch => LINE,
            Self::Review => REVIEW,
        }
    }
}

impl<B> Bounded<B> {
    pub(super) fn new(inner: B, sort: Sort) -> Self {
        Self { inner, seen: 0, most: sort.most(), by_line: sort == Sort::Watch }
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
