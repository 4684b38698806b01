//! Bodies that are made while they are sent and judged while they come, so that no size of them needs memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Sleep;

/// What every body consists of, over and over: a length that no buffer has, so that a lost or doubled piece shows.
pub fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        (0..65_521_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect::<Vec<_>>().into()
    })
}

/// A body that is made while it is sent.
pub struct Made {
    /// Bytes to come.
    pub left: u64,
    /// Whether its length is told before.
    pub told: bool,
    /// The largest piece.
    pub piece: u64,
    /// Waits so long before each piece but the first.
    pub pause: Duration,
    /// What comes behind it.
    pub trailers: Option<HeaderMap>,
    /// Whether it stops there and never ends.
    pub stalls: bool,
    /// How far it is.
    pub at: u64,
    /// What it waits for.
    pub sleep: Option<Pin<Box<Sleep>>>,
}

impl Made {
    /// A body of so many bytes, as fast as they go.
    pub fn new(left: u64) -> Self {
        Self {
            left,
            told: false,
            piece: 65_521,
            pause: Duration::ZERO,
            trailers: None,
            stalls: false,
            at: 0,
            sleep: None,
        }
    }

    /// With its length told before.
    pub fn told(self) -> Self {
        Self { told: true, ..self }
    }

    /// With the trailer `x-end: yes`.
    pub fn with_trailer(self) -> Self {
        Self {
            trailers: Some(HeaderMap::from_iter([(
                "x-end".parse().unwrap(),
                HeaderValue::from_static("yes"),
            )])),
            ..self
        }
    }
}

impl Body for Made {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 || (self.stalls && self.at > 0) {
            if self.stalls {
                return Poll::Pending;
            }
            return Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t))));
        }
        if self.at > 0 && !self.pause.is_zero() {
            let pause = self.pause;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        let pattern = pattern();
        let from = usize::try_from(self.at % pattern.len() as u64).unwrap();
        let size = self.left.min(self.piece).min((pattern.len() - from) as u64);
        self.at += size;
        self.left -= size;
        Poll::Ready(Some(Ok(Frame::data(pattern.slice(from..from + usize::try_from(size).unwrap())))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none() && !self.stalls
    }

    fn size_hint(&self) -> SizeHint {
        if self.told { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

/// What a body was.
#[derive(Debug, Default)]
pub struct Judged {
    /// Its bytes.
    pub bytes: u64,
    /// Whether each was the right one.
    pub right: bool,
    /// What came behind it.
    pub trailers: Option<HeaderMap>,
    /// How long after its first piece its last came.
    pub spread: Duration,
}

/// Reads a body to its end. An error is the text of what broke it.
pub async fn judge<B>(mut body: B) -> Result<Judged, String>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut judged = Judged { right: true, ..Judged::default() };
    let mut first = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("after {} bytes: {e}", judged.bytes))?;
        match frame.into_data() {
            Ok(data) => {
                judged.right &= fits(&data, judged.bytes);
                judged.bytes += data.len() as u64;
                judged.spread = first.get_or_insert_with(Instant::now).elapsed();
            }
            Err(frame) => judged.trailers = frame.into_trailers().ok(),
        }
    }
    Ok(judged)
}

/// Whether `data` is what stands at `at`.
pub fn fits(mut data: &[u8], at: u64) -> bool {
    let pattern = pattern();
    let mut from = usize::try_from(at % pattern.len() as u64).unwrap();
    while !data.is_empty() {
        let size = data.len().min(pattern.len() - from);
        if data[..size] != pattern[from..from + size] {
            return false;
        }
        data = &data[size..];
        from = 0;
    }
    true
}
