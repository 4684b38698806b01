//! Who may use the admin API: logging in, roles, the audit log, and tokens that show nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::{Mesh, binary, service, text};

/// Somebody with a configuration folder of his own.
struct User<'a> {
    mesh: &'a Mesh,
    home: PathBuf,
}

impl<'a> User<'a> {
    fn new(mesh: &'a Mesh, name: &str) -> Self {
        Self { mesh, home: mesh.path(name) }
    }

    fn runs(&self, args: &[&str]) -> Output {
        let server = format!("https://127.0.0.1:{}", self.mesh.admin.port());
        Command::new(binary("outrigger"))
            .args(args)
            .env("OUTRIGGER_SERVER", server)
            .env("OUTRIGGER_CONFIG_DIR", &self.home)
            .env_remove("OUTRIGGER_TOKEN")
            .env_remove("OUTRIGGER_ADMIN")
            .output()
            .unwrap()
    }

    fn may(&self, args: &[&str]) -> String {
        let out = self.runs(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out));
        text(&out)
    }

    fn may_not(&self, args: &[&str], why: &str) -> String {
        let out = self.runs(args);
        assert!(!out.status.success() && text(&out).contains(why), "{args:?}: {}", text(&out));
        text(&out)
    }

    fn logs_in(&self, token: &Path) -> String {
        self.may(&["login", "--token-file", token.to_str().unwrap()])
    }
}

/// A service of a namespace, in a file.
fn wanted(mesh: &Mesh, namespace: &str) -> String {
    let file = mesh.path(&format!("{namespace}.yaml"));
    fs::write(&file, service("cart").replace("namespace: shop", &format!("namespace: {namespace}"))).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn an_admin_api_that_others_reach_takes_tls_and_authentication_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (more, missing) in [
        (&[][..], "--admin-auth required and --admin-tls mesh"),
        (&["--admin-auth", "required"], "takes --admin-tls mesh"),
        (&["--admin-tls", "mesh"], "takes --admin-auth required"),
    ] {
        let out = Command::new(binary("outrigger-control"))
            .args(["--admin", "0.0.0.0:0", "--push", "127.0.0.1:0", "--data", data.to_str().unwrap()])
            .args(more)
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(3), "{}", text(&out));
        assert!(text(&out).contains(missing), "{}", text(&out));
        assert!(!data.exists(), "nothing was made");
    }
}

#[test]
fn users_log_in_do_what_their_role_may_and_the_audit_log_says_who_it_was() {
    let mesh = Mesh::start_with(&["--admin-auth", "required", "--admin-tls", "mesh"]);
    let first = mesh.path("control").join("admin-token");
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    let (admin, editor) = (User::new(&mesh, "admin"), User::new(&mesh, "editor"));
    let (shop, bank) = (wanted(&mesh, "shop"), wanted(&mesh, "bank"));
    let mut said = admin.may_not(&["get", "services", "-A"], "outrigger login");

    let pin = "0".repeat(64);
    let wrong = ["login", "--token-file", first.to_str().unwrap(), "--ca-pin", &pin];
    said += &admin.may_not(&wrong, "it is not believed");
    said += &admin.logs_in(&first);
    assert!(said.contains("token first-admin") && said.contains(": admin"), "{said}");

    let file = mesh.path("editor.token");
    let create =
        ["token", "create", "pipeline", "--role", "editor", "-n", "shop", "--why", "for the pipeline"];
    said += &admin.may(&[&create[..], &["--to", file.to_str().unwrap()]].concat());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    said += &editor.logs_in(&file);
    said += &editor.may(&["whoami"]);
    said += &editor.may(&["apply", "-f", &shop, "--why", "a new cart, für Ada"]);
    said += &editor.may_not(&["apply", "-f", &bank], "needs the role editor there; yours is editor:shop");
    said += &editor.may_not(&["certs", "join-token", "-n", "shop", "-s", "cart"], "needs the role operator");
    said += &editor.may_not(&["token", "list"], "needs the role admin");
    said += &editor.may_not(&["audit"], "needs the role operator");

    let listed = admin.may(&["token", "list"]);
    let row = listed.lines().find(|line| line.contains("pipeline")).unwrap().to_owned();
    let id = row.split_whitespace().next().unwrap();
    assert!(row.contains("editor") && row.contains("shop") && row.contains("live"), "{row}");
    let who = format!("token pipeline ({id})");
    let audit = admin.may(&["audit", "--who", "pipeline"]);
    let line = |action: &str, object: &str| {
        let here =
            |line: &&str| [who.as_str(), action, object, "127.0.0.1:"].iter().all(|w| line.contains(w));
        assert!(audit.lines().any(|line| here(&line)), "{action} {object}: {audit}");
    };
    line(" create ", "MeshService shop/cart");
    line(" create ", "a new cart, für Ada");
    line(" refused ", "editor:shop may not: services/bank/cart");
    line(" refused ", "join tokens");
    let made = admin.may(&["audit", "--action", "create-api-token"]);
    assert!(made.contains("for the pipeline") && made.contains("token first-admin"), "{made}");

    said += &admin.may(&["token", "revoke", id]);
    said += &editor.may_not(&["get", "services", "-n", "shop"], "the token was revoked");
    said += &admin.may(&["logout"]);
    said += &admin.may_not(&["whoami"], "outrigger login");

    // The tokens are in none of it; their ids are, so the search finds what is there.
    let secrets = [&first, &file].map(|file| fs::read_to_string(file).unwrap().trim()[5..].to_owned());
    let log = mesh.control_log();
    assert!(log.contains("wrote the first admin token") && audit.contains(id));
    for secret in &secrets {
        assert!(fs::read_to_string(&first).unwrap().contains(&secrets[0]), "the search finds what is there");
        for (what, text) in
            [("output", &said), ("log", &log), ("audit", &audit), ("audit", &made), ("list", &listed)]
        {
            assert!(
                !text.contains(secret.as_str()) && !text.contains(&secret[20..50]),
                "a token is in the {what}"
            );
        }
        for kept in fs::read_dir(mesh.path("control")).unwrap() {
            let path = kept.unwrap().path();
            if path.is_file() && path != first {
                let bytes = fs::read(&path).unwrap();
                let found = bytes.windows(30).any(|part| part == &secret.as_bytes()[20..50]);
                assert!(!found, "a token is in {}", path.display());
            }
        }
    }
}

