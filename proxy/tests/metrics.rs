//! What a sidecar counts of requests: by who asked whom and what came of it, on both sides, in the form that is asked for;
//! and that nobody can make it count without a bound.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod process_common;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};
use outrigger_mesh::{
    DirectResponse, Family, Filters, RateKey, RateLimit, Resource, Route, RouteName, Service, Version,
    parse_exposition,
};
use outrigger_testkit::{Behaviour, Client, Origin, eventually, real, request, resources};
use process_common::Process;
use support::{Mesh, Sidecar, open_service, plain};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

const CLIENT: &str = "http_client_request_duration_seconds";
const SERVER: &str = "http_server_request_duration_seconds";

/// How many requests were counted with these labels.
fn counted(text: &str, family: &str, labels: &[(&str, &str)]) -> u64 {
    let families = parse_exposition(text);
    let family: &Family<'_> = families.iter().find(|one| one.name == family).unwrap();
    let meant = family.samples.iter().filter(|sample| {
        let there: Vec<_> = sample.pairs().collect();
        sample.name.ends_with("_count") && labels.iter().all(|label| there.contains(label))
    });
    meant.map(|sample| sample.value.parse::<u64>().unwrap()).sum()
}

/// The same once `wanted` were: the last byte of an answer comes before its request is counted.
async fn soon(sidecar: &Sidecar, family: &str, labels: &[(&str, &str)], wanted: u64) {
    eventually(&format!("{family} {labels:?} {wanted}"), || async {
        counted(&sidecar.live.prometheus(), family, labels) == wanted
    })
    .await;
}

async fn ask(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    let mut asked = request(Method::from_bytes(method.as_bytes()).unwrap(), "cart", path, "".into());
    for (name, value) in headers {
        asked.headers_mut().insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    client.send(asked).await.unwrap().status
}

#[tokio::test]
async fn both_sides_count_who_asked_whom_for_what_and_what_came_of_it() {
    let (mesh, cart) = (Mesh::new(), Origin::start().await);
    let (server, web) = (mesh.server("shop/cart", cart.addr()), mesh.client());
    let mut endpoint = server.endpoint("shop/cart", "c-1");
    endpoint.version = Some(Version::new("v2").unwrap());
    web.knows(resources::service("shop/cart"), [endpoint]);
    let mut client = Client::h1(web.outbound).await;
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::OK);
    assert_eq!(ask(&mut client, "POST", "/", &[]).await, StatusCode::OK);
    cart.behave(Behaviour { fail: Some((StatusCode::NOT_FOUND, 100)), ..Behaviour::default() });
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::NOT_FOUND);
    let (service, who) = (("service", "shop/cart"), resources::identity("shop", "web").to_string());
    let whom = [service, ("version", "v2"), ("caller", who.as_str())];
    let (get, post) = (("http_request_method", "GET"), ("http_request_method", "POST"));
    let status = |code| ("http_response_status_code", code);
    soon(&web, CLIENT, &[&whom[..], &[get, status("200"), ("error_type", "")]].concat(), 1).await;
    soon(&web, CLIENT, &[&whom[..], &[post, status("200")]].concat(), 1).await;
    soon(&web, CLIENT, &[&whom[..], &[get, status("404"), ("error_type", "404")]].concat(), 1).await;
    let proven = [service, ("caller", who.as_str())];
    soon(&server, SERVER, &[&proven[..], &[get, status("200")]].concat(), 1).await;
    // What the caller did wrong is no error of who was asked.
    soon(&server, SERVER, &[&proven[..], &[get, status("404"), ("error_type", "")]].concat(), 1).await;
    for (sidecar, side) in [(&web, "client"), (&server, "server")] {
        soon(sidecar, "outrigger_upstream_duration_seconds", &[service, ("side", side)], 3).await;
        soon(sidecar, "outrigger_proxy_duration_seconds", &[service, ("side", side)], 3).await;
    }
}

#[tokio::test]
async fn what_a_proxy_refuses_is_counted_with_its_reason() {
    let (mesh, cart) = (Mesh::new(), Origin::start().await);
    let web = mesh.client();
    web.knows(open_service("shop/cart"), []);
    let mut client = Client::h1(web.outbound).await;
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::SERVICE_UNAVAILABLE);
    soon(&web, CLIENT, &[("service", "shop/cart"), ("error_type", "no_endpoint")], 1).await;
    let unknown = client.get("nobody", "/").await.unwrap();
    assert!(unknown.status.is_client_error() || unknown.status.is_server_error());
    soon(&web, CLIENT, &[("service", ""), ("error_type", "unknown_service")], 1).await;
    web.set(Resource::Endpoint(plain("shop/cart", "c-1", cart.addr())));
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::OK);
    soon(&web, CLIENT, &[("service", "shop/cart"), ("http_response_status_code", "200")], 1).await;
    soon(&web, CLIENT, &[], 3).await;
}

