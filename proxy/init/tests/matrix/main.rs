//! The interception matrix: {nft, iptables-nft, iptables-legacy} x {IPv4, IPv6} x {REDIRECT, TPROXY}, with real packets in
//! network namespaces of its own. In every cell the original address is what the sidecar's own code reads.
//!
//! Wants root, and the programs of Debian's nftables, iptables and iproute2.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "these are tests")]

mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use outrigger_init::network::Family;
use outrigger_testkit::real::{self, Ran};

use world::{Addresses, Namespace, Server, World, ask};

macro_rules! cells {
    ($($name:ident: $backend:literal, $family:ident, $mode:literal;)*) => {$(
        #[test]
        fn $name() {
            cell($backend, Family::$family, $mode);
        }
    )*};
}

cells! {
    nft_ipv4_redirect: "nft", V4, "redirect";
    nft_ipv4_tproxy: "nft", V4, "tproxy";
    nft_ipv6_redirect: "nft", V6, "redirect";
    nft_ipv6_tproxy: "nft", V6, "tproxy";
    iptables_nft_ipv4_redirect: "iptables-nft", V4, "redirect";
    iptables_nft_ipv4_tproxy: "iptables-nft", V4, "tproxy";
    iptables_nft_ipv6_redirect: "iptables-nft", V6, "redirect";
    iptables_nft_ipv6_tproxy: "iptables-nft", V6, "tproxy";
    iptables_legacy_ipv4_redirect: "iptables-legacy", V4, "redirect";
    iptables_legacy_ipv4_tproxy: "iptables-legacy", V4, "tproxy";
    iptables_legacy_ipv6_redirect: "iptables-legacy", V6, "redirect";
    iptables_legacy_ipv6_tproxy: "iptables-legacy", V6, "tproxy";
}

