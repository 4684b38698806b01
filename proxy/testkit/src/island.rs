//! A network namespace with a cable to this host: a machine of its own, as far as the network goes, that can be cut off.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::real;

/// A network namespace, which is gone with this value and the processes in it.
pub struct Island {
    keeper: Child,
    /// This host, as seen from inside.
    pub outside: Ipv4Addr,
    /// Where this host reaches what is inside.
    pub inside: Ipv4Addr,
}

impl Island {
    /// Nothing where namespaces can not be made; what is needed is installed.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return real::needed(Err("network namespaces want root".into()));
        }
        real::debian(&["iproute2", "nftables", "util-linux"])?;
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        // No two test processes have the same number at a time.
        let (number, pid) = (MADE.fetch_add(1, Ordering::Relaxed), std::process::id());
        let [_, _, high, low] = pid.to_be_bytes();
        let last = u8::try_from(4 * (number % 60)).expect("it is below 240");
        let at = |host| Ipv4Addr::new(10, 192 + high % 64, low, last + host);
        let island = Self { keeper, outside: at(1), inside: at(2) };
        island.own_namespace();
        let (link, keeper) = (format!("or{pid}x{number}"), island.keeper.id().to_string());
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &keeper]);
        run("ip", &["addr", "add", &format!("{}/30", island.outside), "dev", &link]);
        run("ip", &["link", "set", &link, "up"]);
        island.run("ip", &["link", "set", "lo", "up"]);
        island.run("ip", &["addr", "add", &format!("{}/30", island.inside), "dev", "eth0"]);
        island.run("ip", &["link", "set", "eth0", "up"]);
        Some(island)
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).args(["--", program]);
        command
    }

    /// From now on these ports of 127.0.0.1 inside are those of this host's end of the cable.
    pub fn borrows(&self, ports: &[u16]) {
        let (ports, outside) = (set(ports), self.outside);
        self.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"]);
        self.nft(&format!(
            "table ip island {{
                chain away {{ type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport {ports} dnat to {outside}; }}
                chain from {{ type nat hook postrouting priority 100; oifname eth0 masquerade; }}
                chain out {{ type filter hook output priority 50; }}
                chain in {{ type filter hook prerouting priority -300; }}
            }}"
        ));
    }

    /// Nothing passes any more to and from these ports of this host, and nobody is told.
    pub fn cut_off(&self, ports: &[u16]) {
        let (ports, outside) = (set(ports), self.outside);
        self.nft(&format!(
            "add rule ip island out ip daddr {outside} tcp dport {ports} drop
             add rule ip island in ip saddr {outside} tcp sport {ports} drop"
        ));
    }

    /// Everything passes again.
    pub fn mend(&self) {
        self.nft("flush chain ip island out\nflush chain ip island in");
    }

    fn own_namespace(&self) {
        let (own, began) = (fs::read_link("/proc/self/ns/net").expect("our namespace"), Instant::now());
        while fs::read_link(self.path()).expect("its namespace") == own {
            assert!(began.elapsed() < PATIENCE, "no namespace is made");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.keeper.id()).into()
    }

    fn nft(&self, rules: &str) {
        self.run("nft", &[rules]);
    }

    fn run(&self, program: &str, args: &[&str]) {
        finished(self.command(program).args(args));
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn run(program: &str, args: &[&str]) {
    finished(Command::new(program).args(args));
}

fn finished(command: &mut Command) {
    let out = command.output().expect("it runs");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn set(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", ports.join(", "))
}

static MADE: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(10);