/// What a filter answers or refuses went nowhere, and is counted for the service all the same.
#[tokio::test]
async fn what_a_filter_answers_or_refuses_is_counted_for_its_service_and_route() {
    let (mesh, cart) = (Mesh::new(), Origin::start().await);
    let web = mesh.client();
    let direct = DirectResponse { status: 410, headers: vec![], body: (*b"gone").into() };
    let limit = RateLimit {
        name: "one".into(),
        matches: vec![],
        key: RateKey::Service,
        requests: 1,
        per: Duration::from_secs(3600),
        burst: 1,
    };
    let filters = Filters { direct: Some(direct), rate_limits: vec![limit], ..Filters::default() };
    let route = Route { filters, ..Route::new(RouteName::new("shop/cart/0").unwrap()) };
    let service = Service { routes: vec![route], ..open_service("shop/cart") };
    web.knows(service, [plain("shop/cart", "c-1", cart.addr())]);
    let mut client = Client::h1(web.outbound).await;
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::GONE);
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::TOO_MANY_REQUESTS);
    let here = [("service", "shop/cart"), ("route", "shop/cart/0")];
    soon(&web, CLIENT, &[&here[..], &[("http_response_status_code", "410")]].concat(), 1).await;
    soon(&web, CLIENT, &[&here[..], &[("error_type", "rate_limited")]].concat(), 1).await;
    assert_eq!((counted(&web.live.prometheus(), CLIENT, &[("service", "")]), cart.requests()), (0, 0));
}

