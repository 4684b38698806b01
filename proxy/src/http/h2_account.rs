//! What the frames of a client cost and what they earn: the judgement of whether it works with us or only keeps us busy.
//!
//! Two purses, each filled by time and by useful work. Frames that ask for nothing (PING, SETTINGS, WINDOW_UPDATE, …) pay
//! from the first, and requests and data in either direction fill it: a client that reads a large answer may send two
//! WINDOW_UPDATEs for each KiB of it, and a PING for each frame, as those do that measure the path. Streams that end by
//! RST_STREAM pay from the second, and each answer that we wrote to its end fills it: callers that cancel half of what they
//! ask for are no abuse.
//!
//! Two rules that h2 does not keep to the letter are kept here as well, since a head is all they need: SETTINGS come first,
//! and a frame of fixed size that has another is a `FRAME_SIZE_ERROR`.
//!
//! Deliberately elsewhere: everything else that makes a frame invalid, and the bounds of one header block; both are h2's.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::edges::Cut;
use crate::http::h2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Account {
    control: Purse,
    resets: Purse,
    last_stream: u32,
    in_block: bool,
    greeted: bool,
}

impl Account {
    /// Both purses are full.
    pub(super) fn new() -> Self {
        let (control, resets) = (Purse::new(CONTROL), Purse::new(RESETS));
        Self { control, resets, last_stream: 0, in_block: false, greeted: false }
    }

    /// The highest stream the client has opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Whether a header block has begun and not ended.
    pub(super) fn is_in_block(&self) -> bool {
        self.in_block
    }

    /// Whether the client's first frame has come.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// The client sent `frame`. An error says what rule it breaks, or which flood it belongs to.
    pub(super) fn received(&mut self, frame: &Frame) -> Result<(), Cut> {
        check(frame, self.greeted)?;
        self.greeted = true;
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.in_block = !frame.has(END_HEADERS);
        }
        let size = i64::from(frame.length) / KIB;
        let (cost, flood) = match frame.kind {
            HEADERS => {
                self.last_stream = self.last_stream.max(frame.stream);
                self.control.earn(8);
                return Ok(());
            }
            DATA => {
                let padding = frame.has(PADDED) && frame.length <= 256;
                match (frame.length, frame.has(END_STREAM)) {
                    (_, true) => return Ok(()),
                    (0, false) => (10, Cut::EmptyData),
                    (_, false) if padding => (1, Cut::EmptyData),
                    _ => {
                        self.control.earn(1 + size);
                        return Ok(());
                    }
                }
            }
            RST_STREAM => {
                return if self.resets.pay(1) { Ok(()) } else { Err(Cut::RapidReset) };
            }
            CONTINUATION if frame.length == 0 => (20, Cut::Continuation),
            CONTINUATION => (2, Cut::Continuation),
            // A change of the initial window touches every stream.
            SETTINGS if !frame.has(ACK) => (20 + i64::from(frame.length) / 6, Cut::Settings),
            SETTINGS => (1, Cut::Settings),
            PING => (1, Cut::Ping),
            PRIORITY => (1, Cut::Priority),
            WINDOW_UPDATE => (1, Cut::WindowUpdate),
            GOAWAY => (10, Cut::UnknownFrame),
            _ => (1 + size, Cut::UnknownFrame),
        };
        if self.control.pay(cost) { Ok(()) } else { Err(flood) }
    }

    /// We sent `frame`. An error says which flood made us do so.
    pub(super) fn sent(&mut self, frame: &Frame) -> Result<(), Cut> {
        match frame.kind {
            DATA if frame.length > 0 => self.control.earn(3 + i64::from(frame.length) * 2 / KIB),
            RST_STREAM if frame.code.is_some_and(is_made_to) => {
                return if self.resets.pay(5) { Ok(()) } else { Err(Cut::MadeToReset) };
            }
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM) {
            self.control.earn(2);
            self.resets.earn(1);
        }
        Ok(())
    }
}

