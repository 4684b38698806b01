//! The health port: what of the sidecar everybody may ask, and the kubelet's probes of the application, put to applications of
//! every kind.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_certs::UnverifiedConnector;
use outrigger_mesh::Label;
use outrigger_process::level::LogLevel;
use outrigger_proxy::admin::{AdminState, Condition, Readiness};
use outrigger_proxy::config::registry::Registry;
use outrigger_proxy::drain::Drain;
use outrigger_proxy::health::wait::Wait;
use outrigger_proxy::health::{Health, HealthState, bind, serve};
use outrigger_proxy::live::Live;
use outrigger_testkit::OutsideAuthority;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A health port that is served.
struct Port {
    address: SocketAddr,
    readiness: Readiness,
    _tasks: JoinSet<()>,
}

impl Port {
    fn open(probes: &Json, metrics: Option<&str>) -> Self {
        let live = Arc::new(Live::new(10));
        let readiness = Readiness::default();
        let admin = AdminState {
            readiness: readiness.clone(),
            drain: Drain::new(),
            registry: Arc::new(Registry::new(Label::new("shop").unwrap(), Arc::clone(&live))),
            live,
            identity: OnceLock::new(),
            renewal: OnceLock::new(),
            link: OnceLock::new(),
            edge: OnceLock::new(),
            log: Arc::new(LogLevel::new("info", Box::new(|_| Ok(())))),
            ended_by_application: false,
        };
        let health = Health {
            listen: (HERE, 0).into(),
            application: HERE,
            probes: probes.to_string().parse().unwrap(),
            metrics: metrics.map(|text| text.parse().unwrap()),
        };
        let listener = bind(health.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let state = HealthState { admin: Arc::new(admin), health, tls: UnverifiedConnector::new().unwrap() };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(state)));
        Self { address, readiness, _tasks: tasks }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.ask("GET", path).await
    }

    async fn ask(&self, method: &str, path: &str) -> (StatusCode, String) {
        let asked = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { drop(connection.await) });
            let request = Request::builder().method(method).uri(path).header("host", "pod");
            let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        timeout(Duration::from_secs(20), asked).await.unwrap()
    }
}

/// An application that answers by `answer`, over HTTP/1.1 or HTTP/2.
async fn application<B>(
    h2: bool,
    answer: impl Fn(Request<Incoming>) -> Response<B> + Clone + Send + 'static,
) -> (SocketAddr, JoinSet<()>)
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let (address, mut tasks) = (listener.local_addr().unwrap(), JoinSet::new());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer) }
            });
            connections.spawn(async move {
                let io = TokioIo::new(stream);
                if h2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(io, service).await);
                } else {
                    drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
                }
            });
        }
    });
    (address, tasks)
}

fn http(port: u16, path: &str, tls: bool) -> Json {
    json!({"http": {"port": port, "path": path, "tls": tls, "headers": [["X-Probe", "yes"]]}, "seconds": 2})
}

