//! Access policies through two sidecars, and past them: a table of cases, each with an id and what it attacks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod access_log;
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use outrigger_mesh::{
    Access, AccessAction, AccessDefault, AccessHeader, AccessPath, AccessPolicy, AccessRule, CallerMatch,
    Hop, Inbound, MtlsMode, Port, PortNumber, Protocol, Reason, Resource, ResourceName, Service, SpiffeId,
};
use outrigger_proxy::config::registry::Change;
use outrigger_proxy::live::Live;
use outrigger_testkit::{Client, Origin, Owned, RawClient, eventually, request, resources};
use support::{Mesh, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn policy(name: &str, action: AccessAction, rules: Vec<AccessRule>) -> AccessPolicy {
    AccessPolicy { name: format!("shop/{name}").parse().unwrap(), action, rules }
}

fn access(policies: Vec<AccessPolicy>) -> Access {
    Access { default: AccessDefault::Allow, policies }
}

fn everything() -> AccessRule {
    AccessRule { name: "all".into(), ..AccessRule::default() }
}

fn of(id: SpiffeId) -> AccessRule {
    AccessRule { from: vec![CallerMatch::Id(id)], ..everything() }
}

fn at(path: AccessPath) -> AccessRule {
    AccessRule { paths: vec![path], ..everything() }
}

fn web() -> SpiffeId {
    resources::identity("shop", "web")
}

/// Puts `access` in force before the service.
fn push(server: &Sidecar, service: &Service, access: Access) {
    let name = &service.name;
    let id = resources::identity(name.namespace().as_str(), name.name().as_str());
    let mut inbound: Inbound = resources::inbound(&id, &[service]);
    inbound.services[0].access = access;
    server.set(Resource::Inbound(inbound));
}

fn cart() -> Service {
    resources::service("shop/cart")
}

/// A server's and a client's sidecar, the server's with `access` in force.
async fn pair(access: Access) -> (Origin, Sidecar, Sidecar) {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    push(&server, &cart(), access);
    let client = mesh.client();
    client.knows(cart(), [server.endpoint("shop/cart", "i-1")]);
    (app, server, client)
}

fn counted(live: &Live, policy: &str, decision: &str) -> u64 {
    let labels = format!("service=\"shop/cart\",policy=\"{policy}\",decision=\"{decision}\"");
    let text = live.prometheus();
    let line =
        text.lines().find(|l| l.starts_with("outrigger_access_decisions_total") && l.contains(&labels));
    line.and_then(|l| l.rsplit(' ').next()).map_or(0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn deny_wins_over_allow_and_what_no_allow_policy_allows_is_refused() {
    let items = AccessRule { methods: vec![Method::GET], ..at(AccessPath::Prefix("/items".into())) };
    let (app, server, client) = pair(access(vec![
        policy("allow", AccessAction::Allow, vec![AccessRule { from: of(web()).from, ..items }]),
        policy("deny", AccessAction::Deny, vec![at(AccessPath::Exact("/items/secret".into()))]),
    ]))
    .await;
    for mut caller in [Client::h1(client.outbound).await, Client::h2(client.outbound).await] {
        let reply = caller.get("cart", "/items/7").await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        for (path, why) in [("/items/secret", "policy shop/deny, rule all"), ("/", "no policy allows it")] {
            let reply = caller.get("cart", path).await.unwrap();
            let told =
                (reply.status.as_u16(), reply.header("x-outrigger-reason"), reply.header("x-outrigger-hop"));
            assert_eq!(told, (403, Some("authz_denied"), Some("server")), "{path}");
            assert!(reply.text().contains(why), "the own application may know: {}", reply.text());
        }
    }
    assert_eq!(app.requests(), 2);
    let live = &server.live;
    assert_eq!(counted(live, "shop/allow", "allowed"), 2);
    assert_eq!((counted(live, "shop/deny", "denied"), counted(live, "none", "denied")), (2, 2));
    assert_eq!(client.live.counters.retries.load(std::sync::atomic::Ordering::Relaxed), 0, "not tried again");
}

#[tokio::test]
async fn a_grpc_call_that_is_denied_gets_permission_denied() {
    let (app, _server, client) =
        pair(access(vec![policy("deny", AccessAction::Deny, vec![of(web())])])).await;
    let mut call = request(Method::POST, "cart", "/shop.Cart/Add", "x".into());
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        call.headers_mut().insert(name, value.parse().unwrap());
    }
    let reply = Client::h2(client.outbound).await.send(call).await.unwrap();
    let status = reply.header("grpc-status").map(str::to_owned);
    let status = status.or_else(|| Some(reply.trailers.get("grpc-status")?.to_str().ok()?.to_owned()));
    assert_eq!((reply.status, status.as_deref()), (StatusCode::OK, Some("7")));
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn an_audit_refuses_nothing_and_counts() {
    let (app, server, client) = pair(access(vec![policy("try", AccessAction::Audit, vec![of(web())])])).await;
    let mut caller = Client::h1(client.outbound).await;
    assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
    assert_eq!((app.requests(), counted(&server.live, "shop/try", "would_deny")), (1, 1));
    assert_eq!(counted(&server.live, "default", "allowed"), 1);
}

#[tokio::test]
async fn a_mesh_that_denies_by_default_needs_a_policy_for_everything() {
    let denies = Access { default: AccessDefault::Deny, policies: vec![] };
    let (app, _server, client) = pair(denies).await;
    let reply = Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), app.requests()), (403, 0));
}

