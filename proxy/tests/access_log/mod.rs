//! The access log through two sidecars: who asked what, what was decided and by which rule, and nothing that a request
//! brought besides.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use outrigger_mesh::{
    AccessAction, AccessPath, AccessRule, CallerMatch, Endpoint, MtlsMode, Resource, Service,
};
use outrigger_proxy::live::Live;
use outrigger_proxy::telemetry::access_log::Lines;
use outrigger_proxy::telemetry::access_log::template::Format;
use outrigger_proxy::telemetry::access_log::writer::{Output, Writer};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, RawClient, eventually, request};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::Mesh;
use super::{access, at, cart, db, echo, echoes, everything, of, pair, policy, push, web};

/// What was written so far. A test may hold up whoever writes.
#[derive(Clone, Default)]
struct Paper(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    text: Vec<u8>,
    held: bool,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (state, released) = &*self.0;
        let mut state = released.wait_while(state.lock().unwrap(), |s| s.held).unwrap();
        state.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    /// Has the lines of `live` written here, for as long as the value lives.
    fn of(live: &Live, lines: Lines, room: usize) -> (Self, Writer) {
        let paper = Self::default();
        let output = Output::To(Box::new(paper.clone()));
        (paper, Writer::start(live, lines, Format::Json, output, room).unwrap())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn hold(&self, held: bool) {
        self.state().held = held;
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.state().text.clone()).unwrap()
    }

    /// The lines, once there are `count` of them.
    async fn lines(&self, count: usize) -> Vec<Value> {
        eventually("the lines are written", || async { self.text().matches('\n').count() >= count }).await;
        let lines: Vec<Value> = self.text().lines().map(|l| serde_json::from_str(l).expect(l)).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

fn told<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

fn metric(live: &Live, name: &str) -> u64 {
    let text = live.prometheus();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn a_line_at_either_side_tells_who_asked_what_and_which_rule_let_it_pass_or_did_not() {
    let items =
        AccessRule { name: "3".into(), from: of(web()).from, ..at(AccessPath::Prefix("/items".into())) };
    let (_app, server, client) = pair(access(vec![
        policy("allow", AccessAction::Allow, vec![items]),
        policy("deny", AccessAction::Deny, vec![at(AccessPath::Exact("/items/secret".into()))]),
    ]))
    .await;
    let version = "v1".parse().ok();
    client.set(Resource::Endpoint(Endpoint { version, ..server.endpoint("shop/cart", "i-1") }));
    let (there, _writes) = Paper::of(&server.live, Lines::All, 64);
    let (here, _writes_too) = Paper::of(&client.live, Lines::All, 64);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for mut caller in [Client::h1(client.outbound).await, Client::h2(client.outbound).await] {
        let mut call = request(Method::POST, "cart", "/items/7?q=1", "order".into());
        call.headers_mut().insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse().unwrap());
        assert_eq!(caller.send(call).await.unwrap().status, StatusCode::OK);
        assert_eq!(caller.get("cart", "/items/secret").await.unwrap().status, StatusCode::FORBIDDEN);
        assert_eq!(caller.get("cart", "/other").await.unwrap().status, StatusCode::FORBIDDEN);
    }
    let there = there.lines(6).await;
    for line in &there {
        assert_eq!((told(line, "direction"), told(line, "kind")), ("inbound", "http"), "{line}");
        assert_eq!((told(line, "service"), told(line, "host")), ("shop/cart", "cart"), "{line}");
        assert_eq!(told(line, "caller"), "spiffe://mesh.local/ns/shop/sa/web", "{line}");
        assert!(line["duration_ms"].as_f64().is_some() && told(line, "time").ends_with('Z'), "{line}");
        assert_eq!(line["ended"], Value::Null, "{line}");
    }
    for (at, line) in there.iter().enumerate() {
        let decided = (told(line, "path"), line["status"].as_u64().unwrap(), told(line, "decision"));
        let by = (told(line, "policy"), told(line, "rule"), told(line, "reason"));
        match at % 3 {
            0 => {
                assert_eq!((decided, by), (("/items/7", 200, "allowed"), ("shop/allow", "3", "")));
                assert_eq!((told(line, "method"), told(line, "trace_id")), ("POST", trace));
                assert!(line["bytes_sent"].as_u64().unwrap() > 0, "{line}");
            }
            1 => {
                assert_eq!(decided, ("/items/secret", 403, "denied"));
                assert_eq!(by, ("shop/deny", "all", "authz_denied"));
                assert_eq!((told(line, "source"), told(line, "hop")), ("caller", "server"));
            }
            _ => assert_eq!((decided, by), (("/other", 403, "denied"), ("none", "", "authz_denied"))),
        }
    }
    let here = here.lines(6).await;
    for (at, line) in here.iter().enumerate() {
        assert_eq!((told(line, "direction"), told(line, "service")), ("outbound", "shop/cart"), "{line}");
        assert_eq!((told(line, "endpoint"), line["attempts"].as_u64()), ("i-1", Some(1)), "{line}");
        let reason = if at % 3 == 0 { ("", "") } else { ("authz_denied", "server") };
        assert_eq!((told(line, "reason"), told(line, "hop")), reason, "{line}");
        assert_eq!(line["decision"], Value::Null, "it is the other side's: {line}");
    }
    assert_eq!(told(&here[0], "version"), "v1");
}

#[tokio::test]
async fn what_a_rule_on_trial_would_refuse_is_told_with_its_policy_and_passes() {
    for lines in [Lines::All, Lines::Denied] {
        let audit = access(vec![policy("try", AccessAction::Audit, vec![of(web())])]);
        let (_app, server, client) = pair(audit).await;
        let (paper, _writes) = Paper::of(&server.live, lines, 64);
        assert_eq!(Client::h1(client.outbound).await.get("cart", "/").await.unwrap().status, StatusCode::OK);
        let line = &paper.lines(1).await[0];
        assert_eq!((told(line, "decision"), told(line, "policy")), ("allowed", "default"), "{line}");
        assert_eq!(line["audited"], serde_json::json!([{"policy": "shop/try", "rule": "all"}]), "{line}");
    }
}

#[tokio::test]
async fn of_refusals_alone_there_are_no_more_than_ten_a_second() {
    let deny = policy("deny", AccessAction::Deny, vec![at(AccessPath::Exact("/secret".into()))]);
    let (_app, server, client) = pair(access(vec![deny])).await;
    let (paper, writes) = Paper::of(&server.live, Lines::Denied, 64);
    let mut caller = Client::h1(client.outbound).await;
    assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
    let began = Instant::now();
    for _ in 0..60 {
        assert_eq!(caller.get("cart", "/secret").await.unwrap().status, StatusCode::FORBIDDEN);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    writes.finish(Duration::from_secs(5)).await;
    let told: Vec<Value> = paper.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!((10..=10 * seconds).contains(&told.len()) && told.len() < 60, "{} in {seconds} s", told.len());
    assert!(told.iter().all(|line| line["path"] == "/secret"), "nothing of what passed");
    assert_eq!(
        metric(&server.live, "outrigger_access_log_dropped_total"),
        0,
        "what is not meant is not missed"
    );
}

#[tokio::test]
async fn opaque_connections_get_their_line_when_they_end() {
    let (mesh, (app, _task)) = (Mesh::new(), echo().await);
    let service = db(MtlsMode::Strict);
    let server = mesh.server("shop/db", app);
    let client = mesh.client_with(&["db"], 1);
    let mut endpoint = server.endpoint("shop/db", "i-1");
    endpoint.ports =
        [outrigger_mesh::EndpointPort { port: service.ports[0].number, ..endpoint.ports[0] }].into();
    client.knows(service.clone(), [endpoint]);
    let (there, _writes) = Paper::of(&server.live, Lines::All, 64);
    let (here, _writes_too) = Paper::of(&client.live, Lines::All, 64);
    for (count, action) in [(1, AccessAction::Allow), (2, AccessAction::Deny)] {
        push(&server, &service, access(vec![policy("p", action, vec![of(web())])]));
        let mut stream = TcpStream::connect(client.upstreams[0]).await.unwrap();
        assert_eq!(echoes(&mut stream).await, action == AccessAction::Allow);
        let _reset = stream.shutdown().await;
        drop(stream);
        let (there, here) = (there.lines(count).await, here.lines(count).await);
        let (there, here) = (&there[count - 1], &here[count - 1]);
        assert_eq!((told(there, "kind"), told(here, "kind")), ("tcp", "tcp"));
        assert_eq!((told(there, "direction"), told(here, "direction")), ("inbound", "outbound"));
        assert_eq!(told(there, "caller"), "spiffe://mesh.local/ns/shop/sa/web");
        assert_eq!((told(there, "policy"), told(there, "rule")), ("shop/p", "all"));
        if action == AccessAction::Allow {
            assert_eq!((told(there, "decision"), told(there, "ended")), ("allowed", "finished"), "{there}");
            for line in [there, here] {
                let bytes = (line["bytes_received"].as_u64(), line["bytes_sent"].as_u64());
                assert_eq!(bytes, (Some(4), Some(4)), "{line}");
            }
        } else {
            assert_eq!((told(there, "decision"), told(there, "reason")), ("denied", "authz_denied"));
            assert_eq!(told(here, "reason"), "authz_denied", "{here}");
        }
    }
}

/// Whatever a request brings besides its name is somebody's secret.
#[tokio::test]
async fn what_a_request_brings_is_in_no_line_however_it_ends() {
    const MARKER: &str = "pl4nted-m4rker";
    let deny = policy("deny", AccessAction::Deny, vec![at(AccessPath::Exact("/denied".into()))]);
    let (app, server, client) = pair(access(vec![deny])).await;
    app.behave(Behaviour { body: BodyOf::Bytes(9), ..Behaviour::default() });
    let (there, _writes) = Paper::of(&server.live, Lines::All, 64);
    let (here, _writes_too) = Paper::of(&client.live, Lines::All, 64);
    let mut caller = Client::h1(client.outbound).await;
    for path in ["/ok", "/denied", "/%2f"] {
        let target = format!("{path}?token={MARKER}");
        let mut call = request(Method::POST, "cart", &target, format!("password={MARKER}").into());
        for name in ["authorization", "cookie", "x-api-key", "x-outrigger-secret", "tracestate", "user-agent"]
        {
            call.headers_mut().insert(name, format!("Bearer {MARKER}").parse().unwrap());
        }
        caller.send(call).await.unwrap();
        caller = Client::h1(client.outbound).await;
    }
    // What is not even a request.
    let mut raw = RawClient::connect(client.outbound).await;
    raw.write(format!("GET /x HTTP/1.1\r\nhost: cart\r\nbad {MARKER}: {MARKER}\r\n\r\n")).await;
    raw.read_until_silent(Duration::from_millis(300)).await;
    let mut raw = RawClient::connect(client.outbound).await;
    raw.write(format!("GET http://user:{MARKER}@cart/x HTTP/1.1\r\nhost: cart\r\n\r\n")).await;
    raw.read_until_silent(Duration::from_millis(300)).await;
    let lines = here.lines(5).await;
    let all = there.text() + &here.text();
    assert!(!all.contains(MARKER), "{all}");
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 403, 400, 400, 400], "{all}");
    // The search does find what is there.
    caller.get("cart", &format!("/{MARKER}")).await.unwrap();
    here.lines(6).await;
    assert!(here.text().contains(MARKER));
}

#[tokio::test]
async fn no_path_ends_a_line_or_begins_another() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let open = Service { mtls: MtlsMode::Permissive.into(), ..cart() };
    let server = mesh.server("shop/cart", app.addr());
    let rule = AccessRule { from: vec![CallerMatch::Authenticated], ..everything() };
    push(&server, &open, access(vec![policy("p", AccessAction::Deny, vec![rule])]));
    let (paper, _writes) = Paper::of(&server.live, Lines::All, 64);
    let long = format!("/{}", "x".repeat(3_000));
    let paths = [
        "/a%0a{%22decision%22:%22allowed%22}",
        "/a%0d%0ab",
        "/%1b[2J",
        "/\"},{\"decision\":\"denied\"",
        "/\u{e9}\u{2028}",
        &long,
    ];
    for path in paths {
        let mut raw = RawClient::connect(server.inbound.unwrap()).await;
        raw.write(format!("GET {path} HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n")).await;
        raw.read_until_silent(Duration::from_millis(300)).await;
    }
    let lines = paper.lines(paths.len()).await;
    assert!(paper.text().bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)));
    assert!(lines.iter().all(|line| told(line, "caller") == "unauthenticated"), "{lines:?}");
    let last = lines.last().unwrap();
    assert_eq!((told(last, "path").len(), &last["path_cut"]), (1_024, &Value::Bool(true)));
}

