//! A network namespace for `outrigger run --transparent`: made, cabled to this host, redirected, and gone with the last
//! process in it.
//!
//! Nothing has to be taken down: a namespace lives as long as a process is in it, the cable as long as the namespace, and
//! every process in it ends with this one. What the programs of the system do is asked of them by separate arguments.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::failure::{Doing, Failure};
use crate::process::{Guarded, Launch, Process};

/// A network namespace in which an application runs with its sidecar.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// By which processes enter it.
    path: PathBuf,
    /// Where others reach what is in it.
    pub(crate) address: IpAddr,
    /// This host, as seen from inside; `None` in a namespace that somebody else made.
    host: Option<Ipv4Addr>,
    /// Keeps a namespace of our own alive until there are others in it.
    _keeper: Option<Process>,
    /// What carries the control plane's address into it.
    relays: JoinSet<()>,
}

/// Who a process in the namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The sidecar, which redirection leaves alone by this very number.
    pub(crate) const SIDECAR: Self = Self { uid: 15_001, gid: 15_001 };

    /// Whoever asked for the command: `UID` or `UID:GID`, else who became root for it, else root.
    pub(crate) fn of_command(written: Option<&str>) -> Result<Self, Failure> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        let from_sudo = |name| std::env::var(name).ok().and_then(|text| number(&text));
        let user = match written {
            None => {
                let uid = from_sudo("SUDO_UID").unwrap_or(0);
                Self { uid, gid: from_sudo("SUDO_GID").unwrap_or(uid) }
            }
            Some(text) => {
                let (uid, gid) = text.split_once(':').unwrap_or((text, text));
                let (Some(uid), Some(gid)) = (number(uid), number(gid)) else {
                    return Err(Failure::usage(format!("--user {text:?} is not UID or UID:GID, in numbers")));
                };
                Self { uid, gid }
            }
        };
        if user.uid == Self::SIDECAR.uid {
            let why = format!("the command can not run as {}: that is the sidecar's own user", user.uid);
            return Err(
                Failure::usage(why).hint("what that user sends is not redirected; choose another --user")
            );
        }
        Ok(user)
    }
}

