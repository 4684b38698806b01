//! The address of this machine that others are told, where nobody says it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Addresses for documentation (RFC 5737, RFC 3849): nothing is ever sent there.
const BEYOND: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// The address from which connections leave this network namespace, IPv4 first. Without a way out, as in a network of
/// containers that is closed to the outside, the first one that is not loopback.
pub(super) fn own_address() -> Option<IpAddr> {
    BEYOND.into_iter().find_map(|(from, to)| leaving(from, to)).or_else(|| {
        let table = std::fs::read_to_string("/proc/net/fib_trie").ok()?;
        local(&table)
    })
}

/// Connecting a socket of UDP sends nothing; the kernel chooses the address that it would send from.
fn leaving(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket
        .local_addr()
        .ok()
        .as_ref()
        .map(SocketAddr::ip)
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// The first address of this machine in the kernel's table: `|-- ADDRESS` with `/32 host LOCAL` below it.
fn local(table: &str) -> Option<IpAddr> {
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let own = lines.windows(2).filter_map(|pair| match pair {
        [address, "/32 host LOCAL"] => address.strip_prefix("|-- ")?.parse::<IpAddr>().ok(),
        _ => None,
    });
    own.into_iter().find(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     +-- 127.0.0.0/8 2 0 2\n        |-- 127.0.0.1\n           /32 host LOCAL\n     +-- 172.18.0.0/16 2 0 2\n        |-- 172.18.0.0\n           /16 link UNICAST\n        |-- 172.18.0.3\n           /32 host LOCAL\n        |-- 172.18.255.255\n           /32 link BROADCAST\n";
        assert_eq!(local(table), Some("172.18.0.3".parse().unwrap()));
        assert_eq!(local("Local:\n"), None);
    }
}
