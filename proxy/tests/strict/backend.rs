//! The raw backend: it records every byte, reads requests with the judge's reading, and answers with bytes that a case
//! gives it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_testkit::Owned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::frames::{self, PREFACE, Said, frame};
use crate::reading::{self, Message, Read};

/// How the requests of a case are answered. The probe is always answered in order.
#[derive(Clone, Debug, Default)]
pub enum Script {
    /// 200, with the target as body.
    #[default]
    Echo,
    /// With these bytes, once the request is there to its end.
    Then(Vec<Part>),
    /// With these bytes, once its head is there.
    Early(Vec<Part>),
    /// With these bytes, once the request is there to its end; what follows it is no HTTP.
    Tunnel(Vec<Part>),
}

/// A step of an answer.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes.
    Send(Vec<u8>),
    /// Milliseconds of silence.
    Pause(u64),
    /// Milliseconds in which nothing may come.
    Quiet(u64),
    /// The end of the connection.
    Close,
    /// Its end by RST.
    Reset,
}

/// The target that asks whether the way is still clean.
pub const PROBE: &str = "/probe";

/// A backend that records.
pub struct Backend {
    pub addr: SocketAddr,
    received: Received,
    tunnels: bool,
    _task: Owned,
}

type Received = Arc<Mutex<Vec<Vec<u8>>>>;

impl Backend {
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Received::default();
        let tunnels = matches!(script, Script::Tunnel(_));
        let task = Owned::spawn(accept(listener, Arc::clone(&received), Arc::new(script)));
        Self { addr, received, tunnels, _task: task }
    }

    /// What has come so far, read by the judge.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for (at, bytes) in self.received.lock().unwrap().iter().enumerate() {
            if bytes.starts_with(PREFACE) {
                seen.add_frames(at, bytes);
            } else {
                seen.add(at, bytes, self.tunnels);
            }
        }
        seen
    }
}

/// What a backend has got.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whole requests of the case, and on which connection each came.
    pub requests: Vec<(usize, Message)>,
    /// Requests that have begun and not ended.
    pub unfinished: Vec<Option<Message>>,
    /// What came through a tunnel.
    pub tunnelled: Vec<u8>,
    /// The connections on which the probe came.
    pub probes: Vec<usize>,
    /// What must never be sent.
    pub faults: Vec<String>,
    /// The bytes of every connection, for people.
    pub bytes: Vec<String>,
}

impl Seen {
    fn add(&mut self, at: usize, bytes: &[u8], tunnels: bool) {
        self.bytes.push(String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned());
        let mut rest = bytes;
        loop {
            match reading::request(rest) {
                Read::Nothing => return,
                Read::Part(part) => return self.unfinished.push(part),
                Read::Fault(why) => return self.faults.push(why),
                Read::Whole(message, length) => {
                    let probe = message.word(1) == PROBE;
                    self.whole(at, message);
                    rest = &rest[length..];
                    if tunnels && !probe {
                        self.tunnelled.extend_from_slice(rest);
                        return;
                    }
                }
            }
        }
    }

    fn add_frames(&mut self, at: usize, bytes: &[u8]) {
        let mut said = Said::default();
        said.hear(bytes);
        self.faults.extend(said.fault.clone());
        for stream in said.streams.values().filter(|s| !s.blocks.is_empty()) {
            self.bytes.push(format!("{stream:?}").chars().take(2000).collect());
            match stream.request() {
                Err(why) => self.faults.push(why),
                Ok(message) if stream.ended && stream.reset.is_none_or(|code| code == 0) => {
                    self.whole(at, message);
                }
                Ok(message) => self.unfinished.push(Some(message)),
            }
        }
    }

    fn whole(&mut self, at: usize, message: Message) {
        if message.word(1) == PROBE { self.probes.push(at) } else { self.requests.push((at, message)) }
    }
}

async fn accept(listener: TcpListener, received: Received, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let _best_effort = stream.set_nodelay(true);
        let number = {
            let mut all = received.lock().unwrap();
            all.push(Vec::new());
            all.len() - 1
        };
        connections.spawn(serve(stream, number, Arc::clone(&received), Arc::clone(&script)));
    }
}

async fn serve(mut stream: TcpStream, number: usize, received: Received, script: Arc<Script>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut answered = Answered::default();
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        let all = {
            let mut all = received.lock().unwrap();
            all[number].extend_from_slice(&buffer[..read]);
            all[number].clone()
        };
        if answered.tunnels {
            continue;
        }
        let go_on = if PREFACE.starts_with(&all[..all.len().min(PREFACE.len())]) {
            answered.frames.hear(&buffer[..read]);
            answer_frames(&mut stream, &script, &mut answered).await
        } else {
            answer(&mut stream, &all, &script, &mut answered).await
        };
        if !go_on {
            return;
        }
    }
}

