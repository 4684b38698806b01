//! Where this process itself listens: nothing is ever sent there, however the address is written.
//!
//! The admin surface trusts whoever is on this machine, and the sidecar is: what it would send to its own ports for
//! somebody else would come from where operators are. And what it sends to where it takes calls comes back without end.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The addresses at which this process listens for applications and operators.
#[derive(Clone, Debug, Default)]
pub struct OwnPorts(pub Vec<SocketAddr>);

impl OwnPorts {
    /// Whether a connection to `address` would arrive at one of them.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|own| own.port() == address.port() && arrives(own.ip(), address.ip()))
    }
}

/// Whether what is sent to `to` arrives at a listener on `at`, their ports being the same.
fn arrives(at: IpAddr, to: IpAddr) -> bool {
    let (at, to) = (at.to_canonical(), to.to_canonical());
    // The system takes no address for that of this machine.
    let here = to.is_unspecified() || to.is_loopback();
    at == to
        || (to.is_unspecified() && at.is_loopback())
        || (at.is_unspecified() && (here || is_of_this_machine(to)))
}

/// Whether an address is one of this machine's: only those can be bound. Asked only where the port is ours already.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_ours_is_known_however_its_address_is_written() {
        let own = OwnPorts(vec!["127.0.0.1:15000".parse().unwrap(), "0.0.0.0:15001".parse().unwrap()]);
        for ours in [
            "127.0.0.1:15000",
            "[::ffff:127.0.0.1]:15000",
            "0.0.0.0:15000",
            "[::]:15000",
            "[::ffff:0.0.0.0]:15000",
            "127.0.0.1:15001",
            "127.9.8.7:15001",
            "[::ffff:127.9.8.7]:15001",
            "0.0.0.0:15001",
            "[::1]:15001",
        ] {
            assert!(own.contains(ours.parse().unwrap()), "{ours}");
        }
        for other in ["127.0.0.1:15002", "127.0.0.2:15000", "192.0.2.1:15000", "192.0.2.1:15001"] {
            assert!(!own.contains(other.parse().unwrap()), "{other}");
        }
    }

    /// Whoever listens at every address listens at those that others know this machine by.
    #[test]
    fn every_address_of_this_machine_is_ours_where_all_are_listened_at() {
        let Ok(at) = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and(s.local_addr()))
        else {
            println!("skipped: this machine has no network");
            return;
        };
        let own = OwnPorts(vec!["0.0.0.0:15001".parse().unwrap()]);
        assert!(own.contains((at.ip(), 15001).into()), "{at}");
        assert!(!own.contains((at.ip(), 15002).into()));
        assert!(!OwnPorts(vec!["127.0.0.1:15001".parse().unwrap()]).contains((at.ip(), 15001).into()));
    }
}
