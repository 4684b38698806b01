//! HTTP/2 frames, written by hand.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, and SETTINGS with `settings`.
pub(crate) fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// The header block of GET `path` at `host`: nothing in it is added to the table.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    [&[0x82, 0x86][..], &literal(4, path), &literal(1, host)].concat()
}

/// The header block of POST `path` at `host`.
pub(crate) fn post(host: &str, path: &str) -> Vec<u8> {
    [&[0x83, 0x86][..], &literal(4, path), &literal(1, host)].concat()
}

/// A value of a name of the static table, which is not added to the dynamic one.
fn literal(name: u8, value: &str) -> Vec<u8> {
    [&[name][..], &string(value.as_bytes())].concat()
}

/// A line that is not added to the table.
pub(crate) fn line(name: &str, value: &str) -> Vec<u8> {
    [&[0x00][..], &string(name.as_bytes()), &string(value.as_bytes())].concat()
}

/// A line that is added to the table, where it gets the index 62.
pub(crate) fn line_kept(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &string(name.as_bytes()), &string(value.as_bytes())].concat()
}

/// The line that was added last.
pub(crate) const LAST_LINE: u8 = 0x80 + 62;

fn string(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if text.len() < 127 {
        out.push(u8::try_from(text.len()).unwrap());
    } else {
        out.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        out.push(u8::try_from(rest).unwrap());
    }
    out.extend(text);
    out
}

/// What a peer sent, frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    /// Takes bytes and gives `(kind, flags, stream, payload)` of each frame that is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        self.0.extend_from_slice(bytes);
        let mut all = Vec::new();
        let mut at = 0;
        while self.0.len() >= at + 9 {
            let head = &self.0[at..at + 9];
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if self.0.len() < at + 9 + length {
                break;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            all.push((head[3], head[4], stream, self.0[at + 9..at + 9 + length].to_vec()));
            at += 9 + length;
        }
        self.0.drain(..at);
        all
    }
}
