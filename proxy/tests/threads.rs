//! Several workers in one process: each takes its share of the connections and keeps its own towards others.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use http::StatusCode;
use outrigger_testkit::{Client, Origin};
use support::{Mesh, open_service, plain};

#[tokio::test]
async fn two_workers_share_the_connections_and_each_keeps_its_own_upstream() {
    let cart = Origin::start().await;
    let web = Mesh::new().client_with(&[], 2);
    web.knows(open_service("shop/cart"), [plain("shop/cart", "cart-1", cart.addr())]);
    for _ in 0..64 {
        // One after the other: a single worker would get along with a single connection to the service.
        let reply = Client::h1(web.outbound).await.get("cart", "/").await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }
    assert_eq!(cart.connections(), 2);
}
