//! What people do with the real `kubectl`: objects of ours applied, shown, waited for and taken away, with a control plane that
//! says in each status what has become of it; and a token of a service account, with which `outrigger` comes in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use outrigger_testkit::real::{self, Ran};
use outrigger_testkit::{eventually, kubectl};
use serde_json::{Value, json};

use super::stage::{Cluster, GATEWAY_API, OURS};
use crate::support::{Mesh, binary, text};

/// `kubectl` as somebody who may everything in a cluster.
struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Kubectl {
    fn of(cluster: &Cluster) -> Option<Self> {
        let program = kubectl::tools()?.kubectl;
        let home = tempfile::tempdir().unwrap();
        cluster.server.token("eyJh.cm9vdA.planted", "kubernetes-admin", &["system:masters"], &[]);
        fs::write(home.path().join("ca.crt"), cluster.server.root_pem()).unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "played",
            "clusters": [{ "name": "played", "cluster": {
                "server": cluster.server.url(), "certificate-authority": home.path().join("ca.crt"),
            } }],
            "users": [{ "name": "root", "user": { "token": "eyJh.cm9vdA.planted" } }],
            "contexts": [{ "name": "played", "context": { "cluster": "played", "user": "root", "namespace": "shop" } }],
        });
        fs::write(home.path().join("config"), config.to_string()).unwrap();
        Some(Self { program, home })
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", self.home.path().join("config")).env("HOME", self.home.path());
        real::run(&mut command, PATIENCE)
    }

    fn says(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(ran.ok, "kubectl {args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    fn refuses(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(!ran.ok, "kubectl {args:?}: {}", ran.stdout);
        ran.stderr
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.home.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

const POLICY: &str = "apiVersion: outrigger.dev/v1alpha1
kind: AccessPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{group: outrigger.dev, kind: MeshService, name: cart}]
  action: allow
  rules: [{name: web, from: [{serviceAccount: web}], methods: [GET]}]
";

const DOTTED: &str = "apiVersion: outrigger.dev/v1alpha1
kind: Denylist
metadata: {name: stolen.2026, namespace: shop}
spec:
  tokens: [{sub: mallory}]
";

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kubectl_applies_shows_waits_for_and_deletes_what_is_ours() {
    let cluster = Cluster::start().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let mesh = cluster.mesh(&[]);
    let policy = kubectl.file("policy.yaml", POLICY);
    assert!(kubectl.says(&["apply", "-f", &policy]).contains("accesspolicy.outrigger.dev/cart created"));
    kubectl.says(&["wait", "--for=condition=Accepted", "accesspolicy/cart", "--timeout=20s"]);
    let shown = kubectl.says(&["get", "accesspolicies"]);
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    let head: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        (head, &row[..3]),
        (vec!["NAME", "TARGETS", "ACCEPTED", "AGE"], &["cart", "cart", "True"][..]),
        "{shown}"
    );
    let json: Value =
        serde_json::from_str(&kubectl.says(&["get", "accesspolicy", "cart", "-o", "json"])).unwrap();
    assert_eq!(json["status"]["conditions"][0]["type"], "Accepted");
    assert!(
        kubectl.says(&["get", "outrigger"]).contains("accesspolicy.outrigger.dev/cart"),
        "all of ours by one word"
    );

    // Again: nothing; changed: patched; on the server's side, too; and by its edit of one field.
    assert!(kubectl.says(&["apply", "-f", &policy]).contains("unchanged"));
    let more = kubectl.file("more.yaml", &POLICY.replace("[GET]", "[GET, POST]"));
    assert!(kubectl.says(&["apply", "-f", &more]).contains("configured"));
    has(&mesh, "accesspolicies/shop/cart", "POST").await;
    let again = kubectl.file("again.yaml", &POLICY.replace("[GET]", "[PUT]"));
    kubectl.says(&["apply", "--server-side", "--force-conflicts", "-f", &again]);
    has(&mesh, "accesspolicies/shop/cart", "PUT").await;
    kubectl.says(&["label", "accesspolicy", "cart", "team=checkout"]);
    kubectl.says(&["patch", "accesspolicy", "cart", "--type=merge", "-p", r#"{"spec":{"action":"deny"}}"#]);
    has(&mesh, "accesspolicies/shop/cart", "\"deny\"").await;

    // A slip of the pen is refused before it is there; what the schema can not know is told in the status.
    let slip = kubectl.file("slip.yaml", &POLICY.replace("action: allow", "action: allow\n  acton: deny"));
    let told = kubectl.refuses(&["apply", "-f", &slip]);
    assert!(told.contains("unknown field \"spec.acton\""), "{told}");
    // So is a name under which nobody would read it.
    let dotted = kubectl.file("dotted.yaml", DOTTED);
    let told = kubectl.refuses(&["apply", "-f", &dotted]);
    assert!(told.contains("metadata.name: Invalid value: \"stolen.2026\""), "{told}");
    let named_so =
        kubectl.file("named-so.yaml", &POLICY.replace("name: cart, namespace", "name: cart.2026, namespace"));
    kubectl.says(&["apply", "-f", &named_so]);
    kubectl.says(&["delete", "-f", &named_so]);
    let route = kubectl.file("route.yaml", ROUTE);
    kubectl.says(&["apply", "-f", &route]);
    let accepted = r#"jsonpath={.status.parents[0].conditions[?(@.type=="Accepted")].status}"#;
    eventually("the route is told", || async {
        kubectl.says(&["get", "httproute", "cart", "-o", accepted]) == "True"
    })
    .await;
    let nowhere = kubectl.file("nowhere.yaml", &ROUTE.replace("name: web", "name: nobody"));
    kubectl.says(&["apply", "-f", &nowhere]);
    let resolved = r#"jsonpath={.status.parents[0].conditions[?(@.type=="ResolvedRefs")].reason}"#;
    eventually("what is dangling is told", || async {
        kubectl.says(&["get", "httproute", "cart", "-o", resolved]) == "BackendNotFound"
    })
    .await;
    let by = |kind: &str, version: &str| cluster.server.get(version, kind, "shop", "cart").is_some();
    kubectl.says(&["delete", "-f", &policy, "-f", &route]);
    assert!(!by("AccessPolicy", OURS) && !by("HTTPRoute", GATEWAY_API));
    eventually("it is gone in the mesh", || async { status(&mesh, "accesspolicies/shop/cart").await == 404 })
        .await;
}

/// A service account comes in with the token that the API server makes for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_that_kubectl_gets_opens_the_admin_api() {
    let cluster = Cluster::start().await;
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let mesh = cluster.mesh(&["--admin-auth", "required", "--admin-tls", "mesh"]);
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: pipeline, namespace: shop}\n";
    kubectl.says(&["apply", "-f", &kubectl.file("account.yaml", account)]);
    // The played server knows no RBAC: what the binding means is said to it.
    let user = "system:serviceaccount:shop:pipeline";
    cluster.server.allow(user, "use", "outrigger.dev", "roles", "editor", Some("shop"));
    let roots = [
        "-n",
        "outrigger-system",
        "get",
        "configmap",
        "outrigger-roots",
        "-o",
        "jsonpath={.data.roots\\.pem}",
    ];
    eventually("the roots are there", || async { kubectl.run(&roots).ok }).await;
    let roots = kubectl.file("roots.pem", &kubectl.says(&roots));
    // What `kubectl create token` asks for, which itself speaks protobuf; the played server does not.
    let wanted = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": ["outrigger"] } });
    let wanted = kubectl.file("wanted.json", &wanted.to_string());
    let at = "/api/v1/namespaces/shop/serviceaccounts/pipeline/token";
    let made: Value = serde_json::from_str(&kubectl.says(&["create", "--raw", at, "-f", &wanted])).unwrap();
    let token = kubectl.file("token", made["status"]["token"].as_str().unwrap());
    let out = Command::new(binary("outrigger"))
        .args(["login", "--token-file", &token, "--mesh-roots", &roots])
        .env("OUTRIGGER_SERVER", format!("https://127.0.0.1:{}", mesh.admin.port()))
        .env("OUTRIGGER_CONFIG_DIR", kubectl.home.path().join("outrigger"))
        .env_remove("OUTRIGGER_TOKEN")
        .output()
        .unwrap();
    assert!(text(&out).contains("pipeline: editor in shop"), "{}", text(&out));
}

async fn status(mesh: &Mesh, path: &str) -> u16 {
    let path = format!("/v1/{path}");
    let reply = outrigger_testkit::Client::h1(mesh.admin).await.get(&mesh.admin.to_string(), &path).await;
    reply.unwrap().status.as_u16()
}

async fn has(mesh: &Mesh, path: &str, word: &str) {
    super::in_force(mesh, path, word).await;
}
