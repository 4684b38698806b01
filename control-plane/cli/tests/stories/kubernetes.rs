//! Attestation by Kubernetes: a control plane and a sidecar as in a cluster, before an API server that is played here and
//! may be anything but honest.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_testkit::{OutsideAuthority, OutsideServer, Owned};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bad_start::{assert_one_clear_line, control};
use crate::support::{Mesh, SidecarPlan};

/// The token that the pod of `cart` has, the one that it has later, and the control plane's own.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJwb2QiOiJjYXJ0In0.c2lnbmF0dXJl-planted";
const LATER: &str = "eyJhbGciOiJSUzI1NiJ9.eyJwb2QiOiJjYXJ0In0.bGF0ZXI-planted";
const OWN: &str = "own.token.planted";

/// What the API server answers, and what it was asked.
#[derive(Clone)]
struct Cluster {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone)]
enum Answer {
    Json(&'static str, Value),
    Huge,
    Never,
    Nonsense,
}

struct Asked {
    head: String,
    body: Value,
}

/// The API server behind TLS, with the files a control plane has in a cluster.
struct Api {
    cluster: Cluster,
    folder: tempfile::TempDir,
    server: OutsideServer,
    _task: Owned,
}

impl Api {
    async fn start() -> Self {
        let cluster = Cluster { answer: Arc::new(Mutex::new(Answer::Never)), asked: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = listener.local_addr().unwrap();
        let played = cluster.clone();
        let task = Owned::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(played.clone().serve(stream));
            }
        });
        let authority = OutsideAuthority::default();
        let server = authority.server("127.0.0.1", &["http/1.1"], behind).await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), authority.root_pem()).unwrap();
        fs::write(folder.path().join("own"), format!("{OWN}\n")).unwrap();
        Self { cluster, folder, server, _task: task }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn flags(&self) -> Vec<String> {
        let api = format!("https://{}", self.server.addr());
        let (ca, own) = (self.path("ca.crt"), self.path("own"));
        ["--kubernetes-api", &api, "--kubernetes-ca-file", &ca, "--kubernetes-token-file", &own]
            .map(str::to_owned)
            .into()
    }

    fn answers(&self, answer: Answer) {
        *self.cluster.answer.lock().unwrap() = answer;
    }

    fn says(&self, status: &Value) {
        self.answers(Answer::Json("201 Created", json!({ "kind": "TokenReview", "status": status })));
    }

    fn asked(&self) -> usize {
        self.cluster.asked.lock().unwrap().len()
    }
}

impl Cluster {
    async fn serve(self, mut stream: TcpStream) {
        let mut text = Vec::new();
        let (head, body) = loop {
            if stream.read_buf(&mut text).await.is_ok_and(|n| n == 0) {
                return;
            }
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
            if let Ok(body) = serde_json::from_str(body) {
                break (head.to_lowercase(), body);
            }
        };
        self.asked.lock().unwrap().push(Asked { head, body });
        let answer = self.answer.lock().unwrap().clone();
        let (status, body) = match answer {
            Answer::Json(status, body) => (status, body.to_string()),
            Answer::Huge => ("201 Created", format!("{{\"kind\":\"{}\"}}", "x".repeat(1 << 20))),
            Answer::Nonsense => ("201 Created", "<html>".to_owned()),
            Answer::Never => return tokio::time::sleep(Duration::from_secs(60)).await,
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // The other side may have had enough.
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn good(account: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["outrigger"],
        "user": { "username": format!("system:serviceaccount:{account}"), "groups": ["system:serviceaccounts"] },
    })
}

/// A sidecar of `cart` with a projected token and the roots of the mesh, as a pod has them.
fn pod(mesh: &Mesh, app: SocketAddr, token: &str) -> SidecarPlan {
    let (file, roots) = (mesh.path("projected"), mesh.path("roots.pem"));
    fs::write(&file, format!("{token}\n")).unwrap();
    let (file, roots) = (file.to_str().unwrap(), roots.to_str().unwrap());
    mesh.sidecar("cart", "v1", app).args(&["--kubernetes-token-file", file, "--control-roots", roots])
}

/// The roots of the mesh, as its operator puts them into a ConfigMap.
fn publish_roots(mesh: &Mesh) {
    let folder = mesh.path("published");
    let args = ["certs", "issue", "--files", folder.to_str().unwrap(), "--service-account", "ops/roots"];
    assert!(mesh.cli(&args).status.success());
    fs::copy(folder.join("roots.pem"), mesh.path("roots.pem")).unwrap();
}

/// What the API server is asked, what its good answer gives, and that the tokens are nowhere afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_joins_with_its_projected_token_and_the_api_server_is_asked_for_our_audience() {
    let api = Api::start().await;
    let flags = api.flags();
    let mesh = Mesh::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    mesh.services(&["cart", "web"]);
    publish_roots(&mesh);
    let origin = outrigger_testkit::Origin::named("cart").await;

    // The token of before was refused for good; the one that the kubelet writes next is read.
    api.says(&json!({ "authenticated": false, "error": "expired" }));
    let plan = pod(&mesh, origin.addr(), TOKEN);
    let (code, log) = plan.refused();
    assert!(code != 0 && log.contains("does not know it"), "{code} {log}");
    api.says(&good("shop:cart"));
    let cart = pod(&mesh, origin.addr(), LATER).start();
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let leaves = mesh.admin("/v1/certs").await.to_string();
    assert!(leaves.contains("\"by\":\"kubernetes\""), "{leaves}");

