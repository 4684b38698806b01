//! The sidecar as a process and as `app::build` makes it: starting, serving with a control plane, ending, refusing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use clap::Parser;
use http::StatusCode;
use outrigger_mesh::{DnsTarget, Location, MtlsMode, Resource, ResourceName, Service};
use outrigger_proxy::app::{self, App};
use outrigger_proxy::drain::{Ask, Phase};
use outrigger_proxy::settings::{Args, Settings};
use outrigger_testkit::{
    Behaviour, Client, Collector, DnsClient, DnsServer, Origin, PlanServer, eventually, request, resources,
};
use tempfile::TempDir;

mod process_common;
mod secrets;
use process_common::{Process, identity_files};

/// A sidecar started by flags, joined with a token of its own.
async fn sidecar(server: &PlanServer, folder: &TempDir, account: &str, flags: &str) -> App {
    let token = server.join_token("shop", account).expose();
    let data = folder.path().join(format!("{account}-{}", now()));
    let all = format!(
        "outrigger-proxy --namespace shop --control {} --data {} --outbound 127.0.0.1:0 --inbound 127.0.0.1:0 \
         --admin 127.0.0.1:0 --drain-timeout 10s {flags}",
        server.addr(),
        data.display(),
    );
    let settings = Settings::new(Args::parse_from(all.split_whitespace()), Some(&token)).unwrap();
    app::build(settings).await.unwrap()
}

fn now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}

fn publish(server: &PlanServer, name: &str) {
    let service = resources::service(name);
    server.set(resources::inbound(&service.identities[0], &[&service]));
    server.set(service);
}

