//! A host of its own: a network namespace with a control plane, and programs run in it as services that know nothing of
//! the mesh.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::built::program;
use outrigger_testkit::real::{self, Process, Ran};
use serde_json::Value;

/// A network namespace with a control plane.
pub struct Host {
    keeper: Child,
    folder: tempfile::TempDir,
    _control: Process,
}

impl Host {
    /// Nothing where namespaces can not be made; what is needed is installed.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return real::needed(Err("network namespaces want root".into()));
        }
        real::debian(&["iproute2", "nftables", "util-linux", "curl", "python3"])?;
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
        Some(Self { keeper, folder, _control: control })
    }

    /// Tells the control plane of services, each with what holds for its one port.
    pub fn knows(&self, services: &[&str]) {
        let service = |text: &&str| {
            let (name, port) = text.split_once(": ").unwrap();
            format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {{ name: {name}, namespace: shop }}\n\
                 spec: {{ ports: [{port}] }}\n"
            )
        };
        let file = self.folder.path().join("services.yaml");
        fs::write(&file, services.iter().map(service).collect::<Vec<_>>().join("---\n")).unwrap();
        self.done(&["apply", "-f", &file.display().to_string()]);
    }

    /// From now on.
    pub fn lets_out_only_what_is_registered(&self) {
        let file = self.folder.path().join("defaults.yaml");
        let defaults = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshDefaults\nmetadata: { name: mesh, namespace: outrigger }\n\
                        spec: { outboundMode: registryOnly }\n";
        fs::write(&file, defaults).unwrap();
        self.done(&["apply", "-f", &file.display().to_string()]);
    }

    /// Where programs of every user may leave something.
    pub fn place(&self, name: &str) -> PathBuf {
        let place = self.folder.path().join(name);
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        place
    }

    /// Runs a command as an instance of `service` whose application listens at `port`, until there are `instances`.
    pub fn serve(&self, service: &str, port: &str, command: &[&str], instances: usize) -> Process {
        let process = Process::spawn(&mut self.transparent(service, &["--port", port], command));
        let began = Instant::now();
        loop {
            let listing = self.done(&["get", "instances", "--namespace", "shop"]);
            if listing.lines().filter(|l| l.contains(service)).count() >= instances {
                return process;
            }
            assert!(began.elapsed() < PATIENCE, "{}", process.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A service that listens on loopback alone, as it would without a mesh.
    pub fn serve_cart(&self) -> Process {
        let site = self.folder.path().join("site");
        fs::create_dir(&site).unwrap();
        fs::write(site.join("hello"), "hello from cart\n").unwrap();
        for path in [&site, &site.join("hello")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let folder = site.display().to_string();
        let server = ["python3", "-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", &folder];
        self.serve("cart", "8080", &server, 1)
    }

    /// Runs a command as a service to its end.
    pub fn run_as(&self, service: &str, command: &[&str]) -> Ran {
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
    pub fn outrigger(&self, program: &str, arguments: &[&str]) -> Ran {
        real::run(&mut inside(&self.keeper, program, arguments), PATIENCE)
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let program = self.folder.path().join("outrigger").display().to_string();
        let ran = self.outrigger(&program, arguments);
        assert!(ran.ok, "{}: {}", arguments.join(" "), ran.stderr);
        ran.stdout
    }

    pub fn virtual_address(&self, name: &str) -> String {
        let service = self.done(&["get", "service", name, "--namespace", "shop", "-o", "json"]);
        let service: Value = serde_json::from_str(&service).unwrap();
        let address = service["status"]["addresses"][0].as_str();
        address.unwrap_or_else(|| panic!("no address in {service}")).to_owned()
    }

    /// Where the only instance is, as its application would be called without a mesh.
    pub fn instance(&self) -> String {
        let cables = self.cables();
        let host = cables[0].split_whitespace().find(|w| w.starts_with("100.127.")).unwrap();
        let host: std::net::Ipv4Addr = host.split('/').next().unwrap().parse().unwrap();
        format!("{}:8080", std::net::Ipv4Addr::from_bits(host.to_bits() + 1))
    }

    /// The cables into namespaces that there are now.
    pub fn cables(&self) -> Vec<String> {
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
pub fn programs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["outrigger", "outrigger-control", "outrigger-proxy", "outrigger-init"] {
        let built = program(name);
        let here = folder.path().join(name);
        if fs::hard_link(&built, &here).is_err() {
            fs::copy(&built, &here).unwrap();
        }
    }
    folder
}

pub const PATIENCE: Duration = Duration::from_secs(60);