#[tokio::test]
async fn each_condition_has_a_page_and_nothing_else_is_told() {
    let port = Port::open(&json!({}), None);
    assert_eq!(port.get("/healthz").await.0, StatusCode::OK);
    assert_eq!(port.get("/startupz").await.0, StatusCode::OK);
    assert_eq!(port.get("/readyz").await.0, StatusCode::OK);
    port.readiness.not_yet(Condition::Registration, "the application does not accept connections yet");
    assert_eq!(
        port.get("/startupz").await.0,
        StatusCode::OK,
        "the application waits for this, and not this for it"
    );
    assert_eq!(port.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    port.readiness.not_yet(Condition::Identity, "no answer");
    let (status, why) = port.get("/startupz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("identity: no answer"), "{why}");
    assert!(port.get("/metrics").await.1.contains("outrigger_ready 0"));
    for path in ["/config_dump", "/certs", "/quitquitquit", "/app-health/app/livez", "/"] {
        assert_eq!(port.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(port.ask("POST", "/healthz").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn an_application_is_asked_over_http_with_the_probes_own_path_and_headers() {
    let (app, _tasks) = application(false, |request| {
        let asked = request.headers().get("x-probe").is_some() && request.uri() == "/live?x=1";
        let status = match request.uri().path() {
            "/moved" => 302,
            _ if asked => 200,
            _ => 500,
        };
        Response::builder().status(status).body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    let port = app.port();
    let probes = json!({
        "/app-health/app/livez": http(port, "/live?x=1", false),
        "/app-health/app/readyz": http(port, "/ready", false),
        "/app-health/app/startupz": http(port, "/moved", false),
    });
    let health = Port::open(&probes, None);
    assert_eq!(health.get("/app-health/app/livez").await, (StatusCode::OK, "well\n".into()));
    let (status, why) = health.get("/app-health/app/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("500"), "{why}");
    assert_eq!(health.get("/app-health/app/startupz").await.0, StatusCode::OK);
    assert_eq!(health.get("/app-health/app/prestop").await.0, StatusCode::NOT_FOUND);
}

/// A tcpSocket probe through a redirection would be green on a dead application: the sidecar would accept it.
#[tokio::test]
async fn an_application_is_asked_over_tcp_and_one_that_is_dead_or_hangs_is_not_well() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hanging = json!({"http": {"port": port, "path": "/", "tls": false, "headers": []}, "seconds": 1});
    let probes = json!({"/app-health/app/livez": {"tcp": {"port": port}, "seconds": 1}, "/app-health/app/readyz": hanging});
    let health = Port::open(&probes, None);
    assert_eq!(health.get("/app-health/app/livez").await.0, StatusCode::OK);
    let (status, why) = health.get("/app-health/app/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("within 1s"), "{why}");
    drop(listener);
    assert_eq!(health.get("/app-health/app/livez").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_application_that_speaks_tls_is_asked_whatever_its_certificate() {
    let (app, _tasks) = application(false, |_| Response::new(Full::<Bytes>::default())).await;
    let authority = OutsideAuthority::default();
    let server = authority.server("nobody-knows.test", &[], app).await;
    let port = server.addr().port();
    let probes = json!({"/app-health/app/livez": http(port, "/", true), "/app-health/app/readyz": http(app.port(), "/", true)});
    let health = Port::open(&probes, None);
    assert_eq!(health.get("/app-health/app/livez").await.0, StatusCode::OK);
    assert_eq!(
        health.get("/app-health/app/readyz").await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "it speaks no TLS"
    );
}

#[tokio::test]
async fn an_application_is_asked_by_the_health_protocol_of_grpc() {
    let (app, _tasks) = application(true, |request| {
        let serving = u8::from(request.uri().path() == "/grpc.health.v1.Health/Check");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving])), Frame::trailers(trailers)];
        Response::new(StreamBody::new(futures_stream(frames)))
    })
    .await;
    let (plain, _more) = application(true, |_| Response::new(Full::<Bytes>::default())).await;
    let probes = json!({
        "/app-health/app/livez": {"grpc": {"port": app.port(), "service": "cart"}, "seconds": 2},
        "/app-health/app/readyz": {"grpc": {"port": plain.port(), "service": ""}, "seconds": 2},
    });
    let health = Port::open(&probes, None);
    assert_eq!(health.get("/app-health/app/livez").await, (StatusCode::OK, "well\n".into()));
    let (status, why) = health.get("/app-health/app/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("no gRPC status"), "{why}");
}

fn futures_stream(
    frames: [Frame<Bytes>; 2],
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures_util::stream::iter(frames.into_iter().map(Ok))
}

#[tokio::test]
async fn the_applications_metrics_follow_the_sidecars_and_without_them_there_are_still_these() {
    let (app, tasks) = application(false, |request| {
        let body = if request.uri() == "/m" { "shop_orders_total 3\n# EOF\n" } else { "" };
        Response::new(Full::from(body))
    })
    .await;
    let health = Port::open(&json!({}), Some(&format!("{}/m", app.port())));
    let (status, told) = health.get("/metrics").await;
    assert!(status == StatusCode::OK && told.contains("outrigger_ready 1"));
    assert!(told.ends_with("shop_orders_total 3\n"), "{told}");
    drop(tasks);
    let told = health.get("/metrics").await.1;
    assert!(told.contains("outrigger_ready 1") && told.contains("# the application's metrics: "), "{told}");
}

#[tokio::test]
async fn waiting_ends_when_the_sidecar_has_started_and_says_why_it_has_not() {
    let health = Port::open(&json!({}), None);
    health.readiness.not_yet(Condition::Configuration, "not there yet");
    let address = health.address.to_string();
    let wait = Wait::parse_from(["wait", "--health", &address, "--timeout", "300ms"]);
    let why = wait.run().await.unwrap_err();
    assert!(why.contains("configuration: not there yet"), "{why}");
    let wait = Wait::parse_from(["wait", "--health", &address, "--timeout", "20s"]);
    let waiting = async { wait.run().await };
    let starting = async { health.readiness.met(Condition::Configuration) };
    assert_eq!(tokio::join!(waiting, starting).0, Ok(()));
}