#[tokio::test]
async fn rules_that_can_not_be_obeyed_let_nobody_in_and_older_ones_stay_in_force() {
    let (app, server, client) = pair(access(vec![])).await;
    let mut caller = Client::h1(client.outbound).await;
    server.registry.inbound_refused();
    assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK, "by the rules that it has");
    let other = Mesh::new();
    let bare = other.server("shop/cart", app.addr());
    bare.registry
        .apply(Change::Remove(ResourceName::Inbound("shop".parse().unwrap(), "cart".parse().unwrap())))
        .unwrap();
    bare.registry.inbound_refused();
    let client = other.client();
    client.knows(cart(), [bare.endpoint("shop/cart", "i-1")]);
    let reply = Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (403, Some("authz_denied")));
    push(&bare, &cart(), access(vec![]));
    assert_eq!(Client::h1(client.outbound).await.get("cart", "/").await.unwrap().status, StatusCode::OK);
}

/// A workload that serves a service no longer once lost its rules with it, and let in everybody whom the mesh knows.
#[tokio::test]
async fn rules_that_are_taken_away_and_rules_of_another_service_let_nobody_in() {
    let (app, server, client) = pair(access(vec![])).await;
    server.live.access.expect();
    let mut caller = Client::h1(client.outbound).await;
    assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
    let own = ResourceName::Inbound("shop".parse().unwrap(), "cart".parse().unwrap());
    let id = resources::identity("shop", "cart");
    for round in ["none", "another's"] {
        match round {
            "none" => server.registry.apply(Change::Remove(own.clone())).unwrap(),
            _ => server.set(Resource::Inbound(resources::inbound(&id, &[&resources::service("shop/other")]))),
        }
        let reply = caller.get("cart", "/").await.unwrap();
        // It is tried again while the budget lasts: another instance may serve it.
        let why = "discovery_unavailable: this workload has no rules of shop/cart";
        assert!(reply.status == 503 && reply.text().starts_with(why), "{round}: {}", reply.text());
    }
    assert_eq!(app.requests(), 1);
    push(&server, &cart(), access(vec![]));
    assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn opaque_connections_end_when_the_rules_are_taken_away() {
    let (mesh, (app, _task)) = (Mesh::new(), echo().await);
    let (service, server) = (db(MtlsMode::Permissive), mesh.server("shop/db", app));
    push(&server, &service, access(vec![]));
    server.live.access.expect();
    let mut stream = TcpStream::connect(server.inbound.unwrap()).await.unwrap();
    assert!(echoes(&mut stream).await);
    let own = ResourceName::Inbound("shop".parse().unwrap(), "db".parse().unwrap());
    server.registry.apply(Change::Remove(own)).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "cut, and not at the end of its time: {end:?}");
}

#[tokio::test]
async fn a_change_holds_for_the_next_request_of_open_connections() {
    let (app, server, client) = pair(access(vec![])).await;
    let (mut h1, mut h2) = (Client::h1(client.outbound).await, Client::h2(client.outbound).await);
    for round in 0..3 {
        push(&server, &cart(), access(vec![]));
        for caller in [&mut h1, &mut h2] {
            assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK, "{round}");
        }
        push(&server, &cart(), access(vec![policy("deny", AccessAction::Deny, vec![of(web())])]));
        for caller in [&mut h1, &mut h2] {
            assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::FORBIDDEN, "{round}");
            assert!(!caller.is_closed());
        }
    }
    assert_eq!(
        (app.requests(), server.live.counters.handshakes.load(std::sync::atomic::Ordering::Relaxed) <= 2),
        (6, true)
    );
}