/// How far a connection has been answered.
#[derive(Default)]
struct Answered {
    /// Bytes of requests that are through.
    bytes: usize,
    /// The request that is under way has its answer.
    early: bool,
    /// What follows is no HTTP.
    tunnels: bool,
    frames: Said,
    hello: bool,
    acks: usize,
    streams: Vec<u32>,
}

async fn answer(stream: &mut TcpStream, all: &[u8], script: &Script, so_far: &mut Answered) -> bool {
    loop {
        let (message, length) = match reading::request(&all[so_far.bytes..]) {
            Read::Whole(message, length) => (message, Some(length)),
            Read::Part(Some(message)) => (message, None),
            Read::Nothing | Read::Part(None) => return true,
            Read::Fault(_) => return false,
        };
        let target = message.word(1).to_owned();
        let parts = match (script, length) {
            _ if so_far.early => Vec::new(),
            (_, Some(_)) if target == PROBE => vec![Part::Send(ok("probe", &message))],
            (Script::Early(parts), _) => {
                so_far.early = true;
                parts.clone()
            }
            (Script::Echo, Some(_)) => vec![Part::Send(ok(&target, &message))],
            (Script::Tunnel(parts), Some(_)) => {
                so_far.tunnels = true;
                parts.clone()
            }
            (Script::Then(parts), Some(_)) => parts.clone(),
            (_, None) => Vec::new(),
        };
        if !play(stream, &parts).await {
            return false;
        }
        let Some(length) = length else { return true };
        so_far.bytes += length;
        so_far.early = false;
        if so_far.tunnels {
            return true;
        }
    }
}

async fn answer_frames(stream: &mut TcpStream, script: &Script, so_far: &mut Answered) -> bool {
    let mut out = Vec::new();
    if !std::mem::replace(&mut so_far.hello, true) {
        out.extend(frame(frames::SETTINGS, 0, 0, frames::setting(1, 0)));
    }
    for _ in so_far.acks..so_far.frames.settings {
        out.extend(frame(frames::SETTINGS, frames::ACK, 0, ""));
    }
    so_far.acks = so_far.frames.settings;
    for ping in so_far.frames.pings.drain(..) {
        out.extend(frame(frames::PING, frames::ACK, 0, ping));
    }
    let mut parts = vec![Part::Send(out)];
    for (id, said) in &so_far.frames.streams {
        let early = matches!(script, Script::Early(_)) && !said.blocks.is_empty();
        if so_far.streams.contains(id) || !(said.ended || early) {
            continue;
        }
        let target = said.header(":path").unwrap_or_default();
        let body = if target == PROBE { "probe" } else { &target };
        match script {
            Script::Then(given) | Script::Early(given) | Script::Tunnel(given) if target != PROBE => {
                parts.extend(given.clone());
            }
            _ if said.ended => {
                let head = frames::headers(*id, false, &[(":status", "200"), ("x-app", "yes")]);
                parts.push(Part::Send([head, frames::data(*id, true, body)].concat()));
            }
            _ => continue,
        }
        so_far.streams.push(*id);
    }
    play(stream, &parts).await
}

async fn play(stream: &mut TcpStream, parts: &[Part]) -> bool {
    for part in parts {
        match part {
            Part::Send(bytes) => {
                if stream.write_all(bytes).await.is_err() {
                    return false;
                }
            }
            Part::Pause(millis) => sleep(Duration::from_millis(*millis)).await,
            Part::Quiet(millis) => {
                let mut early = [0; 1];
                let came = timeout(Duration::from_millis(*millis), stream.peek(&mut early)).await;
                if matches!(came, Ok(Ok(1..))) {
                    let _gone =
                        stream.write_all(b"HTTP/1.1 200 Too early\r\nContent-Length: 0\r\n\r\n").await;
                    return false;
                }
            }
            Part::Close => {
                // Orderly: what was sent arrives before the end does.
                let _gone = stream.shutdown().await;
                return false;
            }
            Part::Reset => {
                let _best_effort = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                return false;
            }
        }
    }
    true
}

fn ok(body: &str, request: &Message) -> Vec<u8> {
    let shown = if request.word(0) == "HEAD" { "" } else { body };
    format!("HTTP/1.1 200 OK\r\nX-App: yes\r\nContent-Length: {}\r\n\r\n{shown}", body.len()).into_bytes()
}
