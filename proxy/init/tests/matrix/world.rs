//! Two network namespaces with a cable between them: the application's, in which redirection is put in place, and that of
//! everybody else. They end with their owner, and by themselves soon after if it is killed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use outrigger_init::network::Family;
use outrigger_proxy::listen::original_dst::OriginalDst;
use outrigger_testkit::real::{self, Ran};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_res_uid};
use socket2::{Domain, Protocol, Socket, Type};

/// A network namespace.
pub struct Namespace {
    keeper: Child,
    link: File,
}

impl Namespace {
    pub fn new() -> Self {
        let mut keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "120"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let path = format!("/proc/{}/ns/net", keeper.id());
        let ours = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let began = Instant::now();
        while std::fs::metadata(&path).is_ok_and(|theirs| theirs.ino() == ours) {
            assert!(began.elapsed() < PATIENCE && keeper.try_wait().unwrap().is_none(), "no namespace");
            thread::sleep(Duration::from_millis(2));
        }
        let link = File::open(path).unwrap();
        Self { keeper, link }
    }

    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// Runs a program inside, however it ends.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Ran {
        let net = format!("--net=/proc/{}/ns/net", self.pid());
        real::run(Command::new("nsenter").arg(net).arg("--").arg(program).args(arguments), PATIENCE)
    }

    /// Runs a command inside, and returns what it wrote.
    pub fn run(&self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ran = self.try_run(words[0], &words[1..]);
        assert!(ran.ok, "{command}: {}", ran.stderr);
        ran.stdout
    }

    /// Does something inside, as a user.
    pub fn within<T: Send>(&self, uid: u32, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.link.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                let uid = rustix::process::Uid::from_raw(uid);
                // Of this thread alone, which ends here.
                set_thread_res_uid(uid, uid, uid).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = self.keeper.kill();
        let _reaped = self.keeper.wait();
    }
}

/// The two namespaces, cabled and addressed.
pub struct World {
    pub app: Namespace,
    pub peer: Namespace,
}

/// Addresses of one family.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub loopback: IpAddr,
    pub any: IpAddr,
    /// The application's host.
    pub app: IpAddr,
    /// A place far away, reached through the peer.
    pub outside: IpAddr,
    /// A place far away in a network that is skipped.
    pub skipped: IpAddr,
    /// The virtual address of a service, which no host has.
    pub service: IpAddr,
    /// Where a resolver on the application's host listens.
    pub resolver: IpAddr,
}

impl Addresses {
    pub fn of(family: Family) -> Self {
        let all = match family {
            Family::V4 => ["127.0.0.1", "0.0.0.0", "10.77.0.1", "198.51.100.7", "198.18.0.7", "127.0.0.53"],
            Family::V6 => ["::1", "::", "fd77::1", "2001:db8:51::7", "2001:db8:18::7", "::1"],
        };
        let [loopback, any, app, outside, skipped, resolver] = all.map(|a| a.parse().unwrap());
        let service = match family {
            Family::V4 => "240.0.0.7",
            Family::V6 => "fd6f:7574:7269::7",
        };
        Self { loopback, any, app, outside, skipped, resolver, service: service.parse().unwrap() }
    }
}

impl World {
    pub fn new() -> Self {
        let (app, peer) = (Namespace::new(), Namespace::new());
        app.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", peer.pid()));
        for (namespace, number, other) in [(&app, 1, 2), (&peer, 2, 1)] {
            for step in [
                "ip link set lo up".to_owned(),
                format!("ip -4 addr add 10.77.0.{number}/24 dev eth0"),
                format!("ip -6 addr add fd77::{number}/64 dev eth0 nodad"),
                "ip link set eth0 up".to_owned(),
                format!("ip -4 route add default via 10.77.0.{other}"),
                format!("ip -6 route add default via fd77::{other}"),
            ] {
                namespace.run(&step);
            }
        }
        for family in Family::ALL {
            let far = Addresses::of(family);
            for address in [far.outside, far.skipped] {
                let (flag, bits) = if address.is_ipv4() { ("-4", 32) } else { ("-6", 128) };
                peer.run(&format!("ip {flag} addr add {address}/{bits} dev lo"));
            }
        }
        Self { app, peer }
    }