/// One cell, in the order in which an operator would meet it.
fn cell(backend: &str, family: Family, mode: &str) {
    let Some(()) = ready(backend) else { return };
    let world = World::new();
    let flags = [
        &["--backend", backend, "--inbound-mode", mode, "--dns"][..],
        &["--skip-outbound-ports", "81,6000-6010", "--skip-inbound-ports", "9090"],
        &["--skip-outbound-networks", "198.18.0.0/15,2001:db8:18::/48"],
    ]
    .concat();
    let at = Addresses::of(family);
    let place = SocketAddr::new;
    let anywhere = |ports: &[u16]| ports.iter().map(|p| place(at.any, *p)).collect::<Vec<_>>();
    let _peer = Server::named(&world.peer, "peer", &anywhere(&[53, 80, 81, 8443]));
    // Two kinds of listeners, which TPROXY could take for its own: at all addresses and at one.
    let app_at = [anywhere(&[8080, 9090]), vec![place(at.app, 8081)]].concat();
    let _app = Server::named(&world.app, "app", &app_at);
    let transparent = mode == "tproxy";
    let sidecar_at = [15_001, 15_053].map(|p| place(at.loopback, p));
    let sidecar = Server::sidecar(&world.app, &sidecar_at, false);
    let _inbound = Server::sidecar(&world.app, &anywhere(&[15_006]), transparent);
    let _resolvers = Server::udp(&world.app, &[place(at.loopback, 15_053), place(at.resolver, 53)]);

    // Without rules everything goes where it was sent.
    let before = everything(&world.app);
    world.until_called(USER, place(at.outside, 80), "peer");
    assert_eq!(world.is_called(place(at.app, 8080)), "app");
    let mut older = [
        OpenConnection::new(&world.app, &world.peer, place(at.outside, 7_000)),
        OpenConnection::new(&world.peer, &world.app, place(at.app, 7_001)),
    ];

    // Put in place, once and again.
    let told = done(&world, "apply", &flags);
    assert!(told.contains(&format!("in place with {backend}")), "{told}");
    let once = everything(&world.app);
    done(&world, "apply", &flags);
    assert_eq!(everything(&world.app), once, "applied twice is applied once");
    assert_ne!(once, before);

    // Leaving.
    let to_sidecar = |to: SocketAddr| format!("15001 for {to}");
    for to in [place(at.outside, 80), place(at.outside, 8443), place(at.outside, 9), place(at.service, 80)] {
        assert_eq!(world.calls(USER, to), to_sidecar(to));
        assert_eq!(world.calls(0, to), to_sidecar(to));
    }
    assert_eq!(world.calls(SIDECAR, place(at.outside, 80)), "peer", "the sidecar's own user is exempt");
    assert_eq!(world.calls(USER, place(at.outside, 81)), "peer", "a skipped port");
    assert_eq!(world.calls(USER, place(at.skipped, 80)), "peer", "a skipped network");
    for to in [place(at.loopback, 8080), place(at.app, 8080), place(at.app, 8081)] {
        assert_eq!(world.calls(USER, to), "app", "an application's call to itself at {to}");
        assert_eq!(world.calls(SIDECAR, to), "app", "the sidecar's call to its application at {to}");
    }

    // Names.
    for resolver in [at.outside, at.resolver] {
        let asked = world.app.within(USER, || ask(place(resolver, 53)));
        assert_eq!(asked, "15053 answers", "a question to {resolver}");
    }
    assert_eq!(world.app.within(SIDECAR, || ask(place(at.resolver, 53))), "53 answers");
    assert_eq!(world.calls(USER, place(at.outside, 53)), format!("15053 for {}", place(at.outside, 53)));

    // Arriving: at both kinds of listeners, and where nobody listens.
    for port in [8080, 8081, 7777] {
        let at = place(at.app, port);
        assert_eq!(world.is_called(at), format!("15006 for {at}"));
    }
    assert_eq!(world.is_called(place(at.app, 9090)), "app", "a skipped port");
    assert_eq!(world.is_called(place(at.app, 15_006)), "15006 for nowhere else", "the sidecar's own port");

    // What was open before lives on.
    older.iter_mut().for_each(OpenConnection::still_works);

    // Proven, also by a real connection, with the sidecar there and without.
    assert!(done(&world, "check", &flags).contains("rules proven"));
    let probed = [&flags[..], &["--probe"]].concat();
    assert!(done(&world, "check", &probed).contains("was taken by the sidecar at 15001"));
    drop(sidecar);
    assert!(done(&world, "check", &probed).contains("arrived at 15001 with its address"));

    // A rule that is missing is named, and `apply` puts it back.
    let missing = lose_a_rule(&world.app, backend, family);
    let ran = init(&world, "check", &flags);
    assert!(!ran.ok && ran.stderr.contains(&missing), "{missing}: {}", ran.stderr);
    assert!(ran.stderr.contains("missing"), "{}", ran.stderr);
    done(&world, "apply", &flags);
    assert_eq!(everything(&world.app), once);
    done(&world, "check", &flags);

    // Removed, nothing is left.
    done(&world, "remove", &[]);
    assert_eq!(without_empty_tables(&everything(&world.app)), without_empty_tables(&before));
    assert!(!init(&world, "check", &flags).ok);
    assert_eq!(world.calls(USER, place(at.outside, 80)), "peer");
    assert_eq!(world.is_called(place(at.app, 8080)), "app");
    older.iter_mut().for_each(OpenConnection::still_works);
    println!("{backend:16} {family} {mode:9} in place, seen, bypassed, repeated, proven, removed");
}

/// An engine of containers translates questions to its resolver in every container's own namespace, before the redirection comes,
/// and first of all rules: an application would hear of containers and not of services.
#[test]
fn an_engines_own_resolver_stands_behind_the_redirection() {
    let engine = SocketAddr::from(([127, 0, 0, 11], 53));
    for (backend, engines) in
        [("nft", "iptables-nft"), ("iptables-nft", "iptables-nft"), ("iptables-legacy", "iptables-legacy")]
    {
        let Some(()) = ready(engines) else { return };
        let world = World::new();
        let translate = || {
            world.app.run(&format!(
                "{engines} -t nat -I OUTPUT -d 127.0.0.11 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:4053"
            ));
        };
        translate();
        let places = ["127.0.0.1:15053", "127.0.0.11:4053"].map(|place| place.parse().unwrap());
        let _resolvers = Server::udp(&world.app, &places);
        let heard = |uid| world.app.within(uid, || ask(engine));
        assert_eq!(heard(USER), "4053 answers", "{backend}: the engine's, while there is no redirection");
        done(&world, "apply", &["--backend", backend, "--dns"]);
        assert_eq!(heard(USER), "15053 answers", "{backend}");
        assert_eq!(heard(SIDECAR), "4053 answers", "{backend}: what the sidecar passes on");
        // Put first again, as when a container is connected to another network.
        if backend == "nft" {
            translate();
            assert_eq!(heard(USER), "15053 answers", "{backend}, again");
        }
        done(&world, "remove", &[]);
    }
}

