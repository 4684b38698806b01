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

/// Binds `address` for `workers`.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    if address.port() != 0 {
        drop(TcpListener::bind(address)?);
    }
    let first = reuse_port(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < workers.max(1) {
        listeners.push(reuse_port(address)?);
    }
    Ok(Bound { address, listeners })
}

fn reuse_port(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
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
