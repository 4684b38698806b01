//! A head over a buffer that grows until it is whole.
//!
//! Each byte is looked at once for what no head may hold (controls, bare CR, bare LF), and each line once more when it is
//! complete. A violation is found at the earliest byte that settles it.

use outrigger_mesh::Reason;

use super::classes::{first_beside_text, is_target, is_token};
use super::fields::{Fields, Framing};
use super::{Limits, Violation};
use crate::http::canonical::MAX_URI;

/// Reads one head; the same value reads the next one after [`Progress::Whole`].
#[derive(Debug)]
pub struct HeadReader<L: StartLine> {
    limits: &'static Limits,
    /// Bytes before this have been looked at.
    seen: usize,
    /// Where the line begins that is not complete.
    line: usize,
    blank: u8,
    start: Option<L>,
    fields: Fields,
}

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<L> {
    /// More is needed.
    Partial,
    /// The head is whole.
    Whole(Whole<L>),
}

/// A head that is whole and has one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<L> {
    /// How many bytes it takes, with blank lines before it.
    pub bytes: usize,
    /// Its first line.
    pub start: L,
    /// How its body is delimited, by its fields alone.
    pub framing: Framing,
    /// Whether it has an Upgrade.
    pub upgrade: bool,
}

impl<L: StartLine> HeadReader<L> {
    /// A reader of the head that begins with the next byte, held to `limits`.
    pub fn new(limits: &'static Limits) -> Self {
        Self { limits, seen: 0, line: 0, blank: 0, start: None, fields: Fields::default() }
    }

    /// Goes on. `bytes` begins where the head begins, and with what was there at the last call.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress<L>, Violation> {
        while let Some(end) = self.line_end(bytes)? {
            let line = &bytes[self.line..end];
            let next = end + 2;
            if next > self.limits.head {
                return Err(self.too_long());
            }
            match self.start {
                None if line.is_empty() => {
                    self.blank += 1;
                    if self.blank > L::BLANK_LINES {
                        return Err(Violation::bad("too many blank lines stand before the message"));
                    }
                }
                None => self.start = Some(L::parse(line)?),
                Some(start) if line.is_empty() => {
                    let framing = start.judge(&self.fields)?;
                    let upgrade = self.fields.upgrade;
                    *self = Self::new(self.limits);
                    return Ok(Progress::Whole(Whole { bytes: next, start, framing, upgrade }));
                }
                Some(_) => self.fields.line(line, self.limits)?,
            }
            (self.line, self.seen) = (next, next);
        }
        if self.start.is_none() && self.seen - self.line > L::LONGEST {
            return Err(L::too_long());
        }
        if self.seen >= self.limits.head { Err(self.too_long()) } else { Ok(Progress::Partial) }
    }

    fn too_long(&self) -> Violation {
        Violation::large(self.limits.too_long)
    }

    /// Where the line ends that is being read: the place of its CR, once its LF is there, too.
    fn line_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let rest = bytes.get(self.seen..).unwrap_or_default();
        let Some(stop) = first_beside_text(rest) else {
            self.seen = bytes.len();
            return Ok(None);
        };
        let at = self.seen + stop;
        self.seen = at;
        match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => Ok(Some(at)),
            (b'\r', None) => Ok(None),
            (b'\r', Some(_)) => Err(Violation::bad("a CR stands without its LF")),
            (b'\n', _) => Err(Violation::bad("an LF stands without its CR")),
            (0, _) => Err(Violation::bad("the head has a NUL")),
            _ => Err(Violation::bad("the head has a control character")),
        }
    }
}

/// The first line of a head, and what follows from it.
pub trait StartLine: Copy {
    /// Blank lines that may stand before it.
    const BLANK_LINES: u8;
    /// How long it may be.
    const LONGEST: usize;

    /// What a longer one is refused with.
    fn too_long() -> Violation;

    /// Reads a line without its CRLF.
    fn parse(line: &[u8]) -> Result<Self, Violation>;

    /// How the body is delimited, once all fields are there.
    fn judge(self, fields: &Fields) -> Result<Framing, Violation>;
}

/// The first line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether it is of HTTP/1.0.
    pub http10: bool,
    /// Whether its method is CONNECT.
    pub connect: bool,
}

