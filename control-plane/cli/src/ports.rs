//! Ports of this machine that are free.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::failure::Failure;

/// The preferred port if it is free, else 0: the system's choice.
pub(crate) fn preferred(port: u16) -> SocketAddr {
    let address = loopback(port);
    if is_free(address) { address } else { loopback(0) }
}

/// A free port that stays free while nobody listens on it, for what is stopped and started again at one address.
///
/// It lies below the range from which the system takes ports for outgoing connections, so that none of those can
/// sit on it in between.
pub(crate) fn lasting() -> Result<u16, Failure> {
    let (low, high) = (20_000_u16, ephemeral_from().saturating_sub(1));
    if low < high {
        for _ in 0..TRIES {
            let port = fastrand::u16(low..=high);
            if is_free(loopback(port)) {
                return Ok(port);
            }
        }
    }
    any()
}

/// A port that is free now.
fn any() -> Result<u16, Failure> {
    TcpListener::bind(loopback(0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Failure::failed(format!("no port of 127.0.0.1 is free: {e}")))
}

/// 127.0.0.1 with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const TRIES: usize = 200;

/// Whether an address can be listened at; port 0 always can.
fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

fn ephemeral_from() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_left_to_the_system() {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let taken = listener.local_addr().unwrap();
        assert_eq!(preferred(taken.port()), loopback(0));
    }

    #[test]
    fn a_lasting_port_is_none_the_system_hands_out() {
        let port = lasting().unwrap();
        assert!(port < ephemeral_from(), "{port}");
        assert!(is_free(loopback(port)));
    }
}
