//! What a connection speaks, told by what is declared and else by its first bytes, which stay where they are.
//!
//! What is declared wins. On ports that are known for protocols in which the server speaks first nothing is waited for.
//! Elsewhere the first bytes decide, and whoever says nothing for [`PATIENCE`] is taken for a client that waits for its
//! server. Between sidecars nothing is guessed: there ALPN says it.

use std::io;
use std::time::Duration;

use outrigger_mesh::{Port, Protocol};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::http::connections::Guard;
use crate::http::serve::Spoken;
use crate::listen::client_hello::{self, ClientHello};
use crate::telemetry::ports::Decision;

/// How long a client that says nothing is waited for before it is taken for one that wants to hear something first.
///
/// Long enough for a client on a bad line, short enough for one whose server speaks first at a port that nobody
/// declared; declaring the port makes the wait go away.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What a connection is to be served as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP.
    Http(Spoken),
    /// TLS of the application's own.
    Tls,
    /// Anything else.
    Opaque,
}

/// What a connection speaks, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it speaks.
    pub speaks: Speaks,
    /// How that is known.
    pub decision: Decision,
}

/// How a connection begins where only HTTP and TLS can be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// With a TLS handshake.
    Tls,
    /// With plaintext.
    Plain(Spoken),
}

/// What a connection to `port` speaks. `http` says that HTTP is meant there whatever is declared, so that silence is no
/// sign of anything else.
pub async fn detect(stream: &TcpStream, guard: &Guard, port: Port, http: bool) -> io::Result<Verdict> {
    let declared = |speaks| Ok(Verdict { speaks, decision: Decision::Declared });
    match port.protocol {
        Protocol::Tcp | Protocol::Tls => return declared(Speaks::Opaque),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
            return declared(match sniff(stream, guard).await? {
                First::Plain(spoken) => Speaks::Http(spoken),
                First::Tls => Speaks::Tls,
            });
        }
        Protocol::Detect => {}
    }
    if !http && speaks_first(port.number.get()) {
        return Ok(Verdict { speaks: Speaks::Opaque, decision: Decision::KnownPort });
    }
    let mut so_far = Vec::new();
    let looking = peek(stream, |bytes, last| {
        let judged = judge(bytes).or_else(|| last.then(|| undecided(bytes)));
        if judged.is_none() {
            so_far.clear();
            so_far.extend_from_slice(&bytes[..bytes.len().min(LINE)]);
        }
        judged
    });
    let limit = if http { guard.head_limit() } else { PATIENCE };
    match guard.unless_ending(tokio::time::timeout(limit, looking)).await {
        None => Err(io::ErrorKind::TimedOut.into()),
        Some(Ok(verdict)) => verdict,
        Some(Err(_silent)) if http => Err(io::ErrorKind::TimedOut.into()),
        Some(Err(_silent)) => Ok(Verdict { decision: Decision::Timeout, ..undecided(&so_far) }),
    }
}

