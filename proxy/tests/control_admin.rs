//! The admin surface over its real listeners.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use outrigger_mesh::{Side, TrafficKey};
use outrigger_process::level::LogLevel;
use outrigger_proxy::admin::{self, AdminError, AdminState, Condition, Readiness};
use outrigger_proxy::config::registry::{Change, Registry};
use outrigger_proxy::drain::{Ask, Drain, Parts, Phase, drive};
use outrigger_proxy::live::Live;
use outrigger_testkit::{Client, Owned, PlanServer, RawClient, request, resources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Admin {
    state: Arc<AdminState>,
    client: Client,
    address: std::net::SocketAddr,
    levels: Arc<Mutex<Vec<String>>>,
    _task: Owned,
}

async fn start() -> Admin {
    start_for(false).await
}

/// `ended_by_application`: whether the application may end the sidecar.
async fn start_for(ended_by_application: bool) -> Admin {
    let live = Arc::new(Live::default());
    let registry = Arc::new(Registry::new("shop".parse().unwrap(), Arc::clone(&live)));
    let levels = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&levels);
    let state = Arc::new(AdminState {
        readiness: Readiness::waiting_for(&[Condition::Identity, Condition::Configuration]),
        drain: Drain::new(),
        registry,
        live,
        identity: OnceLock::new(),
        renewal: OnceLock::new(),
        link: OnceLock::new(),
        edge: OnceLock::new(),
        log: Arc::new(LogLevel::new(
            "info",
            Box::new(move |level| {
                if level.contains('!') {
                    return Err(format!("{level:?} is not a filter"));
                }
                noted.lock().unwrap().push(level.to_owned());
                Ok(())
            }),
        )),
        ended_by_application,
    });
    let listener = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = Owned::spawn(admin::serve(listener, Arc::clone(&state)));
    Admin { state, client: Client::h1(address).await, address, levels, _task: task }
}

impl Admin {
    async fn get(&mut self, path: &str) -> outrigger_testkit::Reply {
        self.client.get("localhost", path).await.unwrap()
    }
}

/// A sidecar whose control plane never acknowledges that it leaves.
struct Never;
impl Parts for Never {
    async fn withdraw(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
    async fn inbound_idle(&self) {}
    async fn outbound_idle(&self) {}
}

#[tokio::test]
async fn ready_says_why_not_and_when_draining() {
    let mut admin = start().await;
    admin.state.readiness.not_yet(Condition::Identity, "can not connect to 10.0.0.1:15010");
    let reply = admin.get("/ready").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.text().contains("identity: can not connect"), "{}", reply.text());
    admin.state.readiness.met(Condition::Identity);
    admin.state.readiness.met(Condition::Configuration);
    assert_eq!(admin.get("/ready").await.status, StatusCode::OK);

    let drain = admin.state.drain.clone();
    let _task = Owned::spawn(drive(drain.clone(), Never, Duration::from_secs(30)));
    drain.ask(Ask::Inbound);
    drain.reached(Phase::Withdrawing).await;
    let reply = admin.get("/ready").await;
    assert_eq!((reply.status, reply.text().contains("withdrawing")), (StatusCode::SERVICE_UNAVAILABLE, true));
}

#[tokio::test]
async fn health_says_each_condition_to_whoever_asks_for_json() {
    let mut admin = start().await;
    assert_eq!(admin.get("/healthz").await.text(), "alive\n");
    admin.state.readiness.met(Condition::Identity);
    let mut asked = request(Method::GET, "localhost", "/readyz", "".into());
    asked.headers_mut().insert("accept", "application/json".parse().unwrap());
    let reply = admin.client.send(asked).await.unwrap();
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let told = reply.json();
    assert_eq!((&told["ready"], &told["phase"]), (&false.into(), &"serving".into()), "{told}");
    assert_eq!(
        told["conditions"],
        serde_json::json!([
            { "name": "identity", "met": true, "why": null },
            { "name": "configuration", "met": false, "why": "not there yet" },
        ])
    );
}

#[tokio::test]
async fn configuration_clusters_and_certificates_are_shown_without_a_key() {
    let mut admin = start().await;
    let registry = &admin.state.registry;
    for resource in [
        outrigger_mesh::Resource::Service(resources::service("shop/cart")),
        outrigger_mesh::Resource::Endpoint(resources::endpoint(
            "shop/cart",
            "c-1",
            "127.0.0.1:9".parse().unwrap(),
        )),
    ] {
        registry.apply(Change::Set(resource)).unwrap();
    }
    assert_eq!(admin.get("/config_dump").await.json()["services"][0]["name"], "shop/cart");
    assert_eq!(admin.get("/clusters").await.json()[0]["endpoints"][0]["uid"], "c-1");
    assert!(admin.get("/certs").await.json()["identity"].is_null());

    let server = PlanServer::start().await;
    let id = resources::identity("shop", "web");
    admin.state.identity.set(server.identity(&id)).unwrap();
    let certs = admin.get("/certs").await;
    assert_eq!(certs.json()["identity"], id.to_string());
    assert!(certs.json()["expiresInSeconds"].as_i64().unwrap() > 80_000);
    assert!(!certs.text().contains("PRIVATE"));
}

