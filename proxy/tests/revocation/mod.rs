//! Connections end with the proof that their peer gave: at once when it is revoked or its root is gone, in order before
//! its certificate is over.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use outrigger_certs::{Authority, LeafLifetime, WorkloadKey};
use outrigger_mesh::{Between, Denylist, Port, PortNumber, Protocol, Resource, Service, SpiffeId};
use outrigger_proxy::http::edges::Cut;
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, Owned, eventually, request, resources};
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
        assert!(took < Duration::from_secs(2), "{between:?}: {took:?}");
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
        assert!(took < Duration::from_secs(2), "{between:?}: {took:?}");
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
        let ended = tokio::time::timeout(Duration::from_secs(2), stream.read_u8()).await;
        assert!(ended.expect(what).is_err(), "{what}");
    }
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
