//! Pods as the webhook makes them, on a node: that what is injected is a sidecar that works, with the rights that it is given and
//! no others, and that applications which know nothing but their cluster are in the mesh by it.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_testkit::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::node::{NODE, Pod, on_a_node};
use super::stage::{Cluster, object};
use crate::support::Mesh;

/// `cart` listens at 8080 for HTTP and at 9000 for what it says is nobody's business. `web` calls it by the address that the
/// cluster gave it, as its DNS would have told: nobody forwards that address here, so what is not redirected arrives nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_webhook_reach_each_other_by_the_addresses_of_their_cluster() {
    if !on_a_node("cluster::pods::pods_of_the_webhook_reach_each_other_by_the_addresses_of_their_cluster") {
        return;
    }
    let mut stage = Stage::start().await;
    let [mut one, mut two] = [stage.pod("cart-1", "cart").await, stage.pod("cart-2", "cart").await];
    let mut web = stage.pod("web-1", "web").await;
    stage.slice("cart", &[(&one, Is::Starting), (&two, Is::Starting)]);
    stage.slice("web", &[(&web, Is::Starting)]);
    one.run(SERVER, &["cart-1"]).await;
    two.run(SERVER, &["cart-2"]).await;
    web.run(SERVER, &["web-1"]).await;
    stage.slice("cart", &[(&one, Is::Ready), (&two, Is::Ready)]);
    stage.slice("web", &[(&web, Is::Ready)]);
    let all_three = |all: &Value| all["items"].as_array().is_some_and(|items| items.len() == 3);
    stage.mesh.until("they are instances", "/v1/instances/shop", all_three).await;

    // By mutual TLS: the application is told who calls.
    let heard = web.ask(
        CLIENT,
        &["http 10.96.0.10:80", "http 10.96.0.10:80", "http 10.96.0.10:80", "http 10.96.0.10:80"],
    );
    for line in &heard[..4] {
        assert!(
            line.starts_with("200 cart-") && line.contains("spiffe://mesh.local/ns/shop/sa/web"),
            "{heard:?}"
        );
    }
    // Bytes that nobody looks into, where the server speaks first; and one pod by its own address.
    let alone = format!("http {}:8080", one.ip);
    let heard = web.ask(CLIENT, &["tcp 10.96.0.10:9000", "tcp 10.96.0.10:9000", &alone]);
    assert!(
        heard[..2].iter().all(|said| said.starts_with("hello from cart-") && said.ends_with(", stressed")),
        "{heard:?}"
    );
    assert!(heard[2].starts_with("200 cart-1 "), "{heard:?}");
    assert_eq!(heard[3], "2 opaque, 0 passed on", "all of it by way of the mesh");

    // A pod that calls its own Service meets itself, as it would without a mesh.
    let heard = web.ask(CLIENT, &["http 10.96.0.11:80"]);
    assert!(heard[0].starts_with("200 web-1 "), "{heard:?}");

    // From the node, in plaintext: probes have been answered, nothing else is.
    for cart in [&one, &two] {
        assert_eq!(
            plainly(SocketAddr::new(cart.ip, 8080)).await,
            "",
            "a strict port takes nobody who proves nothing"
        );
    }

    // One ends while it is called: nothing is lost.
    let load = web.start(LOAD, &["10.96.0.10:80", "300"]);
    let calls = |words: [&str; 2]| words.iter().all(|word| load.log().contains(word));
    eventually("both are called", async || calls(["cart-1", "cart-2"])).await;
    stage.slice("cart", &[(&one, Is::Ending), (&two, Is::Ready)]);
    one.end().await;
    stage.slice("cart", &[(&two, Is::Ready)]);
    eventually("it has called so often", async || load.log().contains(" of 300")).await;
    assert!(load.log().ends_with("300 of 300\n"), "{}", load.log());
}

/// A control plane in a cluster, found by pods.
struct Stage {
    cluster: Cluster,
    mesh: Mesh,
    _config: tempfile::NamedTempFile,
}

