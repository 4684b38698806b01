//! HTTP/2 by hand: frames as bytes, and what a side of a connection has said so far. Nothing here refuses to write what
//! is wrong.

use std::collections::BTreeMap;

use crate::hpack::{self, Decoder, Field};
use crate::reading::Message;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The preface with settings that keep the peer's header table empty.
pub fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, setting(1, 0))].concat()
}

/// One setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// HEADERS with END_HEADERS.
pub fn headers(stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(end), stream, hpack::encode(fields))
}

/// DATA.
pub fn data(stream: u32, end: bool, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, u8::from(end), stream, bytes)
}

/// The pseudo headers of a request, and what follows them.
pub fn with<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![(":method", method), (":scheme", "http"), (":authority", "cart"), (":path", path)];
    fields.extend_from_slice(more);
    fields
}

/// What one side of a connection has said.
#[derive(Debug, Default)]
pub struct Said {
    /// What was said on each stream.
    pub streams: BTreeMap<u32, Stream>,
    /// The code of a GOAWAY.
    pub goaway: Option<u32>,
    /// SETTINGS without ACK that have come.
    pub settings: usize,
    /// PINGs without ACK that have come.
    pub pings: Vec<Vec<u8>>,
    /// What can not be read.
    pub fault: Option<String>,
    decoder: Decoder,
    open_block: Option<(u32, bool, Vec<u8>)>,
    rest: Vec<u8>,
    begun: bool,
}

/// What was said on one stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub blocks: Vec<Vec<Field>>,
    pub body: Vec<u8>,
    pub ended: bool,
    pub reset: Option<u32>,
}

impl Said {
    /// Takes the next bytes.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        if !self.begun {
            if self.rest.len() < PREFACE.len() && PREFACE.starts_with(&self.rest) {
                return;
            }
            self.begun = true;
            if self.rest.starts_with(PREFACE) {
                self.rest.drain(..PREFACE.len());
            }
        }
        while self.rest.len() >= 9 {
            let length =
                usize::from(self.rest[0]) << 16 | usize::from(self.rest[1]) << 8 | usize::from(self.rest[2]);
            if self.rest.len() < 9 + length {
                return;
            }
            let bytes: Vec<u8> = self.rest.drain(..9 + length).collect();
            let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
            self.frame(bytes[3], bytes[4], stream, &bytes[9..]);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let number = |at: usize| {
            payload.get(at..at + 4).map_or(u32::MAX, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        match kind {
            DATA => {
                let stream = self.streams.entry(id).or_default();
                stream.body.extend_from_slice(unpadded(flags, payload));
                stream.ended |= flags & END_STREAM != 0;
            }
            HEADERS => {
                let block = unpadded(flags, payload);
                let block = if flags & 0x20 == 0 { block } else { block.get(5..).unwrap_or_default() };
                self.open_block = Some((id, flags & END_STREAM != 0, block.to_vec()));
            }
            CONTINUATION => match &mut self.open_block {
                Some((_, _, block)) => block.extend_from_slice(payload),
                None => self.fault = Some("CONTINUATION without HEADERS".into()),
            },
            RST_STREAM => self.streams.entry(id).or_default().reset = Some(number(0)),
            SETTINGS if flags & ACK == 0 => self.settings += 1,
            PING if flags & ACK == 0 => self.pings.push(payload.to_vec()),
            GOAWAY => self.goaway = Some(number(4)),
            _ => {}
        }
        if matches!(kind, HEADERS | CONTINUATION)
            && flags & END_HEADERS != 0
            && let Some((id, end, block)) = self.open_block.take()
        {
            let stream = self.streams.entry(id).or_default();
            match self.decoder.decode(&block) {
                Some(fields) => stream.blocks.push(fields),
                None => self.fault = Some("a header block that can not be read".into()),
            }
            stream.ended |= end;
        }
    }
}

fn unpadded(flags: u8, payload: &[u8]) -> &[u8] {
    match payload.split_first() {
        Some((pad, rest)) if flags & PADDED != 0 => &rest[..rest.len().saturating_sub(usize::from(*pad))],
        _ => payload,
    }
}

impl Stream {
    /// The final answer's status, if its head is there.
    pub fn status(&self) -> Option<u16> {
        self.blocks.iter().filter_map(|b| value(b, ":status")?.parse().ok()).find(|s| *s >= 200)
    }

    /// A header of any block.
    pub fn header(&self, name: &str) -> Option<String> {
        self.blocks.iter().find_map(|b| value(b, name))
    }

    /// The request on this stream, held against RFC 9113, section 8: what a server must refuse is a fault.
    pub fn request(&self) -> Result<Message, String> {
        let Some(first) = self.blocks.first() else { return Err("no HEADERS".into()) };
        let mut message = Message { body: self.body.clone(), ..Message::default() };
        let mut regular = false;
        for (name, value) in first {
            let (name, value) = (text(name), text(value));
            match name.strip_prefix(':') {
                Some(_) if regular => return Err(format!("{name} behind a header")),
                Some("method" | "scheme" | "authority" | "path") => {}
                Some(_) => return Err(format!("pseudo header {name}")),
                None => regular = true,
            }
            sound(&name, &value)?;
            message.headers.push((name, value));
        }
        for name in [":method", ":scheme", ":authority", ":path"] {
            if message.all(name).len() != 1 {
                return Err(format!("{name} is there {} times", message.all(name).len()));
            }
        }
        message.line =
            format!("{} {} HTTP/2", message.get(":method").unwrap(), message.get(":path").unwrap());
        if message.get("host").is_some_and(|h| Some(h) != message.get(":authority")) {
            return Err("Host beside another :authority".into());
        }
        let authority = message.get(":authority").unwrap().to_owned();
        message.headers.retain(|(n, _)| !n.starts_with(':') && n != "host");
        message.headers.push(("host".into(), authority));
        if self.ended && message.get("content-length").is_some_and(|n| n != self.body.len().to_string()) {
            return Err(format!("content-length beside {} bytes", self.body.len()));
        }
        for (name, value) in self.blocks.iter().skip(1).flatten() {
            let (name, value) = (text(name), text(value));
            if name.starts_with(':') {
                return Err(format!("{name} among the trailers"));
            }
            sound(&name, &value)?;
            message.trailers.push((name, value));
        }
        Ok(message)
    }
}

fn sound(name: &str, value: &str) -> Result<(), String> {
    let plain = name.strip_prefix(':').unwrap_or(name);
    let token =
        |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b"()<>@,;:\\\"/[]?={}".contains(&b);
    if plain.is_empty() || !plain.bytes().all(token) {
        return Err(format!("header name {name:?}"));
    }
    if value.contains(['\r', '\n', '\0']) || value.trim_matches([' ', '\t']) != value {
        return Err(format!("value of {name}: {value:?}"));
    }
    let hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if hop.contains(&name) || (name == "te" && value != "trailers") {
        return Err(format!("{name} in HTTP/2"));
    }
    Ok(())
}

fn value(block: &[Field], name: &str) -> Option<String> {
    block.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| text(v))
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}
