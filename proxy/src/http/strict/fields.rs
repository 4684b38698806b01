//! The fields of a head: each line by itself, then what all of them say about the message's end.

use super::classes::is_token;
use super::{Limits, Violation};

/// What is remembered of a head's fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields {
    count: usize,
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
    pub(super) upgrade: bool,
}

/// How a message's body is delimited, by its fields alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither field.
    None,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

impl Fields {
    /// Takes a line without its CRLF. Controls have been found already.
    pub(super) fn line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Violation> {
        if self.count == limits.fields {
            return Err(Violation::large(limits.too_many));
        }
        self.count += 1;
        let (name, value) = split(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts = self.hosts.saturating_add(1),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(framing_value(value))?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(framing_value(value))?,
            _ => {}
        }
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Violation> {
        match self.length.replace(number(value)?) {
            None => Ok(()),
            Some(_) => Err(Violation::bad("the message has more than one Content-Length")),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if !value.eq_ignore_ascii_case(b"chunked") {
            Err(Violation::bad("the message has a Transfer-Encoding other than chunked"))
        } else if std::mem::replace(&mut self.chunked, true) {
            Err(Violation::bad("the message has more than one Transfer-Encoding"))
        } else {
            Ok(())
        }
    }

    /// What the fields of a whole head say about the body.
    pub(super) fn framing(&self, http10: bool) -> Result<Framing, Violation> {
        match (self.length, self.chunked) {
            (Some(_), true) => {
                Err(Violation::bad("the message has both Content-Length and Transfer-Encoding"))
            }
            (None, true) if http10 => Err(Violation::bad("HTTP/1.0 knows no Transfer-Encoding")),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::None),
        }
    }

    pub(super) fn one_host(&self) -> Result<(), Violation> {
        match self.hosts {
            0 => Err(Violation::bad("the request has no Host")),
            1 => Ok(()),
            _ => Err(Violation::bad("the request has more than one Host")),
        }
    }
}

/// The name and the value of a line.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::bad("a field is folded, or begins with a blank"));
    }
    let end = line.iter().position(|b| !is_token(*b));
    match end {
        Some(0) => Err(Violation::bad("a field has no name")),
        Some(end) if line[end] == b':' => Ok((&line[..end], &line[end + 1..])),
        Some(end) if matches!(line[end], b' ' | b'\t') => {
            Err(Violation::bad("a field's name has a blank in it or behind it"))
        }
        Some(_) => Err(Violation::bad("a field's name is not a token")),
        None => Err(Violation::bad("a line is not a field")),
    }
}

/// The value of a field that delimits the body. One blank behind the colon is what everybody writes; every other blank is
/// where parsers have differed.
fn framing_value(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Result<u64, Violation> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Violation::bad("the Content-Length is not a number"));
    }
    let value = digits.iter().try_fold(0_u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')));
    // Beyond this the parser behind us counts differently.
    value.filter(|n| *n <= MAX_LENGTH).ok_or(Violation::bad("the Content-Length is too large"))
}

const MAX_LENGTH: u64 = u64::MAX >> 1;