/// What a connection of somebody who proves nothing speaks. At a port that nobody declared it is HTTP or TLS: bytes that
/// only nearly are HTTP must not reach the application around everything that judges HTTP.
pub async fn of_anybody(stream: &TcpStream, guard: &Guard, port: Port) -> io::Result<Verdict> {
    if port.protocol != Protocol::Detect || speaks_first(port.number.get()) {
        return detect(stream, guard, port, false).await;
    }
    let seen = |spoken, decision| Ok(Verdict { speaks: Speaks::Http(spoken), decision });
    match sniff(stream, guard).await? {
        First::Plain(Spoken::Http1) => seen(Spoken::Http1, Decision::Http1),
        First::Plain(Spoken::Http2) => seen(Spoken::Http2, Decision::Http2),
        First::Tls => match detect(stream, guard, port, true).await? {
            verdict if verdict.speaks == Speaks::Tls => Ok(verdict),
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
    }
}

/// What a connection begins with where only HTTP and TLS can be meant. One that has said nothing when its side ends is
/// let go soon: clients keep spare ones, and none of them may hold up the end.
pub async fn sniff(stream: &TcpStream, guard: &Guard) -> io::Result<First> {
    let look = peek(stream, |bytes, last| match bytes {
        [client_hello::HANDSHAKE, ..] => Some(First::Tls),
        [] => None,
        _ if bytes.starts_with(b"PRI") => Some(First::Plain(Spoken::Http2)),
        _ if b"PRI".starts_with(bytes) && !last => None,
        _ => Some(First::Plain(Spoken::Http1)),
    });
    match guard.unless_ending(tokio::time::timeout(guard.head_limit(), look)).await {
        Some(Ok(looked)) => looked,
        Some(Err(_)) | None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The ClientHello that a connection begins with.
pub async fn client_hello(stream: &TcpStream, guard: &Guard) -> io::Result<ClientHello> {
    let look = peek(stream, |bytes, last| match client_hello::read(bytes) {
        client_hello::Read::Part if !last => None,
        client_hello::Read::Part | client_hello::Read::Broken => Some(None),
        client_hello::Read::Whole(hello) => Some(Some(hello)),
    });
    match guard.unless_ending(tokio::time::timeout(guard.head_limit(), look)).await {
        Some(Ok(looked)) => looked?.ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Some(Err(_)) | None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Whether a connection that may be in plaintext begins with the handshake of another sidecar. One that says nothing is
/// waited for a little: a sidecar speaks at once.
pub async fn is_mesh(stream: &TcpStream, guard: &Guard) -> bool {
    let look = peek(stream, |bytes, last| match client_hello::read(bytes) {
        client_hello::Read::Part if !last => None,
        client_hello::Read::Part | client_hello::Read::Broken => Some(false),
        client_hello::Read::Whole(hello) => Some(hello.mesh),
    });
    matches!(guard.unless_ending(tokio::time::timeout(PATIENCE, look)).await, Some(Ok(Ok(true))))
}

/// Shows `judge` what has come, whenever that is more, until it says something. The flag tells that no more will come.
async fn peek<T>(stream: &TcpStream, mut judge: impl FnMut(&[u8], bool) -> Option<T>) -> io::Result<T> {
    loop {
        let last = stream.ready(Interest::READABLE).await?.is_read_closed();
        let looked = stream.try_io(Interest::READABLE, || {
            let mut bytes = [0; client_hello::LONGEST];
            let (_, len) = rustix::net::recv(stream, &mut bytes, RecvFlags::PEEK)?;
            match judge(&bytes[..len.min(bytes.len())], last || len == 0) {
                Some(judged) => Ok(judged),
                None if last || len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                // Makes the wait go on until there is more: the bytes are not taken.
                None => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match looked {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            looked => return looked,
        }
    }
}

/// What the first bytes say, once they are enough.
pub fn judge(bytes: &[u8]) -> Option<Verdict> {
    let seen = |speaks, decision| Some(Verdict { speaks, decision });
    let http1 = || seen(Speaks::Http(Spoken::Http1), Decision::Http1);
    let opaque = || seen(Speaks::Opaque, Decision::Opaque);
    if bytes.is_empty() {
        return None;
    }
    if client_hello::begins(bytes) {
        return if bytes.len() < client_hello::DECIDES { None } else { seen(Speaks::Tls, Decision::Tls) };
    }
    if bytes.starts_with(PREFACE) {
        return seen(Speaks::Http(Spoken::Http2), Decision::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    // A method, a blank, and a line that says HTTP: some databases are asked with GET and SET, too.
    let method = bytes.iter().position(|b| !is_token(*b)).unwrap_or(bytes.len());
    match bytes.get(method) {
        None if method <= LONGEST_METHOD => None,
        Some(b' ') if (1..=LONGEST_METHOD).contains(&method) => {
            let line = bytes.iter().take(LINE).position(|b| *b == b'\n');
            match line {
                Some(end) if says_http(&bytes[..end]) => http1(),
                None if bytes.len() < LINE => None,
                // A line this long is an address of the web, or nothing that we know.
                None if METHODS.contains(&&bytes[..method]) => http1(),
                Some(_) | None => opaque(),
            }
        }
        _ => opaque(),
    }
}

/// What is made of bytes that did not decide in time.
fn undecided(bytes: &[u8]) -> Verdict {
    let known = |m: &&[u8]| bytes.starts_with(m) && bytes.get(m.len()) == Some(&b' ');
    if METHODS.iter().any(known) {
        return Verdict { speaks: Speaks::Http(Spoken::Http1), decision: Decision::Http1 };
    }
    Verdict { speaks: Speaks::Opaque, decision: Decision::Opaque }
}

fn says_http(line: &[u8]) -> bool {
    line.windows(6).any(|w| w == b" HTTP/")
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Ports that are known for protocols in which the server speaks first or that have nothing to be told by: mail, MySQL,
/// Galera, PostgreSQL, Redis, Elasticsearch's own, memcached.
pub fn speaks_first(port: u16) -> bool {
    matches!(port, 25 | 587 | 3306 | 4444 | 5432 | 6379 | 9300 | 11211)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];
/// How much of a line may be looked at.
const LINE: usize = 1024;
const LONGEST_METHOD: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Verdict {
        judge(bytes).unwrap_or_else(|| undecided(bytes))
    }

    #[test]
    fn the_first_bytes_tell_protocols_apart() {
        let long = [&b"GET /"[..], &[b'a'; 2_000]].concat();
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Decision::Http1),
            (b"BREW /pot HTTP/1.0\n", Decision::Http1),
            (b"GET / HTTP/9.9 \r\n", Decision::Http1),
            (&long, Decision::Http1),
            (PREFACE, Decision::Http2),
            (&[0x16, 3, 1, 2, 0, 1, 0], Decision::Tls),
            (b"GET key\r\n", Decision::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Decision::Opaque),
            (b"PING\r\n", Decision::Opaque),
            (b"CONNECT {\"verbose\":false}\r\n", Decision::Opaque),
            (b"SSH-2.0-x\r\n", Decision::Opaque),
            (&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], Decision::Opaque),
            (&[0x16, 3, 1, 2, 0, 2, 0], Decision::Opaque),
        ] {
            assert_eq!(
                judge(bytes).map(|v| v.decision),
                Some(expected),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert_eq!(judge(b"GET / HT"), None);
        assert_eq!(undecided(b"GET / HT").decision, Decision::Http1);
        assert_eq!(undecided(b"GETTY").decision, Decision::Opaque);
    }

    /// No protocol needs to be looked at for longer than a line.
    const ENOUGH: usize = LINE;

    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        // Bytes of any kind, and ones that could go on for long.
        let tail = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            prop::collection::vec(prop_oneof![Just(b'a'), Just(b' '), Just(b'/')], 0..2_000),
            "[ -~]{0,40}( HTTP/1.1)?\r?\n".prop_map(String::into_bytes),
        ];
        let head = prop_oneof![
            Just(&b"GET /x HTTP/1.1\r\nHost: a\r\n"[..]),
            Just(PREFACE),
            Just(&b"PRI"[..]),
            Just(&b"GET "[..]),
            Just(&[0x16, 3, 1, 0, 9, 1][..]),
            Just(&[0x16, 3][..]),
            Just(&b"SET a b\r\n"[..]),
            Just(&b""[..]),
        ];
        (head, tail).prop_map(|(head, tail)| [head, &tail].concat())
    }

    proptest! {
        #[test]
        fn the_verdict_is_the_same_however_the_bytes_are_split(bytes in beginnings()) {
            // What is seen first of growing bytes is what is seen of all of them.
            let first = (0..=bytes.len()).find_map(|end| judge(&bytes[..end]));
            prop_assert_eq!(first, judge(&bytes));
            prop_assert_eq!(first.unwrap_or_else(|| undecided(&bytes)), whole(&bytes));
        }

        #[test]
        fn a_line_is_enough_for_a_verdict_so_no_more_is_held(bytes in beginnings()) {
            let read = &bytes[..bytes.len().min(ENOUGH)];
            prop_assert_eq!(judge(read).is_none(), judge(&bytes).is_none() && bytes.len() < ENOUGH);
            prop_assert!(client_hello::LONGEST >= ENOUGH, "what is looked at holds a line");
        }
    }
}