impl StartLine for Request {
    // RFC 9112, section 2.2: for clients that send one behind a body.
    const BLANK_LINES: u8 = 2;
    const LONGEST: usize = MAX_URI + 128;

    fn too_long() -> Violation {
        Violation { reason: Reason::UriTooLong, detail: "the target is longer than 16 KiB" }
    }

    fn parse(line: &[u8]) -> Result<Self, Violation> {
        let end = line.iter().position(|b| !is_token(*b)).unwrap_or(line.len());
        let (method, rest) = line.split_at(end);
        if method.is_empty() || rest.first() != Some(&b' ') {
            return Err(Violation::bad("the request line does not begin with a method and one blank"));
        }
        let (target, http10) = match rest[1..].split_last_chunk::<9>() {
            Some((target, b" HTTP/1.1")) => (target, false),
            Some((target, b" HTTP/1.0")) => (target, true),
            _ => return Err(Violation::bad("the request line does not end with HTTP/1.1 or HTTP/1.0")),
        };
        if target.len() > MAX_URI {
            return Err(Self::too_long());
        }
        let connect = method == b"CONNECT";
        check_target(target, connect)?;
        Ok(Self { http10, connect })
    }

    fn judge(self, fields: &Fields) -> Result<Framing, Violation> {
        fields.one_host()?;
        let framing = fields.framing(self.http10)?;
        if self.connect && framing != Framing::None {
            return Err(Violation::bad("a CONNECT has no body"));
        }
        Ok(framing)
    }
}

/// Whether a target has one of the four forms (RFC 9112, section 3.2) in the place where it may stand. What it says is for
/// `canonical` to judge.
fn check_target(target: &[u8], connect: bool) -> Result<(), Violation> {
    if !target.iter().all(|b| is_target(*b)) {
        return Err(Violation::bad("the target has a byte that no target has"));
    }
    if !connect && matches!(target, [b'/', ..] | b"*") {
        return Ok(());
    }
    // Rare: worth the parser that comes behind us, so that it never finds anything.
    let parsed = http::Uri::try_from(target).map_err(|_| Violation::bad("the target can not be read"))?;
    let absolute = parsed.scheme().is_some() && parsed.authority().is_some();
    let authority = parsed.authority().is_some_and(|a| a.as_str().as_bytes() == target);
    match (connect, absolute, authority) {
        (false, true, _) | (true, false, true) => Ok(()),
        (true, ..) => Err(Violation::bad("the target of a CONNECT is not a host and a port")),
        (false, ..) => Err(Violation::bad("the target is neither a path nor absolute")),
    }
}

/// The first line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Whether it is of HTTP/1.0.
    pub http10: bool,
    /// Its status.
    pub status: u16,
}

impl StartLine for Response {
    const BLANK_LINES: u8 = 0;
    const LONGEST: usize = 4 * 1024;

    fn too_long() -> Violation {
        Violation::bad("the status line is longer than 4 KiB")
    }

    fn parse(line: &[u8]) -> Result<Self, Violation> {
        let bad = Violation::bad("the answer does not begin with a status line of HTTP/1");
        let (http10, rest) = match line.split_first_chunk::<9>() {
            Some((b"HTTP/1.1 ", rest)) => (false, rest),
            Some((b"HTTP/1.0 ", rest)) => (true, rest),
            _ => return Err(bad),
        };
        // Many leave out the blank before a reason that is not there.
        let ([a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..]) = rest
        else {
            return Err(bad);
        };
        let status = [a, b, c].iter().fold(0, |n, d| n * 10 + u16::from(**d - b'0'));
        if !(100..600).contains(&status) {
            return Err(Violation::bad("the answer's status is outside 100 to 599"));
        }
        Ok(Self { http10, status })
    }

    fn judge(self, fields: &Fields) -> Result<Framing, Violation> {
        let framing = fields.framing(self.http10)?;
        // What says that it has a body where there can be none is read differently by different clients. Many servers
        // say zero, which is true.
        let body = !matches!(framing, Framing::None | Framing::Length(0));
        if body && (self.status < 200 || self.status == 204) {
            return Err(Violation::bad("the answer says that it has a body, and its status can have none"));
        }
        Ok(framing)
    }
}
