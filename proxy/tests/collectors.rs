//! Collectors elsewhere: over TLS, with headers that nobody else sees, and by either protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod process_common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::Method;
use outrigger_testkit::{
    Client, Collector, Origin, OutsideAuthority, OutsideServer, eventually, real, request, resources,
};
use process_common::Process;
use tempfile::TempDir;

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const KEY: &str = "k3y-of-the-vendor";

/// A collector behind TLS, and files for whoever sends there.
struct Elsewhere {
    collector: Collector,
    tls: OutsideServer,
    folder: TempDir,
}

impl Elsewhere {
    async fn start() -> Self {
        let (collector, authority) = (Collector::start().await, OutsideAuthority::default());
        let tls = authority.server("localhost", &["h2", "http/1.1"], collector.addr()).await;
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.root_pem()).unwrap();
        std::fs::write(folder.path().join("other.pem"), OutsideAuthority::default().root_pem()).unwrap();
        std::fs::write(folder.path().join("headers"), format!("# ours\nx-api-key: {KEY}\n")).unwrap();
        Self { collector, tls, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Flags that send everything there.
    fn flags(&self, spoken: &str, roots: &str) -> String {
        let port = self.tls.addr().port();
        format!(
            "--workers 1 --otlp-endpoint https://localhost:{port} --otlp-metrics https://localhost:{port} \
             --otlp-metrics-every 1s --access-log all --access-log-otlp --otlp-protocol {spoken} --otlp-ca {} \
             --otlp-headers-file {}",
            self.file(roots),
            self.file("headers"),
        )
    }
}

async fn ask(sidecar: &Process) {
    let mut asked = request(Method::GET, "cart", "/items", "".into());
    asked.headers_mut().insert("traceparent", SAMPLED.parse().unwrap());
    assert_eq!(Client::h1(sidecar.outbound).await.send(asked).await.unwrap().status, 200);
}

async fn page(sidecar: &Process, path: &str) -> String {
    Client::h1(sidecar.admin).await.get("localhost", path).await.unwrap().text()
}

/// The sum of the samples whose line begins like this.
async fn told(sidecar: &Process, sample: &str) -> u64 {
    let page = page(sidecar, "/stats/prometheus").await;
    page.lines().filter_map(|line| line.strip_prefix(sample)?.trim().parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_lines_and_metrics_reach_a_collector_over_tls_with_headers_that_nobody_else_sees() {
    for (spoken, alpn) in [("grpc", "h2"), ("http", "http/1.1")] {
        let (cart, there) = (Origin::start().await, Elsewhere::start().await);
        let sidecar = Process::start(cart.addr(), "", &there.flags(spoken, "ca.pem"));
        ask(&sidecar).await;
        let paths = || {
            let mut all: Vec<String> = there.collector.taken().into_iter().map(|taken| taken.path).collect();
            all.sort();
            all.dedup();
            all
        };
        eventually(&format!("all three came by {spoken}"), || async { paths().len() == 3 }).await;
        let begin = if spoken == "grpc" { "/opentelemetry.proto.collector." } else { "/v1/" };
        assert!(paths().iter().all(|path| path.starts_with(begin)), "{:?}", paths());
        for taken in there.collector.taken() {
            assert_eq!(taken.headers["x-api-key"], KEY, "{}", taken.path);
        }
        assert!(there.tls.seen().iter().all(|hello| hello.alpn.as_deref() == Some(alpn)));
        eventually("it is counted", || async { told(&sidecar, "outrigger_spans_exported_total").await > 0 })
            .await;
        // Connections are kept: one for each of the three, and not one for each push.
        let pushed = "outrigger_metrics_pushes_total{outcome=\"taken\"}";
        eventually("more pushes", || async { told(&sidecar, pushed).await > 2 }).await;
        assert_eq!(there.tls.seen().len(), 3, "{:?}", there.tls.seen());
        let mut shown = sidecar.log();
        for path in ["/stats/prometheus", "/config", "/readyz"] {
            shown += &page(&sidecar, path).await;
        }
        assert!(!shown.contains(KEY), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_for_whom_the_wrong_authority_vouches_gets_nothing_and_the_log_says_why() {
    for spoken in ["grpc", "http"] {
        let (cart, there) = (Origin::start().await, Elsewhere::start().await);
        let sidecar = Process::start(cart.addr(), "", &there.flags(spoken, "other.pem"));
        ask(&sidecar).await;
        for lost in [
            "outrigger_spans_dropped_total{why=\"failed\"}",
            "outrigger_access_log_dropped_total",
            "outrigger_metrics_pushes_total{outcome=\"failed\"}",
        ] {
            eventually(&format!("{lost} by {spoken}"), || async { told(&sidecar, lost).await > 0 }).await;
        }
        let log = sidecar.log();
        for what in ["does not take spans", "does not take access lines", "metrics can not be pushed"] {
            let line =
                log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}"));
            assert!(line.contains("no root that is trusted for it vouches for localhost"), "{line}");
        }
        assert!(there.collector.taken().is_empty() && !log.contains(KEY), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_go_over_grpc_too_and_an_independent_decoder_reads_them() {
    let python = tokio::task::spawn_blocking(|| real::venv(&[PACKAGE])).await.unwrap();
    let Some(python) = python else { return };
    let (cart, collector) = (Origin::start().await, Collector::start().await);
    let flags = format!("--workers 1 --otlp-metrics {} --otlp-metrics-every 1s", collector.address());
    let sidecar = Process::start(cart.addr(), "", &flags);
    ask(&sidecar).await;
    let before = collector.taken().len();
    eventually("a push after the request", || async { collector.taken().len() > before + 1 }).await;
    let last = collector.taken().pop().unwrap();
    assert_eq!(last.path, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
    let file = sidecar.folder().join("pushed");
    std::fs::write(&file, &last.message).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics_decode.py");
    let ran = real::run(Command::new(python).arg(script).arg(&file), Duration::from_secs(30));
    assert!(ran.ok, "{}", ran.stderr);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["resource"]["service.name"], resources::identity("shop", "web").to_string().as_str());
    assert_eq!(told["metrics"]["http.client.request.duration"]["points"][0]["count"], 1);
}

#[test]
fn what_would_be_read_on_the_way_or_is_no_header_or_no_root_is_refused_at_the_start() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (good, bad) =
        (file("good", &format!("x-api-key: {KEY}\n")), file("bad", &format!("x-api-key {KEY}\n")));
    let free = "--inbound 127.0.0.1:0 --outbound 127.0.0.1:0 --admin 127.0.0.1:0 --service-account web";
    for (flags, why) in [
        (format!("--otlp-endpoint http://otel:4317 --otlp-headers-file {good}"), "headers go over TLS"),
        (
            format!("--otlp-metrics http://10.0.0.1:4318 --otlp-headers-file {good}"),
            "--otlp-metrics http://10.0.0.1",
        ),
        (format!("--otlp-endpoint https://otel --otlp-headers-file {bad}"), "line 1: it is no header"),
        (format!("--otlp-endpoint https://otel --otlp-ca {good}"), "there is no certificate"),
        ("--otlp-endpoint https://otel --otlp-ca /no/such".to_owned(), "--otlp-ca /no/such"),
        (format!("--otlp-headers-file {good}"), "it needs --otlp-endpoint or --otlp-metrics"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
        command.args(free.split(' ')).arg("--data").arg(folder.path()).args(flags.split(' '));
        let ran = real::run(&mut command, Duration::from_secs(20));
        assert!(!ran.ok && ran.stderr.contains(why) && !ran.stderr.contains(KEY), "{flags}: {}", ran.stderr);
    }
}

/// The decoder, by whoever makes the protocol.
const PACKAGE: &str = "opentelemetry-proto==1.45.2";
