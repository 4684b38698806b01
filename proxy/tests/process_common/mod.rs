//! The sidecar as a process without a control plane: a plan, and an identity from files.
#![allow(dead_code, reason = "each test file uses a part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_mesh::{Endpoint, MtlsMode, Resource, Service, Transport};
use outrigger_testkit::resources;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A client's sidecar as a process that knows `shop/cart`, reachable without sidecars. Killed with the value.
pub(crate) struct Process {
    pub(crate) outbound: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts it before the application at `cart`, by way of a shell that runs `first`.
    pub(crate) fn start(cart: SocketAddr, first: &str, flags: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (plan, ready) = (folder.path().join("plan"), folder.path().join("ready.json"));
        let service = Service { mtls: MtlsMode::Permissive.into(), ..resources::service("shop/cart") };
        let endpoint =
            Endpoint { transport: Transport::Plaintext, ..resources::endpoint("shop/cart", "cart-1", cart) };
        let resources = vec![Resource::Service(service), Resource::Endpoint(endpoint)];
        let bundle = outrigger_wire::Bundle { owner: None, revision: 7, resources };
        std::fs::write(&plan, bundle.to_bytes()).unwrap();
        let identity = identity_files(folder.path());
        let line = format!(
            "{first} exec {} --service-account web --namespace shop --plan {} --data {} --outbound 127.0.0.1:0 \
             --admin 127.0.0.1:0 --ready-file {} {identity} {flags}",
            env!("CARGO_BIN_EXE_outrigger-proxy"),
            plan.display(),
            folder.path().join("data").display(),
            ready.display(),
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        while !ready.exists() {
            let ended = child.try_wait().unwrap();
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(20), "{ended:?}: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let address = |name: &str| told[name].as_str().unwrap().parse().unwrap();
        Self { outbound: address("outbound"), admin: address("admin"), child, folder }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends it a signal that ends it, and says how it ended.
    pub(crate) fn kill(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill_process(self.pid(), signal).unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Time on a processor until now, in user mode and in the kernel.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        let ticks = after_name.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 1_000 / rustix::param::clock_ticks_per_second())
    }

    /// A folder with one entry for each descriptor it has open.
    pub(crate) fn folder_of_descriptors(&self) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join("fd")
    }

    /// Its resident memory in bytes, without the pages of its program.
    pub(crate) fn memory(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: Vec<u64> = statm.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (pages[1] - pages[2]) * u64::try_from(rustix::param::page_size()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Certificate files for `web`; the flags that name them.
pub(crate) fn identity_files(folder: &Path) -> String {
    use outrigger_certs::{Authority, LeafLifetime, WorkloadKey};
    use std::os::unix::fs::PermissionsExt;

    let now = std::time::SystemTime::now();
    let (authority, pems) = Authority::create(&resources::TRUST_DOMAIN.parse().unwrap(), now).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let id = resources::identity("shop", "web");
    let leaf = authority.sign(&key.csr().unwrap(), &id, LeafLifetime::default(), now).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let chain: String = leaf.chain.iter().map(|der| pem(der)).collect();
    format!(
        "--identity-cert {} --identity-key {} --identity-roots {}",
        write("cert.pem", &chain),
        write("key.pem", &key.to_pem()),
        write("roots.pem", &pems.root)
    )
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let word = three.iter().fold(0_u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - three.len()));
            for digit in 0..4 {
                let index = (word >> (18 - 6 * digit)) & 63;
                text.push(if digit <= three.len() { char::from(ALPHABET[index as usize]) } else { '=' });
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
