//! The edge of the mesh from one YAML file: a way in (`Gateway`, `HTTPRoute`), ways out (`EgressService`, a service that
//! name servers know), what holds for the mesh as a whole (`MeshDefaults`), and what is refused of these kinds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outrigger_testkit::real::{self, Ran};
use outrigger_testkit::{Client, DnsServer, Hello, Origin, OutsideAuthority, eventually};
use serde_json::Value;

use crate::support::{Instance, Mesh, Sidecar, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_makes_a_way_in_and_ways_out_and_they_follow_what_is_changed() {
    if real::debian(&["curl"]).is_none() {
        return;
    }
    let (mesh, outside) = (Mesh::start(), Outside::new().await);
    mesh.apply(&outside.yaml());
    let (web, _cart) = (outside.instance(&mesh, "web").await, mesh.instance("cart", "v1").await);
    let edge = outside.gateway(&mesh);
    let at = opened(&edge, 443).await;

    // In: a stranger with nothing but the public certificate's root reaches the service.
    eventually("the route leads to web", || async { outside.curl(at).await.stdout.contains("web-v1") }).await;
    let ran = outside.curl(at).await;
    assert!(ran.stdout.ends_with("200 2"), "{ran:?}");
    let seen = web.origin.seen().pop().unwrap();
    let caller = seen.header("x-forwarded-client-cert").unwrap_or_default();
    assert!(caller.contains("/ns/shop/sa/edge"), "{caller}");

    outside.ways_out(&web.sidecar).await;

    // The route changes, and nothing else does.
    mesh.apply(&route("www.shop.example", "cart"));
    eventually("the route leads to cart", || async { outside.curl(at).await.stdout.contains("cart-v1") })
        .await;

    // What a route needs does not go before it.
    let out = mesh.cli(&["delete", "gateways", "edge", "-n", "shop"]);
    assert!(!out.status.success() && text(&out).contains("HTTPRoute shop/shop"), "{}", text(&out));
    assert!(outside.curl(at).await.stdout.ends_with("200 2"));
    for (kind, name) in [("httproutes", "shop"), ("gateways", "edge")] {
        let out = mesh.cli(&["delete", kind, name, "-n", "shop"]);
        assert!(out.status.success(), "{}", text(&out));
    }
    eventually("the port is closed", || async { tokio::net::TcpStream::connect(at).await.is_err() }).await;
    assert_eq!(web.sidecar.get("cart", "/").await.status, 200, "inside everything goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_there_costs_its_listener_only_until_it_is_there() {
    if real::debian(&["curl"]).is_none() {
        return;
    }
    let (mesh, outside) = (Mesh::start(), Outside::new().await);
    let crt = outside.folder.path().join("shop.crt");
    std::fs::remove_file(&crt).unwrap();
    let plain = "{name: plain, port: 80, protocol: HTTP}\n";
    let yaml = outside.yaml().replace("  listeners:\n", &format!("  listeners:\n  - {plain}"));
    mesh.apply(&yaml.replace(", sectionName: web", ""));
    let _web = outside.instance(&mesh, "web").await;
    let edge = outside.gateway(&mesh);
    let (tls, plain) = (opened(&edge, 443).await, opened(&edge, 80).await);
    eventually("plaintext is served", || async {
        Client::h1(plain).await.get("www.shop.example", "/").await.is_ok_and(|r| r.status == 200)
    })
    .await;
    assert!(!outside.curl(tls).await.ok);
    let fault = port(&edge, 443).await["fault"].to_string();
    assert!(fault.contains(crt.to_str().unwrap()), "it says which file: {fault}");
    assert!(edge.log().contains(crt.to_str().unwrap()), "{}", edge.log());

    outside.authority.write(outside.folder.path(), "shop", "www.shop.example");
    eventually("the certificate is served", || async { outside.curl(tls).await.stdout.ends_with("200 2") })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_at_the_edge_are_told_at_once_each_with_its_line_and_what_to_do() {
    let (mesh, outside) = (Mesh::start(), Outside::new().await);
    let yaml = outside.yaml();
    let line = |text: &str| yaml.lines().position(|l| l.contains(text)).expect(text) + 1;

    // What is wrong in itself.
    let wrong = yaml
        .replace("hostname: \"*.shop.example\"", "hostname: \"www.*.example\"")
        .replace("  ports: [{port: 443, protocol: http}]\n", "  port: 443\n");
    let (ports, pattern) = (line("ports: [{port: 443"), line("*.shop.example"));
    let egress = line("hosts: [api.example]");
    let spec = egress - 1;
    refused(
        &mesh,
        &wrong,
        &[
            (pattern, "www.*.example", "*.example.com"),
            (ports, "unknown field \"port\"", "ports"),
            (spec, "\"ports\" is missing", "add ports: a list"),
        ],
    );

    // What names something that is not there, or is the mesh's own.
    let wrong = yaml
        .replace("{name: edge, sectionName: web}", "{name: egde}, {name: edge, sectionName: wbe}")
        .replace("hosts: [api.example]", "hosts: [api.corp.example]");
    let parents = line("sectionName: web");
    refused(
        &mesh,
        &wrong,
        &[
            (parents, "no gateway shop/egde", "did you mean \"edge\"?"),
            (parents, "wbe", "did you mean \"web\"?"),
            (egress, "api.corp.example", "a MeshService has such names"),
        ],
    );
    assert_eq!(mesh.admin("/v1/services").await["items"].as_array().unwrap().len(), 0, "nothing was written");
    mesh.apply(&yaml);
}

/// Applies `yaml` and expects to be told each of `wanted`: line, what is wrong, what to do.
fn refused(mesh: &Mesh, yaml: &str, wanted: &[(usize, &str, &str)]) {
    let out = mesh.try_apply(yaml, &[]);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(3), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    for (line, wrong, hint) in wanted {
        let told = lines.windows(2).any(|two| {
            let here = two[0].contains(&format!("apply.yaml:{line}:")) && two[0].contains(wrong);
            here && two[1].contains("hint: ") && two[1].contains(hint)
        });
        assert!(told, "line {line} is told with {wrong:?} and {hint:?}:\n{said}");
    }
    assert!(said.contains(&format!("{} problems", wanted.len())), "nothing else is told:\n{said}");
}

/// What is outside the mesh: an authority, a server that speaks TLS, one that does not, and the name server that knows
/// them.
struct Outside {
    authority: OutsideAuthority,
    api: outrigger_testkit::OutsideServer,
    _payments: Origin,
    legacy: Origin,
    dns: DnsServer,
    /// The root of the authority, and the public certificate of the gateway.
    folder: tempfile::TempDir,
}

impl Outside {
    async fn new() -> Self {
        let (authority, dns) = (OutsideAuthority::default(), DnsServer::start().await);
        let (payments, legacy) = (Origin::named("payments").await, Origin::named("legacy").await);
        let api = authority.server("api.example", &["http/1.1"], payments.addr()).await;
        for name in ["api.example", "legacy.example", "other.example"] {
            dns.host(name, 60, &["127.0.0.1".parse().unwrap()]);
        }
        let folder = tempfile::tempdir().unwrap();
        authority.write(folder.path(), "shop", "www.shop.example");
        std::fs::write(folder.path().join("root.pem"), authority.root_pem()).unwrap();
        Self { authority, api, _payments: payments, legacy, dns, folder }
    }

    /// Everything in one file.
    fn yaml(&self) -> String {
        let pem = self.authority.root_pem();
        let root = format!("      {}\n", pem.lines().collect::<Vec<_>>().join("\n      "));
        let (api, legacy) = (self.api.addr().port(), self.legacy.addr().port());
        let ours = "apiVersion: outrigger.dev/v1alpha1";
        let route = route("www.shop.example", "web");
        format!(
            "{ours}\nkind: MeshDefaults\nmetadata: {{name: mesh, namespace: outrigger}}\n\
             spec:\n  outboundMode: registryOnly\n  suffixes: [corp.example]\n---\n\
             {ours}\nkind: MeshService\nmetadata: {{name: web, namespace: shop}}\n\
             spec:\n  ports: [{{port: 80, protocol: http}}]\n---\n\
             {ours}\nkind: MeshService\nmetadata: {{name: cart, namespace: shop}}\n\
             spec:\n  ports: [{{port: 80, protocol: http}}]\n---\n\
             {ours}\nkind: MeshService\nmetadata: {{name: legacy, namespace: shop}}\n\
             spec:\n  mtls: \"off\"\n  discovery: dns\n  targets: [{{host: legacy.example, port: {legacy}}}]\n  \
             ports: [{{port: 80, protocol: http}}]\n---\n\
             {ours}\nkind: EgressService\nmetadata: {{name: payments, namespace: shop}}\n\
             spec:\n  hosts: [api.example]\n  targets: [{{host: api.example, port: {api}}}]\n  \
             ports: [{{port: 443, protocol: http}}]\n  tls:\n    mode: originate\n    caBundle: |\n{root}---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\n\
             spec:\n  gatewayClassName: outrigger\n  listeners:\n  \
             - {{name: web, port: 443, protocol: HTTPS, hostname: \"*.shop.example\", \
             tls: {{certificateRefs: [{{name: shop}}]}}}}\n---\n{route}"
        )
    }

    /// An instance whose sidecar asks the name server of the test.
    async fn instance(&self, mesh: &Mesh, service: &str) -> Instance {
        let origin = Origin::named(&format!("{service}-v1")).await;
        let names = self.dns.addr().to_string();
        let plan = mesh.sidecar(service, "v1", origin.addr()).args(&["--dns-server", &names]);
        Instance { origin, sidecar: plan.token(mesh.token(service)).start() }
    }

    fn gateway(&self, mesh: &Mesh) -> Sidecar {
        mesh.gateway("edge", self.folder.path()).token(mesh.token("edge")).start()
    }

    /// The application speaks plaintext to its sidecar; only what is written may be reached.
    async fn ways_out(&self, sidecar: &Sidecar) {
        let reply = sidecar.get("api.example:443", "/pay").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().contains("payments"), "{}", reply.text());
        let name = Some("api.example".to_owned());
        let hello = Hello { name, alpn: Some("http/1.1".to_owned()), client_certificate: false };
        assert_eq!(self.api.seen(), [hello]);
        assert!(self.dns.asked("api.example") > 0);

        let reply = sidecar.get("legacy", "/").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().contains("legacy") && self.dns.asked("legacy.example") > 0);

        for nobody in ["other.example", "cart.corp.example"] {
            let reply = sidecar.get(nobody, "/").await;
            assert_eq!(reply.header("x-outrigger-reason"), Some("unknown_service"), "{}", reply.text());
            assert_eq!(self.dns.asked(nobody), 0, "{nobody}");
        }
    }

    /// What a client outside gets from `https://www.shop.example/` at `at`, and its status and version.
    async fn curl(&self, at: SocketAddr) -> Ran {
        let root: PathBuf = self.folder.path().join("root.pem");
        tokio::task::spawn_blocking(move || curl(at, &root)).await.unwrap()
    }
}

fn curl(at: SocketAddr, root: &Path) -> Ran {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "--cacert", root.to_str().unwrap()]);
    command.args(["--resolve", &format!("www.shop.example:{}:{}", at.port(), at.ip())]);
    command.args(["-w", "\n%{http_code} %{http_version}"]);
    command.arg(format!("https://www.shop.example:{}/hello", at.port()));
    real::run(&mut command, Duration::from_secs(15))
}

/// A route of the gateway `edge` for `host` to `service`, all of it.
fn route(host: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: shop, namespace: shop}}\n\
         spec:\n  parentRefs: [{{name: edge, sectionName: web}}]\n  hostnames: [{host}]\n  \
         rules: [{{backendRefs: [{{name: {service}}}]}}]\n"
    )
}

/// Where the gateway's port is open, once it is.
async fn opened(edge: &Sidecar, number: u16) -> SocketAddr {
    let open = || async { port(edge, number).await["open"].as_str().and_then(|a| a.parse().ok()) };
    eventually("the port is open", || async { open().await.is_some() }).await;
    open().await.unwrap()
}

/// What the gateway says of one of its ports.
async fn port(edge: &Sidecar, number: u16) -> Value {
    let dump = Client::h1(edge.admin).await.get("localhost", "/config_dump").await.unwrap().json();
    let ports = dump["gateway"]["ports"].as_array().cloned().unwrap_or_default();
    ports.into_iter().find(|p| p["port"] == number).unwrap_or_default()
}