/// What a head alone shows to be wrong, and h2 bears or calls by another name.
fn check(frame: &Frame, greeted: bool) -> Result<(), Cut> {
    if !greeted && (frame.kind != SETTINGS || frame.has(ACK)) {
        return Err(Cut::Protocol);
    }
    let fits = match (frame.kind, frame.length) {
        (PRIORITY, length) => length == 5,
        (RST_STREAM | WINDOW_UPDATE, length) => length == 4,
        (PING, length) => length == 8,
        (SETTINGS, length) if frame.has(ACK) => length == 0,
        (SETTINGS, length) => length % 6 == 0,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Cut::FrameSize) }
}

/// Whether a stream that we reset with `code` was broken by the client: `PROTOCOL_ERROR`, `FLOW_CONTROL_ERROR`,
/// `STREAM_CLOSED`, `FRAME_SIZE_ERROR`, `REFUSED_STREAM`. An answer that failed (`INTERNAL_ERROR`) or was given up
/// (`CANCEL`, `NO_ERROR`) is nothing that it could have made us do.
fn is_made_to(code: u32) -> bool {
    matches!(code, 0x1 | 0x3 | 0x5 | 0x6 | 0x7)
}

/// Tokens that time and work bring and cost takes.
#[derive(Debug)]
struct Purse {
    tokens: i64,
    rule: Rule,
    /// Up to when time has been paid for. The clock is looked at only when the tokens run out.
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    most: i64,
    each_second: i64,
}

impl Purse {
    fn new(rule: Rule) -> Self {
        Self { tokens: rule.most, rule, since: Instant::now() }
    }

    fn earn(&mut self, tokens: i64) {
        self.tokens = (self.tokens + tokens).min(self.rule.most);
    }

    fn pay(&mut self, cost: i64) -> bool {
        if self.tokens < cost {
            let now = Instant::now();
            let passed = (now - self.since).min(LONGEST_PAID);
            let tokens = i64::try_from(passed.as_millis()).unwrap_or(0) * self.rule.each_second / 1_000;
            if tokens > 0 {
                self.since = now;
                self.earn(tokens);
            }
        }
        self.tokens -= cost;
        self.tokens >= 0
    }
}

