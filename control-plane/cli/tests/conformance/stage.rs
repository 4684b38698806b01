//! Where the cases are played: a control plane, a sidecar without an application, a gateway, and the origins behind the
//! services `shop/a`, `shop/b` and so on. All are processes of their own but the origins.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_control::spec::{self, Object};
use outrigger_testkit::{Behaviour, Client, Origin, OutsideAuthority, eventually, request};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Mesh, Sidecar};

/// What the cases are played on.
pub(crate) struct Stage {
    pub(crate) mesh: Mesh,
    pub(crate) web: Sidecar,
    _edge: Sidecar,
    _certificates: TempDir,
    ports: Vec<(u16, std::net::SocketAddr)>,
    origins: Vec<Origin>,
}

/// The origins, each with the service of its name. `slow` takes half a second, `hangs` half a minute, `e503` and its like
/// always fail so, `g` and `h` answer calls of gRPC, `told` says headers of its own.
const ORIGINS: [&str; 14] =
    ["a", "b", "c", "g", "h", "slow", "hangs", "told", "e404", "e429", "e500", "e502", "e503", "e504"];

/// The ports of the gateway's listeners.
pub(crate) const PORTS: [u16; 2] = [80, 8080];

impl Stage {
    /// Sets it up.
    pub(crate) async fn new() -> Self {
        let mesh = Mesh::start();
        let mut origins = vec![];
        for name in ORIGINS {
            let origin = Origin::named(name).await;
            origin.behave(behaviour(name));
            origins.push(origin);
        }
        let mut yaml: Vec<String> =
            origins.iter().zip(ORIGINS).map(|(o, name)| backend("shop", name, o)).collect();
        yaml.push(backend("far", "a", &origins[0]));
        yaml.push(backend("far", "b", &origins[1]));
        yaml.push(
            TWO_VERSIONS
                .replace("$ONE", &origins[0].addr().port().to_string())
                .replace("$TWO", &origins[1].addr().port().to_string()),
        );
        yaml.push(SPECIAL.to_owned());
        yaml.push(EDGE.to_owned());
        mesh.apply(&yaml.join("---\n"));
        let web = mesh.caller("web").token(mesh.token("web")).start();
        let certificates = tempfile::tempdir().unwrap();
        OutsideAuthority::default().write(certificates.path(), "shop", "www.shop.example");
        let edge = mesh.gateway("edge", certificates.path()).args(&["--gateway-port", "8080=0"]);
        let edge = edge.token(mesh.token("edge")).start();
        let mut ports = vec![];
        for number in PORTS {
            eventually("the gateway's port is open", || async { port(&edge, number).await.is_some() }).await;
            ports.push((number, port(&edge, number).await.unwrap()));
        }
        Self { mesh, web, _edge: edge, _certificates: certificates, ports, origins }
    }

    /// Where the gateway listens for this port.
    pub(crate) fn listener(&self, number: u16) -> std::net::SocketAddr {
        self.ports.iter().find(|(n, _)| *n == number).expect("a port of the gateway").1
    }

    /// An origin by its name.
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        let at = ORIGINS.iter().position(|known| *known == name);
        &self.origins[at.unwrap_or_else(|| panic!("there is no origin {name}"))]
    }

    /// Writes objects and waits until both proxies obey; otherwise what was said. `dangling`: though they refer to what is
    /// not there or not granted, which is a state then (docs/decisions/0015-references-as-states.md).
    pub(crate) async fn apply(&self, yaml: &str, dangling: bool) -> Result<(), String> {
        let told =
            |all: Vec<spec::Problem>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let documents = spec::read(yaml, "case.yaml").map_err(told)?;
        let items: Vec<Value> = documents.iter().map(|d| Object::to_json(&d.object)).collect();
        let body = json!({ "items": items }).to_string();
        let host = self.mesh.admin.to_string();
        let more = if dangling { "&dangling=allow" } else { "" };
        let path = format!("/v1/apply?wait=applied&timeout=5s{more}");
        let mut request = request(Method::POST, &host, &path, body.into());
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(http::header::CONTENT_TYPE, json);
        let reply = Client::h1(self.mesh.admin).await.send(request).await.map_err(|e| format!("{e:#}"))?;
        if reply.status != StatusCode::OK {
            return Err(reply.text());
        }
        let missing = &reply.json()["wait"]["missing"];
        if missing.as_array().is_some_and(Vec::is_empty) {
            Ok(())
        } else {
            Err(format!("not everybody obeys: {missing}"))
        }
    }

    /// Takes an object away.
    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<(), String> {
        let (host, path) = (self.mesh.admin.to_string(), format!("/v1/{kind}/{namespace}/{name}"));
        let mut admin = Client::h1(self.mesh.admin).await;
        let there = admin.get(&host, &path).await.map_err(|e| format!("{e:#}"))?;
        let tag = there.headers.get("etag").cloned().ok_or_else(|| format!("{path}: {}", there.text()))?;
        let mut request = request(Method::DELETE, &host, &path, Bytes::new());
        request.headers_mut().insert("if-match", tag);
        let reply = admin.send(request).await.map_err(|e| format!("{e:#}"))?;
        if reply.status.is_success() {
            Ok(())
        } else {
            Err(format!("{path}: {} {}", reply.status, reply.text()))
        }
    }

    /// An object as the API tells it.
    pub(crate) async fn read(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, String> {
        let (host, path) = (self.mesh.admin.to_string(), format!("/v1/{kind}/{namespace}/{name}"));
        let reply =
            Client::h1(self.mesh.admin).await.get(&host, &path).await.map_err(|e| format!("{e:#}"))?;
        if reply.status.is_success() {
            Ok(reply.json())
        } else {
            Err(format!("{path}: {} {}", reply.status, reply.text()))
        }
    }
}

