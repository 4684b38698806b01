//! Binding a port once for each worker.
//!
//! SO_REUSEPORT lets the system spread connections over the workers, and hides that somebody else has the port: so a
//! plain bind goes first, which fails if anybody does.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// One address, bound for every worker.
#[derive(Debug)]
pub struct Bound {
    /// The address, the port being the system's choice where 0 was asked for.
    pub address: SocketAddr,
    /// A listener for each worker.
    pub listeners: Vec<TcpListener>,
}

/// What a listener takes besides connections to its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taking {
    /// IPv6 alone, where a listener at all its addresses would take IPv4, too: another one does.
    pub only_v6: bool,
    /// Connections to any address that are given to it by TPROXY. Wants the capability NET_ADMIN or NET_RAW.
    pub any_address: bool,
}

/// Binds `address` for `workers`.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    bind_taking(address, Taking::default(), workers)
}

/// The same, for what listeners of redirected connections take besides.
pub fn bind_taking(address: SocketAddr, taking: Taking, workers: usize) -> io::Result<Bound> {
    if address.port() != 0 {
        let alone = socket(address, taking)?;
        alone.bind(&address.into())?;
        alone.listen(1)?;
    }
    let first = reuse_port(address, taking)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < workers.max(1) {
        listeners.push(reuse_port(address, taking)?);
    }
    Ok(Bound { address, listeners })
}

fn socket(address: SocketAddr, taking: Taking) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if taking.only_v6 && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if taking.any_address {
        // One flag of the kernel for both families.
        socket.set_ip_transparent_v4(true)?;
    }
    Ok(socket)
}

fn reuse_port(address: SocketAddr, taking: Taking) -> io::Result<TcpListener> {
    let socket = socket(address, taking)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

const BACKLOG: i32 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_even_if_it_could_be_shared() {
        let ours = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(ours.listeners.len(), 2);
        assert!(ours.listeners.iter().all(|l| l.local_addr().unwrap() == ours.address));
        assert_eq!(bind(ours.address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
