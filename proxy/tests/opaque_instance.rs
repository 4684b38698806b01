//! An opaque connection to the address of one instance reaches that instance and no other.
//! With redirected packets: `control-plane/cli/tests/transparent/opaque.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use outrigger_mesh::{
    Endpoint, EndpointPort, Hostname, Port, PortNumber, Protocol, Reason, Resource, Service, Side,
};
use outrigger_testkit::{Owned, resources};
use support::{Mesh, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An application that says its letter to whoever connects, and counts them.
struct Raw {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    _task: Owned,
}

impl Raw {
    async fn start(letter: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        let task = Owned::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let _gone = stream.write_all(&[letter]).await;
                open.push(stream);
            }
        });
        Self { addr, connections, _task: task }
    }

    fn connections(&self) -> u64 {
        self.connections.load(SeqCst)
    }
}

/// What is heard, or nothing where the connection is refused.
async fn hears(at: SocketAddr) -> Option<u8> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap().ok()
}

fn db() -> Service {
    let port = Port { number: PortNumber::new(5432).unwrap(), protocol: Protocol::Tcp };
    Service { ports: vec![port], ..resources::service("shop/db") }
}

/// The sidecar of an instance before `app`, and what the mesh is told of that instance.
fn instance(mesh: &Mesh, uid: &str, app: SocketAddr) -> (Sidecar, Endpoint) {
    let server = mesh.server("shop/db", app);
    server.set(Resource::Inbound(resources::inbound(&resources::identity("shop", "db"), &[&db()])));
    let number = |port| PortNumber::new(port).unwrap();
    let port = EndpointPort {
        port: number(5432),
        listen: number(server.inbound.unwrap().port()),
        target: PortNumber::new(app.port()),
    };
    let endpoint = Endpoint { ports: [port].into(), ..server.endpoint("shop/db", uid) };
    (server, endpoint)
}

#[tokio::test]
async fn an_opaque_connection_to_the_address_of_an_instance_reaches_that_one_and_no_other() {
    let (first, second) = (Raw::start(b'1').await, Raw::start(b'2').await);
    let mesh = Mesh::new();
    let (one, at_one) = instance(&mesh, "i-1", first.addr);
    let (_two, at_two) = instance(&mesh, "i-2", second.addr);
    let name = |raw: &Raw| Hostname::of_socket(raw.addr).to_string();
    let client = mesh.client_with(&[&name(&first), &name(&second), "db"], 1);
    client.knows(db(), [at_one, at_two]);

    for _ in 0..20 {
        assert_eq!(hears(client.upstreams[0]).await, Some(b'1'));
    }
    assert_eq!((first.connections(), second.connections()), (20, 0));
    for _ in 0..5 {
        assert_eq!(hears(client.upstreams[1]).await, Some(b'2'));
    }
    assert_eq!((first.connections(), second.connections()), (20, 5));
    // The service as a whole is balanced.
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(client.upstreams[2]).await.unwrap();
        stream.read_u8().await.unwrap();
        open.push(stream);
    }
    assert!(first.connections() > 20 && second.connections() > 5);

    // Gone, it is not replaced by another, whatever the service's retries say.
    let before = second.connections();
    drop(one);
    for _ in 0..5 {
        assert_eq!(hears(client.upstreams[0]).await, None);
    }
    assert_eq!(second.connections(), before);
    let stats = client.live.ports.handle(Side::Client, &"shop/db".parse().unwrap(), 5432);
    assert_eq!(stats.refusals(Reason::ConnectFailed), 5);
}
