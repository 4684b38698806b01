//! The webhook over real TLS, with a cluster that is played: every recorded review, bodies that are none, a cluster that does
//! not answer, events, and whom the API server believes.

#[path = "../../inject/tests/admission/check.rs"]
#[allow(dead_code, reason = "shared with the tests of the decision, which use all of it")]
mod check;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use outrigger_certs::{
    Authority, LeafLifetime, NamedAcceptor, OutsideAlpn, OutsideConnector, OutsideName, roots_to_pem,
};
use outrigger_inject::Settings as InjectSettings;
use outrigger_mesh::{Hostname, OutsideRoots, TrustDomain};
use outrigger_testkit::real;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api::Cluster;
use super::bundle::{CONFIGURATION, put_right};
use super::events::{self, Events};
use super::facts::Namespaces;
use super::figures::Figures;
use super::server::{Desk, serve};
use check::{apply, faults};

const NAME: &str = "outrigger-control.outrigger-system.svc";

/// A cluster that knows some objects, and what was made and changed in it.
struct Played {
    objects: Mutex<BTreeMap<String, Json>>,
    away: AtomicBool,
    written: watch::Sender<Vec<(String, Json)>>,
}

impl Played {
    fn new() -> Arc<Self> {
        let namespace = json!({"metadata": {"name": "fx", "labels": {"outrigger.dev/inject": "enabled"}}});
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"fx": "deployment"},
            "ports": [{"port": 80, "targetPort": "http"}]}});
        let objects = [
            ("/api/v1/namespaces/fx".to_owned(), namespace),
            ("/api/v1/namespaces/fx/services".to_owned(), json!({"items": [service]})),
        ];
        let (away, written) = (AtomicBool::new(false), watch::Sender::default());
        Arc::new(Self { objects: Mutex::new(objects.into()), away, written })
    }

    fn note(&self, path: &str, object: &Json) {
        self.written.send_modify(|all| all.push((path.to_owned(), object.clone())));
    }
}

impl Cluster for Played {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Json>, String>> {
        let known = self.objects.lock().unwrap().get(path).cloned();
        let answer = if self.away.load(Relaxed) { Err("it is away".into()) } else { Ok(known) };
        Box::pin(async move { answer })
    }

    fn create<'a>(&'a self, path: &'a str, object: &'a Json) -> BoxFuture<'a, Result<(), String>> {
        self.note(path, object);
        Box::pin(std::future::ready(Ok(())))
    }

    fn patch<'a>(&'a self, path: &'a str, patch: &'a Json) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut objects = self.objects.lock().unwrap();
            let object = objects.get_mut(path).ok_or("not there")?;
            let steps = patch.as_array().unwrap().iter().filter(|step| step["op"] != "test").cloned();
            *object = apply(object, &Json::Array(steps.collect()))?;
            drop(objects);
            self.note(path, patch);
            Ok(())
        })
    }
}

/// A webhook that runs, and how it is reached.
struct Running {
    address: SocketAddr,
    client: OutsideConnector,
    cluster: Arc<Played>,
    figures: Arc<Figures>,
    authority: Authority,
    tls: NamedAcceptor,
    _tasks: JoinSet<()>,
}

impl Running {
    async fn start(settings: Json) -> Self {
        Self::showing(None, settings).await
    }