    /// What a caller from the application's host hears.
    pub fn calls(&self, uid: u32, to: SocketAddr) -> String {
        self.app.within(uid, || call(to))
    }

    /// Calls until `who` answers: what was just made of links and addresses takes its time on a busy machine.
    pub fn until_called(&self, uid: u32, to: SocketAddr, who: &str) {
        let began = Instant::now();
        loop {
            let said = self.calls(uid, to);
            if said == who {
                return;
            }
            assert!(began.elapsed() < PATIENCE / 3, "{to}: {said}, not {who}");
        }
    }

    /// What a caller from elsewhere hears.
    pub fn is_called(&self, at: SocketAddr) -> String {
        self.peer.within(0, || call(at))
    }
}

/// Connects, and returns what is said there.
pub fn call(to: SocketAddr) -> String {
    let stream = match TcpStream::connect_timeout(&to, Duration::from_secs(3)) {
        Ok(stream) => stream,
        Err(e) => return format!("no connection: {}", e.kind()),
    };
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut said = String::new();
    match (&stream).take(200).read_to_string(&mut said) {
        Ok(_) => said,
        Err(e) => format!("{said} and then: {}", e.kind()),
    }
}

/// Asks over UDP from a connected socket, which hears only the one it asked.
pub fn ask(to: SocketAddr) -> String {
    let any: IpAddr = if to.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.send(b"who").unwrap();
    let mut answer = [0; 100];
    match socket.recv(&mut answer) {
        Ok(n) => String::from_utf8_lossy(&answer[..n]).into_owned(),
        Err(e) => format!("no answer: {}", e.kind()),
    }
}

/// Something that listens and answers every connection with one line. Ends when dropped.
pub struct Server {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// How a server greets a connection that it accepted at this address.
type Greeting = fn(&TcpStream, SocketAddr) -> String;

impl Server {
    /// An application or a service elsewhere.
    pub fn named(namespace: &Namespace, name: &'static str, at: &[SocketAddr]) -> Self {
        match name {
            "app" => Self::start(namespace, at, false, |_, _| "app".into()),
            _ => Self::start(namespace, at, false, |_, _| "peer".into()),
        }
    }

    /// A sidecar's ports, read with the sidecar's own code: it tells where connections were going.
    pub fn sidecar(namespace: &Namespace, at: &[SocketAddr], transparent: bool) -> Self {
        Self::start(namespace, at, transparent, |stream, listening| {
            let original = OriginalDst::of(stream, listening).unwrap();
            let to = original.map_or("nowhere else".to_owned(), |o| o.address().to_string());
            format!("{} for {to}", listening.port())
        })
    }

    /// Answers UDP.
    pub fn udp(namespace: &Namespace, at: &[SocketAddr]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let start = |at: &SocketAddr| {
            let socket = namespace.within(0, || UdpSocket::bind(at).unwrap());
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let (end, port) = (Arc::clone(&end), at.port());
            thread::spawn(move || {
                let mut asked = [0; 100];
                while !end.load(SeqCst) {
                    if let Ok((_, from)) = socket.recv_from(&mut asked) {
                        let _gone = socket.send_to(format!("{port} answers").as_bytes(), from);
                    }
                }
            })
        };
        let threads = at.iter().map(start).collect();
        Self { end, threads }
    }

    fn start(namespace: &Namespace, at: &[SocketAddr], transparent: bool, greet: Greeting) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let start = |at: &SocketAddr| {
            let (at, end) = (*at, Arc::clone(&end));
            let listener = namespace.within(0, move || listen(at, transparent).unwrap());
            thread::spawn(move || {
                while !end.load(SeqCst) {
                    match listener.accept() {
                        Ok((mut stream, _)) => {
                            let _gone = stream.write_all(greet(&stream, at).as_bytes());
                        }
                        Err(_) => thread::sleep(Duration::from_millis(2)),
                    }
                }
            })
        };
        let threads = at.iter().map(start).collect();
        Self { end, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// A listener that does not wait.
pub fn listen(at: SocketAddr, transparent: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if transparent {
        // One flag of the kernel for both families.
        socket.set_ip_transparent_v4(true)?;
    }
    socket.bind(&at.into())?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub const PATIENCE: Duration = Duration::from_secs(90);