/// What is sent past any sidecar, in plaintext, to a port that allows that.
struct Case {
    id: &'static str,
    attacks: &'static str,
    /// The path that is denied; or allowed, where that is said.
    rule: AccessPath,
    allow: bool,
    line: &'static str,
    headers: &'static str,
    expected: u16,
}

fn exact(path: &str) -> AccessPath {
    AccessPath::Exact(path.into())
}

fn prefix(path: &str) -> AccessPath {
    AccessPath::Prefix(path.into())
}

fn template(path: &str) -> AccessPath {
    AccessPath::Template(path.into())
}

fn denied(
    id: &'static str,
    attacks: &'static str,
    rule: AccessPath,
    line: &'static str,
    expected: u16,
) -> Case {
    Case { id, attacks, rule, allow: false, line, headers: "", expected }
}

fn allowed(
    id: &'static str,
    attacks: &'static str,
    rule: AccessPath,
    line: &'static str,
    expected: u16,
) -> Case {
    Case { allow: true, ..denied(id, attacks, rule, line, expected) }
}

fn cases() -> Vec<Case> {
    let admin = || exact("/admin");
    let below = || prefix("/admin");
    let keys = || template("/users/{id}/keys");
    vec![
        denied("P-01", "nothing: the path itself is denied", admin(), "GET /admin", 403),
        denied("P-02", "nothing: another path passes", admin(), "GET /other", 200),
        denied("P-03", "a trailing slash", admin(), "GET /admin/", 403),
        denied("P-04", "a double slash before it", admin(), "GET //admin", 403),
        denied("P-05", "a double slash behind it", admin(), "GET /admin//", 403),
        denied("P-06", "a dot segment", admin(), "GET /./admin", 403),
        denied("P-07", "dot segments back and forth", admin(), "GET /x/../admin", 403),
        denied("P-08", "an encoded dot segment", admin(), "GET /x/%2e%2e/admin", 403),
        denied("P-09", "a dot segment at the end", admin(), "GET /admin/.", 403),
        denied("P-10", "an escaped letter", admin(), "GET /%61dmin", 403),
        denied("P-11", "an escaped letter in upper case", admin(), "GET /%41dmin", 403),
        denied("P-12", "upper case", admin(), "GET /ADMIN", 403),
        denied("P-13", "mixed case", admin(), "GET /aDmiN", 403),
        denied("P-14", "a parameter of the segment", admin(), "GET /admin;v=1", 403),
        denied("P-15", "an empty parameter", admin(), "GET /admin;", 403),
        denied("P-16", "an escaped semicolon", admin(), "GET /admin%3bx", 403),
        denied("P-17", "a segment that is only a parameter", admin(), "GET /;x/admin", 403),
        denied("P-18", "dots before a semicolon", admin(), "GET /x/..;/admin", 400),
        denied("P-19", "an encoded slash", admin(), "GET /%2fadmin", 400),
        denied("P-20", "an encoded slash behind it", admin(), "GET /admin%2f", 400),
        denied("P-21", "an encoded backslash", admin(), "GET /%5cadmin", 400),
        denied("P-22", "a backslash", admin(), "GET /\\admin", 400),
        denied("P-23", "an encoded NUL", admin(), "GET /admin%00", 400),
        denied("P-24", "overlong UTF-8 for a slash", admin(), "GET /%c0%afadmin", 400),
        denied("P-25", "above the root", admin(), "GET /../admin", 400),
        denied("P-26", "a query", admin(), "GET /admin?x=/other", 403),
        denied("P-27", "an absolute target", admin(), "GET http://cart/admin", 403),
        denied("P-28", "below a prefix", below(), "GET /admin/users", 403),
        denied("P-29", "below a prefix, in upper case with a parameter", below(), "GET /Admin;x/Users", 403),
        denied("P-30", "beside a prefix", below(), "GET /administrator", 200),
        denied("P-31", "out of a prefix by dots", below(), "GET /admin/../other", 200),
        denied("P-32", "into a prefix by dots", below(), "GET /other/../admin/x", 403),
        denied("P-33", "a variable of a template", keys(), "GET /users/7/keys", 403),
        denied("P-34", "a variable that is empty", keys(), "GET /users//keys", 200),
        denied("P-35", "a variable with an escaped slash", keys(), "GET /users/7%2f8/keys", 400),
        denied("P-36", "a template with a trailing slash", keys(), "GET /users/7/keys/", 403),
        denied("P-37", "a template in another case", keys(), "GET /Users/7/KEYS", 403),
        denied("P-38", "a variable of two segments", keys(), "GET /users/7/8/keys", 200),
        denied("P-39", "a reserved character escaped", exact("/a@b"), "GET /a%40b", 403),
        denied("P-40", "everything, with *", prefix("/"), "OPTIONS *", 403),
        allowed("P-41", "nothing: the path itself is allowed", admin(), "GET /admin", 200),
        allowed("P-42", "an allow in another case", admin(), "GET /Admin", 403),
        allowed("P-43", "an allow with a trailing slash", admin(), "GET /admin/", 403),
        allowed("P-44", "an allow with a parameter", admin(), "GET /admin;x", 403),
        allowed("P-45", "out of an allowed prefix by dots", below(), "GET /admin/../secret", 403),
        allowed("P-46", "out of an allowed prefix by encoded dots", below(), "GET /admin/%2e%2e/secret", 403),
        allowed("P-47", "beside an allowed prefix", below(), "GET /adminx", 403),
        allowed("P-48", "an allowed template, an empty variable", keys(), "GET /users//keys", 403),
        allowed("P-49", "an allowed template, more segments", keys(), "GET /users/7/keys/x", 403),
        allowed("P-50", "everything, with *", exact("/"), "OPTIONS *", 403),
    ]
}

