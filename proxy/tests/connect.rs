//! CONNECT to a host and a port, over HTTP/1.1 and HTTP/2: where it may go, and that the tunnel is one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_mesh::{
    DnsTarget, Endpoint, EndpointPort, HttpRules, Location, MeshSettings, MtlsMode, OutboundMode, Port,
    PortNumber, Protocol, Reason, Resource, Service, Side,
};
use outrigger_proxy::live::OwnPorts;
use outrigger_proxy::settings::DnsSettings;
use outrigger_proxy::telemetry::ports::Ended;
use outrigger_testkit::{DnsServer, Owned, eventually, resources};
use support::{Mesh, Sidecar, plain};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An application that reads to the end and answers with all of it, backwards; asked to break, it resets instead, half
/// way through its answer.
async fn backwards() -> (SocketAddr, Owned) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = Owned::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                let mut part = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut part).await {
                    all.extend_from_slice(&part[..read]);
                    if all == b"break" {
                        stream.write_all(b"half of an ans").await.unwrap();
                        stream.set_zero_linger().unwrap();
                        return;
                    }
                }
                all.reverse();
                let _gone = stream.write_all(&all).await;
            });
        }
    });
    (addr, task)
}

fn service(port: u16, protocol: Protocol) -> Service {
    let ports = vec![Port { number: PortNumber::new(port).unwrap(), protocol }];
    Service { ports, ..resources::service("shop/db") }
}

/// A client's sidecar, and that of an instance of `service` before `app`.
fn pair(mesh: &Mesh, service: &Service, app: SocketAddr) -> (Sidecar, Sidecar) {
    let server = mesh.server("shop/db", app);
    server.set(Resource::Inbound(resources::inbound(&resources::identity("shop", "db"), &[service])));
    let listen = PortNumber::new(server.inbound.unwrap().port()).unwrap();
    let port = EndpointPort { port: service.ports[0].number, listen, target: PortNumber::new(app.port()) };
    let client = mesh.client();
    client.knows(service.clone(), [Endpoint { ports: [port].into(), ..server.endpoint("shop/db", "i-1") }]);
    (client, server)
}

/// Asks over HTTP/1.1, with `behind` in the same piece; the status, the reason, and the connection.
async fn http1(client: &Sidecar, target: &str, behind: &str) -> (u16, String, TcpStream) {
    let mut stream = TcpStream::connect(client.outbound).await.unwrap();
    let asked = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n{behind}");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.expect("a whole head"));
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let reason = head.lines().find_map(|l| l.strip_prefix("x-outrigger-reason: ")).unwrap_or_default();
    if status == 200 {
        let framing = head.to_ascii_lowercase();
        assert!(!framing.contains("content-length") && !framing.contains("transfer-encoding"), "{head}");
    } else {
        // What was meant for the tunnel is no request.
        let mut rest = Vec::new();
        soon(stream.read_to_end(&mut rest)).await.expect("the connection ends");
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 "), "{target}");
    }
    (status, reason.to_owned(), stream)
}

/// Asks over HTTP/2; the status and the stream, where there is one.
async fn http2(client: &Sidecar, target: &str) -> (StatusCode, Option<impl AsyncRead + AsyncWrite + Unpin>) {
    let stream = TcpStream::connect(client.outbound).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Empty::<bytes::Bytes>::new();
    let request = Request::builder().method(Method::CONNECT).uri(target).body(body).unwrap();
    let mut answer = soon(sender.send_request(request)).await.unwrap();
    let status = answer.status();
    if !status.is_success() {
        return (status, None);
    }
    (status, Some(TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap())))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

