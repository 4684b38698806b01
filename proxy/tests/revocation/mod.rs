//! Connections end with the proof that their peer gave: at once when it is revoked or its root is gone, in order before
//! its certificate is over.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use outrigger_certs::{Authority, LeafLifetime, WorkloadKey};
use outrigger_mesh::{
    Between, Denylist, Port, PortNumber, Protocol, Resource, ResourceName, Service, SpiffeId, TrustDomain,
};
use outrigger_proxy::app::App;
use outrigger_proxy::drain::Ask;
use outrigger_proxy::http::edges::Cut;
use outrigger_proxy::settings::{Args, Settings};
use outrigger_testkit::{
    Behaviour, BodyOf, Client, Origin, Owned, PlanServer, eventually, request, resources,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::service;
use super::support::{Mesh, Sidecar};

fn denylist(identities: &[SpiffeId]) -> Resource {
    let name = "shop/gone".parse().unwrap();
    Resource::Denylist(Denylist { name, tokens: vec![], identities: identities.to_vec() })
}

fn endless() -> Behaviour {
    let body = BodyOf::Chunks { count: 100_000, size: 10, pause: Duration::from_millis(20) };
    Behaviour { body, ..Behaviour::default() }
}

/// How long the stream of an answer that never ends went on after `then`.
async fn outlives(client: &Sidecar, then: impl FnOnce()) -> Duration {
    let mut caller = Client::h1(client.outbound).await;
    let answer = caller.start(request(Method::GET, "cart", "/", "".into())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
    }
    then();
    let began = Instant::now();
    let cut = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return;
            }
        }
        panic!("it must not look whole");
    };
    tokio::time::timeout(Duration::from_secs(10), cut).await.expect("the stream is cut");
    began.elapsed()
}

#[tokio::test]
async fn a_revoked_caller_loses_its_running_streams_and_gets_no_new_ones() {
    for between in [Between::Http1, Between::Http2] {
        let (mesh, app) = (Mesh::new(), Origin::start().await);
        app.behave(endless());
        let server = mesh.server("shop/cart", app.addr());
        let (client, other) = (mesh.client(), mesh.client_as("prices"));
        for one in [&client, &other] {
            one.knows(service(between), [server.endpoint("shop/cart", "i-1")]);
        }
        let list = denylist(&[resources::identity("shop", "web")]);
        let took = outlives(&client, || server.set(list)).await;
        assert!(took < Duration::from_secs(8), "{between:?}: {took:?}");
        assert_eq!(server.live.counters.cuts(Cut::Unbelieved), 1);
        let refused = Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
        assert_eq!(refused.status, StatusCode::BAD_GATEWAY, "{}", refused.text());
        app.behave(Behaviour::default());
        let bystander = Client::h1(other.outbound).await.get("cart", "/").await.unwrap();
        assert_eq!(bystander.status, StatusCode::OK, "nobody else is touched");
        server.set(denylist(&[]));
        let again = async || Client::h1(client.outbound).await.get("cart", "/").await.unwrap().status == 200;
        eventually("it is believed again", again).await;
    }
}

#[tokio::test]
async fn a_revoked_service_loses_the_calls_to_it() {
    for between in [Between::Http1, Between::Http2] {
        let (mesh, app) = (Mesh::new(), Origin::start().await);
        app.behave(endless());
        let server = mesh.server("shop/cart", app.addr());
        let client = mesh.client();
        client.knows(service(between), [server.endpoint("shop/cart", "i-1")]);
        let list = denylist(&[resources::identity("shop", "cart")]);
        let took = outlives(&client, || client.set(list)).await;
        assert!(took < Duration::from_secs(8), "{between:?}: {took:?}");
        let refused = Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
        assert_eq!(refused.header("x-outrigger-reason"), Some("tls_failed"), "{}", refused.text());
    }
}

/// An application that answers each byte with the same.
async fn echo() -> (std::net::SocketAddr, Owned) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = Owned::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (addr, task)
}

async fn opaque(client: &Sidecar) -> TcpStream {
    let mut stream = TcpStream::connect(client.upstreams[0]).await.unwrap();
    stream.write_all(b"!").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
    stream
}

#[tokio::test]
async fn opaque_connections_are_cut_by_a_revocation_on_either_side_and_by_a_root_that_goes() {
    let mesh = Mesh::new();
    let (app, _serving) = echo().await;
    let ports = vec![Port { number: PortNumber::HTTP, protocol: Protocol::Tcp }];
    let db = Service { ports, ..resources::service("shop/db") };
    let stranger = Authority::create(&resources::TRUST_DOMAIN.parse().unwrap(), SystemTime::now()).unwrap().0;
    for what in ["the caller", "the service", "a root at the service", "a root at the caller"] {
        let server = mesh.server_of(&db, &[app]);
        let client = mesh.client_with(&["db"], 1);
        client.knows(db.clone(), [server.endpoint("shop/db", "i-1")]);
        let mut stream = opaque(&client).await;
        match what {
            "the caller" => server.set(denylist(&[resources::identity("shop", "web")])),
            "the service" => client.set(denylist(&[resources::identity("shop", "db")])),
            "a root at the service" => server.identity.trust().update(&stranger.trust()).unwrap(),
            _ => client.identity.trust().update(&stranger.trust()).unwrap(),
        }
        let ended = tokio::time::timeout(Duration::from_secs(8), stream.read_u8()).await;
        assert!(ended.expect(what).is_err(), "{what}");
    }
}

