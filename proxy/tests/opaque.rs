//! Opaque connections through two sidecars, and what a connection is taken for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_mesh::{
    Endpoint, EndpointPort, MtlsMode, Port, PortNumber, Protocol, Reason, Resource, Service, Side,
};
use outrigger_proxy::drain::Phase;
use outrigger_proxy::listen::client_hello::{self, Read};
use outrigger_proxy::telemetry::ports::{Decision, Ended, PortStats};
use outrigger_testkit::{Client, Origin, Owned, eventually, resources};
use support::{Mesh, Sidecar, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn number(port: u16) -> PortNumber {
    PortNumber::new(port).unwrap()
}

/// The service `shop/db` with one port.
fn db(port: u16, protocol: Protocol) -> Service {
    let ports = vec![Port { number: number(port), protocol }];
    Service { ports, ..resources::service("shop/db") }
}

/// An application that treats each connection as `serve` does.
struct App {
    addr: SocketAddr,
    _task: Owned,
}

impl App {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = Owned::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream));
            }
        });
        Self { addr, _task: task }
    }

    /// Reads to the end, then answers with everything it has read, backwards.
    async fn backwards() -> Self {
        Self::start(|mut stream| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.reverse();
            stream.write_all(&all).await.unwrap();
        })
        .await
    }

    /// Speaks first, then answers each line.
    async fn greeter() -> Self {
        Self::start(|mut stream| async move {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let mut line = [0; 64];
            while let Ok(read @ 1..) = stream.read(&mut line).await {
                stream.write_all(&line[..read]).await.unwrap();
            }
        })
        .await
    }
}

/// The sidecar of an instance of `service` before `app`, and a client's sidecar with a port of its own for it.
fn pair(service: &Service, app: SocketAddr) -> (Mesh, Sidecar, Sidecar) {
    let mesh = Mesh::new();
    let server = instance(&mesh, service, app);
    let client = mesh.client_with(&["db"], 1);
    client.knows(service.clone(), [at(service, "i-1", &server)]);
    (mesh, server, client)
}

fn instance(mesh: &Mesh, service: &Service, app: SocketAddr) -> Sidecar {
    let server = mesh.server("shop/db", app);
    server.set(Resource::Inbound(resources::inbound(&resources::identity("shop", "db"), &[service])));
    server
}

fn at(service: &Service, uid: &str, server: &Sidecar) -> Endpoint {
    let listen = number(server.inbound.unwrap().port());
    let port = EndpointPort { port: service.ports[0].number, listen, target: None };
    Endpoint { ports: [port].into(), ..server.endpoint("shop/db", uid) }
}

fn stats(sidecar: &Sidecar, side: Side, port: u16) -> Arc<PortStats> {
    sidecar.live.ports.handle(side, &"shop/db".parse().unwrap(), port)
}

async fn dial(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.unwrap()
}

