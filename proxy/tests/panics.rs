//! A panic in the middle of a request: it is counted, told with its place and without its words, and nothing but its own
//! connection ends. It is planted from outside, by what listens to the log: the program has no place for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use outrigger_process::panics;
use outrigger_testkit::{Client, Origin, eventually};
use support::{Mesh, open_service, plain};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Panics where the log tells of a host called `planted`, and keeps what it tells of panics.
struct Planted(Arc<Mutex<String>>);

impl<S: Subscriber> Layer<S> for Planted {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told(String::new());
        event.record(&mut told);
        if told.0.contains("a panic: ") {
            self.0.lock().unwrap().push_str(&told.0);
        } else if told.0.contains("planted") {
            panic!("a secret that was at hand: {}", told.0);
        }
    }
}

struct Told(String);

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _never = writeln!(self.0, "{field}={value:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_panics_ends_its_own_connection_alone_and_is_told_without_its_words() {
    let log = Arc::new(Mutex::new(String::new()));
    let listening = tracing_subscriber::registry().with(Planted(Arc::clone(&log)));
    tracing::subscriber::set_global_default(listening).unwrap();
    panics::install();
    let (mesh, cart) = (Mesh::new(), Origin::start().await);
    let web = mesh.client();
    web.knows(open_service("shop/cart"), [plain("shop/cart", "c-1", cart.addr())]);
    let mut bystander = Client::h1(web.outbound).await;
    assert_eq!(bystander.get("cart", "/").await.unwrap().status, StatusCode::OK);
    for round in 1..=3 {
        let broken = Client::h1(web.outbound).await.get("planted", "/").await;
        assert!(broken.is_err(), "{broken:?}");
        eventually("it is counted", || async { panics::count() == round }).await;
        assert_eq!(bystander.get("cart", "/").await.unwrap().status, StatusCode::OK);
        let fresh = Client::h1(web.outbound).await.get("cart", "/").await.unwrap();
        assert_eq!(fresh.status, StatusCode::OK);
    }
    let told = log.lock().unwrap().clone();
    assert!(told.contains("panics.rs:") && told.contains("thread=\"worker-0\""), "{told}");
    assert!(!told.contains("secret"), "{told}");
    assert!(panics::fallen().is_empty());
}
