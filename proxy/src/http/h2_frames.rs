//! The heads of HTTP/2 frames as they pass, in whatever pieces: 9 bytes each, nothing copied, nothing kept.
//!
//! This reads no payload but the error code of RST_STREAM and GOAWAY. Whether a frame is valid is for h2 to say.

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it is.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream it belongs to.
    pub stream: u32,
    /// The length of its payload.
    pub length: u32,
    /// The error code of RST_STREAM and GOAWAY, where the payload is long enough for one.
    pub code: Option<u32>,
}

impl Frame {
    /// Whether it has `flag`.
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Follows one direction of a connection.
#[derive(Debug)]
pub(super) struct Follower {
    head: [u8; LONGEST],
    have: usize,
    need: usize,
    /// Bytes of the payload, or of the preface, that are still to come.
    left: u32,
    /// What the payload under way belongs to.
    within: u8,
}

impl Follower {
    /// What the client sends: it begins with the preface.
    pub(super) fn of_client() -> Self {
        Self { left: PREFACE, within: PREFACE_KIND, ..Self::of_server() }
    }

    /// What the server sends.
    pub(super) fn of_server() -> Self {
        Self { head: [0; LONGEST], have: 0, need: HEAD, left: 0, within: 0 }
    }

    /// Takes what passed and tells each frame whose head is complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skip = bytes.len().min(self.left as usize);
                self.left -= u32::try_from(skip).unwrap_or(u32::MAX);
                bytes = &bytes[skip..];
                continue;
            }
            let take = bytes.len().min(self.need - self.have);
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have < self.need {
                return;
            }
            let code_at = match (self.head[3], self.length()) {
                (RST_STREAM, 4) => HEAD,
                (GOAWAY, 8..) => HEAD + 4,
                _ => 0,
            };
            if code_at > 0 && self.have == HEAD {
                self.need = code_at + 4;
                continue;
            }
            tell(self.frame(code_at));
            let told = u32::try_from(self.have - HEAD).unwrap_or(0);
            self.within = self.head[3];
            self.left = self.length() - told;
            (self.have, self.need) = (0, HEAD);
        }
    }

    /// Whether the last byte was the last of a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Whether a frame other than DATA, or the preface, has begun and not ended.
    pub(super) fn is_within_control(&self) -> bool {
        self.have > 0 || (self.left > 0 && self.within != DATA)
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    fn frame(&self, code_at: usize) -> Frame {
        let word = |at: usize| {
            u32::from_be_bytes([self.head[at], self.head[at + 1], self.head[at + 2], self.head[at + 3]])
        };
        Frame {
            kind: self.head[3],
            flags: self.head[4],
            stream: word(5) & (u32::MAX >> 1),
            length: self.length(),
            code: (code_at > 0).then(|| word(code_at)),
        }
    }
}

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;

const HEAD: usize = 9;
const LONGEST: usize = HEAD + 8;
const PREFACE: u32 = 24;
/// No frame of ours to know: stands for the preface.
const PREFACE_KIND: u8 = 0xff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn frames_are_told_alike_in_whatever_pieces_they_come(
            frames in proptest::collection::vec(
                (any::<u8>(), any::<u8>(), 0_u32..1 << 31, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in proptest::collection::vec(1_usize..30, 1..40),
        ) {
            let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            let mut expected = Vec::new();
            for (kind, flags, stream, payload) in &frames {
                all.extend(bytes(*kind, *flags, *stream, payload));
                let word = |at: usize| {
                    payload.get(at..at + 4).map(|w| u32::from_be_bytes(w.try_into().unwrap()))
                };
                let code = match (*kind, payload.len()) {
                    (RST_STREAM, 4) => word(0),
                    (GOAWAY, 8..) => word(4),
                    _ => None,
                };
                let length = u32::try_from(payload.len()).unwrap();
                expected.push(Frame { kind: *kind, flags: *flags, stream: *stream, length, code });
            }
            let (mut follower, mut told) = (Follower::of_client(), Vec::new());
            let (mut rest, mut cut) = (&all[..], cuts.iter().cycle());
            prop_assert!(follower.is_within_control());
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                follower.feed(piece, |f| told.push(f));
                rest = next;
            }
            prop_assert_eq!(told, expected);
            prop_assert!(follower.is_between_frames() && !follower.is_within_control());
        }
    }

    #[test]
    fn half_a_head_is_seen_and_half_of_data_is_not() {
        let mut follower = Follower::of_server();
        follower.feed(&bytes(DATA, 0, 1, b"abc")[..10], |_| ());
        assert!(!follower.is_between_frames() && !follower.is_within_control());
        let mut follower = Follower::of_server();
        follower.feed(&bytes(HEADERS, 0, 1, b"abc")[..10], |_| ());
        assert!(follower.is_within_control());
        let mut follower = Follower::of_server();
        follower.feed(&bytes(HEADERS, 0, 1, b"abc")[..5], |_| ());
        assert!(follower.is_within_control());
    }
}
