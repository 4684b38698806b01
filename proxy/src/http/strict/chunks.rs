//! A chunked body, byte by byte where bytes are structure and in one step where they are data.

use super::classes::{is_text, is_token};
use super::{MAX_TRAILER_FIELDS, Violation};

/// Follows one chunked body to the end of its trailer section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    at: At,
    /// Digits of the size, or bytes of a name.
    digits: u8,
    size: u64,
    /// Bytes of extensions in this line, and in all.
    extension: u16,
    extensions: u16,
    trailers: Trailers,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Name,
    Value,
    ValueLf,
    EndLf,
}

#[derive(Clone, Copy, Debug)]
struct Trailers {
    count: usize,
    bytes: usize,
    name: [u8; LONGEST_NAME],
    length: usize,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// All of the bytes belong to it, and it goes on.
    All,
    /// It ends after so many.
    Ended(usize),
    /// So many are good, and the next one is not.
    Broken(usize, Violation),
}

impl Chunks {
    pub(super) fn new() -> Self {
        let trailers = Trailers { count: 0, bytes: 0, name: [0; LONGEST_NAME], length: 0 };
        Self { at: At::Size, digits: 0, size: 0, extension: 0, extensions: 0, trailers }
    }

    pub(super) fn follow(&mut self, bytes: &[u8]) -> Followed {
        let mut at = 0;
        while at < bytes.len() {
            if self.at == At::Data {
                let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                let taken = left.min(bytes.len() - at);
                at += taken;
                self.size -= taken as u64;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.step(bytes[at]) {
                Ok(Some(next)) => self.at = next,
                Ok(None) => return Followed::Ended(at + 1),
                Err(why) => return Followed::Broken(at, Violation::bad(why)),
            }
            at += 1;
        }
        Followed::All
    }

    /// Takes a byte of structure; `None` is the end.
    fn step(&mut self, byte: u8) -> Result<Option<At>, &'static str> {
        let next = match self.at {
            At::Size => self.size(byte)?,
            At::Extension => self.extension(byte)?,
            At::SizeLf if byte == b'\n' => {
                (self.digits, self.extension) = (0, 0);
                if self.size == 0 { At::Name } else { At::Data }
            }
            At::DataCr if byte == b'\r' => At::DataLf,
            At::DataLf if byte == b'\n' => At::Size,
            At::Data | At::DataCr | At::DataLf => return Err("a chunk's data does not end with CRLF"),
            At::SizeLf => return Err("a chunk's line has a CR without its LF"),
            At::Name | At::Value | At::ValueLf => {
                self.trailers.bytes += 1;
                if self.trailers.bytes > MAX_TRAILERS {
                    return Err("the trailer section is longer than 16 KiB");
                }
                self.trailers.step(self.at, byte)?
            }
            At::EndLf if byte == b'\n' => return Ok(None),
            At::EndLf => return Err("the body does not end with CRLF"),
        };
        Ok(Some(next))
    }

    fn size(&mut self, byte: u8) -> Result<At, &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return Err("a chunk's line does not begin with a size in hex digits"),
            b'\r' => return Ok(At::SizeLf),
            b';' => return Ok(At::Extension),
            b'\n' => return Err("a chunk's line ends without its CR"),
            _ => return Err("a chunk's size has something other than hex digits"),
        };
        if self.digits == 0 {
            self.size = 0;
        }
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        // Fifteen digits are below what any reader's number can hold.
        if self.digits > MAX_DIGITS { Err("a chunk's size is too large") } else { Ok(At::Size) }
    }

    fn extension(&mut self, byte: u8) -> Result<At, &'static str> {
        if byte == b'\r' {
            return Ok(At::SizeLf);
        }
        if !is_text(byte) {
            return Err("a chunk's extension has a control character");
        }
        self.extension += 1;
        self.extensions += 1;
        if self.extension > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err("the chunks have too long extensions");
        }
        Ok(At::Extension)
    }
}

impl Trailers {
    fn step(&mut self, at: At, byte: u8) -> Result<At, &'static str> {
        match (at, byte) {
            (At::Name, b'\r') if self.length == 0 => Ok(At::EndLf),
            (At::Name, b':') if self.length > 0 => {
                self.name_is_allowed()?;
                self.count += 1;
                self.length = 0;
                if self.count > MAX_TRAILER_FIELDS {
                    Err("the trailer section has more than 100 fields")
                } else {
                    Ok(At::Value)
                }
            }
            (At::Name, _) if is_token(byte) => {
                if let Some(place) = self.name.get_mut(self.length) {
                    *place = byte.to_ascii_lowercase();
                }
                self.length += 1;
                Ok(At::Name)
            }
            (At::Name, _) => Err("a trailer's name is not a token"),
            (At::Value, b'\r') => Ok(At::ValueLf),
            (At::Value, _) if is_text(byte) => Ok(At::Value),
            (At::Value, _) => Err("a trailer has a control character, or an LF without its CR"),
            (_, b'\n') => Ok(At::Name),
            _ => Err("a trailer has a CR without its LF"),
        }
    }

    /// Fields that delimit or route a message must not come after it (RFC 9110, section 6.5.1). Others that make no sense
    /// there are dropped by whoever passes trailers on.
    fn name_is_allowed(&self) -> Result<(), &'static str> {
        let name = self.name.get(..self.length).unwrap_or_default();
        if NEVER_LATE.contains(&name) {
            Err("a field that delimits or routes a message is a trailer")
        } else {
            Ok(())
        }
    }
}

const MAX_DIGITS: u8 = 15;
const MAX_EXTENSION: u16 = 256;
const MAX_EXTENSIONS: u16 = 4 * 1024;
/// hyper's own limit, which we come before.
const MAX_TRAILERS: usize = 16 * 1024 - 64;
const LONGEST_NAME: usize = 20;
const NEVER_LATE: [&[u8]; 10] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"upgrade",
    b"te",
    b"trailer",
    b"keep-alive",
    b"expect",
    b"proxy-connection",
];
