//! A certificate authority that a company gives as files, made by openssl: taken up, changed under load, refused with
//! words that say what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bad_start::{assert_one_clear_line, control};
use crate::support::{Load, Mesh, Sidecar, text};

/// A company's roots and intermediates, and the three files that its mesh is given.
pub(crate) struct Company {
    folder: tempfile::TempDir,
}

/// What makes an intermediate one.
pub(crate) const SOUND: &str =
    "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n";

impl Company {
    pub(crate) fn new() -> Self {
        let company = Self { folder: tempfile::tempdir().unwrap() };
        company.root("one");
        company.intermediate("one", SOUND);
        company.give("one");
        company
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn openssl(&self, args: &str) {
        let out =
            Command::new("openssl").args(args.split(' ')).current_dir(self.folder.path()).output().unwrap();
        assert!(out.status.success(), "openssl {args}: {}", text(&out));
    }

    /// A root with RSA and another hash than the mesh's own.
    pub(crate) fn root(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -sha384 -nodes -days 30 -subj /O=Company/CN=Root-{name} -keyout {name}.root.key \
             -out {name}.root -addext basicConstraints=critical,CA:TRUE,pathlen:1 -addext keyUsage=critical,keyCertSign"
        ));
    }

    /// An intermediate under a root, as `NAME.cert` and `NAME.key`.
    fn intermediate(&self, root: &str, extensions: &str) {
        fs::write(self.path("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -subj /O=Company/CN=Mesh -keyout {root}.key -out csr"
        ));
        self.openssl(&format!(
            "x509 -req -in csr -CA {root}.root -CAkey {root}.root.key -CAcreateserial -days 20 -sha256 -out {root}.cert \
             -extfile extensions"
        ));
    }

    /// Puts an intermediate and its root where the control plane looks.
    fn give(&self, name: &str) {
        for (from, to) in [("cert", "ca.pem"), ("key", "ca.key"), ("root", "roots.pem")] {
            fs::copy(self.path(&format!("{name}.{from}")), self.path(to)).unwrap();
        }
        self.mode("ca.key", 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn flags(&self) -> Vec<String> {
        let of = |flag: &str, name: &str| [flag.to_owned(), self.path(name).to_str().unwrap().to_owned()];
        [of("--ca-cert", "ca.pem"), of("--ca-key", "ca.key"), of("--ca-roots", "roots.pem")].concat()
    }

    pub(crate) fn mesh(&self, more: &[&str]) -> Mesh {
        let flags = self.flags();
        Mesh::start_with(&flags.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// A start with these files in `data`, which must fail and name `words`.
    fn refused(&self, data: &Path, words: &[&str]) {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        assert_one_clear_line(&control(data, &flags), words);
    }
}

/// A change of the root ends connections in order: one that is cut takes down what is under way on it, which only now
/// and then is anything.
pub(crate) fn nothing_was_cut(sidecars: &[&Sidecar]) {
    for sidecar in sidecars {
        let log = sidecar.log();
        assert!(!log.contains("an open connection is cut"), "{log}");
    }
}

async fn until(mesh: &Mesh, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let told = mesh.admin("/v1/certs/rotation").await;
        if holds(&told) {
            return told;
        }
        assert!(Instant::now() < end, "{what}: {told:#}\n{}", mesh.control_log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn of<'a>(told: &'a Value, what: &str) -> &'a Value {
    &told["authority"][what]["sha256"]
}

/// Openssl makes the company's PKI and believes what the mesh signs with it; intermediate and root are changed in the
/// files, all at once and without a word to anybody, and no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_given_as_files_signs_and_is_changed_under_load_by_replacing_them() {
    let company = Company::new();
    let mesh = company.mesh(&["--leaf-lifetime-for-tests", "10s"]);
    mesh.services(&["cart", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let load = Load::start(web.outbound, "cart", 3);

    for args in [&["certs", "rotate-root"][..], &["certs", "rotate-intermediate"]] {
        let out = mesh.cli(args);
        assert!(!out.status.success() && text(&out).contains("given as files"), "{}", text(&out));
    }

    let before = mesh.admin("/v1/certs/rotation").await;
    company.intermediate("one", SOUND);
    company.give("one");
    let told = until(&mesh, "the new intermediate signs", |told| {
        of(told, "intermediate") != of(&before, "intermediate")
    });
    let told = told.await;
    assert_eq!((of(&told, "root"), &told["step"]), (of(&before, "root"), &json!("none")), "{told:#}");

    // Half of a change is refused, and nothing happens.
    company.root("two");
    company.intermediate("two", SOUND);
    fs::copy(company.path("two.key"), company.path("ca.key")).unwrap();
    let what = "the log tells of files that do not belong together";
    outrigger_testkit::eventually(what, || async { mesh.control_log().contains("is not the key of") }).await;
    assert_eq!(of(&mesh.admin("/v1/certs/rotation").await, "intermediate"), of(&told, "intermediate"));

    company.give("two");
    let told = until(&mesh, "the new root signs", |told| of(told, "root") != of(&before, "root")).await;
    assert!(matches!(told["step"].as_str(), Some("sign" | "retire" | "none")), "{told:#}");
    let late = mesh.caller("late").token(mesh.token("late")).start();
    until(&mesh, "the change ends", |told| told["step"] == json!("none")).await;
    let after = mesh.admin("/v1/certs/rotation").await;
    assert_eq!(after["last"]["outcome"], json!("completed"), "{after:#}");
    assert_eq!(
        (&after["authority"]["believedRoots"], &after["authority"]["source"]),
        (&json!(1), &json!("files"))
    );
    mesh.reachable(&late, "cart").await;
    load.goes_on(100).await;
    let files = mesh.path("foreign");
    let args = ["certs", "issue", "--files", files.to_str().unwrap(), "--service-account", "shop/foreign"];
    assert!(mesh.cli(&args).status.success());
    let cert = files.join("cert.pem");
    let cert = cert.to_str().unwrap();
    company.openssl(&format!("verify -CAfile two.root -untrusted {cert} {cert}"));
    let (good, bad) = load.end().await;
    eprintln!("web -> cart: {good} answered, {} failed", bad.len());
    assert!(good > 500 && bad.is_empty(), "{good} answered, failed: {bad:?}");
    nothing_was_cut(&[&cart.sidecar, &web, &late]);
}

/// From an authority that was made to one that is given, and back before anybody renewed; what can not be done without
/// cutting somebody off is refused at the start, and the flag that cuts them off does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_with_an_authority_of_its_own_moves_to_a_companys_and_no_start_cuts_anybody_off() {
    let company = Company::new();
    let mut mesh = Mesh::start_with(&["--leaf-lifetime-for-tests", "10s"]);
    mesh.services(&["cart", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let load = Load::start(web.outbound, "cart", 2);
    let made = mesh.admin("/v1/certs/rotation").await;
    mesh.kill_control();
    let flags = company.flags();
    mesh.start_control_with(&flags);
    let told =
        until(&mesh, "the company's authority signs", |told| told["authority"]["source"] == json!("files"));
    assert_ne!(of(&told.await, "root"), of(&made, "root"));
    let told = until(&mesh, "the change ends", |told| told["step"] == json!("none")).await;
    assert_eq!(told["last"]["outcome"], json!("completed"), "{told:#}");
    load.goes_on(50).await;
    let (good, bad) = load.end().await;
    assert!(good > 200 && bad.is_empty(), "{good} answered, failed: {bad:?}");
    nothing_was_cut(&[&cart.sidecar, &web]);

    mesh.kill_control();
    let data = mesh.path("control");
    assert_one_clear_line(&control(&data, &[]), &["given as files", "--ca-cert"]);
    company.root("two");
    company.intermediate("two", SOUND);
    company.give("two");
    company.refused(&data, &["ca.pem", "do not believe its root yet", "sa/", "--ca-at-once"]);
    mesh.start_control_with(&["--ca-at-once".to_owned()]);
    let told = mesh.admin("/v1/certs/rotation").await;
    assert_ne!(of(&told, "root"), of(&made, "root"));
    assert_eq!(told["forced"][0]["step"], json!("distribute"), "{told:#}");
    let audit = mesh.admin("/v1/audit").await.to_string();
    assert!(audit.contains("\"action\":\"rotate-root\""), "{audit}");
}

/// Each bad set of files is one sentence that names the file, and nothing is made of it.
#[test]
fn files_that_can_not_be_an_authority_are_refused_at_the_start_by_name() {
    let refused = |change: &dyn Fn(&Company), words: &[&str]| {
        let company = Company::new();
        change(&company);
        let data = company.path("data");
        company.refused(&data, words);
    };
    let instead = |extensions: &'static str| {
        move |company: &Company| {
            company.intermediate("one", extensions);
            company.give("one");
        }
    };
    refused(&instead("basicConstraints=CA:FALSE\n"), &["ca.pem", "CN=Mesh", "no authority"]);
    refused(&instead("basicConstraints=CA:TRUE\nkeyUsage=digitalSignature\n"), &["ca.pem", "keyCertSign"]);
    let constrained = "basicConstraints=CA:TRUE\nnameConstraints=critical,permitted;URI:.example.com\n";
    refused(&instead(constrained), &["ca.pem", "nameConstraints"]);
    refused(&|company| company.mode("ca.key", 0o644), &["ca.key", "read by others", "chmod 600"]);
    refused(&|company| fs::remove_file(company.path("roots.pem")).unwrap(), &["roots.pem", "No such file"]);
    refused(
        &|company| {
            company.root("two");
            fs::copy(company.path("two.root"), company.path("roots.pem")).unwrap();
        },
        &["roots.pem", "none of its roots signed", "ca.pem"],
    );
    refused(
        &|company| {
            company.openssl("ec -in one.key -aes128 -passout pass:word -out ca.key");
            company.mode("ca.key", 0o600);
        },
        &["ca.key", "encrypted"],
    );
    refused(
        &|company| {
            company.openssl("ecparam -name prime256v1 -genkey -out ca.key");
            company.mode("ca.key", 0o600);
        },
        &["ca.key", "not the key of the first certificate"],
    );
    let folder = tempfile::tempdir().unwrap();
    let out = control(folder.path(), &["--ca-cert", "ca.pem"]);
    assert!(out.status.code() == Some(2) && text(&out).contains("--ca-key"), "{}", text(&out));
}