#[tokio::test]
async fn metrics_are_in_the_text_format_with_help_and_type_for_each() {
    let mut admin = start().await;
    let server = PlanServer::start().await;
    admin.state.identity.set(server.identity(&resources::identity("shop", "web"))).unwrap();
    let key =
        TrafficKey { side: Side::Client, service: "shop/cart".parse().unwrap(), version: None, caller: None };
    admin.state.live.traffic.handle(&key).record(true, Duration::from_millis(2));
    let reply = admin.get("/stats/prometheus").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    assert!(text.contains("\noutrigger_cert_expiry_seconds 8"), "{text}");
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
        let described = |what: &str, n: &str| text.contains(&format!("# {what} {n} "));
        let known = |n: &str| described("HELP", n) && described("TYPE", n);
        assert!(known(name) || known(family), "{line}");
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    }
}

#[tokio::test]
async fn the_tcp_listener_changes_nothing_and_says_so() {
    let mut admin = start().await;
    assert_eq!(admin.get("/nothing").await.status, StatusCode::NOT_FOUND);
    assert!(admin.get("/nothing").await.text().contains("/config_dump"));
    for (method, path) in [
        (Method::POST, "/ready"),
        (Method::DELETE, "/config_dump"),
        (Method::POST, "/drain"),
        (Method::GET, "/quitquitquit"),
        (Method::POST, "/logging?level=trace"),
    ] {
        let reply = admin.client.send(request(method, "localhost", path, "".into())).await.unwrap();
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(admin.state.drain.phase(), Phase::Serving);
    assert!(admin.levels.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_application_that_may_end_its_sidecar_does_so_and_nothing_else() {
    let mut admin = start_for(true).await;
    let driving = tokio::spawn(drive(admin.state.drain.clone(), Gone, Duration::from_secs(30)));
    for (method, path) in
        [(Method::GET, "/quitquitquit"), (Method::POST, "/drain"), (Method::POST, "/logging?level=trace")]
    {
        let reply = admin.client.send(request(method, "localhost", path, "".into())).await.unwrap();
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(admin.state.drain.phase(), Phase::Serving);
    let asked = request(Method::POST, "localhost", "/quitquitquit", "".into());
    assert_eq!(admin.client.send(asked).await.unwrap().status, StatusCode::ACCEPTED);
    driving.await.unwrap();
    assert_eq!(admin.state.drain.phase(), Phase::Ended);
}

/// Nothing is open, and nobody has to be told.
struct Gone;

impl Parts for Gone {
    async fn withdraw(&self, _limit: Duration) {}
    async fn inbound_idle(&self) {}
    async fn outbound_idle(&self) {}
}

#[tokio::test]
async fn a_foreign_host_name_is_refused() {
    let admin = start().await;
    let mut client = Client::h1(admin.address).await;
    let reply = client.get("rebound.attacker.test:15000", "/config_dump").await.unwrap();
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let mut raw = RawClient::connect(admin.address).await;
    raw.write("GET /certs HTTP/1.1\r\nHost: localhost\r\nHost: attacker.test\r\n\r\n").await;
    let (answer, _) = raw.read_until_silent(Duration::from_millis(200)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn an_address_reachable_from_outside_or_in_use_is_an_error() {
    let error = admin::bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, AdminError::NotLoopback(_)), "{error}");
    let taken = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = admin::bind(address).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
}

async fn over_socket(path: &Path, request: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_changes_state() {
    let admin = start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let socket = admin::bind_socket(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let task = Owned::spawn(admin::serve_socket(socket, Arc::clone(&admin.state)));

    assert!(over_socket(&path, "GET /ready").await.starts_with("HTTP/1.1 503"));
    assert!(over_socket(&path, "GET /drain").await.starts_with("HTTP/1.1 405"));
    assert!(over_socket(&path, "POST /nothing").await.starts_with("HTTP/1.1 404"));
    assert!(over_socket(&path, "POST /logging").await.starts_with("HTTP/1.1 400"));
    assert!(over_socket(&path, "POST /logging?level=!!").await.contains("is not a filter"));
    assert!(over_socket(&path, "POST /logging?level=info%2Ch2%3Ddebug").await.starts_with("HTTP/1.1 200"));
    assert_eq!(*admin.levels.lock().unwrap(), ["info,h2=debug"]);
    assert!(over_socket(&path, "POST /logging?level=warn&for=25h").await.starts_with("HTTP/1.1 400"));
    let told = over_socket(&path, "GET /logging").await;
    assert!(
        told.contains("\"filter\": \"info,h2=debug\"") && told.contains("\"atStart\": \"info\""),
        "{told}"
    );
    assert!(over_socket(&path, "POST /drain").await.starts_with("HTTP/1.1 202"));

    let error = admin::bind_socket(&path).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    task.end().await;
    assert!(!path.exists(), "it is taken away with its listener");

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(admin::bind_socket(&path).expect("a socket nobody listens at is replaced"));
    fs::write(&path, "precious").unwrap();
    assert!(admin::bind_socket(&path).unwrap_err().to_string().contains("no socket"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}