/// Everything that is said after the own half has ended.
async fn rest(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Vec<u8> {
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    all
}

#[tokio::test]
async fn a_tunnel_leads_to_an_opaque_port_and_each_direction_ends_by_itself() {
    let (mesh, (app, _app)) = (Mesh::new(), backwards().await);
    for protocol in [Protocol::Tcp, Protocol::Tls] {
        let (client, server) = pair(&mesh, &service(9000, protocol), app);
        // What comes in one piece with the head is part of the tunnel.
        let (status, _, mut stream) = http1(&client, "db.shop.mesh:9000", "des").await;
        assert_eq!(status, 200);
        stream.write_all(b"serts").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"stressed");

        let (status, stream) = http2(&client, "db:9000").await;
        assert_eq!(status, 200);
        let mut stream = stream.unwrap();
        stream.write_all(b"desserts").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"stressed");

        // By the address of its instance.
        let (status, _, mut stream) = http1(&client, &app.to_string(), "on").await;
        assert_eq!(status, 200);
        assert_eq!(rest(&mut stream).await, b"no");

        for (sidecar, side) in [(&client, Side::Client), (&server, Side::Server)] {
            let stats = sidecar.live.ports.handle(side, &"shop/db".parse().unwrap(), 9000);
            eventually("all ended in order", || async { stats.ended(Ended::Finished) == 3 }).await;
            assert_eq!(stats.open(), 0);
        }
    }
}

#[tokio::test]
async fn a_tunnel_that_breaks_off_does_not_look_like_one_that_has_ended() {
    let (mesh, (app, _app)) = (Mesh::new(), backwards().await);
    let (client, server) = pair(&mesh, &service(9000, Protocol::Tcp), app);
    let (_, _, mut stream) = http1(&client, "db:9000", "break").await;
    assert!(soon(stream.read_to_end(&mut Vec::new())).await.is_err());
    let (_, stream) = http2(&client, "db:9000").await;
    let mut stream = stream.unwrap();
    stream.write_all(b"break").await.unwrap();
    let mut all = Vec::new();
    // The library tells a reset without a fault as an end; what is left to see is that no end was sent.
    let _either = soon(stream.read_to_end(&mut all)).await;
    let broken = client.live.ports.handle(Side::Client, &"shop/db".parse().unwrap(), 9000);
    eventually("both were broken off by the application", || async { broken.ended(Ended::ByCalled) == 2 })
        .await;

    // The caller breaks off: the application's sidecar hears no end either.
    let seen = server.live.ports.handle(Side::Server, &"shop/db".parse().unwrap(), 9000);
    let (_, _, stream) = http1(&client, "db:9000", "x").await;
    eventually("it stands", || async { seen.open() == 1 }).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    eventually("it is cut", || async { seen.ended(Ended::ByCaller) == 1 }).await;
}

#[tokio::test]
async fn a_port_where_http_may_be_spoken_is_tunnelled_to_only_where_its_service_allows_it() {
    let (mesh, (app, _app)) = (Mesh::new(), backwards().await);
    for protocol in [Protocol::Detect, Protocol::Http] {
        let (client, server) = pair(&mesh, &service(80, protocol), app);
        let behind = "GET / HTTP/1.1\r\nHost: db\r\n\r\n";
        let (status, reason, _) = http1(&client, "db:80", behind).await;
        assert_eq!((status, reason.as_str()), (403, "upgrade_denied"), "{protocol}");
        assert_eq!(http2(&client, "db:80").await.0, 403);

        let http = HttpRules { connect: true, ..HttpRules::default() };
        let open = Service { http, ..service(80, protocol) };
        client.set(Resource::Service(open.clone()));
        let (status, reason, _) = http1(&client, "db:80", "").await;
        match protocol {
            // The other sidecar knows of no permission, and has the last word.
            Protocol::Http => assert_eq!((status, reason.as_str()), (404, "no_route")),
            _ => assert_eq!(status, 200),
        }
        server.set(Resource::Inbound(resources::inbound(&resources::identity("shop", "db"), &[&open])));
        let (status, _, mut stream) = http1(&client, "db:80", "on").await;
        assert_eq!(status, 200, "{protocol}");
        assert_eq!(rest(&mut stream).await, b"no");
    }
}