impl Stage {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let ports = json!([{ "name": "http", "port": 80, "targetPort": 8080 }, { "name": "raw", "port": 9000, "targetPort": 9000 }]);
        let cart = json!({ "selector": { "app": "cart" }, "ports": ports, "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"] });
        cluster.server.put(&object("v1", "Service", "cart", &cart));
        let web = json!({ "selector": { "app": "web" }, "ports": ports, "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"] });
        cluster.server.put(&object("v1", "Service", "web", &web));
        let push = SocketAddr::from((NODE, 15_010));
        let config = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(config.path(), json!({ "control": push.to_string() }).to_string()).unwrap();
        let flags =
            [cluster.flags(), vec!["--inject-config".into(), config.path().display().to_string()]].concat();
        let mesh = Mesh::start_at(push, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        let roots = || cluster.server.get("v1", "ConfigMap", "shop", "outrigger-roots").is_some();
        eventually("the roots are where pods are", async || roots()).await;
        let believed = || {
            let version = "admissionregistration.k8s.io/v1";
            let hooks = cluster.server.get(version, "MutatingWebhookConfiguration", "", "outrigger-injector");
            hooks.is_some_and(|hooks| hooks["webhooks"][0]["clientConfig"]["caBundle"].is_string())
        };
        eventually("the webhook is believed", async || believed()).await;
        Self { cluster, mesh, _config: config }
    }

    /// A pod of an application as the webhook has made it, in the cluster and on the node.
    async fn pod(&mut self, name: &str, application: &str) -> Pod {
        let raw = json!({ "outrigger.dev/opaque-ports": "9000" });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": application }, "annotations": raw },
            "spec": { "serviceAccountName": application, "containers": [{
                "name": "app", "image": "example/app:1",
                "ports": [{ "containerPort": 8080 }, { "containerPort": 9000 }],
                "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } },
            }] },
        });
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": format!("review-of-{name}"), "operation": "CREATE", "namespace": "shop", "dryRun": false,
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" }, "object": pod,
        } });
        let answer = self.cluster.review(self.mesh.webhook.unwrap(), &review).await;
        let patch = STANDARD.decode(answer["patch"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap();
        let patched = patched(pod, &serde_json::from_slice(&patch).unwrap());
        let (token, user) =
            (format!("token.of.{name}-planted"), format!("system:serviceaccount:shop:{application}"));
        self.cluster.server.token(&token, &user, &["system:serviceaccounts"], &["outrigger"]);
        let placed = Pod::place(patched, name, &self.cluster.server, &token);
        self.cluster.server.put(&placed.spec);
        placed
    }

    /// The slice of a Service: these pods, each as it is. A cluster has one before any of them is ready.
    fn slice(&self, service: &str, pods: &[(&Pod, Is)]) {
        let endpoint = |(pod, is): &(&Pod, Is)| {
            let (ready, serving, ends) = (*is == Is::Ready, *is != Is::Starting, *is == Is::Ending);
            json!({ "addresses": [pod.ip], "conditions": { "ready": ready, "serving": serving, "terminating": ends },
                    "targetRef": { "kind": "Pod", "namespace": "shop", "name": pod.spec["metadata"]["name"] } })
        };
        self.cluster.server.put(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{service}-x"), "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
            "ports": [{ "name": "http", "port": 8080 }, { "name": "raw", "port": 9000 }],
            "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        }));
    }
}

/// What a slice says of a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Starting,
    Ready,
    Ending,
}

/// A pod with a patch of the webhook, which adds and replaces.
fn patched(mut pod: Value, patch: &Value) -> Value {
    for step in patch.as_array().unwrap() {
        let (parent, last) = step["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let (last, value) = (last.replace("~1", "/").replace("~0", "~"), step["value"].clone());
        match (pod.pointer_mut(parent).unwrap(), step["op"].as_str().unwrap()) {
            (Value::Array(all), "add") if last == "-" => all.push(value),
            (Value::Array(all), "add") => all.insert(last.parse().unwrap(), value),
            (Value::Array(all), "replace") => all[last.parse::<usize>().unwrap()] = value,
            (whole, "add" | "replace") => whole[last] = value,
            (_, other) => panic!("{other} is not played here: {step}"),
        }
    }
    pod
}

/// What comes of a request that proves nothing.
async fn plainly(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut heard = Vec::new();
    let _may_be_cut =
        stream.write_all(b"GET /whoami HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n").await;
    let read = stream.read_to_end(&mut heard);
    let _may_be_cut = tokio::time::timeout(std::time::Duration::from_secs(20), read).await.unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

/// Tells who it is and who calls; at 9000 it speaks first, and answers backwards. It ends in order.
const SERVER: &str = "
import http.server, signal, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f'{sys.argv[1]} {self.headers.get(\"x-forwarded-client-cert\")}'.encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
def raw(listener):
    while True:
        stream = listener.accept()[0]
        threading.Thread(target=talk, args=(stream,), daemon=True).start()
def talk(stream):
    try:
        stream.sendall(f'hello from {sys.argv[1]}\\n'.encode())
        stream.sendall(stream.makefile('rb').read()[::-1])
        stream.close()
    except OSError:
        pass
server = http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Handler)
server.daemon_threads = False
threading.Thread(target=raw, args=(socket.create_server(('0.0.0.0', 9000)),), daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
";

/// Calls each place it is told, and tells what its sidecar counted.
const CLIENT: &str = "
import re, socket, sys, urllib.request
for call in sys.argv[1:]:
    kind, at = call.split()
    if kind == 'http':
        answer = urllib.request.urlopen(f'http://{at}/whoami', timeout=20)
        print(answer.status, answer.read().decode())
        continue
    ip, port = at.split(':')
    stream = socket.create_connection((ip, int(port)), 20)
    said = stream.makefile('rb')
    hello = said.readline().decode().strip()
    stream.sendall(b'desserts')
    stream.shutdown(socket.SHUT_WR)
    print(f'{hello}, {said.read().decode()}')
metrics = urllib.request.urlopen('http://127.0.0.1:15000/stats/prometheus').read().decode()
def count(name):
    return sum(int(n) for n in re.findall(rf'^{name}(?:{{[^}}]*}})? (\\d+)$', metrics, re.M))
print(f\"{count('outrigger_opaque_opened_total')} opaque, {count('outrigger_passed_on_total')} passed on\")
";

/// Calls so many times, and tells who answered, as soon as he does, and how often it went well.
const LOAD: &str = "
import sys, time, urllib.request
at, times = sys.argv[1], int(sys.argv[2])
who, good = set(), 0
for _ in range(times):
    try:
        answer = urllib.request.urlopen(f'http://{at}/', timeout=20).read().decode().split()[0]
        good += 1
    except OSError as error:
        answer = str(error)
    if answer not in who:
        who.add(answer)
        print(answer, flush=True)
    time.sleep(0.01)
print(f'{good} of {times}')
";