/// Whoever logged in before the root changes goes on afterwards, and its token still leads to the right server.
#[test]
fn a_change_of_the_root_logs_nobody_out() {
    let mesh = Mesh::start_with(&["--admin-auth", "required", "--admin-tls", "mesh"]);
    let token = mesh.path("control").join("admin-token");
    let (admin, late) = (User::new(&mesh, "admin"), User::new(&mesh, "late"));
    admin.logs_in(&token);
    let root = || -> serde_json::Value {
        serde_json::from_str(&admin.may(&["certs", "rotation", "status", "-o", "json"])).unwrap()
    };
    let before = root();
    admin.may(&["certs", "rotate-root"]);
    let end = Instant::now() + Duration::from_secs(60);
    let after = loop {
        let now = root();
        if now["step"] == "none" && now["last"]["outcome"] == "completed" {
            break now;
        }
        assert!(Instant::now() < end, "{now:#}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_ne!(before["authority"]["root"], after["authority"]["root"]);
    assert!(late.logs_in(&token).contains("token first-admin"));
    let told = admin.may(&["audit", "--action", "rotate-root"]);
    assert!(told.contains("token first-admin"), "{told}");
}

/// Runs openssl in the folder.
fn openssl(folder: &Path, args: &str) {
    let out = Command::new("openssl").args(args.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "openssl {args}: {}", text(&out));
}

/// A key with a certificate: `NAME.key` and `NAME.pem`, by the authority `by`.
fn certificate(folder: &Path, name: &str, by: &str, names: &str, usage: &str) {
    let extensions = format!("subjectAltName={names}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n");
    fs::write(folder.join("extensions"), extensions).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
        ),
    );
}