#[tokio::test]
async fn a_tunnel_that_leads_nowhere_is_refused_with_a_reason() {
    let (mesh, (app, _app)) = (Mesh::new(), backwards().await);
    let (client, server) = pair(&mesh, &service(9000, Protocol::Tcp), app);
    let own = format!("{}", client.outbound);
    for (target, status, reason) in [
        ("nobody.shop.mesh:80", 404, "unknown_service"),
        ("nobody:80", 404, "unknown_service"),
        ("db:9001", 404, "no_route"),
        ("240.0.0.9:80", 404, "unknown_service"),
        (own.as_str(), 508, "loop_detected"),
        ("127.0.0.1:1", 502, "connect_failed"),
    ] {
        let (got, why, _) = http1(&client, target, "").await;
        assert_eq!((got, why.as_str()), (status, reason), "{target}");
        assert_eq!(http2(&client, target).await.0, status, "{target}");
    }
    drop(server);
    let (status, reason, _) = http1(&client, "db:9000", "").await;
    assert_eq!((status, reason.as_str()), (502, "connect_failed"));
    let stats = client.live.ports.handle(Side::Client, &"shop/db".parse().unwrap(), 9000);
    assert_eq!(stats.refusals(Reason::ConnectFailed), 1);
}

#[tokio::test]
async fn outside_the_mesh_a_tunnel_leads_where_the_mesh_lets_it() {
    let (mesh, (app, _app), dns) = (Mesh::new(), backwards().await, DnsServer::start().await);
    let client = mesh.client();
    dns.host("api.example", 60, &["127.0.0.1".parse().unwrap()]);
    dns.host("inside.example", 60, &["240.0.0.9".parse().unwrap()]);
    let settings = DnsSettings { servers: vec![dns.addr()], listen: vec![] };
    let domain = || resources::TRUST_DOMAIN.parse().unwrap();
    let own = OwnPorts::default();
    let names =
        outrigger_proxy::dns::start(&settings, &client.registry, &client.live, &own, vec![], domain());
    let _names = Owned::spawn(names);
    let port = app.port();
    let reached = async |target: String| {
        let (status, reason, mut stream) = http1(&client, &target, "on").await;
        if status == 200 {
            assert_eq!(rest(&mut stream).await, b"no", "{target}");
        }
        (status, reason)
    };
    let yes = (200, String::new());
    let no = |status: u16, reason: &str| (status, reason.to_owned());

    // Everything is let out; but a name outside does not lead inside.
    assert_eq!(reached(format!("api.example:{port}")).await, yes);
    assert_eq!(reached(format!("127.0.0.1:{port}")).await, yes);
    assert_eq!(reached(format!("nobody.example:{port}")).await, no(503, "no_endpoint"));
    assert_eq!(reached(format!("inside.example:{port}")).await, no(404, "unknown_service"));

    // Only what is registered.
    let settings = MeshSettings { outbound_mode: OutboundMode::RegistryOnly, ..MeshSettings::new(domain()) };
    client.set(Resource::Mesh(settings));
    assert_eq!(reached(format!("api.example:{port}")).await, no(403, "egress_denied"));
    assert_eq!(reached(format!("127.0.0.1:{port}")).await, no(403, "egress_denied"));
    for (protocol, expected) in [
        (Protocol::Tls, yes.clone()),
        (Protocol::Detect, yes.clone()),
        (Protocol::Http, no(403, "upgrade_denied")),
    ] {
        let name = "api.example".parse().unwrap();
        let targets = vec![DnsTarget::Host { name, port: PortNumber::new(port) }];
        let service = Service {
            hostnames: vec!["api.example".parse().unwrap()],
            location: Location::Dns { targets, tls: None, outside: true },
            mtls: MtlsMode::Off.into(),
            identities: vec![],
            ..service(443, protocol)
        };
        client.set(Resource::Service(service));
        assert_eq!(reached("api.example:443".to_owned()).await, expected, "{protocol}");
    }
    assert_eq!(reached("api.example:444".to_owned()).await, no(404, "no_route"));
}

#[tokio::test]
async fn at_a_port_that_stands_for_one_service_there_is_no_connect() {
    let (mesh, (app, _app)) = (Mesh::new(), backwards().await);
    let client = mesh.client_with(&["web"], 1);
    let open = Service { mtls: MtlsMode::Permissive.into(), ..resources::service("shop/web") };
    client.knows(open, [plain("shop/web", "i-1", app)]);
    let mut stream = TcpStream::connect(client.upstreams[0]).await.unwrap();
    stream.write_all(b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&all));
}
