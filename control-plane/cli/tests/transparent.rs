//! `outrigger run --transparent` with real programs: a control plane, a service and a caller that know nothing of each
//! other's sidecars. All of it happens in a network namespace of the test's own. Wants root.

#![allow(clippy::unwrap_used, missing_docs, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::real::{self, Process, Ran};
use serde_json::Value;

#[test]
fn a_process_in_a_namespace_reaches_services_by_address_and_name_without_knowing_the_mesh() {
    if !rustix::process::geteuid().is_root() {
        return real::needed(Err("network namespaces want root".into())).unwrap_or_default();
    }
    let Some(()) = real::debian(&["iproute2", "nftables", "util-linux", "curl", "python3"]) else { return };
    let host = Host::new();
    let cart = host.serve_cart();
    let address = host.virtual_address();
    let instance = host.instance();

    // By virtual address with any Host, by name, by the address of the one instance; and what is nobody's.
    let script = format!(
        "for url in http://{address}/hello http://cart.shop.mesh/hello http://{instance}/hello; do
             curl -sS --max-time 20 -H 'x-caller: web' $url || echo failed: $url
         done
         curl -sS --max-time 20 -H 'host: nobody.test' http://{address}/hello
         curl -s --max-time 20 -o /dev/null -w '%{{http_code}}\\n' http://240.0.255.254/
         id -u"
    );
    let ran = host.run_as("web", &["sh", "-c", &script]);
    let words: Vec<&str> = ran.stdout.lines().collect();
    let hello = "hello from cart";
    assert_eq!(words, [hello, hello, hello, hello, "404", "1000"], "{}", ran.stderr);

    // From outside the mesh, in plaintext: redirected to the sidecar, which wants a proof.
    let plain = host.outrigger("curl", &["-sS", "--max-time", "5", &format!("http://{instance}/hello")]);
    assert!(!plain.ok, "{}", plain.stdout);

    // Killed without a word, nothing is left.
    assert!(host.cables().len() == 1, "the caller's has gone with it: {:?}", host.cables());
    drop(cart);
    let began = Instant::now();
    while !host.cables().is_empty() {
        assert!(began.elapsed() < PATIENCE, "{:?}", host.cables());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_not_root_is_told_so_with_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = programs();
    let program = folder.path().join("outrigger");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--clear-groups", "--"]).arg(program);
    command.args(["run", "--transparent", "--service", "web", "--", "true"]);
    let ran = real::run(&mut command, PATIENCE);
    assert!(!ran.ok && ran.stderr.contains("--transparent wants root"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: run it with sudo"), "{}", ran.stderr);
}

/// A host of its own: a network namespace with a control plane.
struct Host {
    keeper: Child,
    folder: tempfile::TempDir,
    _control: Process,
}

impl Host {
    fn new() -> Self {
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "180"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (net, ours) =
            (format!("/proc/{}/ns/net", keeper.id()), fs::read_link("/proc/self/ns/net").unwrap());
        let began = Instant::now();
        while fs::read_link(&net).unwrap() == ours {
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(2));
        }
        let folder = programs();
        let lo = real::run(&mut inside(&keeper, "ip", &["link", "set", "lo", "up"]), PATIENCE);
        assert!(lo.ok, "{}", lo.stderr);
        let (data, ready) = (folder.path().join("control"), folder.path().join("ready"));
        let program = folder.path().join("outrigger-control");
        let mut command = inside(&keeper, &program.display().to_string(), &[]);
        command.arg("--data").arg(&data).arg("--ready-file").arg(&ready);
        let control = Process::spawn(&mut command);
        let began = Instant::now();
        while !ready.exists() {
            assert!(began.elapsed() < PATIENCE, "{}", control.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let host = Self { keeper, folder, _control: control };
        let service = |name: &str| {
            format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {{ name: {name}, namespace: shop }}\n\
                 spec: {{ ports: [{{ port: 80, protocol: http }}] }}\n"
            )
        };
        let file = host.folder.path().join("services.yaml");
        fs::write(&file, [service("cart"), service("web")].join("---\n")).unwrap();
        host.done(&["apply", "-f", &file.display().to_string()]);
        host
    }

    /// A service that listens on loopback alone, as it would without a mesh.
    fn serve_cart(&self) -> Process {
        let site = self.folder.path().join("site");
        fs::create_dir(&site).unwrap();
        fs::write(site.join("hello"), "hello from cart\n").unwrap();
        for path in [&site, &site.join("hello")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let server = ["python3", "-m", "http.server", "8080", "--bind", "127.0.0.1"];
        let mut command = self.transparent("cart", &["--port", "8080"], &server);
        command.current_dir(&site);
        let process = Process::spawn(&mut command);
        let began = Instant::now();
        while !self.done(&["get", "instances", "--namespace", "shop"]).contains("cart") {
            assert!(began.elapsed() < PATIENCE, "{}", process.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        process
    }

    /// Runs a command as a service to its end.
    fn run_as(&self, service: &str, command: &[&str]) -> Ran {
        let ran = real::run(&mut self.transparent(service, &[], command), Duration::from_secs(120));
        assert!(ran.ok, "{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    fn transparent(&self, service: &str, flags: &[&str], command: &[&str]) -> Command {
        let program = self.folder.path().join("outrigger").display().to_string();
        let run = ["run", "--transparent", "--user", "1000", "--namespace", "shop", "--service", service];
        let mut whole = inside(&self.keeper, &program, &run);
        whole.args(flags).arg("--").args(command).env("OUTRIGGER_BIN_DIR", self.folder.path());
        whole
    }

    /// Runs a program of the host.
    fn outrigger(&self, program: &str, arguments: &[&str]) -> Ran {
        real::run(&mut inside(&self.keeper, program, arguments), PATIENCE)
    }

    fn done(&self, arguments: &[&str]) -> String {
        let program = self.folder.path().join("outrigger").display().to_string();
        let ran = self.outrigger(&program, arguments);
        assert!(ran.ok, "{}: {}", arguments.join(" "), ran.stderr);
        ran.stdout
    }

    fn virtual_address(&self) -> String {
        let service = self.done(&["get", "service", "cart", "--namespace", "shop", "-o", "json"]);
        let service: Value = serde_json::from_str(&service).unwrap();
        let address = service["status"]["addresses"][0].as_str();
        address.unwrap_or_else(|| panic!("no address in {service}")).to_owned()
    }

    /// Where the only instance is, as its application would be called without a mesh.
    fn instance(&self) -> String {
        let cables = self.cables();
        let host = cables[0].split_whitespace().find(|w| w.starts_with("100.127.")).unwrap();
        let host: std::net::Ipv4Addr = host.split('/').next().unwrap().parse().unwrap();
        format!("{}:8080", std::net::Ipv4Addr::from_bits(host.to_bits() + 1))
    }

    /// The cables into namespaces that there are now.
    fn cables(&self) -> Vec<String> {
        let listing = self.outrigger("ip", &["-4", "-o", "addr", "show"]).stdout;
        listing.lines().filter(|l| l.contains("outrigger")).map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = self.keeper.kill();
        let _reaped = self.keeper.wait();
    }
}

fn inside(keeper: &Child, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", keeper.id())).arg("--").arg(program).args(arguments);
    command
}

/// The programs where every user may run them: where they were built, others may not look.
fn programs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["outrigger", "outrigger-control", "outrigger-proxy", "outrigger-init"] {
        let built = binary(name);
        let here = folder.path().join(name);
        if fs::hard_link(&built, &here).is_err() {
            fs::copy(&built, &here).unwrap();
        }
    }
    folder
}

/// The folder with the programs: that of the tests' own build unless the environment names another.
fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("OUTRIGGER_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_outrigger")).parent().unwrap().to_path_buf(),
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

const PATIENCE: Duration = Duration::from_secs(60);
