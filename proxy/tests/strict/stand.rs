//! Where a case is tried: its own sidecars before its own backend. Afterwards a bystander asks the same sidecar, and must
//! get its own answer.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use outrigger_mesh::{
    Between, Port, PortNumber, Protocol, Resource, RetryPolicy, Service, Timeouts, TrafficPolicy,
};
use outrigger_proxy::http::edges::Edges;
use outrigger_testkit::resources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, PROBE, Seen};
use crate::case::{Case, Got, Step, Way};
use crate::frames::{self, Said};
use crate::reading::{self, Read};
use crate::support::{Mesh, Sidecar, open_service, plain};

/// Tries `case` by `way`; what is wrong, if something is.
pub async fn try_case(case: &Case, way: Way) -> Result<(), String> {
    let stand = Stand::new(case, way).await;
    let mut client = Client::new(stand.port, case).await;
    let outcome = match client.play(&case.steps).await {
        Ok(()) => stand.settle(&mut client, case, way).await,
        Err(why) => Err(why),
    };
    drop(client.stream);
    let probed = stand.probe(case).await;
    let seen = stand.backend.seen();
    // What the bystander's request could push out counts as well.
    let after = judge(case, way, &seen);
    let told = |why: String| {
        let sent: Vec<String> = case.steps.iter().map(shown).collect();
        let got = String::from_utf8_lossy(&client.got.bytes[..client.got.bytes.len().min(600)]).into_owned();
        format!(
            "{} by {way:?}: {why}\n    sent {}\n    got  {got:?}\n    backend {:?}",
            case.id,
            sent.join(" "),
            seen.bytes
        )
    };
    outcome.and(after).and(probed).map_err(told)
}

fn shown(step: &Step) -> String {
    match step {
        Step::Write(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(600)])),
        other => format!("{other:?}"),
    }
}

/// What holds for the backend in every case, and what this one wants.
fn judge(case: &Case, way: Way, seen: &Seen) -> Result<(), String> {
    if let Some(fault) = seen.faults.first() {
        return Err(format!("the backend got what must never be sent: {fault}"));
    }
    let begun = seen.requests.iter().map(|(_, m)| m).chain(seen.unfinished.iter().flatten());
    for message in begun {
        if message.line.contains("smuggled") {
            return Err(format!("a request was smuggled: {}", message.line));
        }
        for (name, value) in &message.headers {
            if !may_arrive(case, way, name, value) {
                return Err(format!("{name}: {value} reached the backend"));
            }
        }
    }
    case.sees.check(seen)
}

fn may_arrive(case: &Case, way: Way, name: &str, value: &str) -> bool {
    let plain = name.replace('_', "-");
    let mesh = matches!(way, Way::Mesh1 | Way::Mesh2);
    match &*plain {
        "connection" | "upgrade" => case.upgrade,
        "keep-alive" | "proxy-connection" | "http2-settings" => false,
        "te" => value == "trailers",
        "x-forwarded-client-cert" => {
            mesh && name == plain && value.starts_with("Hash=") && !value.contains("forged")
        }
        other => !other.starts_with("x-outrigger-"),
    }
}

struct Stand {
    port: SocketAddr,
    backend: Backend,
    _sidecars: Vec<Sidecar>,
}

impl Stand {
    async fn new(case: &Case, way: Way) -> Self {
        let backend = Backend::start(case.script.clone()).await;
        let (idle, head, addr) = (case.idle, case.head, backend.addr);
        let made = tokio::task::spawn_blocking(move || sidecars(idle, head, way, addr)).await;
        let (port, sidecars) = made.unwrap();
        Self { port, backend, _sidecars: sidecars }
    }

    /// Waits until everything is as the case wants it, and a little longer: it must stay so.
    async fn settle(&self, client: &mut Client, case: &Case, way: Way) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        let mut stayed = false;
        loop {
            client.hear(if stayed { STAYS } else { TICK }).await;
            let so = case.gets.check(&client.got).and_then(|()| judge(case, way, &self.backend.seen()));
            match so {
                Ok(()) if stayed => return Ok(()),
                Ok(()) => stayed = true,
                Err(why) if Instant::now() > end => return Err(why),
                Err(_) => stayed = false,
            }
        }
    }

    async fn probe(&self, case: &Case) -> Result<(), String> {
        let asked = format!("GET {PROBE} HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n");
        let answered = timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(self.port).await.map_err(|e| e.to_string())?;
            stream.write_all(asked.as_bytes()).await.map_err(|e| e.to_string())?;
            let mut bytes = Vec::new();
            let _ended = stream.read_to_end(&mut bytes).await;
            Ok::<_, String>(bytes)
        });
        let bytes = answered.await.unwrap_or_else(|_| Err("no answer in time".into()))?;
        match reading::answer(&bytes, "GET", true) {
            Read::Whole(m, n) if n == bytes.len() && m.status() == 200 && m.body == b"probe" => {}
            _ => return Err(format!("a bystander got {:?}", String::from_utf8_lossy(&bytes))),
        }
        let seen = self.backend.seen();
        let reused = seen.requests.iter().any(|(at, _)| seen.probes.contains(at));
        if case.fresh && reused { Err("the connection was used again".into()) } else { Ok(()) }
    }
}

