//! A mesh of real processes for one story: a control plane and sidecars on ports of the system's choice, applications
//! played by the testkit's origins. Everything ends with the value that stands for it.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) use outrigger_testkit::built::program as binary;
use outrigger_testkit::{Client, Island, Origin, Reply};
use serde_json::Value;
use tempfile::TempDir;

/// No story waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane with its folder.
pub(crate) struct Mesh {
    folder: TempDir,
    control: Option<Process>,
    pub(crate) push: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) webhook: Option<SocketAddr>,
    extra: Vec<String>,
    island: Option<Island>,
}

impl Mesh {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a control plane with more settings than the usual ones.
    pub(crate) fn start_with(extra: &[&str]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), extra)
    }

    /// The same where sidecars find it at `push`.
    pub(crate) fn start_at(push: SocketAddr, extra: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let extra = extra.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut mesh = Self { folder, control: None, push, admin: any, webhook: None, extra, island: None };
        mesh.start_control();
        mesh
    }

    /// Starts a control plane on a machine of its own. Only sidecars reach it there.
    pub(crate) fn start_on(island: Island, extra: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let extra = extra.iter().map(ToString::to_string).collect();
        let (folder, push) = (tempfile::tempdir().unwrap(), SocketAddr::from((island.inside, 0)));
        let mut mesh =
            Self { folder, control: None, push, admin: any, webhook: None, extra, island: Some(island) };
        mesh.start_control();
        mesh
    }

    /// The machine that it is on.
    pub(crate) fn island(&self) -> &Island {
        self.island.as_ref().expect("it is on one")
    }

    /// Starts the control plane (again), on the ports it had.
    pub(crate) fn start_control(&mut self) {
        let ready = self.folder.path().join("control.ready");
        let _ = fs::remove_file(&ready);
        let program = binary("outrigger-control");
        let mut command = match &self.island {
            None => Command::new(program),
            Some(island) => island.command(&program.display().to_string()),
        };
        command
            .args(["--push", &self.push.to_string(), "--admin", &self.admin.to_string()])
            .arg("--data")
            .arg(self.folder.path().join("control"))
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.extra);
        let mut process = Process::spawn(command, &self.path("control.log"));
        let told = process.wait_ready(&ready);
        self.push = told["push"].as_str().unwrap().parse().unwrap();
        self.admin = told["admin"].as_str().unwrap().parse().unwrap();
        self.webhook = told["webhook"].as_str().map(|address| address.parse().unwrap());
        self.control = Some(process);
    }

    /// Starts it again with more settings.
    pub(crate) fn start_control_with(&mut self, more: &[String]) {
        self.extra.extend_from_slice(more);
        self.start_control();
    }

    /// The process of the control plane.
    pub(crate) fn control_pid(&self) -> u32 {
        self.control.as_ref().expect("it runs").child.id()
    }

    /// Kills the control plane without a word (SIGKILL).
    pub(crate) fn kill_control(&mut self) {
        self.control.take().expect("it runs").kill();
    }

    /// Asks the control plane to end (SIGTERM), and waits for that.
    pub(crate) fn end_control(&mut self) {
        let mut control = self.control.take().expect("it runs");
        control.signal("TERM");
        assert_eq!(control.wait_exit(), Some(0), "{}", self.control_log());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn control_log(&self) -> String {
        fs::read_to_string(self.path("control.log")).unwrap()
    }

    /// Runs `outrigger` against this mesh.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        Command::new(binary("outrigger"))
            .args(args)
            .env("OUTRIGGER_ADMIN", format!("http://{}", self.admin))
            .env_remove("OUTRIGGER_JOIN_TOKEN")
            .output()
            .unwrap()
    }

    /// Applies resources and waits until every sidecar has acknowledged them.
    pub(crate) fn apply(&self, yaml: &str) {
        let out = self.try_apply(yaml, &["--wait"]);
        assert!(out.status.success(), "{}", text(&out));
    }

    pub(crate) fn try_apply(&self, yaml: &str, more: &[&str]) -> Output {
        let file = self.path("apply.yaml");
        fs::write(&file, yaml).unwrap();
        let mut args = vec!["apply", "-f", file.to_str().unwrap()];
        args.extend(more);
        self.cli(&args)
    }

    /// Declares services `shop/<name>` with one HTTP port each.
    pub(crate) fn services(&self, names: &[&str]) {
        let yaml: Vec<String> = names.iter().map(|name| service(name)).collect();
        self.apply(&yaml.join("---\n"));
    }

    pub(crate) fn token(&self, account: &str) -> String {
        self.token_in("shop", account)
    }

    pub(crate) fn token_in(&self, namespace: &str, account: &str) -> String {
        let out = self.cli(&["certs", "join-token", "--namespace", namespace, "--service-account", account]);
        assert!(out.status.success(), "{}", text(&out));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// GET from the admin API.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let reply = Client::h1(self.admin).await.get(&self.admin.to_string(), path).await.unwrap();
        assert!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text());
        reply.json()
    }

    /// The name of the connected sidecar of `shop/<account>`, once it can be asked for pages.
    pub(crate) async fn node_of(&self, account: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let list = self.admin("/v1/proxies").await;
            let of_it =
                |one: &&Value| one["identity"].as_str().unwrap().ends_with(&format!("/shop/sa/{account}"));
            let node = list["items"].as_array().unwrap().iter().find(of_it).map(|one| one["node"].clone());
            if let Some(node) = node.as_ref().and_then(Value::as_str) {
                let path = format!("/v1/proxies/{node}/certs");
                let reply = Client::h1(self.admin).await.get(&self.admin.to_string(), &path).await.unwrap();
                if reply.status.is_success() {
                    return node.to_owned();
                }
            }
            assert!(Instant::now() < deadline, "{account} can not be asked: {list:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A sidecar for an instance of `shop/<service>` whose application is at `app`.
    pub(crate) fn sidecar(&self, service: &str, version: &str, app: SocketAddr) -> SidecarPlan {
        let args = ["--service", service, "--version", version, "--port", &app.port().to_string()];
        self.plan(service, &args)
    }

    /// A sidecar without a service behind it: an outside caller with an identity.
    pub(crate) fn caller(&self, account: &str) -> SidecarPlan {
        self.plan(account, &["--service-account", account])
    }

    /// The proxy of the gateway `shop/<name>`, with its certificates in `folder`; the system chooses its ports.
    pub(crate) fn gateway(&self, name: &str, folder: &Path) -> SidecarPlan {
        let ports = ["--gateway", name, "--gateway-ip", "127.0.0.1", "--gateway-port", "443=0,80=0"];
        self.plan(name, &ports).args(&["--gateway-certificates", folder.to_str().unwrap()])
    }

    fn plan(&self, account: &str, args: &[&str]) -> SidecarPlan {
        let serial = std::sync::atomic::AtomicUsize::fetch_add(&SERIAL, 1, Relaxed);
        SidecarPlan {
            account: account.to_owned(),
            namespace: "shop".to_owned(),
            control: self.push.to_string(),
            folder: self.path(&format!("{account}-{serial}")),
            args: args.iter().map(ToString::to_string).collect(),
            env: vec![],
            token: None,
        }
    }

    /// An origin with its sidecar, registered and ready.
    pub(crate) async fn instance(&self, service: &str, version: &str) -> Instance {
        let origin = Origin::named(&format!("{service}-{version}")).await;
        let sidecar = self.sidecar(service, version, origin.addr()).token(self.token(service)).start();
        Instance { origin, sidecar }
    }

    /// Waits until `caller` gets an answer with status 200 from `service`.
    pub(crate) async fn reachable(&self, caller: &Sidecar, service: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let last = caller.get(service, "/").await;
            if last.status == 200 {
                return;
            }
            assert!(Instant::now() < end, "{service} stays unreachable: {} {}", last.status, last.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the admin API answers `path` with something for which `holds`.
    pub(crate) async fn until(&self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let told = self.admin(path).await;
            if holds(&told) {
                return told;
            }
            assert!(Instant::now() < end, "{what}; {path} says {told:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

static SERIAL: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// The YAML of a service `shop/<name>`.
pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  ports: [{{port: 80, protocol: http}}]\n"
    )
}

/// The YAML of a route that divides `shop/<service>` between v1 and v2.
pub(crate) fn split(service: &str, v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {service}, namespace: shop}}\n\
         spec:\n  parentRefs: [{{group: outrigger.dev, kind: MeshService, name: {service}}}]\n  rules:\n  - backendRefs:\n    \
         - {{group: outrigger.dev, kind: ServiceVersion, name: {service}.v1, weight: {v1}}}\n    \
         - {{group: outrigger.dev, kind: ServiceVersion, name: {service}.v2, weight: {v2}}}\n"
    )
}

/// An application and its sidecar.
pub(crate) struct Instance {
    pub(crate) origin: Origin,
    pub(crate) sidecar: Sidecar,
}

/// How a sidecar is to be started.
#[derive(Clone)]
pub(crate) struct SidecarPlan {
    account: String,
    namespace: String,
    control: String,
    folder: PathBuf,
    args: Vec<String>,
    env: Vec<(String, OsString)>,
    token: Option<String>,
}

impl SidecarPlan {
    pub(crate) fn token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// Of another namespace than `shop`.
    pub(crate) fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// With these replicas of the control plane in place of the one it was made by.
    pub(crate) fn control(mut self, replicas: &[&Mesh]) -> Self {
        let all: Vec<_> = replicas.iter().map(|replica| replica.push.to_string()).collect();
        self.control = all.join(",");
        self
    }

    pub(crate) fn args(mut self, more: &[&str]) -> Self {
        self.args.extend(more.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn command(&self) -> (Command, PathBuf) {
        fs::create_dir_all(&self.folder).unwrap();
        let ready = self.folder.join("ready");
        let _ = fs::remove_file(&ready);
        let mut command = Command::new(binary("outrigger-proxy"));
        command
            .args(["--namespace", &self.namespace, "--control", &self.control])
            .args(["--outbound", "127.0.0.1:0", "--inbound", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(self.folder.join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env_remove("OUTRIGGER_JOIN_TOKEN");
        if let Some(token) = &self.token {
            command.env("OUTRIGGER_JOIN_TOKEN", token);
        }
        (command, ready)
    }

    /// Starts the sidecar and waits until it is ready.
    pub(crate) fn start(&self) -> Sidecar {
        let (command, ready) = self.command();
        let mut process = Process::spawn(command, &self.folder.join("log"));
        let told = process.wait_ready(&ready);
        let address = |name: &str| told[name].as_str().and_then(|a| a.parse().ok());
        Sidecar {
            outbound: address("outbound").expect("an outbound address"),
            inbound: address("inbound"),
            admin: address("admin").expect("an admin address"),
            plan: self.clone(),
            process,
        }
    }

    /// Starts a sidecar that is not expected to be ready.
    pub(crate) fn waiting(&self) -> Process {
        let (command, _) = self.command();
        Process::spawn(command, &self.folder.join("log"))
    }

    /// Starts a sidecar that is expected to give up: its exit code and what it said.
    pub(crate) fn refused(&self) -> (i32, String) {
        let (command, _) = self.command();
        let mut process = Process::spawn(command, &self.folder.join("log"));
        let code = process.wait_exit().unwrap_or_else(|| panic!("{} did not give up", self.account));
        (code, fs::read_to_string(self.folder.join("log")).unwrap())
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) plan: SidecarPlan,
    process: Process,
}

impl Sidecar {
    /// One GET through the sidecar on a connection of its own.
    pub(crate) async fn get(&self, service: &str, path: &str) -> Reply {
        Client::h1(self.outbound).await.get(service, path).await.unwrap()
    }

    /// Waits until its copy on disk has the first instance of the namespace `shop`.
    pub(crate) async fn has_kept(&self, mesh: &Mesh) {
        let told = mesh.admin("/v1/instances/shop").await;
        let uid = told["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
        let copy = self.plan.folder.join("data/snapshot.bundle");
        let has = || fs::read(&copy).is_ok_and(|kept| kept.windows(uid.len()).any(|w| w == uid.as_bytes()));
        outrigger_testkit::eventually("the copy on disk has the instance", || async { has() }).await;
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.plan.folder.join("log")).unwrap()
    }

    /// Asks it to drain and end (SIGTERM), without waiting for that.
    pub(crate) fn ask_to_end(&self) {
        self.process.signal("TERM");
    }

    pub(crate) fn kill(mut self) -> SidecarPlan {
        self.process.kill();
        self.plan.clone()
    }

    /// Asks it to drain and end (SIGTERM), and waits for that.
    pub(crate) fn terminate(self) -> SidecarPlan {
        self.ask_to_end();
        self.ended()
    }

    /// Waits until it has ended in order.
    pub(crate) fn ended(mut self) -> SidecarPlan {
        let code = self.process.wait_exit();
        assert_eq!(code, Some(0), "a drained sidecar exits with 0\n{}", self.log());
        self.plan.clone()
    }
}

/// A process that is killed with the value that stands for it.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: &Path) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log: log.to_path_buf() }
    }

    fn wait_ready(&mut self, file: &Path) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = fs::read_to_string(file) {
                return serde_json::from_str(&text).unwrap();
            }
            let exited = self.child.try_wait().unwrap();
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(exited.is_none(), "it ended with {exited:?} before it was ready:\n{}", log());
            assert!(Instant::now() < end, "it is not ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A steady stream of requests beside what a story does.
pub(crate) struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    /// `connections` keep-alive connections through `outbound`, each one request after the other with a short pause.
    pub(crate) fn start(outbound: SocketAddr, service: &str, connections: usize) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let answered = Arc::new(AtomicU64::new(0));
        let task =
            |_| tokio::spawn(drive(outbound, service.to_owned(), stopped.clone(), Arc::clone(&answered)));
        let tasks = (0..connections).map(task).collect();
        Self { stop, answered, tasks }
    }

    /// Waits until so many more requests have been answered.
    pub(crate) async fn goes_on(&self, requests: u64) {
        let goal = self.answered.load(Relaxed) + requests;
        outrigger_testkit::eventually("the load goes on", || async { self.answered.load(Relaxed) >= goal })
            .await;
    }

    /// Ends the load: how many requests were answered with 200, and what happened to the others.
    pub(crate) async fn end(self) -> (u64, Vec<String>) {
        self.stop.send_replace(true);
        let (mut good, mut bad) = (0, Vec::new());
        for task in self.tasks {
            let (g, b) = task.await.unwrap();
            good += g;
            bad.extend(b);
        }
        (good, bad)
    }
}

async fn drive(
    outbound: SocketAddr,
    service: String,
    stopped: tokio::sync::watch::Receiver<bool>,
    answered: Arc<AtomicU64>,
) -> (u64, Vec<String>) {
    let mut client = Client::h1(outbound).await;
    let (mut good, mut bad) = (0, Vec::new());
    while !*stopped.borrow() && bad.len() < 100 {
        match client.get(&service, "/load").await {
            Ok(reply) if reply.status == 200 => {
                good += 1;
                answered.fetch_add(1, Relaxed);
            }
            Ok(reply) => bad.push(format!("{} {}", reply.status, reply.text())),
            Err(e) => bad.push(format!("{e:#}")),
        }
        if client.is_closed() {
            client = Client::h1(outbound).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (good, bad)
}

/// What a program printed, both streams.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