fn behaviour(name: &str) -> Behaviour {
    let mut behaviour = Behaviour::default();
    match name {
        "slow" => behaviour.delay = Duration::from_millis(500),
        "hangs" => behaviour.delay = Duration::from_secs(30),
        "g" | "h" => {
            behaviour.headers = vec![header("content-type", "application/grpc")];
            behaviour.trailers = HeaderMap::from_iter([header("grpc-status", "0")]);
        }
        "told" => {
            behaviour.headers = vec![
                header("x-one", "1"),
                header("x-two", "2"),
                header("x-three", "3"),
                header("access-control-allow-origin", "https://origin.example"),
            ];
        }
        _ => {
            let status = name.strip_prefix('e').and_then(|status| status.parse().ok());
            behaviour.fail = status.map(|status| (status, 100));
        }
    }
    behaviour
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// A service of one plaintext instance.
fn backend(namespace: &str, name: &str, origin: &Origin) -> String {
    let (protocol, port) = (if matches!(name, "g" | "h") { "grpc" } else { "http" }, origin.addr().port());
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{mtls: \"off\", discovery: static, ports: [{{port: 80, protocol: {protocol}}}]}}\n---\n\
         apiVersion: outrigger.dev/v1alpha1\nkind: Instance\nmetadata: {{name: {name}-1, namespace: {namespace}}}\n\
         spec: {{service: {name}, address: 127.0.0.1, ports: [{{port: 80, listen: {port}}}], transport: plaintext}}\n"
    )
}

/// A service with two ports, whose instances are of two versions; at port 8080 they are the other way round.
const TWO_VERSIONS: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: two, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}, {port: 8080, protocol: http}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: two-1, namespace: shop}
spec: {service: two, version: v1, address: 127.0.0.1, ports: [{port: 80, listen: $ONE}, {port: 8080, listen: $TWO}], transport: plaintext}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: two-2, namespace: shop}
spec: {service: two, version: v2, address: 127.0.0.1, ports: [{port: 80, listen: $TWO}, {port: 8080, listen: $ONE}], transport: plaintext}
";

/// A service without instances, and one of bytes that nobody looks into.
const SPECIAL: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: empty, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: opaque, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: tcp}]}
";

/// The gateway: listeners that are told apart by port and by host name.
const EDGE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: outrigger
  listeners:
    - {name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: wide, port: 80, protocol: HTTP, hostname: \"*.wide.example\"}
    - {name: narrow, port: 80, protocol: HTTP, hostname: \"*.narrow.wide.example\"}
    - {name: exact, port: 80, protocol: HTTP, hostname: exact.wide.example}
    - {name: alt, port: 8080, protocol: HTTP}
";

/// Where the gateway listens for a port.
async fn port(edge: &Sidecar, number: u16) -> Option<std::net::SocketAddr> {
    let dump = Client::h1(edge.admin).await.get("localhost", "/config_dump").await.ok()?.json();
    let ports = dump["gateway"]["ports"].as_array()?.clone();
    ports.into_iter().find(|p| p["port"] == number)?["open"].as_str()?.parse().ok()
}
