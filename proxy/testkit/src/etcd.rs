//! A real etcd, of one member or several, on ports the system chose and in a folder of its own.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_wire::etcd::{EtcdClient, Keys, Range};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// An etcd cluster, which ends when this is dropped.
pub struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    flags: Vec<String>,
    also: Option<IpAddr>,
    tls: bool,
}

struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Etcd {
    /// A cluster of so many members that answers. `None` where etcd is not installed, which is said; where the gate runs
    /// (CI=true) that is a failure.
    pub async fn start(members: usize) -> Option<Self> {
        Self::start_with(members, vec![], None).await
    }

    /// The same, whose members listen at another address of this host, too.
    pub async fn start_also_at(members: usize, also: IpAddr) -> Option<Self> {
        Self::start_with(members, vec![], Some(also)).await
    }

    /// One member that speaks TLS as `localhost` and wants to be shown a certificate: `etcd.crt` and `etcd.key` in `folder`
    /// are its own, whoever `ca.pem` vouches for may come in.
    pub async fn start_tls(folder: &Path) -> Option<Self> {
        let file = |name: &str| folder.join(name).display().to_string();
        let flags = [
            ("--cert-file", file("etcd.crt")),
            ("--key-file", file("etcd.key")),
            ("--trusted-ca-file", file("ca.pem")),
        ];
        let flags = flags.into_iter().flat_map(|(flag, file)| [flag.to_owned(), file]);
        Self::start_with(1, flags.chain(["--client-cert-auth".to_owned()]).collect(), None).await
    }

    async fn start_with(members: usize, flags: Vec<String>, also: Option<IpAddr>) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "etcd is not installed: apt-get install etcd-server"
            );
            eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
            return None;
        }
        // Another process may take a port between its choice and its use; then others are chosen.
        for _ in 0..5 {
            let mut etcd = Self::choose(members, flags.clone());
            etcd.also = also;
            for member in 0..members {
                etcd.run(member);
            }
            if etcd.answers(Duration::from_secs(15)).await {
                return Some(etcd);
            }
        }
        panic!("etcd does not start");
    }

    fn choose(members: usize, flags: Vec<String>) -> Self {
        // In memory where that is possible: it syncs at every write.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let held: Vec<_> = (0..2 * members).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |at: usize| held[at].local_addr().unwrap();
        let member = |at| Member { client: port(2 * at), peer: port(2 * at + 1), process: None };
        let members = (0..members).map(member).collect();
        let tls = !flags.is_empty();
        Self { members, folder: folder.unwrap(), flags, also: None, tls }
    }

    /// Where the members listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// As the control plane is told of it: `etcd://127.0.0.1:1,127.0.0.1:2/PREFIX`.
    pub fn url(&self, prefix: &str) -> String {
        if self.tls {
            return format!("etcds://localhost:{}/{prefix}", self.members[0].client.port());
        }
        let members: Vec<_> = self.members.iter().map(|member| member.client.to_string()).collect();
        format!("etcd://{}/{prefix}", members.join(","))
    }

    /// A client of one member.
    pub fn client(&self, member: usize) -> EtcdClient {
        let at = self.members[member].client;
        EtcdClient::new(Duration::from_secs(5), move || Box::pin(TcpStream::connect(at)))
    }

    /// Stops a member in the middle of whatever it does; its connections stay open.
    pub fn pause(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    /// Kills a member.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts a member that was killed, with what it has on disk.
    pub fn run(&mut self, member: usize) {
        let url = |at: SocketAddr| format!("http://{at}");
        let all: Vec<_> =
            self.members.iter().enumerate().map(|(i, m)| format!("m{i}={}", url(m.peer))).collect();
        let Member { client, peer, .. } = self.members[member];
        let for_clients = if self.tls { format!("https://{client}") } else { url(client) };
        let also =
            self.also.map(|ip| format!(",{}", url(SocketAddr::new(ip, client.port())))).unwrap_or_default();
        let process = Command::new("etcd")
            .args(["--name", &format!("m{member}")])
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{member}")))
            .args(["--listen-client-urls", &format!("{for_clients}{also}")])
            .args(["--advertise-client-urls", &for_clients])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &all.join(",")])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join(format!("m{member}.log"))).unwrap())
            .spawn()
            .unwrap();
        self.members[member].process = Some(process);
    }

    /// Waits until every member answers with a majority behind it.
    pub async fn answers(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        for member in 0..self.members.len() {
            let client = self.client(member);
            loop {
                let answered = if self.tls {
                    // Whoever shows nothing gets no further.
                    TcpStream::connect(self.members[member].client).await.is_ok()
                } else {
                    client.range(&Range::of(Keys::one("any"))).await.is_ok()
                };
                if answered {
                    break;
                }
                if Instant::now() > end {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        true
    }

    fn signal(&self, member: usize, signal: Signal) {
        let process = self.members[member].process.as_ref().expect("it runs");
        let pid = Pid::from_raw(process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // Also one that is paused. Nobody is left to tell when it is gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
