//! Passing questions on to the name servers behind, as they came but for the id.
//!
//! Each goes from a socket of its own with an id of its own, and only an answer to that id and that question is taken:
//! what somebody else sends meanwhile is passed over.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::message::question_end;

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over UDP.
    Udp,
    /// Over TCP.
    Tcp,
}

/// Passes questions on.
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    ids: RandomState,
    asked: AtomicU64,
    /// Where questions of ours are under way: one that comes in from there has gone in a circle.
    open: Mutex<HashSet<u16>>,
}

impl Forwarder {
    /// To `servers`, but never to `own` addresses.
    pub fn new(servers: &[SocketAddr], own: &[SocketAddr]) -> Self {
        let servers = servers.iter().filter(|s| !own.contains(s)).copied().collect();
        Self { servers, ids: RandomState::new(), asked: AtomicU64::new(0), open: Mutex::default() }
    }

    /// Whether a question from `port` is one of ours that came back.
    pub fn is_own(&self, port: u16) -> bool {
        self.open().contains(&port)
    }

    /// The answer under the id of the question; `None` when nobody answers. Tries one server after the other; the answer
    /// of one that can not say is kept in case none can.
    pub async fn ask(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        let mut renamed = question.to_vec();
        let mut helpless = None;
        for server in self.servers.iter().cycle().take(ATTEMPTS.max(self.servers.len()).min(MOST_ATTEMPTS)) {
            renamed.get_mut(..2)?.copy_from_slice(&self.id().to_be_bytes());
            let asking = async {
                match way {
                    Way::Udp => self.ask_udp(*server, &renamed).await,
                    Way::Tcp => ask_tcp(*server, &renamed).await,
                }
            };
            match timeout(PATIENCE, asking).await {
                Ok(Ok(mut answer)) if answer.len() >= 4 => {
                    let can_say = !matches!(answer[3] & 15, SERVFAIL | NOTIMP | REFUSED);
                    answer[..2].copy_from_slice(&question[..2]);
                    if can_say {
                        return Some(answer);
                    }
                    helpless = Some(answer);
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server can not be asked"),
            }
            if helpless.is_some() && self.servers.len() == 1 {
                break;
            }
        }
        helpless
    }

    async fn ask_udp(&self, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let any =
            if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        // The port is the system's choice, which is at random.
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(server).await?;
        let _open = Open::new(self, socket.local_addr()?.port());
        socket.send(question).await?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if answers(question, &buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    /// An id that nobody can foretell: a keyed hash of a count.
    fn id(&self) -> u16 {
        #[allow(clippy::cast_possible_truncation, reason = "any part of a hash will do")]
        let id = self.ids.hash_one(self.asked.fetch_add(1, Relaxed)) as u16;
        id
    }

    fn open(&self) -> MutexGuard<'_, HashSet<u16>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port from which a question is under way.
struct Open<'a> {
    forwarder: &'a Forwarder,
    port: u16,
}

impl<'a> Open<'a> {
    fn new(forwarder: &'a Forwarder, port: u16) -> Self {
        forwarder.open().insert(port);
        Self { forwarder, port }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.forwarder.open().remove(&self.port);
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answers(question, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}

/// Whether `answer` is one to `question`: the same id, and the same question to the letter, whose case the server
/// returns as it came.
fn answers(question: &[u8], answer: &[u8]) -> bool {
    let is_answer = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let Some(end) = question_end(question) else { return false };
    let same = |range: std::ops::Range<usize>| question.get(range.clone()) == answer.get(range);
    // Some servers leave the question out of what they refuse.
    let bare = answer.get(4..6) == Some(&[0, 0]) && answer.len() == 12;
    is_answer && same(0..2) && (same(12..end) || bare)
}

/// How long one server may take.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How often a question is sent, at least and at most.
const ATTEMPTS: usize = 2;
const MOST_ATTEMPTS: usize = 3;
const LONGEST: usize = 65_535;
const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04Cart\0\0\x01\0\x01";

    #[test]
    fn only_an_answer_to_the_same_id_and_question_is_one() {
        let with = |at: usize, byte: u8| {
            let mut bytes = QUESTION.to_vec();
            bytes[2] = 0x81;
            bytes[at] = byte;
            bytes
        };
        assert!(answers(QUESTION, &with(2, 0x81)));
        for (at, byte) in [(0, 0), (2, 0x01), (13, b'c'), (18, 1)] {
            assert!(!answers(QUESTION, &with(at, byte)), "{at}");
        }
        assert!(!answers(QUESTION, b""));
        assert!(answers(QUESTION, b"\x12\x34\x81\x05\0\0\0\0\0\0\0\0"));
    }

    #[test]
    fn questions_never_go_to_ourselves() {
        let (own, other) = ("127.0.0.1:15053".parse().unwrap(), "127.0.0.1:53".parse().unwrap());
        assert_eq!(Forwarder::new(&[own, other], &[own]).servers, [other]);
    }
}
