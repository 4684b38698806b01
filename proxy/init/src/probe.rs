//! One real connection of each family, to an address that nobody has: it arrives at the sidecar's port, or nowhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::network::{Family, Network};
use crate::plan::Plan;
use crate::rules::Owner;

/// Opens a connection of each family of the plan. Returns what was seen; an error tells what was not redirected.
pub fn probe(plan: &Plan) -> Result<Vec<String>, Vec<String>> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    if plan.exempt.contains(&Owner::User(uid)) || plan.exempt.contains(&Owner::Group(gid)) {
        return Err(vec![format!(
            "the probe runs as the sidecar's own user ({uid}:{gid}), which is not redirected"
        )]);
    }
    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
    for family in &plan.families {
        match target(plan, *family) {
            None => wrong.push(format!("{family}: no address is left to probe, everything is skipped")),
            Some(target) => match probe_one(target, plan.outbound_port) {
                Ok(what) => seen.push(format!("{family}: {what}")),
                Err(why) => wrong.push(format!("{family}: {why}")),
            },
        }
    }
    if wrong.is_empty() { Ok(seen) } else { Err([seen, wrong].concat()) }
}

/// An address of a network for documentation, which no host has, or else of a network that alone is redirected; with a
/// port that is.
fn target(plan: &Plan, family: Family) -> Option<SocketAddr> {
    let documented = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let address = match plan.only_outbound_networks.as_slice() {
        [] => Some(documented),
        only => only.iter().find(|n| n.family() == family).map(Network::address),
    }?;
    if plan.skip_outbound_networks.iter().any(|n| n.contains(address)) {
        return None;
    }
    let redirected = |port: &u16| {
        let only = &plan.only_outbound_ports;
        !plan.skip_outbound_ports.contains(*port) && (only.is_empty() || only.contains(*port))
    };
    let port = [80, 443].into_iter().chain(1..=u16::MAX).filter(|p| *p != 53).find(redirected)?;
    Some(SocketAddr::new(address, port))
}

fn probe_one(target: SocketAddr, port: u16) -> Result<String, String> {
    let loopback: IpAddr =
        if target.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let listener = match listen(SocketAddr::new(loopback, port)) {
        Ok(listener) => Some(listener),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => None,
        Err(e) => return Err(format!("can not listen at {loopback}:{port}: {e}")),
    };
    let connected = thread::spawn(move || TcpStream::connect_timeout(&target, PATIENCE));
    let arrived = listener.map(|l| accept(&l));
    let connected = connected.join().map_err(|_| "the probe broke")?;
    match (connected, arrived) {
        (Err(e), _) if e.kind() == io::ErrorKind::NetworkUnreachable => {
            // The kernel looks for a route before it looks at our rules.
            Ok(format!("no route to {target}, so nothing leaves, redirected or not"))
        }
        (Err(e), _) => Err(format!("a connection to {target} was not redirected to {port}: {e}")),
        (Ok(_), None) => Ok(format!("a connection to {target} was taken by the sidecar at {port}")),
        (Ok(_), Some(Ok(original))) if original == target => {
            Ok(format!("a connection to {target} arrived at {port} with its address"))
        }
        (Ok(_), Some(Ok(original))) => {
            Err(format!("a connection to {target} arrived at {port} as one to {original}"))
        }
        (Ok(_), Some(Err(e))) => Err(format!("a connection to {target} went elsewhere than {port}: {e}")),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without SO_REUSEADDR a sidecar that was just stopped would look like one that runs.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(8)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The original destination of the first redirected connection.
fn accept(listener: &TcpListener) -> io::Result<SocketAddr> {
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let socket = SockRef::from(&stream);
                let original = if listener.local_addr()?.is_ipv4() {
                    socket.original_dst_v4()
                } else {
                    socket.original_dst_v6()
                }?;
                return original.as_socket().ok_or_else(|| io::Error::other("no address"));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