#[tokio::test]
async fn a_place_that_takes_no_lines_holds_up_nobody_and_what_is_lost_is_counted() {
    let (app, server, client) = pair(access(vec![])).await;
    let (paper, writes) = Paper::of(&server.live, Lines::All, 4);
    paper.hold(true);
    let mut caller = Client::h1(client.outbound).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(app.requests(), 100);
    let (dropped, lines) = ("outrigger_access_log_dropped_total", "outrigger_access_log_lines_total");
    assert!(metric(&server.live, dropped) >= 90, "{}", metric(&server.live, dropped));
    assert_eq!((metric(&server.live, lines), paper.text().len()), (0, 0));
    paper.hold(false);
    writes.finish(Duration::from_secs(5)).await;
    let (dropped, lines) = (metric(&server.live, dropped), metric(&server.live, lines));
    assert_eq!((dropped + lines, paper.text().matches('\n').count() as u64), (100, lines));
}

#[tokio::test]
async fn a_request_that_is_given_up_has_its_line_too() {
    let (app, server, client) = pair(access(vec![])).await;
    let body = BodyOf::Chunks { count: 10_000, size: 10, pause: Duration::from_millis(20) };
    app.behave(Behaviour { body, ..Behaviour::default() });
    let (paper, _writes) = Paper::of(&server.live, Lines::All, 64);
    let mut caller = Client::h2(client.outbound).await;
    let answer = caller.start(request(Method::GET, "cart", "/stream", "".into())).await.unwrap();
    drop((answer, caller));
    let line = &paper.lines(1).await[0];
    assert_eq!((told(line, "ended"), line["status"].as_u64()), ("cut", Some(200)), "{line}");
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_begun_anew() {
    let (_app, server, client) = pair(access(vec![])).await;
    let folder = tempfile::TempDir::new().unwrap();
    let (path, moved) = (folder.path().join("lines"), folder.path().join("lines.1"));
    let _writes =
        Writer::start(&server.live, Lines::All, Format::Json, Output::File(path.clone()), 64).unwrap();
    let has = |path: &std::path::Path, what: &str| {
        std::fs::read_to_string(path).is_ok_and(|text| text.contains(what))
    };
    let mut caller = Client::h1(client.outbound).await;
    caller.get("cart", "/first").await.unwrap();
    eventually("the first line is there", || async { has(&path, "/first") }).await;
    std::fs::rename(&path, &moved).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    caller.get("cart", "/second").await.unwrap();
    eventually("the second is in a new file", || async { has(&path, "/second") }).await;
    assert!(has(&moved, "/first") && !has(&moved, "/second"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
