//! A small authoritative name server whose zone and mood can be changed at any moment.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::task::Owned;

/// A name server on 127.0.0.1, UDP and TCP at the same port. Dropped, it is gone.
#[derive(Debug)]
pub struct DnsServer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: [Owned; 2],
}

/// How it behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Normal,
    /// It never answers.
    Silent,
    /// It says that it can not.
    ServFail,
    /// Over UDP it says that the answer is too long; over TCP it answers.
    Truncated,
    /// It answers, but only after this time.
    Slow(Duration),
    /// It sends bytes that are no message.
    Garbage,
    /// It first sends an answer under another id, as a forger would who has to guess, then its own.
    ForgedFirst,
}

#[derive(Debug, Default)]
struct State {
    zone: HashMap<(Name, RecordType), Vec<Record>>,
    mood: Mood,
    /// The latest questions, name and type and transport.
    asked: VecDeque<(String, RecordType, Transport)>,
    raw: VecDeque<Vec<u8>>,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over UDP.
    Udp,
    /// Over TCP.
    Tcp,
}

impl DnsServer {
    /// A server with an empty zone: every name is NXDOMAIN.
    pub async fn start() -> Self {
        let (udp, tcp) = bind_both().await;
        let addr = udp.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let tasks = [
            Owned::spawn(serve_udp(Arc::new(udp), Arc::clone(&state))),
            Owned::spawn(serve_tcp(tcp, Arc::clone(&state))),
        ];
        Self { addr, state, _tasks: tasks }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The addresses of `name` from now on, of both families; none means that the name is there without addresses.
    pub fn host(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let name = fqdn(name);
        let of = |wanted: RecordType| {
            addresses
                .iter()
                .map(|ip| Record::from_rdata(name.clone(), ttl, RData::from(*ip)))
                .filter(|r| r.record_type() == wanted)
                .collect::<Vec<_>>()
        };
        let mut state = lock(&self.state);
        for kind in [RecordType::A, RecordType::AAAA] {
            state.zone.insert((name.clone(), kind), of(kind));
        }
    }

    /// The SRV records of `name`: priority, weight, port, host.
    pub fn srv(&self, name: &str, ttl: u32, records: &[(u16, u16, u16, &str)]) {
        let name = fqdn(name);
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let data = SRV::new(*priority, *weight, *port, fqdn(host));
            Record::from_rdata(name.clone(), ttl, RData::SRV(data))
        };
        let records = records.iter().map(record).collect();
        lock(&self.state).zone.insert((name.clone(), RecordType::SRV), records);
    }

    /// From now on there is no such name.
    pub fn forget(&self, name: &str) {
        let name = fqdn(name);
        lock(&self.state).zone.retain(|(known, _), _| *known != name);
    }

    /// How it behaves from now on.
    pub fn mood(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    /// How often `name` was asked for, whatever the type.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.state).asked.iter().filter(|(n, _, _)| n == name).count()
    }

    /// How often `name` was asked for in this `kind`: `A`, `AAAA`.
    pub fn asked_for(&self, name: &str, kind: &str) -> usize {
        lock(&self.state).asked.iter().filter(|(n, k, _)| n == name && k.to_string() == kind).count()
    }

    /// How often `name` was asked for over `transport`.
    pub fn asked_over(&self, name: &str, transport: Transport) -> usize {
        lock(&self.state).asked.iter().filter(|(n, _, t)| n == name && *t == transport).count()
    }

    /// All questions so far, of every name.
    pub fn questions(&self) -> usize {
        lock(&self.state).asked.len()
    }

    /// The bytes of the latest question.
    pub fn latest(&self) -> Option<Vec<u8>> {
        lock(&self.state).raw.back().cloned()
    }
}

async fn bind_both() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("an address")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

async fn serve_udp(socket: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
        let (question, socket, state) = (buffer[..n].to_vec(), Arc::clone(&socket), Arc::clone(&state));
        // Ends with its answer, at the latest when the runtime of the test does.
        tokio::spawn(async move {
            for answer in answers(&question, &state, Transport::Udp).await {
                let _gone = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; usize::from(length)];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                for answer in answers(&question, &state, Transport::Tcp).await {
                    let length = u16::try_from(answer.len()).expect("a short answer");
                    let framed = [&length.to_be_bytes()[..], &answer].concat();
                    if stream.write_all(&framed).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// What to send for a question, in order.
async fn answers(question: &[u8], state: &Mutex<State>, transport: Transport) -> Vec<Vec<u8>> {
    let Ok(asked) = Message::from_vec(question) else { return vec![] };
    let Some(query) = asked.queries.first() else { return vec![] };
    let (mood, answer) = {
        let mut state = lock(state);
        let name = query.name().to_lowercase();
        let text = name.to_ascii();
        state.asked.push_back((text.trim_end_matches('.').to_owned(), query.query_type(), transport));
        state.raw.push_back(question.to_vec());
        if state.asked.len() > REMEMBERED {
            state.asked.pop_front();
            state.raw.pop_front();
        }
        (state.mood, state.answer(&asked, &name, query.query_type()))
    };
    let bytes = |message: Message| message.to_vec().expect("a message");
    match mood {
        Mood::Silent => vec![],
        Mood::Garbage => vec![b"\x00\x01garbage".to_vec()],
        Mood::ServFail => {
            let mut failed = answer;
            failed.answers.clear();
            failed.metadata.response_code = ResponseCode::ServFail;
            vec![bytes(failed)]
        }
        Mood::Truncated if transport == Transport::Udp => {
            let mut cut = answer;
            cut.answers.clear();
            cut.metadata.truncation = true;
            vec![bytes(cut)]
        }
        Mood::Normal | Mood::Truncated => vec![bytes(answer)],
        Mood::Slow(wait) => {
            tokio::time::sleep(wait).await;
            vec![bytes(answer)]
        }
        Mood::ForgedFirst => {
            let mut forged = answer.clone();
            forged.metadata.id = forged.metadata.id.wrapping_add(1);
            forged.answers.clear();
            vec![bytes(forged), bytes(answer)]
        }
    }
}

impl State {
    fn answer(&self, asked: &Message, name: &Name, kind: RecordType) -> Message {
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.metadata.authoritative = true;
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_queries(asked.queries.iter().cloned());
        match self.zone.get(&(name.clone(), kind)) {
            Some(records) if !records.is_empty() => {
                answer.add_answers(records.iter().cloned());
            }
            _ => {
                let known = self.zone.keys().any(|(known, _)| known == name);
                let nobody = ResponseCode::NXDomain;
                answer.metadata.response_code = if known { ResponseCode::NoError } else { nobody };
                let soa = SOA::new(fqdn("ns.test"), fqdn("admin.test"), 1, 60, 60, 60, 1);
                answer.add_authority(Record::from_rdata(fqdn("test"), 1, RData::SOA(soa)));
            }
        }
        answer
    }
}

fn fqdn(name: &str) -> Name {
    let mut name = Name::from_ascii(name).expect("a name").to_lowercase();
    name.set_fqdn(true);
    name
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

const REMEMBERED: usize = 10_000;