    /// With a certificate of somebody else, and his root, DER.
    async fn showing(own: Option<(NamedAcceptor, Vec<u8>)>, settings: Json) -> Self {
        let domain = TrustDomain::new("mesh.local").unwrap();
        let (authority, _) = Authority::create(&domain, SystemTime::now()).unwrap();
        let names = vec![Hostname::new(NAME).unwrap()];
        let (tls, roots) = if let Some((tls, root)) = own {
            (tls, vec![root.into()])
        } else {
            let (tls, _) = NamedAcceptor::new(&authority, names, LeafLifetime::default()).unwrap();
            (tls, authority.trust().roots.clone())
        };
        let client = OutsideConnector::new(&OutsideRoots::Only(roots)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cluster, figures) =
            (listener.local_addr().unwrap(), Played::new(), Arc::<Figures>::default());
        let (events, waiting) = Events::new(Arc::clone(&figures));
        let desk = Desk {
            namespaces: Namespaces::new(cluster.clone(), None),
            inject: InjectSettings::from_json(&settings).unwrap(),
            events,
            figures: Arc::clone(&figures),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, tls.clone(), Arc::new(desk)));
        tasks.spawn(events::write(cluster.clone(), Arc::clone(&figures), waiting));
        Self { address, client, cluster, figures, authority, tls, _tasks: tasks }
    }

    async fn send(&self, request: Request<Full<bytes::Bytes>>) -> (StatusCode, String) {
        let asked = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let name = OutsideName::of_host(&Hostname::new(NAME).unwrap()).unwrap();
            let stream = self.client.connect(stream, &name, OutsideAlpn::Http1).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { drop(connection.await) });
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        timeout(Duration::from_secs(20), asked).await.unwrap()
    }

    async fn post(&self, body: impl Into<bytes::Bytes>) -> (StatusCode, String) {
        let request =
            Request::post("/inject").header("content-type", "application/json").header("host", NAME);
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    /// The response to a review.
    async fn review(&self, review: &Json) -> Json {
        let (status, body) = self.post(review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answer: Json = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("inject/tests/admission/fixtures")
}

fn recorded(name: &str) -> Json {
    serde_json::from_str(&fs::read_to_string(fixtures().join(name)).unwrap()).unwrap()
}

/// Every first call that was recorded, by name.
fn firsts() -> Vec<(String, Json)> {
    let files = fs::read_dir(fixtures()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    files.filter(|name| name.ends_with(".0.json")).map(|name| (name.clone(), recorded(&name))).collect()
}

fn patched(review: &Json, response: &Json) -> Json {
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    apply(&review["request"]["object"], &serde_json::from_slice(&patch).unwrap()).unwrap()
}

#[tokio::test]
async fn every_recorded_review_is_answered_over_tls_with_a_patch_that_makes_a_member_or_a_reason() {
    let webhook = Running::start(json!({})).await;
    let reviews = firsts();
    assert_eq!(reviews.len(), 12);
    for (name, review) in reviews {
        let response = webhook.review(&review).await;
        assert_eq!(response["allowed"], true, "{name}");
        if name.starts_with("hostnet") || name.starts_with("windows") {
            assert!(response.get("patch").is_none() && response["warnings"][0].is_string(), "{name}");
            assert_eq!(response["auditAnnotations"]["outcome"], "skipped");
            continue;
        }
        let mut second = review.clone();
        second["request"]["object"] = patched(&review, &response);
        assert_eq!(faults(&second["request"]["object"], true), Vec::<String>::new(), "{name}");
        // Reinvocation has another uid, and nothing to add.
        second["request"]["uid"] = json!("again");
        let response = webhook.review(&second).await;
        assert!(response["allowed"] == true && response.get("patch").is_none(), "{name}");
    }
    let metrics = webhook.figures.metrics();
    for line in ["{outcome=\"injected\"} 10", "{outcome=\"unchanged\"} 10", "{reason=\"windows\"} 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// Another judge: the schemas of Kubernetes itself, strictly.
#[tokio::test]
async fn what_comes_out_is_valid_by_the_schemas_of_kubernetes() {
    let made = tokio::task::spawn_blocking(|| real::venv(&["kubernetes-validate==1.37.0"])).await.unwrap();
    let Some(python) = made else { return };
    let folder = tempfile::tempdir().unwrap();
    for native in [true, false] {
        let webhook = Running::start(json!({"nativeSidecar": native, "imagePullSecrets": ["s"]})).await;
        for (name, review) in firsts() {
            let response = webhook.review(&review).await;
            if response.get("patch").is_some() {
                let pod = patched(&review, &response).to_string();
                fs::write(folder.path().join(format!("{native}-{name}")), pod).unwrap();
            }
        }
    }
    let files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 20);
    let validate = python.parent().unwrap().join("kubernetes-validate");
    let run = move || Command::new(validate).args(["--strict", "--quiet"]).args(files).output().unwrap();
    let told = tokio::task::spawn_blocking(run).await.unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{words}");
}

#[tokio::test]
async fn a_body_that_is_no_review_is_answered_clearly_and_nothing_else_is_served() {
    let webhook = Running::start(json!({})).await;
    let good = recorded("bare.0.json");
    let mut beta = good.clone();
    beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut nameless = good.clone();
    nameless["request"]["uid"] = json!("");
    let cases = [
        (String::new(), "no JSON"),
        ("{".repeat(100_000), "no JSON"),
        ("{}".into(), "no AdmissionReview"),
        (beta.to_string(), "admissionReviewVersions"),
        (nameless.to_string(), "no uid"),
        (json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}).to_string(), "no request"),
    ];
    for (body, words) in cases {
        let (status, answer) = webhook.post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer.contains(words), "{answer}");
    }
    let (status, _) = webhook.post(vec![b' '; 8 * 1024 * 1024 + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let of = |method: &str, path: &str, kind: &str| {
        let request = Request::builder().method(method).uri(path).header("host", NAME);
        request.header("content-type", kind).body(Full::new(bytes::Bytes::from_static(b"{}"))).unwrap()
    };
    let json = "application/json";
    assert_eq!(webhook.send(of("POST", "/other", json)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(webhook.send(of("PUT", "/inject", json)).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(webhook.send(of("POST", "/inject", "text/plain")).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // What is no pod that is being made passes untouched.
    let mut update = good.clone();
    update["request"]["operation"] = json!("UPDATE");
    let response = webhook.review(&update).await;
    assert!(response["allowed"] == true && response["auditAnnotations"]["reason"] == "unsupported_kind");
}

#[tokio::test]
async fn while_the_namespace_can_not_be_looked_up_nobody_becomes_an_unmeshed_pod_in_silence() {
    let webhook = Running::start(json!({})).await;
    webhook.cluster.away.store(true, Relaxed);
    let response = webhook.review(&recorded("bare.0.json")).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    assert!(response["status"]["message"].as_str().unwrap().contains("try again"));
    webhook.cluster.away.store(false, Relaxed);
    assert_eq!(webhook.review(&recorded("bare.0.json")).await["allowed"], true);
    // The pod's own word for its namespace counts for nothing, and no path is made of one.
    let mut odd = recorded("bare.0.json");
    odd["request"]["namespace"] = json!("fx/../kube-system");
    assert_eq!(webhook.review(&odd).await["allowed"], false);
    assert_eq!(webhook.figures.failed.load(Relaxed), 2);
}

#[tokio::test]
async fn what_can_not_be_obeyed_is_refused_and_the_owner_is_told_once_and_not_of_a_dry_run() {
    let webhook = Running::start(json!({})).await;
    let mut bad = recorded("deployment.0.json");
    bad["request"]["object"]["metadata"]["annotations"] =
        json!({"outrigger.dev/proxy-uid": "root", "outrigger.dev/port": "x"});
    let mut dry = bad.clone();
    dry["request"]["dryRun"] = json!(true);
    for review in [&dry, &bad, &bad] {
        let response = webhook.review(review).await;
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(
            message.contains("outrigger.dev~1proxy-uid") && message.contains("outrigger.dev~1port"),
            "{message}"
        );
    }
    let mut surprising = recorded("deployment.0.json");
    surprising["request"]["object"]["spec"]["hostNetwork"] = json!(true);
    webhook.review(&surprising).await;
    let mut written = webhook.cluster.written.subscribe();
    let told = timeout(Duration::from_secs(10), written.wait_for(|all| all.len() >= 2))
        .await
        .unwrap()
        .unwrap()
        .clone();
    let reasons: Vec<&Json> = told.iter().map(|(_, event)| &event["reason"]).collect();
    assert_eq!(reasons, [&json!("OutriggerRefused"), &json!("OutriggerSkipped")]);
    assert!(told.iter().all(|(path, _)| path == "/api/v1/namespaces/fx/events"));
    assert_eq!(told[0].1["involvedObject"]["kind"], "ReplicaSet");
}

#[tokio::test]
async fn the_api_server_is_told_whom_to_believe_in_every_webhook_and_left_alone_when_it_knows() {
    let cluster = Played::new();
    assert!(put_right(&*cluster, "roots").await.unwrap_err().contains("outrigger-injector"));
    let hooks = json!([{"name": "a", "clientConfig": {"service": {}}}, {"name": "b", "clientConfig": {"caBundle": "b2xk"}}]);
    cluster.objects.lock().unwrap().insert(CONFIGURATION.into(), json!({"webhooks": hooks}));
    assert_eq!(put_right(&*cluster, "roots").await, Ok(2));
    let now = cluster.objects.lock().unwrap()[CONFIGURATION].clone();
    let wanted = STANDARD.encode("roots");
    assert!(
        now["webhooks"].as_array().unwrap().iter().all(|hook| hook["clientConfig"]["caBundle"] == *wanted)
    );
    assert_eq!(put_right(&*cluster, "roots").await, Ok(0));
    let (_, patch) = cluster.written.borrow()[0].clone();
    assert_eq!(patch[0], json!({"op": "test", "path": "/webhooks/0/name", "value": "a"}));
}

/// The certificate that `client` is shown.
async fn shown(address: SocketAddr, client: &OutsideConnector) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = OutsideName::of_host(&Hostname::new(NAME).unwrap()).unwrap();
    let stream = client.connect(stream, &name, OutsideAlpn::Http1).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// openssl makes the authority, the key and the certificate, as cert-manager would put them into a Secret.
#[tokio::test]
async fn a_certificate_in_files_is_shown_and_taken_anew_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        let out = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -subj /CN=company -keyout ca.key -out ca.crt -days 2"));
    fs::write(folder.path().join("names"), format!("subjectAltName=DNS:{NAME}\n")).unwrap();
    let issue = || {
        openssl(&format!("req {key} -subj /CN=webhook -keyout tls.key -out tls.csr"));
        let by = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile names";
        openssl(&format!("x509 -req -in tls.csr {by} -out tls.crt"));
    };
    issue();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let (tls, files) = NamedAcceptor::of_files(&certificate, &key).unwrap();
    openssl("x509 -in ca.crt -outform DER -out ca.der");
    let root = fs::read(folder.path().join("ca.der")).unwrap();
    let webhook = Running::showing(Some((tls, root)), json!({})).await;

    let before = shown(webhook.address, &webhook.client).await;
    assert_eq!(webhook.review(&recorded("bare.0.json")).await["allowed"], true);
    assert_eq!(files.refresh(), Ok(false));
    issue();
    assert_eq!(files.refresh(), Ok(true));
    let after = shown(webhook.address, &webhook.client).await;
    assert_ne!(before, after);
    fs::write(&certificate, "nonsense").unwrap();
    assert!(files.refresh().unwrap_err().contains("tls.crt"));
    assert_eq!(shown(webhook.address, &webhook.client).await, after, "the last good one stays");
    assert!(NamedAcceptor::of_files(&certificate, &key).is_err());
}

#[tokio::test]
async fn the_certificate_is_replaced_while_it_serves() {
    let webhook = Running::start(json!({})).await;
    let shown = async || shown(webhook.address, &webhook.client).await;
    let before = shown().await;
    assert_eq!(before, shown().await);
    webhook.tls.renew(&webhook.authority, LeafLifetime::default()).unwrap();
    assert_ne!(before, shown().await);
    assert!(roots_to_pem(&webhook.authority.trust()).starts_with("-----BEGIN CERTIFICATE-----\n"));
}