/// The sidecar of the service as a control plane configures it, with roots of another trust domain; a client of that domain.
async fn of_two_domains(
    plan: &PlanServer,
    service: &Service,
    app: std::net::SocketAddr,
    data: &std::path::Path,
) -> (App, Sidecar, ResourceName) {
    let name = &service.name;
    let other: TrustDomain = "other.org".parse().unwrap();
    let theirs = Mesh::of_domain(&other);
    plan.set(theirs.trust());
    plan.set(resources::inbound(&service.identities[0], &[service]));
    let revision = plan.set(service.clone());
    let token = plan.join_token(name.namespace().as_str(), name.name().as_str()).expose();
    let line = format!(
        "outrigger-proxy --namespace shop --service {} --port {} --control {} --data {} --outbound 127.0.0.1:0 \
         --inbound 127.0.0.1:0 --admin 127.0.0.1:0",
        name.name(),
        app.port(),
        plan.addr(),
        data.display()
    );
    let settings = Settings::new(Args::parse_from(line.split_whitespace()), Some(&token)).unwrap();
    let server = outrigger_proxy::app::build(settings).await.unwrap();
    let web = SpiffeId::new(other.clone(), "shop".parse().unwrap(), "web".parse().unwrap());
    let client = theirs.client_of(&web, &[name.name().as_str()]);
    client.identity.trust().update(&plan.authority().trust()).unwrap();
    let endpoint = resources::endpoint(&name.to_string(), "i-1", server.bound.inbound.unwrap());
    client.knows(service.clone(), [endpoint]);
    plan.acknowledged(&service.identities[0], revision).await;
    (server, client, ResourceName::Trust(other))
}

#[tokio::test]
async fn a_trust_domain_that_is_taken_away_loses_its_running_streams_within_two_seconds_of_the_push() {
    let mut all = Vec::new();
    for between in [Between::Http1, Between::Http2] {
        let (plan, app, folder) = (PlanServer::start().await, Origin::start().await, TempDir::new().unwrap());
        app.behave(endless());
        let (server, client, trust) =
            of_two_domains(&plan, &service(between), app.addr(), folder.path()).await;
        let took = outlives(&client, || _ = plan.remove(&trust)).await;
        assert!(took < Duration::from_secs(8), "{between:?}: {took:?}");
        all.push(took);
        assert_eq!(server.live.counters.cuts(Cut::Unbelieved), 1);
        let refused = Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
        assert!(refused.status.is_server_error(), "and none of it comes in anew: {}", refused.text());
        server.drain.ask(Ask::Now);
        server.wait().await.unwrap();
    }
    // A busy machine may hold up one of them.
    assert!(all.iter().any(|took| *took < Duration::from_secs(2)), "{all:?}");
}

#[tokio::test]
async fn a_trust_domain_that_is_taken_away_loses_its_opaque_connections_within_two_seconds_of_the_push() {
    let mut all = Vec::new();
    for _ in 0..2 {
        let (plan, (app, _serving)) = (PlanServer::start().await, echo().await);
        let folder = TempDir::new().unwrap();
        let ports = vec![Port { number: PortNumber::HTTP, protocol: Protocol::Tcp }];
        let db = Service { ports, ..resources::service("shop/db") };
        let (server, client, trust) = of_two_domains(&plan, &db, app, folder.path()).await;
        let mut stream = opaque(&client).await;
        plan.remove(&trust);
        let began = Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(8), stream.read_u8()).await;
        assert!(ended.expect("it is cut in time").is_err());
        all.push(began.elapsed());
        server.drain.ask(Ask::Now);
        server.wait().await.unwrap();
    }
    // A busy machine may hold up one of them.
    assert!(all.iter().any(|took| *took < Duration::from_secs(2)), "{all:?}");
}

/// Gives `to` a certificate that ends in `life`.
fn short_lived(mesh: &Mesh, to: &Sidecar, life: Duration) {
    let key = WorkloadKey::generate().unwrap();
    let leaf = mesh.sign(&key, to.identity.id(), LeafLifetime::for_tests(life));
    to.identity.install(&key, &leaf).unwrap();
}

#[tokio::test]
async fn http_is_ended_in_order_before_a_certificate_is_over_and_opaque_bytes_are_not() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let life = Duration::from_secs(5);
    for theirs in [true, false] {
        let server = mesh.server("shop/cart", app.addr());
        let client = mesh.client();
        client.knows(service(Between::Http2), [server.endpoint("shop/cart", "i-1")]);
        short_lived(&mesh, if theirs { &client } else { &server }, life);
        let began = Instant::now();
        let mut caller = Client::h1(client.outbound).await;
        assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
        // Renewed long before: only the connection that was made with it knows it.
        short_lived(&mesh, if theirs { &client } else { &server }, Duration::from_secs(3600));
        let gone = || async { server.live.counters.inbound_connections.load(SeqCst) == 0 };
        eventually("the connection has ended", gone).await;
        let took = began.elapsed();
        assert!(took > Duration::from_secs(3) && took < Duration::from_secs(8), "{took:?}");
        assert_eq!(server.live.counters.cuts(Cut::Unbelieved), 0);
        assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK, "over a new one");
    }

    let (app, _serving) = echo().await;
    let ports = vec![Port { number: PortNumber::HTTP, protocol: Protocol::Tcp }];
    let db = Service { ports, ..resources::service("shop/db") };
    let (server, client) = (mesh.server_of(&db, &[app]), mesh.client_with(&["db"], 1));
    client.knows(db.clone(), [server.endpoint("shop/db", "i-1")]);
    short_lived(&mesh, &client, Duration::from_secs(2));
    let mut stream = opaque(&client).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    stream.write_all(b"!").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!', "a database connection is not cut every day");
}
