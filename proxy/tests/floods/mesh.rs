//! Floods by a peer of the mesh, over mutual TLS at the inbound port.

use outrigger_certs::{MeshAlpn, MeshConnector};
use outrigger_mesh::{Between, Service};
use outrigger_proxy::http::edges::Cut;
use outrigger_testkit::{Client, Origin, resources};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, frame, get, opening};
use crate::support::Mesh;
use crate::{beside, told};

type Round = dyn Fn(u32) -> Vec<u8>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_peer_that_floods_is_cut_and_others_are_served() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let (server, client) = (mesh.server("shop/cart", app.addr()), mesh.client());
    let service = Service { between: Between::Http2, ..resources::service("shop/cart") };
    client.knows(service, [server.endpoint("shop/cart", "i-1")]);
    Client::h1(client.outbound).await.get("cart", "/").await.unwrap();

    let connector = MeshConnector::new(&mesh.identity(&resources::identity("shop", "web"))).unwrap();
    let expected = [resources::identity("shop", "cart")];
    let request = |n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get("cart", "/"));
    let reset = |n| frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
    let pings = move |_| frame(PING, 0, 0, &[0; 8]).repeat(500);
    let resets =
        move |round| (round * 20..round * 20 + 20).flat_map(|n| [request(n), reset(n)].concat()).collect();
    let floods: [(&[Cut], &Round); 2] = [(&[Cut::Ping], &pings), (&[Cut::RapidReset, Cut::Calm], &resets)];
    for (why, round) in floods {
        let attack = async {
            let stream = TcpStream::connect(server.inbound.unwrap()).await.unwrap();
            let secured = connector.connect(stream, &expected, MeshAlpn::H2).await.unwrap().stream;
            let (mut read, mut write) = tokio::io::split(secured);
            let reading = tokio::spawn(async move { told(&mut read).await });
            let _cut = write.write_all(&opening(&[])).await;
            let mut number = 0;
            while !reading.is_finished() && write.write_all(&round(number)).await.is_ok() {
                number += 1;
                tokio::task::yield_now().await;
            }
        };
        beside(client.outbound, "cart", attack).await;
        let counted: u64 = why.iter().map(|cut| server.live.counters.cuts(*cut)).sum();
        assert_eq!(counted, 1, "{why:?}");
    }
}