#[test]
fn rules_of_another_packet_filter_are_replaced_and_not_doubled() {
    let backends = ["nft", "iptables-legacy", "iptables-nft", "nft"];
    if backends.iter().any(|backend| ready(backend).is_none()) {
        return;
    }
    let world = World::new();
    for backend in backends {
        done(&world, "apply", &["--backend", backend]);
        assert!(done(&world, "check", &[]).contains(&format!("in place with {backend},")));
    }
    // Put there by something that knows nothing of the other.
    let alone = World::new();
    let script = done(&alone, "print", &["--backend", "nft"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    done(&alone, "apply", &["--backend", "iptables-nft"]);
    alone.app.run(&format!("nft -f {}", file.path().display()));
    let ran = init(&alone, "check", &["--backend", "nft"]);
    assert!(ran.stderr.contains("in place with iptables-nft, too"), "{}", ran.stderr);
    done(&alone, "remove", &[]);
    assert!(!everything(&alone.app).to_lowercase().contains("outrigger"));
}

/// The second family fails after the first has been changed.
#[test]
fn what_fails_half_way_leaves_what_was_there_before() {
    let Some(()) = ready("iptables-nft") else { return };
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("ip6tables-nft-restore");
    std::fs::write(&broken, BROKEN).unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let broken_apply = |flags: &[&str]| {
        let arguments = [&[path.as_str(), INIT, "apply", "--backend", "iptables-nft"], flags].concat();
        world.app.try_run("env", &arguments)
    };

    let ran = broken_apply(&[]);
    assert!(!ran.ok && ran.stderr.contains("no memory for that"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Nothing of it is left in place"), "{}", ran.stderr);
    assert!(!everything(&world.app).contains("OUTRIGGER"), "{}", everything(&world.app));

    done(&world, "apply", &["--backend", "iptables-nft"]);
    let before = everything(&world.app);
    let ran = broken_apply(&["--outbound-port", "16001"]);
    // The same broken program has to undo it: what it can not is said.
    assert!(!ran.ok && ran.stderr.contains("no memory for that"), "{}", ran.stderr);
    assert!(before.contains("15001"));
    let restored = world.app.run("iptables-nft-save");
    assert!(restored.contains("15001") && !restored.contains("16001"), "{restored}");
}

#[test]
fn who_may_not_change_the_rules_is_told_so() {
    let Some(()) = ready("nft") else { return };
    let world = World::new();
    // Another user may not read the folder in which this was built.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("outrigger-init");
    std::fs::copy(INIT, &program).unwrap();
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = program.display().to_string();
    let arguments = ["--reuid", "1000", "--clear-groups", program.as_str(), "apply"];
    let ran = world.app.try_run("setpriv", &arguments);
    assert!(!ran.ok && ran.stderr.contains("hint: this wants root"), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
}

/// Tries out like the real one, and fails at the first change.
const BROKEN: &str = "#!/bin/sh
for word; do
    case $word in --test|--version) exec /usr/sbin/ip6tables-nft-restore \"$@\" ;; esac
done
read first
case $first in *nat) echo 'no memory for that' >&2; exit 1 ;; esac
";

/// A connection that is open while rules come and go.
struct OpenConnection {
    here: TcpStream,
    there: TcpStream,
}

impl OpenConnection {
    fn new(from: &Namespace, to: &Namespace, at: SocketAddr) -> Self {
        let listener = to.within(0, || world::listen(at, false).unwrap());
        let here = from.within(USER, || TcpStream::connect(at).unwrap());
        listener.set_nonblocking(false).unwrap();
        let (there, _) = listener.accept().unwrap();
        there.set_nonblocking(false).unwrap();
        for end in [&here, &there] {
            end.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        }
        let mut open = Self { here, there };
        open.still_works();
        open
    }

    fn still_works(&mut self) {
        let mut heard = [0; 4];
        self.here.write_all(b"ping").unwrap();
        self.there.read_exact(&mut heard).unwrap();
        self.there.write_all(b"pong").unwrap();
        self.here.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"pong");
    }
}

/// Takes one rule away by hand, and returns how it is told.
fn lose_a_rule(app: &Namespace, backend: &str, family: Family) -> String {
    let v4 = family == Family::V4;
    if backend == "nft" {
        let word = if v4 { "ip" } else { "ip6" };
        let listing = app.run(&format!("nft -a list chain {word} outrigger outbound"));
        let rule = listing.lines().find(|l| l.contains("redirect to :15001")).unwrap();
        let handle = rule.rsplit(' ').next().unwrap();
        app.run(&format!("nft delete rule {word} outrigger outbound handle {handle}"));
        return format!("{family}: missing: tcp flags & (fin | syn | rst | ack) == syn redirect to :15001");
    }
    let program = if v4 { backend.to_owned() } else { backend.replace("iptables", "ip6tables") };
    app.run(&format!("{program} -w -t nat -D OUTRIGGER_OUTBOUND -m owner --uid-owner 15001 -j RETURN"));
    format!("{family}: missing: -A OUTRIGGER_OUTBOUND -m owner --uid-owner 15001 -j RETURN")
}

/// Every rule of every packet filter, and the routing, without counters.
fn everything(app: &Namespace) -> String {
    let listings = [
        "nft -s list ruleset",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "ip -4 rule show",
        "ip -6 rule show",
        "ip -4 route show table all",
        "ip -6 route show table all",
    ];
    let lines: Vec<String> = listings
        .iter()
        .flat_map(|listing| app.run(listing).lines().map(str::to_owned).collect::<Vec<_>>())
        // Times and counters, and addresses that the kernel gives itself when it has the leisure.
        .filter(|line| !line.starts_with(['#', ':']) && !line.contains("fe80:"))
        .collect();
    lines.join("\n")
}

/// What a packet filter leaves of a table that it once made: nothing in it.
fn without_empty_tables(listing: &str) -> Vec<&str> {
    let empty = ["*nat", "*mangle", "COMMIT", "}", ""];
    let builtin = ["table ip", "chain ", "type nat", "type filter", "type route"];
    let says = |line: &&str| !empty.contains(line) && !builtin.iter().any(|b| line.starts_with(b));
    listing.lines().map(str::trim).filter(says).collect()
}

fn init(world: &World, command: &str, flags: &[&str]) -> Ran {
    world.app.try_run(INIT, &[&[command], flags].concat())
}

fn done(world: &World, command: &str, flags: &[&str]) -> String {
    let ran = init(world, command, flags);
    assert!(ran.ok, "{command} {}: {}", flags.join(" "), ran.stderr);
    ran.stdout
}

/// Whether the cells of a packet filter can run here; what they need is installed.
fn ready(backend: &str) -> Option<()> {
    if !rustix::process::geteuid().is_root() {
        return real::needed(Err("network namespaces want root".into()));
    }
    real::debian(&["iproute2", "nftables", "iptables", "util-linux"])?;
    if backend == "iptables-legacy" {
        let namespace = Namespace::new();
        let tried = namespace.try_run("iptables-legacy", &["-t", "nat", "-L", "-n"]);
        if !tried.ok {
            return real::needed(Err(format!("this kernel has no iptables-legacy: {}", tried.stderr.trim())));
        }
    }
    Some(())
}

const INIT: &str = env!("CARGO_BIN_EXE_outrigger-init");
/// An application's user, and the sidecar's.
const USER: u32 = 1_000;
const SIDECAR: u32 = 15_001;