#[tokio::test]
async fn no_spelling_of_a_path_passes_a_deny_and_an_allow_allows_no_other() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let open = Service { mtls: MtlsMode::Permissive.into(), ..cart() };
    let server = mesh.server("shop/cart", app.addr());
    let cases = cases();
    let ids: std::collections::BTreeSet<_> = cases.iter().map(|c| c.id).collect();
    assert_eq!(ids.len(), cases.len());
    for case in cases {
        let action = if case.allow { AccessAction::Allow } else { AccessAction::Deny };
        push(&server, &open, access(vec![policy("p", action, vec![at(case.rule)])]));
        let (before, got) = (app.requests(), answered(&server, case.line, case.headers).await);
        assert_eq!(got, case.expected, "{}: {} ({})", case.id, case.attacks, case.line);
        assert_eq!(app.requests() - before, u64::from(case.expected == 200), "{}", case.id);
    }
}

#[tokio::test]
async fn each_value_of_a_header_is_looked_at_by_itself() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let open = Service { mtls: MtlsMode::Permissive.into(), ..cart() };
    let server = mesh.server("shop/cart", app.addr());
    let header =
        AccessHeader { name: "x-role".parse().unwrap(), values: vec!["admin".into(), "root".into()] };
    let rule = || AccessRule { headers: vec![header.clone()], ..everything() };
    for (id, action, headers, expected) in [
        ("H-01", AccessAction::Deny, "", 200),
        ("H-02", AccessAction::Deny, "x-role: admin\r\n", 403),
        ("H-03", AccessAction::Deny, "x-role: user\r\nx-role: root\r\n", 403),
        ("H-04", AccessAction::Deny, "X-Role: ADMIN\r\n", 403),
        ("H-05", AccessAction::Deny, "x-role: user, admin\r\n", 403),
        ("H-06", AccessAction::Deny, "x-role: user,root ,x\r\n", 403),
        ("H-07", AccessAction::Deny, "x-role: administrator\r\n", 200),
        ("H-08", AccessAction::Deny, "x-roles: admin\r\n", 200),
        ("H-09", AccessAction::Allow, "x-role: user\r\nx-role: admin\r\n", 200),
        ("H-10", AccessAction::Allow, "x-role: user, admin\r\n", 403),
        ("H-11", AccessAction::Allow, "x-role: Admin\r\n", 403),
        ("H-12", AccessAction::Allow, "x-role: adminroot\r\n", 403),
        // What Connection names does not reach the application, and so is not there.
        ("H-13", AccessAction::Allow, "x-role: admin\r\nconnection: x-role\r\n", 403),
    ] {
        push(&server, &open, access(vec![policy("p", action, vec![rule()])]));
        assert_eq!(answered(&server, "GET /", headers).await, expected, "{id}: {headers}");
    }
}