#[tokio::test]
async fn an_instance_registers_is_found_is_called_and_leaves_without_a_failed_request() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    publish(&server, "shop/cart");
    let origins = [Origin::named("one").await, Origin::named("two").await];
    let mut carts = Vec::new();
    for origin in &origins {
        let flags = format!("--service cart --version v1 --port {}", origin.addr().port());
        carts.push(sidecar(&server, &folder, "cart", &flags).await);
    }
    eventually("both are registered", || async { server.registered().len() == 2 }).await;
    let web = sidecar(&server, &folder, "web", "--service-account web --upstream cart=0").await;

    let fixed = web.bound.upstreams["cart"];
    for (at, host) in [(web.bound.outbound, "cart"), (fixed, "localhost")] {
        let reply = Client::h1(at).await.get(host, "/").await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }
    let unknown = Client::h1(web.bound.outbound).await.get("nobody", "/").await.unwrap();
    assert_eq!(unknown.header("x-outrigger-reason"), Some("unknown_service"));

    // One instance leaves under load; nobody notices.
    let outbound = web.bound.outbound;
    let load = tokio::spawn(async move {
        let mut client = Client::h1(outbound).await;
        let mut failed = 0;
        for _ in 0..400 {
            failed += u32::from(client.post("cart", "/", "order").await.unwrap().status != StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        failed
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let leaving = carts.remove(0);
    leaving.drain.ask(Ask::End);
    tokio::time::timeout(Duration::from_secs(10), leaving.wait()).await.unwrap().unwrap();
    assert_eq!(server.registered().len(), 1);
    assert_eq!(load.await.unwrap(), 0);
    assert!(origins.iter().all(|o| o.requests() > 0));
}

#[tokio::test]
async fn who_leaves_is_withdrawn_at_once_and_has_a_sidecar_until_the_application_has_gone() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    publish(&server, "shop/cart");
    publish(&server, "shop/prices");
    let (app, other) = (Origin::start().await, Origin::named("prices").await);
    let port = other.addr().port();
    let _prices = sidecar(&server, &folder, "prices", &format!("--service prices --port {port}")).await;
    let (socket, sockets) = (folder.path().join("cart.sock"), folder.path().join("tcp"));
    let flags = format!("--service cart --port {} --admin-socket {}", app.addr().port(), socket.display());
    let cart = sidecar(&server, &folder, "cart", &flags).await;
    eventually("both are registered", || async { server.registered().len() == 2 }).await;
    let row = "  sl  local_address rem_address st\n   0: 0:1F90 0:0 0A 0:0 0:0 0 4000000000 0 31337\n";
    std::fs::write(&sockets, row).unwrap();
    let mut leaving = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"))
        .args(["leave", "--timeout", "60s", "--calm", "100ms", "--admin-socket"])
        .arg(&socket)
        .arg("--sockets")
        .arg(folder.path())
        .spawn()
        .unwrap();
    cart.drain.reached(Phase::InboundClosed).await;
    assert_eq!(server.registered().len(), 1, "nobody is sent there any more");
    let call = || async { Client::h1(cart.bound.outbound).await.get("prices", "/").await.unwrap().status };
    assert_eq!(call().await, StatusCode::OK, "the application still calls others");
    assert!(leaving.try_wait().unwrap().is_none(), "the application is still there");
    std::fs::write(folder.path().join("new"), "  sl  local_address rem_address st\n").unwrap();
    std::fs::rename(folder.path().join("new"), &sockets).unwrap();
    let mut left = None;
    eventually("it has left", || {
        left = leaving.try_wait().unwrap();
        std::future::ready(left.is_some())
    })
    .await;
    assert_eq!(left.and_then(|status| status.code()), Some(0));
    assert_eq!(
        (cart.drain.phase(), call().await),
        (Phase::InboundClosed, StatusCode::OK),
        "it ends when told to"
    );
    cart.drain.ask(Ask::End);
    cart.wait().await.unwrap();
}

#[tokio::test]
async fn an_instance_whose_service_is_no_longer_its_own_lets_nobody_in() {
    let (server, folder, app) = (PlanServer::start().await, TempDir::new().unwrap(), Origin::start().await);
    publish(&server, "shop/cart");
    let flags = format!("--service cart --port {}", app.addr().port());
    let cart = sidecar(&server, &folder, "cart", &flags).await;
    eventually("it is registered", || async { server.registered().len() == 1 }).await;
    let web = sidecar(&server, &folder, "web", "--service-account web").await;
    let asks = || async {
        let reply = Client::h1(web.bound.outbound).await.get("cart", "/").await.unwrap();
        (reply.status.as_u16(), reply.header("x-outrigger-hop").map(str::to_owned))
    };
    assert_eq!(asks().await, (200, None));
    server.remove(&ResourceName::Inbound("shop".parse().unwrap(), "cart".parse().unwrap()));
    eventually("nobody is let in", || async { asks().await == (503, Some("server".into())) }).await;
    for one in [web, cart] {
        one.drain.ask(Ask::Now);
        one.wait().await.unwrap();
    }
}

#[tokio::test]
async fn names_are_answered_and_a_service_outside_is_found_by_name() {
    let (server, folder, behind) =
        (PlanServer::start().await, TempDir::new().unwrap(), DnsServer::start().await);
    let origin = Origin::start().await;
    behind.host("api.example", 60, &["127.0.0.1".parse().unwrap()]);
    behind.host("www.example", 60, &["192.0.2.1".parse().unwrap()]);
    let port = outrigger_mesh::PortNumber::new(origin.addr().port());
    let targets = vec![DnsTarget::Host { name: "api.example".parse().unwrap(), port }];
    server.set(Service {
        hostnames: vec!["api.example".parse().unwrap()],
        addresses: vec!["240.0.0.9".parse().unwrap()],
        location: Location::Dns { targets, tls: None, outside: true },
        mtls: MtlsMode::Off.into(),
        identities: vec![],
        ..resources::service("shop/api")
    });
    let flags = format!("--service-account web --dns 127.0.0.1:0 --dns-server {}", behind.addr());
    let web = sidecar(&server, &folder, "web", &flags).await;
    let reply = Client::h1(web.bound.outbound).await.get("api.example", "/").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let mut names = DnsClient::udp(web.bound.dns[0]).await;
    for (name, address) in [("api.example", "240.0.0.9"), ("www.example", "192.0.2.1")] {
        assert_eq!(names.ask(name, "A").await.unwrap().records, [address], "{name}");
    }
    assert_eq!(names.ask("nobody.shop.mesh", "A").await.unwrap().code, "Non-Existent Domain");
    assert_eq!(behind.asked("nobody.shop.mesh"), 0);
    web.drain.ask(Ask::Now);
    web.wait().await.unwrap();
}

/// On a host that others share, whoever reaches the port is not yet the application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_users_it_was_told_of_call_with_its_identity() {
    let (server, folder, origin) =
        (PlanServer::start().await, TempDir::new().unwrap(), Origin::start().await);
    publish(&server, "shop/cart");
    let _cart =
        sidecar(&server, &folder, "cart", &format!("--service cart --port {}", origin.addr().port())).await;
    let own = rustix::process::getuid().as_raw();
    let other = if own == 0 { 65_534 } else { own + 1 };
    let curl = |at: SocketAddr, user: u32| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", "host: cart"]);
        if user != own {
            std::os::unix::process::CommandExt::uid(&mut curl, user);
        }
        let out = curl.arg(format!("http://{at}/")).current_dir("/").output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    for (told, ours, theirs) in [
        (format!("{own}"), "200", "000"),
        (format!("{other}"), "000", "200"),
        (format!("{own},{other}"), "200", "200"),
    ] {
        let flags = format!("--service-account web --upstream cart=0 --application-uid {told}");
        let web = sidecar(&server, &folder, "web", &flags).await;
        for at in [web.bound.outbound, web.bound.upstreams["cart"]] {
            let curl = &curl;
            let (by_us, by_others) =
                tokio::task::block_in_place(|| (curl(at, own), (own == 0).then(|| curl(at, other))));
            assert_eq!(by_us, ours, "{told}");
            match by_others {
                Some(by_others) => assert_eq!(by_others, theirs, "{told}"),
                None => println!("skipped: only root can be another user"),
            }
        }
        web.drain.ask(Ask::End);
    }
}

#[tokio::test]
async fn what_is_in_flight_is_finished_before_the_end() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    publish(&server, "shop/cart");
    let origin = Origin::start().await;
    origin.behave(Behaviour { delay: Duration::from_millis(500), ..Behaviour::default() });
    let flags = format!("--service cart --port {}", origin.addr().port());
    let cart = sidecar(&server, &folder, "cart", &flags).await;
    eventually("it is registered", || async { server.registered().len() == 1 }).await;
    let web = sidecar(&server, &folder, "web", "--service-account web").await;
    let outbound = web.bound.outbound;
    let call = tokio::spawn(async move { Client::h1(outbound).await.get("cart", "/").await.unwrap().status });
    eventually("it is in flight", || async { origin.in_flight() == 1 }).await;
    cart.drain.ask(Ask::End);
    cart.wait().await.unwrap();
    assert_eq!(call.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_workload_that_registers_as_somebody_else_ends_with_the_reason() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    publish(&server, "shop/cart");
    let denied = outrigger_wire::rpc::RpcErrorKind::Denied;
    let why = "shop/evil may not serve shop/cart".to_owned();
    server.refuse_registration(Some(outrigger_wire::rpc::RpcError { kind: denied, message: why }));
    let origin = Origin::start().await;
    let flags = format!("--service cart --port {}", origin.addr().port());
    let cart = sidecar(&server, &folder, "cart", &flags).await;
    let why = tokio::time::timeout(Duration::from_secs(10), cart.wait()).await.unwrap().unwrap_err();
    assert!(why.contains("may not serve"), "{why}");
}

fn run(flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"))
        .args(flags.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn refused(flags: &str, code: i32, said: &str) {
    let output = run(flags);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{flags}: {text}");
    assert!(text.contains(said), "{flags}: {text}");
    if code > 2 {
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn what_can_not_start_says_why_in_one_line() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = "--inbound 127.0.0.1:0 --admin 127.0.0.1:0 --service-account web";
    refused("--service Cart --port 1", 2, "Cart");
    refused("--service-account web --log nonsense=x=y", 2, "log filter");
    let port = taken.local_addr().unwrap();
    refused(&format!("{free} --data {} --outbound {port}", data.display()), 4, &port.to_string());
    let admin = format!("--service-account web --inbound 127.0.0.1:0 --outbound 127.0.0.1:0 --admin {port}");
    refused(&format!("{admin} --data {}", data.display()), 4, &port.to_string());
    // An application that is the sidecar itself, spelled otherwise.
    let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = format!("{free} --data {} --service web --port {own}", data.display());
    refused(&format!("{service} --outbound 0.0.0.0:{own}"), 3, "is a port of this sidecar");
    refused(
        &format!("{service} --outbound 127.0.0.1:0 --dns 127.0.0.1:{own}"),
        3,
        "is a port of this sidecar",
    );
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    refused(&format!("{free} --data {} --outbound 127.0.0.1:0", file.display()), 3, "file");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    refused(&format!("{free} --data {} --outbound 127.0.0.1:0", data.display()), 3, "no join token");
}

/// What is waiting to be written at the end is written.
#[tokio::test]
async fn the_access_log_goes_where_the_flags_say() {
    let (cart, folder) = (Origin::start().await, TempDir::new().unwrap());
    let file = folder.path().join("lines");
    for (flags, in_file, in_log) in [
        (format!("--access-log all --access-log-file {}", file.display()), true, false),
        ("--access-log all".to_owned(), false, true),
        (String::new(), false, false),
        ("--access-log off".to_owned(), false, false),
    ] {
        let _earlier = std::fs::remove_file(&file);
        let mut sidecar = Process::start(cart.addr(), "", &flags);
        assert_eq!(Client::h1(sidecar.outbound).await.get("cart", "/told?q=1").await.unwrap().status, 200);
        assert_eq!(sidecar.kill(rustix::process::Signal::TERM).code(), Some(0), "{flags}");
        let line = "\"path\":\"/told\"";
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!((written.contains(line), sidecar.log().contains(line)), (in_file, in_log), "{flags}");
    }
    let nowhere = folder.path().join("no").join("lines");
    let flags = "--inbound 127.0.0.1:0 --outbound 127.0.0.1:0 --admin 127.0.0.1:0 --service-account web --access-log all";
    let data = folder.path().join("data");
    refused(
        &format!("{flags} --data {} --access-log-file {}", data.display(), nowhere.display()),
        3,
        "access-log-file",
    );
}

/// What is waiting to be sent at the end is sent.
#[tokio::test(flavor = "multi_thread")]
async fn lines_by_a_template_and_spans_go_where_the_flags_say() {
    let (cart, collector) = (Origin::start().await, Collector::start().await);
    let template = "{method}|{path}|{status}|{reason}";
    let flags = format!(
        "--access-log all --access-log-format '{template}' --redact-path '/users/{{}}' --otlp-endpoint {} \
         --trace-sample 0% --trace-sample-route a/b=1%",
        collector.address()
    );
    let mut sidecar = Process::start(cart.addr(), "", &flags);
    let mut asked = request(http::Method::GET, "cart", "/users/ann", "".into());
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    asked.headers_mut().insert("traceparent", sampled.parse().unwrap());
    assert_eq!(Client::h1(sidecar.outbound).await.send(asked).await.unwrap().status, 200);
    assert_eq!(sidecar.kill(rustix::process::Signal::TERM).code(), Some(0));
    assert!(sidecar.log().contains("GET|/users/[redacted]|200|-\n"), "{}", sidecar.log());
    assert_eq!(collector.taken().len(), 1, "the last spans are sent before it ends");

    let free = "--inbound 127.0.0.1:0 --outbound 127.0.0.1:0 --admin 127.0.0.1:0 --service-account web";
    for (flags, why) in [
        ("--access-log-format {statsu}", "is it status?"),
        ("--access-log all --access-log-status 6xx", "write 404, 5xx or 400-499"),
        ("--access-log-sample 5%", "they need --access-log all"),
        ("--redact-path /users", "it hides nothing"),
        ("--otlp-endpoint otel:4317", "http://host:port"),
        ("--otlp-ca /roots", "it needs --otlp-endpoint or --otlp-metrics"),
        ("--trace-sample 2", "from 0% to 100%"),
        ("--trace-sample-route pay=1%", "names no route"),
    ] {
        refused(&format!("{free} {flags}"), 2, why);
    }
}

#[test]
fn a_plan_and_an_identity_from_files_need_no_control_plane_and_a_signal_ends_it() {
    let folder = TempDir::new().unwrap();
    let (plan, ready) = (folder.path().join("plan"), folder.path().join("ready.json"));
    let bundle = outrigger_wire::Bundle {
        owner: None,
        revision: 7,
        resources: vec![Resource::Service(resources::service("shop/cart"))],
    };
    std::fs::write(&plan, bundle.to_bytes()).unwrap();
    let identity = identity_files(folder.path());
    let flags = format!(
        "--service-account web --namespace shop --plan {} --data {} --outbound 127.0.0.1:0 --admin 127.0.0.1:0 \
         --ready-file {} {identity}",
        plan.display(),
        folder.path().join("data").display(),
        ready.display(),
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"))
        .args(flags.split_whitespace())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    while !ready.exists() {
        assert!(began.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let outbound: SocketAddr = told["outbound"].as_str().unwrap().parse().unwrap();
    assert!(std::net::TcpStream::connect(outbound).is_ok());
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
