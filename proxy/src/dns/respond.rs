//! Answers applications' questions: names of the mesh with virtual addresses, everything else from the name servers
//! behind.
//!
//! A name below one of the mesh's suffixes is never asked for outside: unknown ones do not exist, and when the control
//! plane can not be asked, neither can we say. Any other name may be a host name of a service too; what is not goes on
//! as it came. Only local clients are served (the settings see to that), so that nobody can have answers sent elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use outrigger_mesh::{Hostname, MeshSettings, Service, TrustDomain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::registry::{Discovery, Found, Registry};
use crate::dns::forward::{Forwarder, Way};
use crate::dns::message::{self, Asked, Input, Kind, Reply};
use crate::live::Live;

/// Answers applications' questions.
pub struct Responder {
    registry: Arc<Registry>,
    live: Arc<Live>,
    forwarder: Forwarder,
    /// What holds until the mesh's own settings are known.
    assumed: MeshSettings,
    busy: Semaphore,
    connections: Arc<Semaphore>,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    /// Where they are.
    pub address: SocketAddr,
}

impl Sockets {
    /// Both protocols at the same port. Port 0 is the system's choice.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut tries = if address.port() == 0 { 16 } else { 1 };
        loop {
            tries -= 1;
            let tcp = TcpListener::bind(address).await?;
            let bound = tcp.local_addr()?;
            match UdpSocket::bind(bound).await {
                Ok(udp) => return Ok(Self { udp, tcp, address: bound }),
                Err(error) if tries == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }
}

impl Responder {
    /// Passes on to `servers` what is not of the mesh, but never to itself at `own`.
    pub fn new(
        registry: Arc<Registry>,
        live: Arc<Live>,
        servers: &[SocketAddr],
        own: &[SocketAddr],
        trust_domain: TrustDomain,
    ) -> Self {
        let forwarder = Forwarder::new(servers, own);
        let (busy, connections) = (Semaphore::new(MOST_BUSY), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
        Self { registry, live, forwarder, assumed: MeshSettings::new(trust_domain), busy, connections }
    }

    /// Serves at `sockets` for as long as it is let.
    pub async fn run(self: Arc<Self>, sockets: Sockets) {
        let Sockets { udp, tcp, .. } = sockets;
        tokio::join!(Arc::clone(&self).serve_udp(Arc::new(udp)), self.serve_tcp(tcp));
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut waiting: JoinSet<()> = JoinSet::new();
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, from) = tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok(received) => received,
                    Err(error) => {
                        tracing::debug!(%error, "a question can not be received");
                        sleep(AFTER_ERROR).await;
                        continue;
                    }
                },
                Some(_ended) = waiting.join_next() => continue,
            };
            let bytes = &buffer[..length];
            let Some(asked) = self.read(bytes, from, &socket).await else { continue };
            match self.at_once(&asked) {
                Some(Step::Say(reply)) => {
                    let _gone = socket.send_to(&self.say(&asked, &reply), from).await;
                }
                step => {
                    // Those who ask too much at a time are not heard; clients ask again.
                    if waiting.len() >= MOST_BUSY {
                        count(&self.live.dns.dropped);
                        continue;
                    }
                    let (this, socket, bytes) = (Arc::clone(&self), Arc::clone(&socket), bytes.to_vec());
                    waiting.spawn(async move {
                        let answer = this.later(&asked, step, &bytes, Way::Udp).await;
                        let answer = if answer.len() > asked.longest() { asked.truncated() } else { answer };
                        let _gone = socket.send_to(&answer, from).await;
                    });
                }
            }
        }
    }

    /// The question in `bytes`, if it is one. What is refused is told so.
    async fn read(&self, bytes: &[u8], from: SocketAddr, socket: &UdpSocket) -> Option<Asked> {
        let asked = match message::read(bytes) {
            Input::Asked(asked) => *asked,
            Input::Refused(answer) => {
                count(&self.live.dns.malformed);
                let _gone = socket.send_to(&answer, from).await;
                return None;
            }
            Input::Ignored => {
                count(&self.live.dns.malformed);
                return None;
            }
        };
        if self.forwarder.is_own(from.port()) {
            // Ours, sent on and led back here. Answered, it ends here.
            count(&self.live.dns.loops);
            let _gone = socket.send_to(&self.say(&asked, &Reply::Failed), from).await;
            return None;
        }
        Some(asked)
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut open: JoinSet<()> = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::debug!(%error, "a connection can not be accepted");
                        sleep(AFTER_ERROR).await;
                        continue;
                    }
                },
                Some(_ended) = open.join_next() => continue,
            };
            let this = Arc::clone(&self);
            open.spawn(async move {
                let _permit = permit;
                let _ended = this.serve_connection(stream).await;
            });
        }
    }

    /// One question after the other, until the client is silent for too long.
    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = timeout(SILENCE, stream.read_u16()).await??;
            let mut bytes = vec![0; usize::from(length)];
            timeout(SILENCE, stream.read_exact(&mut bytes)).await??;
            let answer = match message::read(&bytes) {
                Input::Asked(asked) => {
                    let step = self.at_once(&asked);
                    self.later(&asked, step, &bytes, Way::Tcp).await
                }
                Input::Refused(answer) => {
                    count(&self.live.dns.malformed);
                    answer
                }
                Input::Ignored => {
                    count(&self.live.dns.malformed);
                    return Ok(());
                }
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            timeout(SILENCE, stream.write_all(&framed)).await??;
        }
    }

    /// The answer once it is known, asking whoever has to be asked.
    async fn later(&self, asked: &Asked, step: Option<Step>, bytes: &[u8], way: Way) -> Vec<u8> {
        let step = match step {
            Some(step) => step,
            None => self.when_known(asked).await,
        };
        if let Step::Say(reply) = step {
            return self.say(asked, &reply);
        }
        let Ok(_permit) = self.busy.try_acquire() else {
            count(&self.live.dns.dropped);
            return self.say(asked, &Reply::Failed);
        };
        count(&self.live.dns.passed_on);
        let answer = self.forwarder.ask(bytes, way).await;
        answer.unwrap_or_else(|| self.say(asked, &Reply::Failed))
    }

    /// Waits until it is known what becomes of the question. For names that are surely of the mesh that may take a
    /// while, and for those of one label too: they are neighbours', and a resolver behind that knows them, as an engine of
    /// containers does, would lead around the virtual address for as long as its answer holds. For those that hardly are
    /// of the mesh it must not.
    async fn when_known(&self, asked: &Asked) -> Step {
        let ours = self.is_ours(asked);
        let patience = if ours || is_short(&asked.name()) { LOOKUP_PATIENCE } else { FOREIGN_PATIENCE };
        let end = Instant::now() + patience;
        let mut changed = self.registry.changed();
        loop {
            changed.borrow_and_update();
            if let Some(step) = self.at_once(asked) {
                return step;
            }
            if !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
                return if ours { Step::Say(Reply::Failed) } else { Step::PassOn };
            }
        }
    }

    /// What becomes of a question, if that is known already.
    fn at_once(&self, asked: &Asked) -> Option<Step> {
        let ours = self.is_ours(asked);
        let other = |reply| if ours { Step::Say(reply) } else { Step::PassOn };
        // A name with other characters than host names have is nobody's in the mesh.
        let Ok(host) = Hostname::new(&asked.name()) else { return Some(other(Reply::Unknown)) };
        match self.registry.find(&host) {
            Found::Known(service) => match service.snapshot.load_full() {
                Some(snapshot) => {
                    let reply = self.of_service(&snapshot.service, asked, ours);
                    Some(reply.map_or(Step::PassOn, Step::Say))
                }
                None => Some(other(Reply::Unknown)),
            },
            Found::Unknown => Some(other(Reply::Unknown)),
            Found::Asked if self.registry.discovery() == Discovery::Away => Some(other(Reply::Failed)),
            Found::Asked => None,
        }
    }

    /// What a service's name is answered with; `None` to ask behind, where the service says nothing of that.
    fn of_service(&self, service: &Service, asked: &Asked, ours: bool) -> Option<Reply> {
        let of = |six: bool| -> Vec<IpAddr> {
            service.addresses.iter().filter(|ip| ip.is_ipv6() == six).copied().collect()
        };
        if service.addresses.is_empty() {
            return ours.then_some(Reply::Nothing);
        }
        let found = |addresses: Vec<IpAddr>| {
            if addresses.is_empty() { Reply::Nothing } else { Reply::Addresses(addresses) }
        };
        match asked.kind() {
            Kind::A => Some(found(of(false))),
            Kind::Aaaa => Some(found(of(true))),
            Kind::Ptr if asked.address().is_some() => {
                let own = service.hostnames.iter().find(|name| self.mesh(|mesh| mesh.owns(name)));
                Some(own.or(service.hostnames.first()).map_or(Reply::Nothing, |n| Reply::Name(n.clone())))
            }
            Kind::Around => Some(Reply::Nothing),
            Kind::Ptr | Kind::Other => ours.then_some(Reply::Nothing),
        }
    }

    /// Whether nobody but the mesh can say anything of what is asked: a name below one of its suffixes, or an address
    /// in one of its ranges.
    fn is_ours(&self, asked: &Asked) -> bool {
        if let Some(address) = asked.address() {
            return self.mesh(|mesh| mesh.contains(address));
        }
        self.zone(&asked.name()).is_some()
    }

    /// The suffix of the mesh that `name` lies below.
    fn zone(&self, name: &str) -> Option<Hostname> {
        let below = |suffix: &&Hostname| {
            let before = name.strip_suffix(suffix.as_str());
            before.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.mesh(|mesh| mesh.suffixes.iter().find(below).cloned())
    }

    fn mesh<T>(&self, ask: impl FnOnce(&MeshSettings) -> T) -> T {
        match self.registry.mesh() {
            Some(mesh) => ask(&mesh),
            None => ask(&self.assumed),
        }
    }

    fn say(&self, asked: &Asked, reply: &Reply) -> Vec<u8> {
        count(match reply {
            Reply::Addresses(_) | Reply::Name(_) | Reply::Nothing => &self.live.dns.answered,
            Reply::Unknown => &self.live.dns.unknown,
            Reply::Failed => &self.live.dns.failed,
        });
        let name = asked.name();
        let zone = self.zone(&name);
        asked.answer(reply, zone.as_ref().map_or(&name, Hostname::as_str))
    }
}

/// What becomes of a question.
#[derive(Debug)]
enum Step {
    /// It is answered here.
    Say(Reply),
    /// It is asked behind.
    PassOn,
}

/// Whether `name` has one label, as names of neighbours have.
fn is_short(name: &str) -> bool {
    !name.is_empty() && !name.contains('.')
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// How long a name of the mesh, or of one label, may take to be looked up: less than any resolver waits before it asks
/// again.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);
/// The same of any other name that could be a service's, before it is asked for outside.
const FOREIGN_PATIENCE: Duration = Duration::from_millis(300);
/// Questions that wait at a time.
const MOST_BUSY: usize = 512;
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
const AFTER_ERROR: Duration = Duration::from_millis(10);
const LONGEST: usize = 65_535;
