//! How much of time and room a connection may take.
//!
//! Values only. Time is kept by [`crate::http::connections`], frames are counted by [`crate::http::h2_guard`], and the
//! room of a stream is hyper's and h2's to keep.

use std::time::Duration;

use outrigger_mesh::Timeouts;

/// How much of time and room a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edges {
    /// How long the head of a request may take to come, from its first byte; over HTTP/2 any frame but DATA, and the
    /// preface.
    pub head: Duration,
    /// How long a connection without a request is kept. Longer than any sidecar keeps an idle connection: the side that
    /// sends is the side that lets go.
    pub idle: Duration,
    /// How long an HTTP/2 connection is kept that has never had a request. Clients connect ahead of need, but not for
    /// ever.
    pub unused: Duration,
    /// How long nothing of an answer may be taken by whoever asked for it.
    pub stalled: Duration,
    /// How long an HTTP/2 connection takes new requests. Each connection's own age is up to [`JITTER`] percent more or
    /// less, so that those made together do not end together.
    pub age: Duration,
    /// How long a connection that is ending may go on with what it has.
    pub finish: Duration,
    /// How long a connection that is ending, and has nothing, may take to close.
    pub closing: Duration,
}

impl Default for Edges {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_mins(10),
            unused: Duration::from_mins(1),
            stalled: Timeouts::IDLE,
            age: Duration::from_hours(1),
            finish: Duration::from_mins(30),
            closing: Duration::from_secs(10),
        }
    }
}

/// Why a connection was cut before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Requests, reset by whoever asked.
    RapidReset,
    /// Frames that made us reset streams.
    MadeToReset,
    /// CONTINUATION frames.
    Continuation,
    /// SETTINGS frames.
    Settings,
    /// PING frames.
    Ping,
    /// PRIORITY frames.
    Priority,
    /// WINDOW_UPDATE frames.
    WindowUpdate,
    /// DATA frames with nothing in them.
    EmptyData,
    /// Frames that mean nothing here.
    UnknownFrame,
    /// h2 asked the peer to calm down: a header list far too long, too many frames in one header block, too many streams
    /// that were reset before they were looked at.
    Calm,
    /// The peer broke the protocol.
    Protocol,
    /// A frame that has one size had another.
    FrameSize,
    /// A head that did not come to its end in time.
    SlowHead,
    /// Nothing of what was written was taken.
    SlowReader,
    /// It was ending and did not.
    Lingering,
    /// Its peer is revoked, or its root was taken away.
    Unbelieved,
}

impl Cut {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::RapidReset,
        Self::MadeToReset,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::Priority,
        Self::WindowUpdate,
        Self::EmptyData,
        Self::UnknownFrame,
        Self::Calm,
        Self::Protocol,
        Self::FrameSize,
        Self::SlowHead,
        Self::SlowReader,
        Self::Lingering,
        Self::Unbelieved,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid_reset",
            Self::MadeToReset => "made_to_reset",
            Self::Continuation => "continuation_flood",
            Self::Settings => "settings_flood",
            Self::Ping => "ping_flood",
            Self::Priority => "priority_flood",
            Self::WindowUpdate => "window_update_flood",
            Self::EmptyData => "empty_data_flood",
            Self::UnknownFrame => "unknown_frame_flood",
            Self::Calm => "enhance_your_calm",
            Self::Protocol => "protocol_error",
            Self::FrameSize => "frame_size_error",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Lingering => "lingering",
            Self::Unbelieved => "unbelieved",
        }
    }
}

/// `age`, up to [`JITTER`] percent more or less.
pub fn jittered(age: Duration) -> Duration {
    let percent = fastrand::u32(100 - JITTER..=100 + JITTER);
    age * percent / 100
}

/// By how much an age varies, in percent.
pub const JITTER: u32 = 10;

/// Streams of one connection at a time. With the windows below it bounds what one connection can pin: 128 requests whose
/// answers nobody reads hold at most 128 times [`MAX_SEND_BUFFER`] and a frame each.
pub const MAX_STREAMS: u32 = 128;
/// How far beyond its limit the decoded head of a request is read, to be refused with a reason and not with the library's
/// bare 431: names, values and 32 bytes a line, each crumb of a cookie being a line.
pub const HEADER_LIST_MARGIN: u32 = 16 * 1024;
/// What a stream may send unread. Enough for a hundred megabytes a second over a millisecond's way.
pub const STREAM_WINDOW: u32 = 128 * 1024;
/// What all streams of a connection may send unread: half of them can stand still without holding up the others.
pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS / 2;
/// What waits in a stream for the peer's window.
pub const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Streams that the peer reset before they were looked at (rapid reset within one read). Beyond it the connection ends.
pub const MAX_PENDING_RESETS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let hour = Duration::from_hours(1);
        let ages: Vec<Duration> = (0..1_000).map(|_| jittered(hour)).collect();
        assert!(ages.iter().all(|a| (hour * 9 / 10..=hour * 11 / 10).contains(a)));
        assert!(ages.iter().any(|a| *a < hour) && ages.iter().any(|a| *a > hour));
    }
}