fn sidecars(
    idle: Option<u64>,
    head: Option<u64>,
    way: Way,
    backend: SocketAddr,
) -> (SocketAddr, Vec<Sidecar>) {
    let timeouts = Timeouts {
        request: Some(Duration::from_secs(20)),
        idle: idle.map(Duration::from_millis),
        connect: Some(Duration::from_secs(5)),
        ..Timeouts::default()
    };
    let policy = TrafficPolicy {
        timeouts,
        retry: RetryPolicy { retries: 0, ..RetryPolicy::default() },
        ..TrafficPolicy::default()
    };
    let normal = Edges::default();
    let edges = Edges { head: head.map_or(normal.head, Duration::from_millis), ..normal };
    let open = || Service { policy: policy.clone(), ..open_service("shop/cart") };
    let meshed = |between| {
        let (server, client) = (MESH.server("shop/cart", backend), MESH.client());
        let service = Service { between, policy: policy.clone(), ..resources::service("shop/cart") };
        client.knows(service, [server.endpoint("shop/cart", "i-1")]);
        (client.outbound, vec![client, server])
    };
    match way {
        Way::Out | Way::ToH2 => {
            let client = MESH.client_within(edges);
            let protocol = if way == Way::Out { Protocol::Http } else { Protocol::Http2 };
            let ports = vec![Port { number: PortNumber::HTTP, protocol }];
            client.knows(Service { ports, ..open() }, [plain("shop/cart", "i-1", backend)]);
            (client.outbound, vec![client])
        }
        Way::In => {
            let server = MESH.server_within(edges, "shop/cart", backend);
            let id = resources::identity("shop", "cart");
            server.set(Resource::Inbound(resources::inbound(&id, &[&open()])));
            (server.inbound.unwrap(), vec![server])
        }
        Way::Mesh1 => meshed(Between::Http1),
        Way::Mesh2 => meshed(Between::Http2),
    }
}

static MESH: LazyLock<Mesh> = LazyLock::new(Mesh::new);

/// A client that writes what it is told and keeps what it hears.
struct Client {
    stream: Option<TcpStream>,
    got: Got,
    settings: usize,
}

impl Client {
    async fn new(port: SocketAddr, case: &Case) -> Self {
        let stream = TcpStream::connect(port).await.unwrap();
        let _best_effort = stream.set_nodelay(true);
        let method = case.steps.iter().find_map(|step| match step {
            Step::Write(bytes) => {
                Some(String::from_utf8_lossy(bytes.split(|b| *b == b' ').next()?).into_owned())
            }
            _ => None,
        });
        let got = Got {
            http2: case.http2.then(Said::default),
            method: method.unwrap_or_default(),
            ..Got::default()
        };
        Self { stream: Some(stream), got, settings: 0 }
    }

    async fn play(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Write(bytes) => self.write(bytes).await,
                Step::Pause(millis) => sleep(Duration::from_millis(*millis)).await,
                Step::Hear => {
                    let (before, end) = (self.got.bytes.len(), Instant::now() + PATIENCE);
                    while self.got.bytes.len() == before && !self.got.closed {
                        self.hear(TICK).await;
                        if Instant::now() > end {
                            return Err("nothing was heard".into());
                        }
                    }
                }
                Step::HalfClose => {
                    if let Some(stream) = &mut self.stream {
                        let _gone = stream.shutdown().await;
                    }
                }
                Step::Leave => {
                    self.stream = None;
                    self.got.closed = true;
                }
            }
        }
        Ok(())
    }

    /// Writes as far as the peer takes it: who is cut off in the middle is just what some cases want. What the peer says
    /// meanwhile is heard.
    async fn write(&mut self, mut bytes: &[u8]) {
        let end = Instant::now() + PATIENCE;
        while !bytes.is_empty() && !self.got.closed && Instant::now() < end {
            let Some(stream) = &mut self.stream else { return };
            let mut heard = vec![0; 16 * 1024];
            let (mut reader, mut writer) = stream.split();
            tokio::select! {
                biased;
                written = writer.write(bytes) => if let Ok(written) = written {
                    bytes = &bytes[written..];
                } else {
                    // The peer's last words may still be there.
                    self.hear(TICK).await;
                    self.got.closed = true;
                },
                read = reader.read(&mut heard) => match read {
                    Ok(read @ 1..) => self.take(&heard[..read]).await,
                    _ => self.got.closed = true,
                },
                () = sleep(TICK) => {}
            }
        }
    }

    /// Hears for `time`, or to the end of the connection.
    async fn hear(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut buffer = vec![0; 64 * 1024];
        while let Some(stream) = self.stream.as_mut().filter(|_| !self.got.closed) {
            match tokio::time::timeout_at(end, stream.read(&mut buffer)).await {
                Err(_over) => return,
                Ok(Ok(0) | Err(_)) => self.got.closed = true,
                Ok(Ok(read)) => self.take(&buffer[..read]).await,
            }
        }
        // There is nobody to hear, but the time passes: what the backend gets may still change.
        tokio::time::sleep_until(end).await;
    }

    async fn take(&mut self, bytes: &[u8]) {
        self.got.bytes.extend_from_slice(bytes);
        let Some(said) = &mut self.got.http2 else { return };
        said.hear(bytes);
        while self.settings < said.settings {
            self.settings += 1;
            if let Some(stream) = &mut self.stream {
                let _gone = stream.write_all(&frames::frame(frames::SETTINGS, frames::ACK, 0, "")).await;
            }
        }
    }
}

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);
/// How long what has happened must stay as it is.
const STAYS: Duration = Duration::from_millis(60);