    {
        let asked = api.cluster.asked.lock().unwrap();
        let last = asked.last().unwrap();
        assert!(last.head.starts_with("post /apis/authentication.k8s.io/v1/tokenreviews"), "{}", last.head);
        assert!(last.head.contains(&format!("authorization: bearer {OWN}")), "{}", last.head);
        let expected = json!({ "token": LATER, "audiences": ["outrigger"] });
        assert_eq!((&last.body["kind"], &last.body["spec"]), (&json!("TokenReview"), &expected));
    }
    // From its disk it starts without any token.
    let before = api.asked();
    let again = cart.kill().start();
    mesh.reachable(&web, "cart").await;
    assert_eq!(api.asked(), before);
    for log in [mesh.control_log(), again.log()] {
        assert!(!log.contains("planted"), "a token is in a log: {log}");
    }
}

/// Whatever a hostile or broken API server answers, nobody gets a certificate, and each is told why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_an_api_server_but_a_good_one_attests_anybody() {
    let api = Api::start().await;
    let flags = api.flags();
    let mesh = Mesh::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    mesh.services(&["cart"]);
    publish_roots(&mesh);
    let app = SocketAddr::from(([127, 0, 0, 1], 9));
    let before = mesh.admin("/v1/certs").await["total"].clone();
    let with = |field: &str, value: Value| {
        let mut status = good("shop:cart");
        status[field] = value;
        status
    };
    let named = |name: &str| with("user", json!({ "username": name }));
    for (status, words) in [
        (with("authenticated", json!(false)), "does not know it"),
        (with("audiences", json!(["https://kubernetes.default.svc"])), "not for the audience outrigger"),
        (with("audiences", json!([])), "not for the audience outrigger"),
        (named("system:node:worker-1"), "no service account"),
        (named("system:serviceaccount:shop"), "no service account"),
        (named("system:serviceaccount:shop:cart:extra"), "its service account"),
        (named("system:serviceaccount:shop:../web"), "its service account"),
        (named("system:serviceaccount::cart"), "its service account"),
        (good("outrigger:control-plane"), "control plane itself"),
    ] {
        api.says(&status);
        let (code, log) = pod(&mesh, app, TOKEN).refused();
        assert!(code != 0 && log.contains(words), "{status}: {words:?} is not in {log}");
    }
    // A good answer for somebody else attests that somebody, and this sidecar takes no such name.
    api.says(&good("shop:web"));
    let (code, log) = pod(&mesh, app, TOKEN).refused();
    assert!(code != 0 && log.contains("sa/web"), "{log}");
    let (asked, total) = (api.asked(), mesh.admin("/v1/certs").await["total"].as_u64().unwrap());
    assert_eq!(Some(total), before.as_u64().map(|n| n + 1));
    let (code, log) = pod(&mesh, app, "no token at all").refused();
    assert!(code != 0 && log.contains("no JSON Web Token"), "{log}");
    assert_eq!(api.asked(), asked, "what can not be a token is not asked for");

    // These may pass: the sidecar waits, the log says for what.
    for (answer, words) in [
        (Answer::Json("403 Forbidden", json!({ "kind": "Status", "code": 403 })), "system:auth-delegator"),
        (Answer::Json("500 Internal Server Error", json!({ "kind": "Status", "code": 500 })), "(500)"),
        (Answer::Json("500 Internal Server Error", json!({})), "does not say why"),
        // What it says of the question may have the token in it.
        (
            Answer::Json(
                "422 Unprocessable",
                json!({ "kind": "Status", "message": format!("no: {TOKEN}"), "code": 422 }),
            ),
            "refuses the question",
        ),
        (
            Answer::Json("201 Created", json!({ "kind": "Status", "status": good("shop:cart") })),
            "no TokenReview",
        ),
        (Answer::Huge, "larger than 65536 bytes"),
        (Answer::Nonsense, "something else than was asked"),
        (Answer::Never, "took longer"),
    ] {
        api.answers(answer);
        let waiting = pod(&mesh, app, TOKEN).waiting();
        let told = || async { mesh.control_log().contains(words) };
        outrigger_testkit::eventually(words, told).await;
        drop(waiting);
    }
    assert_eq!(mesh.admin("/v1/certs").await["total"].as_u64(), Some(total), "nobody got a certificate");
    assert!(!mesh.control_log().contains("planted"), "a token is in the log");
}

#[test]
fn a_control_plane_that_could_not_ask_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    for (api, words) in [
        ("http://127.0.0.1:1", ["--kubernetes-api", "https://HOST"]),
        ("https://127.0.0.1:1/path", ["--kubernetes-api", "https://HOST"]),
        ("https://127.0.0.1:1", ["/nowhere/ca.crt", "No such file"]),
    ] {
        let args = ["--kubernetes-api", api, "--kubernetes-ca-file", "/nowhere/ca.crt"];
        assert_one_clear_line(&control(&folder.path().join("data"), &args), &words);
    }
}
