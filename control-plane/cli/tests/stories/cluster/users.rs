//! Who may use the admin API of a control plane in a cluster: whom the cluster knows and gives a role to, besides the first
//! admin.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use outrigger_testkit::eventually;

use super::stage::{Cluster, OURS};
use crate::support::{Mesh, binary, service, text};

/// What the cluster says of somebody: his token, and his roles with the namespace of each binding.
type Person = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)]);

const PEOPLE: [Person; 4] = [
    ("eyJh.c3RyYW5nZXI.planted", "stranger", &[]),
    ("eyJh.cGlwZWxpbmU.planted", "system:serviceaccount:shop:pipeline", &[("editor", Some("shop"))]),
    ("eyJh.YWRh.planted", "ada", &[("viewer", None), ("editor", Some("bank"))]),
    ("eyJh.cm9vdA.planted", "root", &[("admin", None)]),
];

/// A good token, of somebody who may everything, for somebody else than us.
const FOR_OTHERS: &str = "eyJh.b3RoZXI.planted";

/// Somebody with a folder of his own, at one control plane.
struct Holder<'a> {
    mesh: &'a Mesh,
    name: &'a str,
    token: &'a str,
}

impl Holder<'_> {
    fn runs(&self, args: &[&str]) -> Output {
        let mut child = Command::new(binary("outrigger"))
            .args(args)
            .env("OUTRIGGER_SERVER", format!("https://127.0.0.1:{}", self.mesh.admin.port()))
            .env("OUTRIGGER_CONFIG_DIR", self.mesh.path(&self.name.replace(':', "-")))
            .env_remove("OUTRIGGER_TOKEN")
            .env_remove("OUTRIGGER_ADMIN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Not every command reads it.
        let _closed = child.stdin.take().unwrap().write_all(self.token.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn login(&self) -> [String; 5] {
        let roots = self.mesh.path("roots.pem").to_str().unwrap().to_owned();
        ["login", "--token-file", "-", "--mesh-roots", &roots].map(str::to_owned)
    }

    fn logs_in(&self) -> String {
        self.may(&self.login().each_ref().map(String::as_str))
    }

    fn logs_in_not(&self, why: &str) -> String {
        self.may_not(&self.login().each_ref().map(String::as_str), why)
    }

    fn may(&self, args: &[&str]) -> String {
        let out = self.runs(args);
        assert!(out.status.success(), "{} {args:?}: {}", self.name, text(&out));
        text(&out)
    }

    fn may_not(&self, args: &[&str], why: &str) -> String {
        let out = self.runs(args);
        assert!(!out.status.success() && text(&out).contains(why), "{} {args:?}: {}", self.name, text(&out));
        text(&out)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_cluster_gives_a_role_comes_in_with_its_token_and_others_are_told_why_not() {
    let cluster = Cluster::start().await;
    let mesh = cluster.mesh(&["--admin-auth", "required", "--admin-tls", "mesh"]);
    for (token, user, roles) in PEOPLE {
        cluster.server.token(token, user, &[], &["outrigger"]);
        for (role, namespace) in roles {
            cluster.server.allow(user, "use", "outrigger.dev", "roles", role, *namespace);
        }
    }
    cluster.server.token(FOR_OTHERS, "root", &[], &["vault"]);
    let map = || cluster.server.get("v1", "ConfigMap", "outrigger-system", "outrigger-roots");
    eventually("the roots are in the cluster", || async { map().is_some() }).await;
    fs::write(mesh.path("roots.pem"), map().unwrap()["data"]["roots.pem"].as_str().unwrap()).unwrap();
    let [stranger, pipeline, ada, root] = PEOPLE.map(|(token, name, _)| Holder { mesh: &mesh, name, token });
    let (shop, bank) = (wanted(&mesh, "shop"), wanted(&mesh, "bank"));

    // The first admin is there before anybody has a role.
    let first = fs::read_to_string(mesh.path("control").join("admin-token")).unwrap();
    let first = Holder { mesh: &mesh, name: "first", token: first.trim() };
    let mut said = first.may(&["login", "--token-file", "-"]);
    assert!(said.contains("token first-admin"), "{said}");

    said += &stranger.logs_in_not("the cluster gives this user no role here: bind him outrigger-viewer");
    let nobody = Holder { mesh: &mesh, name: "nobody", token: "eyJh.bm9ib2R5.planted" };
    said += &nobody.logs_in_not("that is not a token of this API");
    said += &Holder { mesh: &mesh, name: "other", token: FOR_OTHERS }
        .logs_in_not("that is not a token of this API");

    let told = pipeline.logs_in();
    assert!(told.contains("pipeline: editor in shop"), "{told}");
    said += &pipeline.may(&["apply", "-f", &shop]);
    assert!(cluster.server.get(OURS, "MeshService", "shop", "till").is_some());
    said += &pipeline.may_not(&["apply", "-f", &bank], "the cluster gives this user no role here");
    said += &pipeline.may(&["get", "services", "-n", "shop"]);
    said += &pipeline.may_not(&["audit"], "needs the role operator");

    let told = ada.logs_in();
    assert!(told.contains("ada: viewer"), "{told}");
    said += &ada.may_not(&["apply", "-f", &shop], "yours is viewer");
    said += &ada.may(&["whoami", "-n", "bank"]);
    said += &ada.may(&["get", "services", "-A"]);

    let told = root.logs_in();
    assert!(told.contains("root: admin"), "{told}");
    let audit = root.may(&["audit"]);
    assert!(audit.contains("kubernetes system:serviceaccount:shop:pipeline"), "{audit}");
    assert!(audit.contains("kubernetes stranger"), "{audit}");
    said += &root.may(&["token", "list"]);
    for (what, text) in [("what was said", said + &audit), ("the log", mesh.control_log())] {
        assert!(!text.contains("planted") && !text.contains("oat1."), "a token is in {what}: {text}");
    }
}

/// A service of a namespace, in a file.
fn wanted(mesh: &Mesh, namespace: &str) -> String {
    let file = mesh.path(&format!("{namespace}.yaml"));
    fs::write(&file, service("till").replace("namespace: shop", &format!("namespace: {namespace}"))).unwrap();
    file.to_str().unwrap().to_owned()
}
