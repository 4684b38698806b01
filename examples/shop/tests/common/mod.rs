//! A shop in one process around a small router that plays the mesh: it dispatches by Host or
//! `:authority` and remembers who asked for what.

#![allow(dead_code, unreachable_pub)]

pub mod process;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use outrigger_shop::call::{Outbound, Way};
use outrigger_shop::{cart, prices, reviews, serve, web};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
pub const TRACESTATE: &str = "outrigger=1,other=two";

/// Everything that runs in a test; it ends when this is dropped.
pub struct Shop {
    pub mesh: Mesh,
    pub web: SocketAddr,
    parts: JoinSet<()>,
}

/// What plays the mesh.
#[derive(Clone)]
pub struct Mesh {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    routes: Arc<Mutex<HashMap<String, Route>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    http1: Client<HttpConnector, Body>,
    http2: Client<HttpConnector, Body>,
}

/// Where requests to a service go.
#[derive(Clone)]
pub enum Route {
    To(SocketAddr),
    Answer(StatusCode, &'static str),
}

/// A request that came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub service: String,
    pub path: String,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
}

/// What an outside client got.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Shop {
    /// All services, with prices v1 and recommendations that are a canned answer.
    pub async fn open() -> Self {
        let mut parts = JoinSet::new();
        let mesh = Mesh::start(&mut parts).await;
        let outbound = || Outbound::new(Way::One(mesh.address));
        let web = run(&mut parts, web::router(outbound()).unwrap()).await;
        mesh.route("cart", Route::To(run(&mut parts, cart::router(outbound())).await));
        let (listener, address) = listener().await;
        let opinions = reviews::Catalogued { delay: Duration::ZERO };
        parts.spawn(async move { serve::reviews(listener, opinions, never()).await.unwrap() });
        mesh.route("reviews", Route::To(address));
        mesh.route(
            "recommendations",
            Route::Answer(StatusCode::OK, r#"{"recommendations":[{"id":"rope"}]}"#),
        );
        let mut shop = Self { mesh, web, parts };
        shop.prices(prices::Version::V1, Duration::ZERO).await;
        shop
    }

    /// From now on `prices` is a new instance of `version`.
    pub async fn prices(&mut self, version: prices::Version, delay: Duration) {
        let address = run(&mut self.parts, prices::router(version, delay)).await;
        self.mesh.route("prices", Route::To(address));
    }

    pub async fn get(&self, path: &str) -> Answer {
        ask(self.web, Method::GET, path, "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        ask(self.web, Method::POST, path, body).await
    }
}

impl Mesh {
    pub async fn start(parts: &mut JoinSet<()>) -> Self {
        let (listener, address) = listener().await;
        let mesh = Self {
            address,
            connections: Arc::default(),
            routes: Arc::default(),
            seen: Arc::default(),
            http1: Client::builder(TokioExecutor::new()).build_http(),
            http2: Client::builder(TokioExecutor::new()).http2_only(true).build_http(),
        };
        let connections = mesh.connections.clone();
        let listener = listener.tap_io(move |_| {
            connections.fetch_add(1, Ordering::Relaxed);
        });
        let router = Router::new().fallback(dispatch).with_state(mesh.clone());
        parts.spawn(async move { axum::serve(listener, router).await.unwrap() });
        mesh
    }

    pub fn route(&self, service: &str, route: Route) {
        self.routes.lock().unwrap().insert(service.to_owned(), route);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// What came by so far, in no particular order.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort_by(|a, b| (&a.service, &a.path).cmp(&(&b.service, &b.path)));
        seen
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

async fn dispatch(State(mesh): State<Mesh>, mut request: Request) -> Response {
    let named = request.uri().authority().map(ToString::to_string);
    let service = named.or_else(|| text(request.headers(), HOST.as_str())).unwrap();
    let path = request.uri().path_and_query().unwrap().to_string();
    mesh.seen.lock().unwrap().push(Seen {
        service: service.clone(),
        path: path.clone(),
        traceparent: text(request.headers(), "traceparent"),
        tracestate: text(request.headers(), "tracestate"),
    });
    let route = mesh.routes.lock().unwrap().get(&service).cloned();
    let address = match route {
        Some(Route::To(address)) => address,
        Some(Route::Answer(status, body)) => return (status, body).into_response(),
        None => return (StatusCode::NOT_FOUND, "unknown_service").into_response(),
    };
    let client = if request.version() == Version::HTTP_2 { &mesh.http2 } else { &mesh.http1 };
    *request.uri_mut() = format!("http://{address}{path}").parse().unwrap();
    match client.request(request).await {
        Ok(answer) => answer.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("connect_failed: {error}")).into_response(),
    }
}

/// Asks as an outside client with a trace would.
pub async fn ask(address: SocketAddr, method: Method, path: &str, body: &str) -> Answer {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/json")
        .header("traceparent", TRACEPARENT)
        .header("tracestate", TRACESTATE)
        .body(Full::from(body.to_owned()))
        .unwrap();
    let answer = async {
        let (head, body) = client.request(request).await.unwrap().into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    };
    tokio::time::timeout(Duration::from_secs(10), answer).await.expect("an answer within 10 s")
}

async fn run(parts: &mut JoinSet<()>, router: Router) -> SocketAddr {
    let (listener, address) = listener().await;
    parts.spawn(async move { serve::http(listener, router, never()).await.unwrap() });
    address
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn never() -> serve::Stop {
    Box::pin(std::future::pending())
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().unwrap().to_owned())
}
