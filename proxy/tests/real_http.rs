//! Clients and servers that others wrote, through two sidecars: curl, h2load, wrk, gRPC and WebSocket in Python.
//!
//! Packages and pins are here; what can not be installed is skipped aloud, and nothing is skipped where the gate runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use http::{HeaderMap, Method, Version};
use outrigger_mesh::{
    Abort, Backend, Between, Fault, Filters, Fraction, PathMatch, Port, PortNumber, Protocol, Resource,
    Route, RouteMatch, RouteName, Service,
};
use outrigger_testkit::real::{self, Process, Ran};
use outrigger_testkit::{Behaviour, BodyOf, Origin, resources};
use support::{Mesh, Sidecar};

const GRPC: &str = "grpcio==1.85.1";
const WEBSOCKETS: &str = "websockets==17.4";
const BETWEEN: [Between; 3] = [Between::Http1, Between::Http2, Between::Auto];

/// A client's sidecar and that of an instance of shop/cart before `app`.
fn pair(between: Between, protocol: Protocol, app: SocketAddr) -> (Sidecar, Sidecar) {
    let mesh = Mesh::new();
    let ports = vec![Port { number: PortNumber::HTTP, protocol }];
    let service = Service { between, ports, ..resources::service("shop/cart") };
    let server = mesh.server("shop/cart", app);
    server.set(Resource::Inbound(resources::inbound(&service.identities[0], &[&service])));
    let client = mesh.client();
    client.knows(service, [server.endpoint("shop/cart", "i-1")]);
    (client, server)
}

/// Runs a program beside the test's own tasks.
async fn run(mut command: Command) -> Ran {
    tokio::task::spawn_blocking(move || real::run(&mut command, Duration::from_secs(60))).await.unwrap()
}

async fn curl(client: &Sidecar, args: &[&str]) -> Ran {
    curl_at(client.outbound, args).await
}

async fn curl_at(at: SocketAddr, args: &[&str]) -> Ran {
    let mut command = Command::new("curl");
    command.args(["-sS", "-v", "--max-time", "20", "--connect-to", &format!("::{at}")]).args(args);
    run(command).await
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(name)
}