async fn line(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
    read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn each_direction_ends_by_itself_through_both_sidecars() {
    let app = App::backwards().await;
    let (_mesh, server, client) = pair(&db(9000, Protocol::Tcp), app.addr);
    let mut stream = dial(client.upstreams[0]).await;
    stream.write_all(b"desserts").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    let answered = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await;
    answered.expect("the application hears that the client is done").unwrap();
    assert_eq!(all, b"stressed");
    for (sidecar, side) in [(&client, Side::Client), (&server, Side::Server)] {
        let stats = stats(sidecar, side, 9000);
        eventually("it ended in order", || async { stats.ended(Ended::Finished) == 1 }).await;
        assert_eq!(stats.open(), 0);
    }
    let text = client.live.prometheus();
    let bytes =
        "outrigger_opaque_bytes_total{side=\"client\",service=\"shop/db\",port=\"9000\",of=\"caller\"} 8";
    assert!(text.contains(bytes), "{text}");
}

#[tokio::test]
async fn whoever_speaks_first_is_not_waited_for() {
    let app = App::greeter().await;
    for (port, protocol) in [(9000, Protocol::Tcp), (9000, Protocol::Tls), (5432, Protocol::Detect)] {
        let (_mesh, _server, client) = pair(&db(port, protocol), app.addr);
        let began = Instant::now();
        let mut stream = dial(client.upstreams[0]).await;
        assert_eq!(line(&mut stream).await, "220 ready\r\n");
        assert!(began.elapsed() < Duration::from_millis(1_500), "{port} {protocol}");
        stream.write_all(b"EHLO\r\n").await.unwrap();
        assert_eq!(line(&mut stream).await, "EHLO\r\n");
    }
}

#[tokio::test]
async fn a_reset_passes_on_as_a_reset_in_both_directions() {
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let app = App::start(move |mut stream| {
        let told = told.clone();
        async move {
            let asked = stream.read_u8().await.unwrap();
            if asked == b'r' {
                stream.write_all(b"half of an ans").await.unwrap();
                stream.set_zero_linger().unwrap();
                return;
            }
            told.send(is_reset(&mut stream).await).unwrap();
        }
    })
    .await;
    let (_mesh, server, client) = pair(&db(9000, Protocol::Tcp), app.addr);
    let mut stream = dial(client.upstreams[0]).await;
    stream.write_all(b"r").await.unwrap();
    assert!(is_reset(&mut stream).await, "the application broke off, the client must not see an end");

    let mut stream = dial(client.upstreams[0]).await;
    stream.write_all(b"w").await.unwrap();
    let stats = stats(&server, Side::Server, 9000);
    eventually("it stands", || async { stats.open() == 1 }).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert_eq!(hears.recv().await, Some(true), "the client broke off, the application must not see an end");
}

#[tokio::test]
async fn an_application_that_is_down_is_passed_over_before_a_byte_was_sent() {
    let (up, gone) = (App::greeter().await, outrigger_testkit::real::free_port());
    let mesh = Mesh::new();
    let service = db(9000, Protocol::Tcp);
    let (dead, alive) = (instance(&mesh, &service, gone), instance(&mesh, &service, up.addr));
    let client = mesh.client_with(&["db"], 1);
    client.knows(service.clone(), [at(&service, "i-1", &dead), at(&service, "i-2", &alive)]);
    for _ in 0..10 {
        let mut stream = dial(client.upstreams[0]).await;
        assert_eq!(line(&mut stream).await, "220 ready\r\n");
    }
    assert_eq!(stats(&client, Side::Client, 9000).refusals(Reason::ConnectFailed), 0);

    client
        .registry
        .apply(outrigger_proxy::config::registry::Change::NoEndpoints("shop/db".parse().unwrap()))
        .unwrap();
    client.knows(service.clone(), [at(&service, "i-1", &dead)]);
    assert!(is_reset(&mut dial(client.upstreams[0]).await).await);
    assert_eq!(stats(&client, Side::Client, 9000).refusals(Reason::ConnectFailed), 1);
    assert!(stats(&dead, Side::Server, 9000).refusals(Reason::ConnectFailed) >= 1);
}

#[tokio::test]
async fn draining_leaves_open_connections_alone_and_turns_new_ones_away_until_all_are_cut() {
    let app = App::greeter().await;
    let (_mesh, server, client) = pair(&db(9000, Protocol::Tcp), app.addr);
    let mut stream = dial(client.upstreams[0]).await;
    line(&mut stream).await;
    server.phase.send_replace(Phase::InboundClosing);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    stream.write_all(b"still\r\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "still\r\n");
    assert!(is_reset(&mut dial(client.upstreams[0]).await).await);
    server.phase.send_replace(Phase::InboundClosed);
    assert!(is_reset(&mut stream).await, "cut, and not ended");
    let stats = stats(&server, Side::Server, 9000);
    eventually("counted as cut", || async { stats.ended(Ended::Cut) == 1 }).await;
    tokio::time::timeout(Duration::from_secs(3), server.idle.inbound()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_silent_for_too_long_is_cut() {
    let app = App::greeter().await;
    let mut service = db(9000, Protocol::Tcp);
    service.policy.timeouts.idle = Some(Duration::from_millis(300));
    let (_mesh, _server, client) = pair(&service, app.addr);
    let mut stream = dial(client.upstreams[0]).await;
    line(&mut stream).await;
    assert!(is_reset(&mut stream).await);
    assert_eq!(stats(&client, Side::Client, 9000).ended(Ended::Idle), 1);
}

#[tokio::test]
async fn at_an_undeclared_port_the_first_bytes_decide() {
    let (web, lines) = (Origin::start().await, App::greeter().await);
    let service = db(9000, Protocol::Detect);
    let (_mesh, _server, client) = pair(&service, web.addr());
    let mut http = Client::h1(client.upstreams[0]).await;
    assert_eq!(http.get("db", "/").await.unwrap().status, 200);
    assert_eq!(Client::h2(client.upstreams[0]).await.get("db", "/").await.unwrap().status, 200);

    let (_mesh, _server, other) = pair(&service, lines.addr);
    let mut stream = dial(other.upstreams[0]).await;
    // In pieces, and like HTTP at first sight.
    for piece in ["GE", "T ke", "y\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(line(&mut stream).await, "220 ready\r\n");
    assert_eq!(line(&mut stream).await, "GET key\r\n");
    // A client that says nothing is taken for one that wants to hear something.
    let mut silent = dial(other.upstreams[0]).await;
    assert_eq!(line(&mut silent).await, "220 ready\r\n");
    let (first, second) = (stats(&client, Side::Client, 9000), stats(&other, Side::Client, 9000));
    let counted = [
        first.decisions(Decision::Http1),
        first.decisions(Decision::Http2),
        second.decisions(Decision::Opaque),
        second.decisions(Decision::Timeout),
    ];
    assert_eq!(counted, [1, 1, 1, 1]);
    let shown = other.registry.clusters().to_string();
    assert!(shown.contains(r#""decided":{"opaque":1,"timeout":1}"#), "{shown}");
}

#[tokio::test]
async fn a_port_for_http_takes_nothing_opaque_and_an_opaque_one_no_http() {
    let web = Origin::start().await;
    let (_mesh, server, client) = pair(&db(9000, Protocol::Http), web.addr());
    // This client believes the port to be opaque, the instance knows better.
    client.knows(db(9000, Protocol::Tcp), [at(&db(9000, Protocol::Tcp), "i-1", &server)]);
    assert!(is_reset(&mut dial(client.upstreams[0]).await).await);
    assert_eq!(stats(&client, Side::Client, 9000).refusals(Reason::NoRoute), 1);
    assert!(stats(&server, Side::Server, 9000).refusals(Reason::NoRoute) >= 1);
    let reply = Client::h1(client.outbound).await.get("db:9000", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (404, Some("no_route")));
    assert_eq!(web.requests(), 0);
}

/// What a client of rustls begins with.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_hello_of_a_real_client_is_read() {
    let Read::Whole(hello) = client_hello::read(&hello("db.shop.mesh")) else { panic!("it was not read") };
    assert_eq!(hello.server_name.unwrap().as_str(), "db.shop.mesh");
    assert!(!hello.mesh);
}

#[tokio::test]
async fn tls_of_the_application_goes_where_its_server_name_says_byte_for_byte() {
    let app = App::start(|mut stream| async move {
        let mut bytes = vec![0; 4_096];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..read]).await.unwrap();
        }
    })
    .await;
    let (_mesh, _server, client) = pair(&db(8443, Protocol::Tls), app.addr);
    for at in [client.outbound, client.upstreams[0]] {
        let (mut stream, sent) = (dial(at).await, hello("db.shop.mesh"));
        stream.write_all(&sent[..100]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&sent[100..]).await.unwrap();
        let mut heard = vec![0; sent.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert!(heard == sent, "{at}");
    }
    let (nowhere, nameless) = (hello("nobody.shop.mesh"), hello("127.0.0.1"));
    for bytes in [&nowhere, &nameless] {
        let mut stream = dial(client.outbound).await;
        stream.write_all(bytes).await.unwrap();
        assert!(is_reset(&mut stream).await);
    }
    let text = client.live.prometheus();
    assert!(text.contains("outrigger_refusals_total{reason=\"unknown_service\",hop=\"client\"} 2"), "{text}");
}

#[tokio::test]
async fn while_migrating_plaintext_tls_of_the_application_and_the_mesh_are_told_apart() {
    let app = App::greeter().await;
    let service = Service { mtls: MtlsMode::Permissive.into(), ..db(9000, Protocol::Tcp) };
    let (mesh, server, client) = pair(&service, app.addr);
    let outside = mesh.client_with(&["db"], 1);
    let direct = plain("shop/db", "i-1", server.inbound.unwrap());
    let port = EndpointPort::direct(number(9000), number(server.inbound.unwrap().port()));
    outside.knows(service.clone(), [Endpoint { ports: [port].into(), ..direct }]);
    for sidecar in [&client, &outside] {
        let mut stream = dial(sidecar.upstreams[0]).await;
        assert_eq!(line(&mut stream).await, "220 ready\r\n");
    }
    let mut tls = dial(server.inbound.unwrap()).await;
    tls.write_all(&hello("db.shop.mesh")).await.unwrap();
    assert_eq!(line(&mut tls).await, "220 ready\r\n");
    let counters = &server.live.counters;
    let count = |c: &std::sync::atomic::AtomicU64| c.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((count(&counters.handshakes), count(&counters.plaintext_accepted)), (1, 2));
}

#[tokio::test]
async fn what_is_only_nearly_http_does_not_reach_the_application_in_plaintext() {
    let heard = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let hearing = Arc::clone(&heard);
    let app = App::start(move |_stream| {
        hearing.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async {}
    })
    .await;
    let service = Service { mtls: MtlsMode::Permissive.into(), ..db(9000, Protocol::Detect) };
    let (_mesh, server, _client) = pair(&service, app.addr);
    let sent = [
        &b"GET\t/a HTTP/1.1\r\nHost: db\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x02\x00",
    ];
    for bytes in sent {
        let mut stream = dial(server.inbound.unwrap()).await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _closed = tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    }
    assert_eq!(heard.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_port_that_its_own_sidecar_was_told_is_opaque_is_one_where_the_mesh_declares_nothing() {
    let app = App::greeter().await;
    let undeclared = Service { mtls: MtlsMode::Off.into(), ..db(9000, Protocol::Detect) };
    let (_mesh, server, _client) = pair(&undeclared, app.addr);
    server.live.set_opaque_ports(app.addr.port().to_string().parse().unwrap());
    let decided = |how| stats(&server, Side::Server, 9000).decisions(how);
    let mut silent = dial(server.inbound.unwrap()).await;
    assert_eq!(line(&mut silent).await, "220 ready\r\n");
    let mut http = dial(server.inbound.unwrap()).await;
    http.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(line(&mut http).await, "220 ready\r\n");
    assert_eq!(line(&mut http).await, "GET / HTTP/1.1\r\n", "nobody looks into it");
    assert_eq!((decided(Decision::Declared), decided(Decision::Http1)), (2, 0), "nothing is waited for");

    let declared = Service { mtls: MtlsMode::Off.into(), ..db(9000, Protocol::Http) };
    server.set(Resource::Inbound(resources::inbound(&resources::identity("shop", "db"), &[&declared])));
    let mut http = dial(server.inbound.unwrap()).await;
    http.write_all(b"nonsense\r\n\r\n").await.unwrap();
    assert!(line(&mut http).await.starts_with("HTTP/1.1 400"), "what the mesh declares wins");
}

#[tokio::test]
async fn an_instance_serves_two_ports_of_its_service() {
    let (web, lines) = (Origin::start().await, App::greeter().await);
    let mesh = Mesh::new();
    let ports = [(80, Protocol::Http), (6379, Protocol::Tcp)];
    let port = |(n, protocol)| Port { number: number(n), protocol };
    let service = Service { ports: ports.map(port).to_vec(), ..resources::service("shop/db") };
    let server = mesh.server_of(&service, &[web.addr(), lines.addr]);
    let listens = [server.inbound.unwrap().port(), server.mapped[0].port()];
    let both = [0, 1].map(|i| EndpointPort::direct(service.ports[i].number, number(listens[i])));
    let client = mesh.client_with(&["db:6379", "db:80"], 1);
    let endpoint = Endpoint { ports: both.into(), ..server.endpoint("shop/db", "i-1") };
    client.knows(service, [endpoint]);
    let mut stream = dial(client.upstreams[0]).await;
    assert_eq!(line(&mut stream).await, "220 ready\r\n");
    assert_eq!(Client::h1(client.upstreams[1]).await.get("db", "/").await.unwrap().status, 200);
    assert_eq!(Client::h1(client.outbound).await.get("db", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn much_passes_in_little_memory() {
    let soak = std::env::var("OUTRIGGER_SOAK").is_ok();
    let total: usize = if soak { 1 << 30 } else { 64 << 20 };
    let app = App::start(|mut stream| async move {
        let mut buffer = vec![0; 64 * 1024];
        let mut seen = 0_u64;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            seen += read as u64;
        }
        stream.write_all(&seen.to_be_bytes()).await.unwrap();
    })
    .await;
    let (_mesh, _server, client) = pair(&db(9000, Protocol::Tcp), app.addr);
    let mut stream = dial(client.upstreams[0]).await;
    let chunk = vec![7; 1 << 20];
    stream.write_all(&chunk).await.unwrap();
    let before = resident();
    let mut most = before;
    for _ in 1..total / chunk.len() {
        stream.write_all(&chunk).await.unwrap();
        most = most.max(resident());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_u64().await.unwrap(), total as u64);
    let grown = most.saturating_sub(before) / 1024;
    println!("{} MiB through both sidecars: {grown} KiB more at most", total >> 20);
    assert!(grown < 16 * 1024, "{grown} KiB");
}

/// The resident memory of this process, which holds both sidecars.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
