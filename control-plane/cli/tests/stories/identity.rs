//! Who may talk to whom, and who may be what.

use std::process::Command;

use crate::support::{Mesh, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_talk_over_mutual_tls_and_the_receiver_knows_who_calls() {
    let mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;

    let forged = "By=spiffe://mesh.local/ns/shop/sa/root";
    let mut client = outrigger_testkit::Client::h1(web.outbound).await;
    let request = http::Request::get("/who")
        .header("host", "cart.shop.mesh")
        .header("x-forwarded-client-cert", forged)
        .header("x-outrigger-attempt", "7");
    let request = request.body(http_body_util::combinators::BoxBody::default()).unwrap();
    let reply = client.send(request).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());

    let seen = cart.origin.seen().into_iter().find(|s| s.target == "/who").expect("it arrived");
    let told = seen.header("x-forwarded-client-cert").expect("the caller is told");
    assert!(told.contains("URI=spiffe://mesh.local/ns/shop/sa/web"), "{told}");
    assert!(!told.contains("root"), "{told}");
    assert_ne!(seen.header("x-outrigger-attempt"), Some("7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_and_a_foreign_certificate_are_refused_at_the_inbound_port() {
    let mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let inbound = cart.sidecar.inbound.unwrap();
    let before = cart.origin.requests();

    let mut plain = outrigger_testkit::RawClient::connect(inbound).await;
    plain.write("GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    let (answer, _) = plain.read_until_silent(std::time::Duration::from_millis(500)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");

    // A foreign TLS peer: without a certificate, and with a self-signed one that claims an identity of this mesh.
    let key = mesh.path("foreign.key");
    let cert = mesh.path("foreign.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=web", "-addext", "subjectAltName=URI:spiffe://mesh.local/ns/shop/sa/web"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    for foreign in [vec![], vec!["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()]] {
        let out = s_client(&inbound.to_string(), &foreign);
        assert!(!out.contains("HTTP/1.1 200"), "{out}");
        assert!(out.contains("alert") || out.contains("error"), "the handshake must fail: {out}");
    }
    assert_eq!(cart.origin.requests(), before, "nothing of it reached the application");
    let log = cart.sidecar.log();
    assert!(
        log.contains("refused") && log.contains("no certificate"),
        "the sidecar says what it refused: {log}"
    );
}

pub(crate) fn s_client(to: &str, more: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            to,
            "-tls1_3",
            "-alpn",
            "outrigger-http1",
            "-quiet",
            "-servername",
            "mesh",
        ])
        .args(more)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let _ = stdin.write_all(b"GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n");
        std::thread::sleep(std::time::Duration::from_millis(700));
    });
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    text(&out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_registers_as_somebody_elses_service_is_refused() {
    let mesh = Mesh::start();
    mesh.services(&["cart", "prices"]);
    let origin = outrigger_testkit::Origin::named("impostor").await;
    let plan = mesh
        .sidecar("prices", "v1", origin.addr())
        .args(&["--service-account", "cart"])
        .token(mesh.token("cart"));
    let (code, said) = plan.refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("shop/prices") && said.contains("sa/cart"), "{said}");
    let control = mesh.control_log();
    assert!(control.contains("sa/cart") && control.contains("shop/prices"), "both sides log it: {control}");
    let instances = mesh.admin("/v1/instances/shop").await;
    assert_eq!(instances["items"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_bad_used_expired_or_of_another_account_is_refused_with_its_reason() {
    let mesh = Mesh::start();
    mesh.services(&["cart"]);
    let origin = outrigger_testkit::Origin::start().await;
    let plan = || mesh.sidecar("cart", "v1", origin.addr());

    let used = mesh.token("cart");
    drop(plan().token(used.clone()).start());
    let (code, said) = plan().token(used).refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("used"), "{said}");

    let (code, said) = plan().token("ojt1.not-a-token".into()).refused();
    assert_eq!(code, 2, "what is no token at all is bad usage: {said}");
    assert!(said.contains("token"), "{said}");

    let out =
        mesh.cli(&["certs", "join-token", "--namespace", "shop", "--service-account", "cart", "--ttl", "1s"]);
    let expired = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    let (code, said) = plan().token(expired).refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("expired"), "{said}");

    let (code, said) = plan().token(mesh.token("web")).refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("web"), "{said}");
    let log = mesh.control_log();
    for word in ["used", "expired"] {
        assert!(log.contains(word), "the control plane logs {word}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_mesh_is_refused_before_anything_is_sent() {
    let (mesh, other) = (Mesh::start(), Mesh::start());
    mesh.services(&["cart"]);
    other.services(&["cart"]);
    let origin = outrigger_testkit::Origin::start().await;
    let (code, said) = mesh.sidecar("cart", "v1", origin.addr()).token(other.token("cart")).refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("root") || said.contains("another mesh"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_at_half_life_without_a_failed_request() {
    let mesh = Mesh::start_with(&["--leaf-lifetime-for-tests", "12s"]);
    mesh.services(&["cart", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let serial = |told: &serde_json::Value| told.to_string();
    let first = certificates(&cart.sidecar).await;
    let load = crate::support::Load::start(web.outbound, "cart", 4);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while serial(&certificates(&cart.sidecar).await) == serial(&first) {
        assert!(std::time::Instant::now() < end, "the certificate was not renewed: {first}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    load.goes_on(100).await;
    let (good, bad) = load.end().await;
    assert!(good > 100 && bad.is_empty(), "{good} answered, failed: {bad:?}");
}

async fn certificates(sidecar: &crate::support::Sidecar) -> serde_json::Value {
    let mut client = outrigger_testkit::Client::h1(sidecar.admin).await;
    let mut told = client.get(&sidecar.admin.to_string(), "/certs").await.unwrap().json();
    // What counts down by itself is not what the story looks at.
    if let Some(all) = told.as_object_mut() {
        all.retain(|name, _| !name.contains("seconds") && !name.contains("in_"));
    }
    told
}