/// A Python server, and the port that it says.
async fn python_server(python: PathBuf, name: &str) -> (Process, SocketAddr) {
    let server = Process::spawn(Command::new(python).arg(script(name)));
    let began = std::time::Instant::now();
    loop {
        let log = server.log();
        if let Some(port) = log.lines().find_map(|l| l.strip_prefix("port ")) {
            return (server, SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap())));
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{name} does not start: {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn installed<T: Send + 'static>(install: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(install).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_of_every_version_loads_up_and_down() {
    let Some(()) = installed(|| real::debian(&["curl"])).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let upload = format!("@{}", file.display());
    for between in BETWEEN {
        let app = Origin::start().await;
        let (client, _server) = pair(between, Protocol::Http, app.addr());
        for (flag, version) in
            [("--http1.0", "HTTP/1.0"), ("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2")]
        {
            let what = format!("{between:?} {flag}");
            app.behave(Behaviour { body: BodyOf::Bytes(2_000_000), ..Behaviour::default() });
            let got = curl(&client, &[flag, "http://cart/download"]).await;
            assert!(got.ok && got.stdout.len() == 2_000_000, "{what}: {}", got.stderr);
            assert!(got.stderr.contains(&format!("< {version} 200")), "{what}: {}", got.stderr);

            app.behave(Behaviour { body: BodyOf::Seen, ..Behaviour::default() });
            // Two URLs: a connection that can be used again is. Not every curl manages that with uploads over HTTP/2.
            let both = [flag, "--data-binary", &upload];
            let direct = app.addr();
            let alone = curl_at(direct, &[&both[..], &["http://cart/a", "http://cart/b"]].concat()).await;
            let urls = if alone.ok { &["http://cart/a", "http://cart/b"][..] } else { &["http://cart/a"] };
            let got = curl(&client, &[&both[..], urls].concat()).await;
            let times = got.stdout.matches("\"body\":3000000").count();
            assert!(got.ok && times == urls.len(), "{what}: {}{}", got.stdout, got.stderr);
            let reused = got.stderr.contains("Re-using existing connection");
            assert_eq!(reused, urls.len() == 2 && flag != "--http1.0", "{what}: {}", got.stderr);

            let headers = vec![("content-length".parse().unwrap(), "12".parse().unwrap())];
            app.behave(Behaviour { headers, body: BodyOf::Bytes(12), ..Behaviour::default() });
            let got = curl(&client, &[flag, "--head", "http://cart/"]).await;
            assert!(
                got.ok && got.stderr.to_lowercase().contains("< content-length: 12"),
                "{what}: {}",
                got.stderr
            );
        }
        let seen = app.seen();
        assert!(seen.iter().any(|s| s.version == Version::HTTP_11));
        assert!(seen.iter().any(|s| s.method == Method::HEAD));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_hears_trailers_waits_for_100_and_sees_events_as_they_come() {
    let Some(()) = installed(|| real::debian(&["curl"])).await else { return };
    for between in BETWEEN {
        let app = Origin::start().await;
        let (client, _server) = pair(between, Protocol::Http, app.addr());
        let trailers = HeaderMap::from_iter([("x-end".parse().unwrap(), "yes".parse().unwrap())]);
        let headers = vec![("trailer".parse().unwrap(), "x-end".parse().unwrap())];
        app.behave(Behaviour { body: BodyOf::Request, trailers, headers, ..Behaviour::default() });
        for flag in ["--http1.1", "--http2-prior-knowledge"] {
            let got = curl(&client, &[flag, "-i", "-H", "TE: trailers", "-d", "body", "http://cart/"]).await;
            let said = got.stdout.to_lowercase();
            let whole = said.contains("\r\n\r\nbody") && said.contains("x-end: yes");
            assert!(got.ok && whole, "{between:?} {flag}: {said}{}", got.stderr);
        }

        app.behave(Behaviour::default());
        let expect = ["--http1.1", "-H", "Expect: 100-continue", "-d", "body", "http://cart/"];
        let got = curl(&client, &expect).await;
        assert!(got.ok && got.stderr.contains("< HTTP/1.1 100 Continue"), "{between:?}: {}", got.stderr);
        assert!(got.stdout.contains("\"body\":4"), "{between:?}: {}", got.stdout);

        let events = vec![("content-type".parse().unwrap(), "text/event-stream".parse().unwrap())];
        let pause = Duration::from_millis(300);
        let body = BodyOf::Chunks { count: 20, size: 10, pause };
        app.behave(Behaviour { body, headers: events, ..Behaviour::default() });
        let mut listening = Process::spawn(Command::new("curl").args([
            "-sN",
            "--connect-to",
            &format!("::{}", client.outbound),
            "http://cart/events",
        ]));
        let began = std::time::Instant::now();
        while listening.log().len() < 30 {
            assert!(began.elapsed() < Duration::from_secs(5), "{between:?}: no events");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(listening.ended().is_none(), "{between:?}: the events came when all of them were there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_generators_see_no_error() {
    let Some(()) = installed(|| real::debian(&["wrk", "nghttp2-client"])).await else { return };
    for between in BETWEEN {
        let app = Origin::start().await;
        let (client, _server) = pair(between, Protocol::Http, app.addr());
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c8", "-d2s", "-H", "Host: cart", &format!("http://{}/", client.outbound)]);
        let got = run(wrk).await;
        assert!(got.ok && got.stdout.contains("requests in"), "{}{}", got.stdout, got.stderr);
        assert!(
            !got.stdout.contains("Socket errors") && !got.stdout.contains("Non-2xx"),
            "{between:?}: {}",
            got.stdout
        );

        for more in [&["-c2", "-m20"][..], &["--h1", "-c4"]] {
            let mut h2load = Command::new("h2load");
            let to = format!("--connect-to={}", client.outbound);
            h2load.args(["-n1000", "-t1", &to]).args(more).arg("http://cart/");
            let got = run(h2load).await;
            let clean = "1000 succeeded, 0 failed, 0 errored, 0 timeout";
            assert!(
                got.ok && got.stdout.contains(clean),
                "{between:?} {more:?}: {}{}",
                got.stdout,
                got.stderr
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_of_every_kind_passes_with_its_status_metadata_deadline_and_cancel() {
    let Some(python) = installed(|| real::venv(&[GRPC])).await else { return };
    let (_application, at) = python_server(python.clone(), "grpc_server.py").await;
    for between in [Between::Auto, Between::Http2, Between::Http1] {
        let (client, _server) = pair(between, Protocol::Grpc, at);
        let mut command = Command::new(&python);
        command.arg(script("grpc_client.py")).arg(client.outbound.to_string());
        let got = run(command).await;
        assert!(got.ok && got.stdout.ends_with("all well\n"), "{between:?}: {}{}", got.stdout, got.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_of_grpc_sees_the_status_that_a_fault_names_in_every_kind_of_call() {
    let Some(python) = installed(|| real::venv(&[GRPC])).await else { return };
    let named = (1..=16).map(|code| (format!("grpc-{code}"), Abort::Grpc(code), code));
    // The status of gRPC that one of HTTP stands for.
    let of_http = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14)];
    let of_http = of_http.map(|(status, code)| (format!("http-{status}"), Abort::Http(status), code));
    let faults: Vec<_> = named.chain(of_http).collect();
    let route = |(name, abort, _): &(String, Abort, u8)| {
        let fault = Fault { share: Fraction::ALL, matches: vec![], delay: None, abort: Some(*abort) };
        let path = Some(PathMatch::Exact(format!("/test.S/{name}").into()));
        Route {
            matches: vec![RouteMatch { path, ..RouteMatch::default() }],
            filters: Filters { faults: vec![fault], ..Filters::default() },
            backends: vec![Backend::to("shop/cart".parse().unwrap())],
            ..Route::new(RouteName::new(name).unwrap())
        }
    };
    let client = Mesh::new().client();
    let service = Service { routes: faults.iter().map(route).collect(), ..resources::service("shop/cart") };
    client.knows(service.checked().unwrap(), []);
    let mut command = Command::new(&python);
    command.arg(script("grpc_faults.py")).arg(client.outbound.to_string());
    command.args(faults.iter().map(|(name, _, code)| format!("{name}={code}")));
    let got = run(command).await;
    assert!(got.ok && got.stdout.ends_with("all well\n"), "{}{}", got.stdout, got.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_echo_ping_and_close_with_their_codes() {
    let Some(python) = installed(|| real::venv(&[WEBSOCKETS])).await else { return };
    let (_application, at) = python_server(python.clone(), "ws_server.py").await;
    for between in BETWEEN {
        let (client, _server) = pair(between, Protocol::Http, at);
        let mut command = Command::new(&python);
        command.arg(script("ws_client.py")).arg(client.outbound.to_string());
        let got = run(command).await;
        assert!(got.ok && got.stdout.ends_with("all well\n"), "{between:?}: {}{}", got.stdout, got.stderr);
    }
}