/// Far above what anybody sends without asking for something: Firefox begins with a handful of PRIORITY frames, a gRPC
/// channel pings every few seconds.
const CONTROL: Rule = Rule { most: 5_000, each_second: 500 };
/// A sidecar with hundreds of callers may see them all give up at once.
const RESETS: Rule = Rule { most: 1_000, each_second: 200 };
const LONGEST_PAID: Duration = Duration::from_mins(1);
const KIB: i64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u32) -> Frame {
        Frame { kind, flags, stream: 1, length, code: None }
    }

    /// An account of a client that has said hello.
    fn greeted() -> Account {
        let mut account = Account::new();
        account.received(&frame(SETTINGS, 0, 0)).unwrap();
        account
    }

    /// How many of `frame` are borne at once.
    fn borne(frame: &Frame) -> (u32, Cut) {
        let mut account = greeted();
        for n in 0..1_000_000 {
            if let Err(flood) = account.received(frame) {
                return (n, flood);
            }
        }
        unreachable!("a million {frame:?} were borne");
    }

    #[tokio::test(start_paused = true)]
    async fn each_flood_is_named_after_what_it_consists_of() {
        let floods = [
            (frame(RST_STREAM, 0, 4), Cut::RapidReset),
            (frame(CONTINUATION, 0, 1), Cut::Continuation),
            (frame(CONTINUATION, 0, 0), Cut::Continuation),
            (frame(SETTINGS, 0, 6), Cut::Settings),
            (frame(SETTINGS, ACK, 0), Cut::Settings),
            (frame(PING, 0, 8), Cut::Ping),
            (frame(PING, ACK, 8), Cut::Ping),
            (frame(PRIORITY, 0, 5), Cut::Priority),
            (frame(WINDOW_UPDATE, 0, 4), Cut::WindowUpdate),
            (frame(DATA, 0, 0), Cut::EmptyData),
            (frame(DATA, PADDED, 256), Cut::EmptyData),
            (frame(0x10, 0, 16), Cut::UnknownFrame),
            (frame(0xee, 0, 16_384), Cut::UnknownFrame),
            (frame(GOAWAY, 0, 8), Cut::UnknownFrame),
        ];
        for (frame, flood) in floods {
            let (borne, named) = borne(&frame);
            assert_eq!(named, flood);
            assert!((100..=5_000).contains(&borne), "{frame:?}: {borne}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resets_that_we_are_made_to_send_are_counted_and_our_own_are_not() {
        let reset = |code| Frame { code: Some(code), ..frame(RST_STREAM, 0, 4) };
        for (code, limit) in [(0x1, Some(200)), (0x7, Some(200)), (0x0, None), (0x2, None), (0x8, None)] {
            let mut account = greeted();
            let borne = (0..10_000).find(|_| account.sent(&reset(code)) == Err(Cut::MadeToReset));
            assert_eq!(borne, limit, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_fills_the_purses_again() {
        let mut account = greeted();
        while account.received(&frame(PING, 0, 8)).is_ok() {}
        tokio::time::advance(Duration::from_secs(1)).await;
        let more = (0..1_000).find(|_| account.received(&frame(PING, 0, 8)).is_err()).unwrap();
        assert!((450..=510).contains(&more), "{more}");
    }

    /// What ordinary clients send, for as long as they like and as fast as they can.
    #[tokio::test(start_paused = true)]
    async fn ordinary_clients_are_never_in_debt() {
        type Round = dyn Fn(&mut Account) -> Result<(), Cut>;
        let stories: [(&str, &Round); 6] = [
            ("a large download, two WINDOW_UPDATEs for each KiB and a PING for each frame", &|a| {
                a.sent(&frame(DATA, 0, 16_384))?;
                (0..32).try_for_each(|_| a.received(&frame(WINDOW_UPDATE, 0, 4)))?;
                a.received(&frame(PING, 0, 8))
            }),
            ("gRPC messages of a few bytes, two WINDOW_UPDATEs and a PING for each", &|a| {
                a.received(&frame(DATA, 0, 7))?;
                a.sent(&frame(DATA, 0, 7))?;
                (0..2).try_for_each(|_| a.received(&frame(WINDOW_UPDATE, 0, 4)))?;
                a.received(&frame(PING, 0, 8))
            }),
            ("a browser: PRIORITY and PRIORITY_UPDATE with each request", &|a| {
                a.received(&frame(HEADERS, END_HEADERS | END_STREAM, 40))?;
                a.received(&frame(PRIORITY, 0, 5))?;
                a.received(&frame(0x10, 0, 8))?;
                a.received(&frame(WINDOW_UPDATE, 0, 4))?;
                a.sent(&frame(HEADERS, END_HEADERS | END_STREAM, 40))
            }),
            ("half of the requests are cancelled", &|a| {
                for _ in 0..2 {
                    a.received(&frame(HEADERS, END_HEADERS | END_STREAM, 40))?;
                }
                a.received(&frame(RST_STREAM, 0, 4))?;
                a.sent(&frame(DATA, END_STREAM, 40))
            }),
            ("a long head in CONTINUATIONs, ended by empty DATA", &|a| {
                a.received(&frame(HEADERS, 0, 16_384))?;
                (0..3).try_for_each(|_| a.received(&frame(CONTINUATION, 0, 16_384)))?;
                a.received(&frame(CONTINUATION, END_HEADERS, 10))?;
                a.received(&frame(DATA, END_STREAM, 0))
            }),
            ("an upload", &|a| a.received(&frame(DATA, 0, 1))),
        ];
        for (story, round) in stories {
            let mut account = greeted();
            for n in 0..20_000 {
                assert_eq!(round(&mut account), Ok(()), "{story}: round {n}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn settings_come_first_and_frames_of_fixed_size_have_it() {
        for first in [frame(PING, 0, 8), frame(SETTINGS, ACK, 0), frame(HEADERS, END_HEADERS, 9)] {
            assert_eq!(Account::new().received(&first), Err(Cut::Protocol));
        }
        for (kind, flags, right, wrong) in [
            (PRIORITY, 0, 5, 4),
            (RST_STREAM, 0, 4, 3),
            (WINDOW_UPDATE, 0, 4, 5),
            (PING, 0, 8, 6),
            (SETTINGS, 0, 12, 11),
            (SETTINGS, ACK, 0, 6),
        ] {
            assert_eq!(greeted().received(&frame(kind, flags, right)), Ok(()));
            assert_eq!(greeted().received(&frame(kind, flags, wrong)), Err(Cut::FrameSize));
        }
    }
}