#[tokio::test]
async fn a_caller_in_plaintext_is_unauthenticated_in_every_policy_whatever_it_says_of_itself() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let open = Service { mtls: MtlsMode::Permissive.into(), ..cart() };
    let server = mesh.server("shop/cart", app.addr());
    let shop = || ("mesh.local".parse().unwrap(), "shop".parse().unwrap());
    let forged = "x-forwarded-client-cert: Hash=1;URI=spiffe://mesh.local/ns/shop/sa/web\r\n";
    for (id, caller, means_nobody) in [
        ("U-01", CallerMatch::Id(web()), false),
        ("U-02", CallerMatch::Namespace(shop().0, shop().1), false),
        ("U-03", CallerMatch::TrustDomain(shop().0), false),
        ("U-04", CallerMatch::Authenticated, false),
        ("U-05", CallerMatch::Unauthenticated, true),
    ] {
        let rule = AccessRule { from: vec![caller], ..everything() };
        for (action, expected) in [
            (AccessAction::Allow, if means_nobody { 200 } else { 403 }),
            (AccessAction::Deny, if means_nobody { 403 } else { 200 }),
        ] {
            push(&server, &open, access(vec![policy("p", action, vec![rule.clone()])]));
            assert_eq!(answered(&server, "GET /", forged).await, expected, "{id} {action:?}");
        }
    }
    let text = raw(&server, "GET /", "").await;
    assert!(!text.contains("shop/p"), "who is not trusted is not told which policy: {text}");
}

async fn answered(server: &Sidecar, line: &str, headers: &str) -> u16 {
    let text = raw(server, line, headers).await;
    text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{line}: {text}"))
}

async fn raw(server: &Sidecar, line: &str, headers: &str) -> String {
    let mut raw = RawClient::connect(server.inbound.unwrap()).await;
    let end = if headers.contains("connection:") { "" } else { "connection: close\r\n" };
    raw.write(format!("{line} HTTP/1.1\r\nhost: cart\r\n{headers}{end}\r\n")).await;
    String::from_utf8_lossy(&raw.read_until_silent(Duration::from_millis(500)).await.0).into_owned()
}

/// An application that echoes.
async fn echo() -> (SocketAddr, Owned) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = Owned::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (addr, task)
}

fn db(mtls: MtlsMode) -> Service {
    let port = Port { number: PortNumber::new(5432).unwrap(), protocol: Protocol::Tcp };
    Service { ports: vec![port], mtls: mtls.into(), ..resources::service("shop/db") }
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    let asked = async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut answer).await
    };
    tokio::time::timeout(Duration::from_secs(5), asked).await.is_ok_and(|r| r.is_ok()) && &answer == b"ping"
}

#[tokio::test]
async fn opaque_connections_are_held_to_caller_and_port_and_cut_when_a_change_denies_them() {
    let (mesh, (app, _task)) = (Mesh::new(), echo().await);
    let service = db(MtlsMode::Strict);
    let server = mesh.server("shop/db", app);
    push(&server, &service, access(vec![policy("a", AccessAction::Allow, vec![of(web())])]));
    let client = mesh.client_with(&["db"], 1);
    let stranger = mesh.client_as("cart");
    let mut endpoint = server.endpoint("shop/db", "i-1");
    endpoint.ports =
        [outrigger_mesh::EndpointPort { port: service.ports[0].number, ..endpoint.ports[0] }].into();
    for sidecar in [&client, &stranger] {
        sidecar.knows(service.clone(), [endpoint.clone()]);
    }
    let mut open = TcpStream::connect(client.upstreams[0]).await.unwrap();
    assert!(echoes(&mut open).await);

    // Rules about HTTP: an allow allows nothing here, a deny denies by what can be seen.
    let get = AccessRule { methods: vec![Method::GET], ..of(web()) };
    let other_port = AccessRule { ports: vec![PortNumber::HTTP], ..of(web()) };
    let denies = |rule: AccessRule| access(vec![policy("d", AccessAction::Deny, vec![rule])]);
    push(&server, &service, denies(other_port));
    let mut second = TcpStream::connect(client.upstreams[0]).await.unwrap();
    assert!(echoes(&mut second).await && echoes(&mut open).await, "a deny at another port");
    for access in [denies(get.clone()), access(vec![policy("a", AccessAction::Allow, vec![get])])] {
        push(&server, &service, access);
        let mut refused = TcpStream::connect(client.upstreams[0]).await.unwrap();
        assert!(!echoes(&mut refused).await);
    }
    let began = Instant::now();
    let mut rest = [0; 1];
    for stream in [&mut open, &mut second] {
        let end = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut rest)).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "cut, and not at the end of its time: {end:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(8));
    eventually("what is open is let go", || async {
        server.live.prometheus().lines().any(|l| l.contains("decision=\"denied\"") && l.contains("shop/db"))
    })
    .await;

    push(&server, &service, access(vec![policy("a", AccessAction::Allow, vec![of(web())])]));
    let mut again = TcpStream::connect(client.upstreams[0]).await.unwrap();
    assert!(echoes(&mut again).await, "nothing of it stays");
}