impl Namespace {
    /// Enters the namespace of that name, or makes a new one.
    pub(crate) async fn open(name: Option<&str>, outrigger: &Path) -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::usage("--transparent wants root: it makes a network namespace").hint(
                "run it with sudo; the command itself runs as you, and the sidecar as a user of its own",
            ));
        }
        match name {
            Some(name) => Self::existing(name).await,
            None => Self::made(outrigger).await,
        }
    }

    async fn existing(name: &str) -> Result<Self, Failure> {
        let path = Path::new("/run/netns").join(name);
        if name.contains('/') || !path.exists() {
            return Err(Failure::usage(format!("there is no network namespace {name:?}"))
                .hint(format!("make it with `ip netns add {name}`, or leave --netns out")));
        }
        let listing = within(&path, "ip", &["-4", "-o", "addr", "show", "scope", "global"]).await?;
        let address = first_address(&listing).ok_or_else(|| {
            Failure::failed(format!("the network namespace {name} has no address at which others reach it"))
        })?;
        let relays = JoinSet::new();
        Ok(Self { path, address: address.into(), host: None, _keeper: None, relays })
    }

    async fn made(outrigger: &Path) -> Result<Self, Failure> {
        let keeper = keeper(outrigger)?;
        let pid = keeper.pid().ok_or_else(|| Failure::failed("the network namespace was gone at once"))?;
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        wait_until_own(&path).await?;
        let cable = Cable::free(&command("ip", &["-4", "-o", "addr", "show"]).await?)?;
        let Cable { name, host, inside } = &cable;
        let peer = ["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()];
        command("ip", &peer).await?;
        let host_address = format!("{host}/30");
        command("ip", &["addr", "add", &host_address, "dev", name]).await?;
        command("ip", &["link", "set", name, "up"]).await?;
        // What comes from this namespace is passed on to others of its kind. Only its own cable is told so.
        let forwarding = format!("/proc/sys/net/ipv4/conf/{name}/forwarding");
        std::fs::write(&forwarding, "1").doing(format_args!("can not write {forwarding}"))?;
        let (inside_address, gateway) = (format!("{inside}/30"), host.to_string());
        let steps: [&[&str]; 6] = [
            &["link", "set", "lo", "up"],
            &["addr", "add", &inside_address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", &gateway],
            // A way for IPv6 to leave by, so that the kernel gets as far as to redirect it.
            &["-6", "addr", "add", INSIDE_V6, "dev", "eth0", "nodad"],
            &["-6", "route", "add", "default", "dev", "eth0"],
        ];
        for step in steps {
            // A host without IPv6 has no need of the last ones.
            match within(&path, "ip", step).await {
                Err(failure) if step[0] != "-6" => return Err(failure),
                _ => {}
            }
        }
        let (address, host) = ((*inside).into(), Some(*host));
        Ok(Self { path, address, host, _keeper: Some(keeper), relays: JoinSet::new() })
    }

    /// Redirects what leaves and what arrives to the sidecar, and proves it.
    pub(crate) async fn redirect(&self, init: &Path, more: &[String]) -> Result<(), Failure> {
        let init = init.to_string_lossy();
        let uid = User::SIDECAR.uid.to_string();
        let mut arguments = vec!["apply", "--proxy-uid", &uid];
        arguments.extend(more.iter().map(String::as_str));
        within(&self.path, &init, &arguments).await?;
        Ok(())
    }

    /// The control plane's address as it is reached from inside: one on loopback is carried there.
    pub(crate) async fn carry(&mut self, control: SocketAddr) -> Result<SocketAddr, Failure> {
        let Some(host) = self.host.filter(|_| control.ip().is_loopback()) else { return Ok(control) };
        let listener = TcpListener::bind((host, 0)).await.doing("can not listen for the sidecar")?;
        let address =
            listener.local_addr().doing("can not tell where the sidecar finds the control plane")?;
        self.relays.spawn(carry(listener, control));
        Ok(address)
    }

    /// By which processes enter it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a process is put before it becomes its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// The network namespace.
    pub(crate) net: PathBuf,
    /// Who it becomes.
    pub(crate) user: User,
}

/// The two ends of a cable: an interface here, its address, and that of the other end.
#[derive(Debug, PartialEq, Eq)]
struct Cable {
    name: String,
    host: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Cable {
    /// One that meets no address of this host. The network is one for carriers, which no private network uses
    /// (RFC 6598).
    fn free(addresses: &str) -> Result<Self, Failure> {
        for _ in 0..TRIES {
            let number = fastrand::u16(..1 << 14);
            let [high, low] = (number << 2).to_be_bytes();
            let at = |last: u8| Ipv4Addr::new(100, 127, high, low | last);
            let taken = (0..4).any(|last| addresses.contains(&format!(" {}/", at(last))));
            if !taken {
                return Ok(Self { name: format!("outrigger{number}"), host: at(1), inside: at(2) });
            }
        }
        Err(Failure::failed("no address is free for a network namespace"))
    }
}

/// A process that does nothing but be in a new namespace.
fn keeper(outrigger: &Path) -> Result<Process, Failure> {
    let mut launch = Launch::new("the network namespace", "unshare");
    for word in ["--net", "--", "sleep", "infinity"] {
        launch = launch.arg(word);
    }
    launch.guarded = Guarded::Killed(outrigger.to_owned());
    launch.start()
}

async fn wait_until_own(path: &Path) -> Result<(), Failure> {
    let ours = std::fs::read_link("/proc/self/ns/net").doing("can not tell the own network namespace")?;
    let began = Instant::now();
    loop {
        let theirs = std::fs::read_link(path).doing("the network namespace was gone at once")?;
        if theirs != ours {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::failed("can not make a network namespace").hint("is util-linux installed?"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Carries connections to the control plane until it is dropped. What is in them is TLS from end to end.
async fn carry(listener: TcpListener, control: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MOST_CARRIED {
            continue;
        }
        connections.spawn(async move {
            if let Ok(mut to) = TcpStream::connect(control).await {
                let _either_end = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

/// The first address in a listing of `ip -o addr`.
fn first_address(listing: &str) -> Option<Ipv4Addr> {
    let mut words = listing.split_whitespace();
    words.find(|w| *w == "inet")?;
    words.next()?.split('/').next()?.parse().ok()
}

async fn within(net: &Path, program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let mut net_flag = OsString::from("--net=");
    net_flag.push(net);
    run(Command::new("nsenter").arg(net_flag).arg("--").arg(program).args(arguments), program).await
}

async fn command(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    run(Command::new(program).args(arguments), program).await
}

async fn run(command: &mut Command, name: &str) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .map_err(|_| Failure::failed(format!("{name} did not end within {} s", PATIENCE.as_secs())))?
        .doing(format_args!("can not run {name} (is it installed?)"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::failed(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

const INSIDE_V6: &str = "fd6f:7574:7200::2/64";
const TRIES: usize = 100;
const MOST_CARRIED: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cable_meets_no_address_that_is_taken() {
        let cable = Cable::free("").unwrap();
        assert!(cable.name.len() <= 15, "the kernel takes no longer name: {}", cable.name);
        let [.., last] = cable.host.octets();
        assert_eq!((last & 3, cable.inside.octets()[3] & 3), (1, 2));
        let all: Vec<String> =
            (0..=u16::MAX).map(|n| format!(" 100.127.{}.{}/30", n >> 8, n & 255)).collect();
        assert!(Cable::free(&all.concat()).is_err());
    }

    #[test]
    fn the_address_of_a_namespace_is_read_from_what_ip_says() {
        let listing =
            "2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\\       valid_lft forever";
        assert_eq!(first_address(listing), Some(Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(first_address(""), None);
    }

    #[test]
    fn the_command_is_never_the_sidecars_user() {
        assert_eq!(User::of_command(Some("1000")).unwrap(), User { uid: 1000, gid: 1000 });
        assert_eq!(User::of_command(Some("1000:100")).unwrap(), User { uid: 1000, gid: 100 });
        for bad in ["", "me", "-1", "1000:", "4294967295", "15001"] {
            assert!(User::of_command(Some(bad)).is_err(), "{bad}");
        }
    }
}
