//! What routes say, at real sidecars and gateways: what is matched, what is done to requests, and where they go.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod choice;
mod consumer;
mod cors;
mod division;
mod faults;
mod filters;
mod matching;
mod mirrors;
#[path = "../support/mod.rs"]
mod support;
mod tcp;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderName, Method, Request};
use outrigger_mesh::{
    Algorithm, Backend, CallerMatch, Endpoint, PathMatch, Resource, Route, RouteMatch, RouteName, Service,
    Version,
};
use outrigger_testkit::{Client, Origin, Reply, RequestBody, request, resources};
use support::{Mesh, Sidecar, open_service, plain};

pub(crate) fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

/// A backend of `service`, of this version where one is named.
pub(crate) fn backend(service: &str, v: Option<&str>, weight: u32) -> Backend {
    Backend { version: v.map(version), weight, ..Backend::to(service.parse().unwrap()) }
}

pub(crate) fn route(name: &str, matches: Vec<RouteMatch>, backends: Vec<Backend>) -> Route {
    Route { matches, backends, ..Route::new(RouteName::new(name).unwrap()) }
}

pub(crate) fn prefix(path: &str) -> RouteMatch {
    RouteMatch { path: Some(PathMatch::Prefix(path.into())), ..RouteMatch::default() }
}

pub(crate) fn caller(account: &str) -> CallerMatch {
    CallerMatch::Id(resources::identity("shop", account))
}

/// An instance of `service`, of a version that is the origin's name.
pub(crate) fn instance(service: &str, name: &str, origin: &Origin) -> Endpoint {
    Endpoint { version: Some(version(name)), ..plain(service, name, origin.addr()) }
}

/// `shop/cart` in the versions v1 and v2, as a client's sidecar knows it.
pub(crate) struct Shop {
    pub(crate) client: Sidecar,
    pub(crate) v1: Origin,
    pub(crate) v2: Origin,
    pub(crate) mesh: Mesh,
}

impl Shop {
    pub(crate) async fn new(service: Service) -> Self {
        let mesh = Mesh::new();
        let client = mesh.client();
        Self::seen_by(mesh, client, service).await
    }

    pub(crate) async fn seen_by(mesh: Mesh, client: Sidecar, service: Service) -> Self {
        let (v1, v2) = (Origin::named("v1").await, Origin::named("v2").await);
        client.knows(service, [instance("shop/cart", "v1", &v1), instance("shop/cart", "v2", &v2)]);
        Self { client, v1, v2, mesh }
    }

    /// Changes what the client's sidecar knows of it.
    pub(crate) fn change(&self, service: Service) {
        self.client.set(Resource::Service(service));
    }

    /// Asks `cart` for `path` with these headers.
    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        ask(self.client.outbound, get(path, headers)).await
    }

    /// Which version answers.
    pub(crate) async fn who(&self, path: &str, headers: &[(&str, &str)]) -> String {
        who(&self.ask(path, headers).await)
    }
}

/// `shop/cart`, reachable without sidecars, whose endpoints take turns however fast they are.
pub(crate) fn in_turns() -> Service {
    let mut service = open_service("shop/cart");
    service.policy.balance.algorithm = Algorithm::RoundRobin;
    service
}

/// The same with these routes.
pub(crate) fn cart(routes: Vec<Route>) -> Service {
    Service { routes, ..in_turns() }.checked().unwrap()
}

pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request<RequestBody> {
    with(request(Method::GET, "cart", path, Bytes::new()), headers)
}

/// The request with these headers.
pub(crate) fn with(mut request: Request<RequestBody>, headers: &[(&str, &str)]) -> Request<RequestBody> {
    for (name, value) in headers {
        request
            .headers_mut()
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    request
}

pub(crate) async fn ask(at: SocketAddr, request: Request<RequestBody>) -> Reply {
    Client::h1(at).await.send(request).await.unwrap()
}

/// The name of the origin that answered, or why nobody did.
pub(crate) fn who(reply: &Reply) -> String {
    match reply.header("x-outrigger-reason") {
        Some(reason) => reason.to_owned(),
        None => reply.json()["origin"].as_str().unwrap().to_owned(),
    }
}