/// The watch for later changes once ran before the caller was told, so that it took the denial for a broken connection
/// and tried again elsewhere.
#[tokio::test]
async fn an_opaque_connection_that_is_denied_is_told_so_at_the_door_and_not_tried_again() {
    let (mesh, (app, _task)) = (Mesh::new(), echo().await);
    let (service, server) = (db(MtlsMode::Strict), mesh.server("shop/db", app));
    push(&server, &service, access(vec![policy("d", AccessAction::Deny, vec![of(web())])]));
    let client = mesh.client_with(&["db"], 1);
    let mut endpoint = server.endpoint("shop/db", "i-1");
    endpoint.ports =
        [outrigger_mesh::EndpointPort { port: service.ports[0].number, ..endpoint.ports[0] }].into();
    client.knows(service, [endpoint]);
    let mut stream = TcpStream::connect(client.upstreams[0]).await.unwrap();
    assert!(!echoes(&mut stream).await);
    let refused = |live: &Live, hop| live.counters.refusals(Reason::AuthzDenied, hop);
    // The caller hears of it before the one who refused has counted it.
    eventually("both count it", || async {
        (refused(&server.live, Hop::Server), refused(&client.live, Hop::Client)) == (1, 1)
    })
    .await;
    assert_eq!(client.live.counters.retries.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_mode_of_a_port_wins_over_its_services_and_plaintext_is_counted() {
    use MtlsMode::{Off, Permissive, Strict};
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    let mut counted = 0;
    for (of_service, of_port, plaintext) in [
        (Strict, None, false),
        (Strict, Some(Permissive), true),
        (Permissive, Some(Strict), false),
        (Off, Some(Permissive), true),
    ] {
        let port = of_port.map(|mode| (PortNumber::HTTP, mode));
        let service = Service { mtls: outrigger_mesh::MtlsModes::new(of_service, port), ..cart() };
        push(&server, &service, access(vec![]));
        client.knows(service, [server.endpoint("shop/cart", "i-1")]);
        let got = raw(&server, "GET /", "").await;
        assert_eq!(got.starts_with("HTTP/1.1 200"), plaintext, "{of_service:?} {of_port:?}: {got}");
        counted += u64::from(plaintext);
        let counters = &server.live.counters;
        assert_eq!(counters.plaintext_accepted.load(std::sync::atomic::Ordering::Relaxed), counted);
        // Sidecars use mutual TLS between them in each of these.
        let before = counters.handshakes.load(std::sync::atomic::Ordering::Relaxed);
        let mut caller = Client::h1(client.outbound).await;
        assert_eq!(caller.get("cart.shop.mesh", "/").await.unwrap().status, 200);
        let after = counters.handshakes.load(std::sync::atomic::Ordering::Relaxed);
        assert!(after > 0 && after >= before, "{of_service:?} {of_port:?}");
    }
}

#[tokio::test]
async fn an_opaque_caller_in_plaintext_is_unauthenticated() {
    let (mesh, (app, _task)) = (Mesh::new(), echo().await);
    let (service, server) = (db(MtlsMode::Permissive), mesh.server("shop/db", app));
    let unauthenticated = AccessRule { from: vec![CallerMatch::Unauthenticated], ..everything() };
    for (rule, expected) in [(of(web()), false), (unauthenticated, true)] {
        push(&server, &service, access(vec![policy("a", AccessAction::Allow, vec![rule])]));
        let mut stream = TcpStream::connect(server.inbound.unwrap()).await.unwrap();
        assert_eq!(echoes(&mut stream).await, expected);
    }
}