#[tokio::test]
async fn the_time_of_a_request_is_that_of_its_whole_answer_and_the_waiting_is_the_upstreams() {
    let (mesh, cart) = (Mesh::new(), Origin::start().await);
    let web = mesh.client();
    web.knows(open_service("shop/cart"), [plain("shop/cart", "c-1", cart.addr())]);
    cart.behave(Behaviour { delay: Duration::from_millis(60), ..Behaviour::default() });
    let mut client = Client::h1(web.outbound).await;
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::OK);
    soon(&web, CLIENT, &[], 1).await;
    let text = web.live.prometheus();
    let seconds = |family: &str| -> f64 {
        let wanted = format!("{family}_sum{{");
        let line = text.lines().find(|line| line.starts_with(&wanted)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let (whole, upstream) = (seconds(CLIENT), seconds("outrigger_upstream_duration_seconds"));
    let added = seconds("outrigger_proxy_duration_seconds");
    assert!(upstream >= 0.06 && whole >= upstream, "{whole} {upstream}");
    assert!(added < upstream, "{added} {upstream}");
}

#[tokio::test]
async fn a_sampled_trace_is_an_exemplar_and_others_are_none() {
    let (mesh, cart) = (Mesh::new(), Origin::start().await);
    let web = mesh.client();
    web.knows(open_service("shop/cart"), [plain("shop/cart", "c-1", cart.addr())]);
    let mut client = Client::h1(web.outbound).await;
    let trace = |flags: &str, id: &str| format!("00-{id}-00f067aa0ba902b7-{flags}");
    let (kept, lost) = ("4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736");
    ask(&mut client, "GET", "/", &[("traceparent", &trace("01", kept))]).await;
    ask(&mut client, "GET", "/", &[("traceparent", &trace("00", lost))]).await;
    soon(&web, CLIENT, &[], 2).await;
    let text = web.live.prometheus();
    let families = parse_exposition(&text);
    let exemplars: Vec<&str> =
        families.iter().flat_map(|f| &f.samples).filter_map(|sample| sample.exemplar).collect();
    assert_eq!(exemplars.len(), 1, "{exemplars:?}");
    assert!(exemplars[0].starts_with(&format!("{{trace_id=\"{kept}\"}} ")), "{exemplars:?}");
}

/// Requests that nobody could have foreseen: paths, hosts, methods and headers of their own.
async fn flood(outbound: std::net::SocketAddr, from: usize, to: usize) {
    let mut client = Client::h1(outbound).await;
    for n in from..to {
        let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        let (host, path) = (if n % 2 == 0 { "cart".into() } else { format!("h{n}") }, format!("/p{n}?q={n}"));
        let mut asked = request(method, &host, &path, "".into());
        asked.headers_mut().insert("x-some", format!("v{n}").parse().unwrap());
        if client.send(asked).await.is_err() || client.is_closed() {
            client = Client::h1(outbound).await;
        }
    }
}

fn series(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| Some(line.rsplit_once("} ")?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_paths_hosts_and_methods_grows_neither_metrics_nor_memory() {
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "", "--workers 1 --memory-limit none");
    let page =
        async || Client::h1(sidecar.admin).await.get("localhost", "/stats/prometheus").await.unwrap().text();
    // What is shared is there then: names, buffers, the counts of what can not be foreseen.
    flood(sidecar.outbound, 0, 3_000).await;
    let (before, memory) = (series(&page().await), sidecar.memory());
    flood(sidecar.outbound, 3_000, 9_000).await;
    let (after, grown) = (series(&page().await), sidecar.memory().saturating_sub(memory));
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(after.iter().any(|line| line.contains("http_request_method=\"_OTHER\"")));
    for made_up in ["M12", "h13", "/p14", "v15"] {
        assert!(!after.iter().any(|line| line.contains(&format!("\"{made_up}"))), "{made_up}");
    }
    assert!(grown < 2 << 20, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_comes_in_the_form_that_is_asked_for() {
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "", "--workers 1");
    let mut client = Client::h1(sidecar.admin).await;
    let mut page = async |accept: &str| {
        let mut asked = request(Method::GET, "localhost", "/stats/prometheus", "".into());
        asked.headers_mut().insert(header::ACCEPT, accept.parse().unwrap());
        let reply = client.send(asked).await.unwrap();
        (reply.header("content-type").unwrap().to_owned(), reply.text())
    };
    let (kind, plain) = page("text/plain").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        plain.contains("# TYPE outrigger_retries_total counter\n") && !plain.contains("# EOF"),
        "{plain}"
    );
    for figure in ["process_cpu_seconds_total ", "outrigger_worker_busy_seconds_total{worker=\"worker-0\"} "]
    {
        assert!(plain.contains(figure), "{figure}");
    }
    let (kind, open) = page("application/openmetrics-text; version=1.0.0, text/plain; q=0.5").await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.contains("# TYPE outrigger_retries counter\n") && open.ends_with("# EOF\n"), "{open}");
}

/// Takes one push: the head of the request and its body. Answers with `status`.
async fn take(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let (stream, _peer) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = said.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
    (head, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_pushed_to_a_collector_and_an_independent_decoder_reads_them() {
    let python = tokio::task::spawn_blocking(|| real::venv(&[PACKAGE])).await.unwrap();
    let Some(python) = python else { return };
    let (cart, listener) = (Origin::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let collector = listener.local_addr().unwrap();
    let flags =
        format!("--workers 1 --otlp-metrics http://{collector} --otlp-protocol http --otlp-metrics-every 1s");
    let sidecar = Process::start(cart.addr(), "", &flags);
    let mut client = Client::h1(sidecar.outbound).await;
    assert_eq!(ask(&mut client, "GET", "/", &[]).await, StatusCode::OK);
    // One that is refused costs nothing but its moment: the next has all sums.
    take(&listener, "503 Service Unavailable").await;
    let (head, body) = take(&listener, "200 OK").await;
    assert!(head.starts_with("POST /v1/metrics HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("application/x-protobuf"), "{head}");
    let file = sidecar.folder().join("pushed");
    std::fs::write(&file, body).unwrap();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics_decode.py");
    let mut command = std::process::Command::new(python);
    let ran = real::run(command.arg(script).arg(&file), Duration::from_secs(30));
    assert!(ran.ok, "{}", ran.stderr);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let (metrics, who) = (&told["metrics"], resources::identity("shop", "web").to_string());
    assert_eq!(told["resource"]["service.name"], who.as_str());
    let requests = &metrics["http.client.request.duration"];
    assert_eq!((&requests["kind"], &requests["unit"]), (&"histogram".into(), &"s".into()), "{requests}");
    assert_eq!((&requests["cumulative"], requests["points"].as_array().unwrap().len()), (&true.into(), 1));
    let point = &requests["points"][0];
    assert_eq!(point["count"], 1);
    let attributes = &point["attributes"];
    assert_eq!(attributes["http.request.method"], "GET");
    assert_eq!(attributes["http.response.status_code"], "200");
    assert_eq!(attributes["outrigger.service"], "shop/cart");
    assert!(attributes.get("error.type").is_none(), "{attributes}");
    let retries = &metrics["outrigger.retries"];
    assert_eq!((&retries["kind"], &retries["monotonic"]), (&"sum".into(), &true.into()), "{retries}");
    eventually("both are counted", || async {
        let page =
            Client::h1(sidecar.admin).await.get("localhost", "/stats/prometheus").await.unwrap().text();
        ["taken", "failed"].iter().all(|how| {
            let name = format!("outrigger_metrics_pushes_total{{outcome=\"{how}\"}} ");
            page.lines().any(|line| line.strip_prefix(&name).is_some_and(|count| count != "0"))
        })
    })
    .await;
}

/// The decoder, by whoever makes the protocol.
const PACKAGE: &str = "opentelemetry-proto==1.45.2";