/// openssl makes them, curl shows them.
#[test]
fn certificates_of_an_authority_of_ones_own_have_the_role_of_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for authority in ["own", "other"] {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(
            at,
            &format!(
                "req -x509 {key} -subj /CN={authority} -days 2 -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    certificate(at, "server", "own", "IP:127.0.0.1", "serverAuth");
    certificate(at, "ci", "own", "DNS:ci.example", "clientAuth");
    certificate(at, "nobody", "own", "DNS:nobody.example", "clientAuth");
    certificate(at, "servers", "own", "DNS:ci.example", "serverAuth");
    certificate(at, "stranger", "other", "DNS:ci.example", "clientAuth");
    certificate(at, "spelled", "own", "URI:spiffe://mesh.local/ns/ops/sa/boss", "clientAuth");
    let file = |name: &str| at.join(name).to_str().unwrap().to_owned();
    let (server, key, own) = (file("server.pem"), file("server.key"), file("own.pem"));
    let mesh = Mesh::start_with(&[
        "--admin-auth=required",
        "--admin-tls-cert",
        &server,
        "--admin-tls-key",
        &key,
        "--admin-client-ca",
        &own,
        "--admin-client=dns:ci.example=editor:shop",
        "--admin-client=spiffe://mesh.local/ns/ops/sa/boss=admin",
    ]);
    let curl = |as_whom: Option<&str>, args: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "-w", "\n%{http_code}", "--cacert", &own]).args(args);
        if let Some(name) = as_whom {
            curl.args(["--cert", &file(&format!("{name}.pem")), "--key", &file(&format!("{name}.key"))]);
        }
        text(&curl.arg(format!("https://{}{path}", mesh.admin)).output().unwrap())
    };
    let told = curl(Some("ci"), &[], "/v1/whoami");
    assert!(told.ends_with("\n200") && told.contains("certificate dns:ci.example"), "{told}");
    for (namespace, status) in [("shop", "201"), ("bank", "403")] {
        let yaml = serde_json::json!({
            "apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService",
            "metadata": {"name": "cart", "namespace": namespace}, "spec": {"ports": [{"port": 80, "protocol": "http"}]}
        });
        let args = [
            "-X",
            "PUT",
            "-H",
            "content-type: application/json",
            "-H",
            "if-none-match: *",
            "-d",
            &yaml.to_string(),
        ];
        let told = curl(Some("ci"), &args, &format!("/v1/services/{namespace}/cart"));
        assert!(told.ends_with(status), "{namespace}: {told}");
    }
    for (who, why) in [
        (None, "\n401"),
        (Some("nobody"), "\n401"),
        (Some("spelled"), "\n401"),
        (Some("servers"), "\n000"),
        (Some("stranger"), "\n000"),
    ] {
        let told = curl(who, &[], "/v1/whoami");
        assert!(told.contains(why), "{who:?}: {told}");
    }
    // `outrigger` shows it as well, as it lies there at each command.
    let ci = User::new(&mesh, "ci");
    let (shown, key) = (file("ci.pem"), file("ci.key"));
    let login = ["login", "--client-cert", &shown, "--client-key", &key];
    ci.may_not(&login, "give --mesh-roots, --ca-pin, --ca-file or --system-roots");
    let told = ci.may(&[&login[..], &["--ca-file", &own]].concat());
    assert!(told.contains("as certificate dns:ci.example: editor in shop"), "{told}");
    assert!(ci.may(&["get", "services", "-n", "shop"]).contains("cart"));
    ci.may_not(&["get", "services", "-n", "bank"], "needs the role viewer there; yours is editor:shop");
    fs::copy(at.join("nobody.pem"), at.join("ci.pem")).unwrap();
    fs::copy(at.join("nobody.key"), at.join("ci.key")).unwrap();
    ci.may_not(&["whoami"], "nobody who has a role here");
    certificate(at, "ci", "own", "DNS:ci.example", "clientAuth");
    // A certificate beside a token that is not good proves nothing: whoever shows a token wants to be its holder.
    let told = curl(Some("ci"), &["-H", "authorization: Bearer oat1.AAAA"], "/v1/whoami");
    assert!(told.ends_with("\n401"), "{told}");
}

/// A workload's certificate, issued as files by somebody who may, is the caller it was given a role for.
#[test]
fn a_workload_uses_the_admin_api_with_its_certificate() {
    let deploy = "--admin-client=spiffe://mesh.local/ns/ops/sa/deploy=editor:shop";
    let mesh = Mesh::start_with(&["--admin-auth=required", "--admin-tls=mesh", deploy]);
    let admin = User::new(&mesh, "admin");
    admin.logs_in(&mesh.path("control").join("admin-token"));
    let root = admin.may(&["certs", "rotation", "status", "-o", "json"]);
    let root: serde_json::Value = serde_json::from_str(&root).unwrap();
    let pin = root["authority"]["root"]["sha256"].as_str().unwrap();
    for (account, role) in [("deploy", Some("editor in shop")), ("other", None)] {
        let (user, files) = (User::new(&mesh, account), mesh.path(&format!("files-{account}")));
        let folder = files.to_str().unwrap();
        admin.may(&["certs", "issue", "--files", folder, "-s", &format!("ops/{account}")]);
        let (cert, key) = (format!("{folder}/cert.pem"), format!("{folder}/key.pem"));
        let login = ["login", "--client-cert", &cert, "--client-key", &key, "--ca-pin", pin];
        match role {
            Some(role) => assert!(user.may(&login).contains(role)),
            None => drop(user.may_not(&login, "nobody who has a role here")),
        }
    }
    let deploy = User::new(&mesh, "deploy");
    deploy.may(&["apply", "-f", &wanted(&mesh, "shop")]);
    deploy.may_not(&["apply", "-f", &wanted(&mesh, "bank")], "needs the role editor there");
    let audit = admin.may(&["audit", "--who", "ops/sa/deploy"]);
    assert!(audit.contains("certificate spiffe://mesh.local/ns/ops/sa/deploy"), "{audit}");
    assert!(audit.contains("MeshService shop/cart") && audit.contains("refused"), "{audit}");
}
