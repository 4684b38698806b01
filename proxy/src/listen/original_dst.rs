//! Where a redirected connection was going before it came here.
//!
//! REDIRECT leaves the answer with the kernel's connection tracking (SO_ORIGINAL_DST), TPROXY in the connection's own
//! local address. A connection that was not redirected has no answer, and a kernel says so in two ways: with an error or
//! with the plain local address. Neither becomes an [`OriginalDst`]: whoever has one has a place that is not this
//! listener, and so can not be sent in a circle by it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::SockRef;

/// The place where a redirected connection was going: never the listener that accepted it. An address of IPv4 in the
/// clothes of IPv6 has been undressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginalDst(SocketAddr);

impl OriginalDst {
    /// Of a connection that a listener at `listening` accepted; `None` where it came to the listener by its own address.
    pub fn of(connection: &impl AsFd, listening: SocketAddr) -> io::Result<Option<Self>> {
        let socket = SockRef::from(connection);
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        // Only a socket that may own any address accepts at a port that is not its listener's.
        if local.port() != listening.port() {
            return Ok(Some(Self(canonical(local))));
        }
        let local = canonical(local);
        // A listener for both families has connections of IPv4 whose tracking is that of IPv4.
        let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
        let original = match original {
            Ok(original) => original.as_socket().map(canonical),
            Err(e) if says_not_redirected(&e) => None,
            Err(e) => return Err(e),
        };
        Ok(original.filter(|original| *original != local).map(Self))
    }

    /// As if the kernel had said so.
    #[cfg(test)]
    pub(crate) fn assumed(address: SocketAddr) -> Self {
        Self(canonical(address))
    }

    /// The place.
    pub fn address(self) -> SocketAddr {
        self.0
    }

    /// Its address.
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// Its port.
    pub fn port(self) -> u16 {
        self.0.port()
    }
}

/// Not tracked at all, or nothing in the kernel that tracks.
fn says_not_redirected(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound)
        || error.raw_os_error() == Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    // Scope and flow belong to the socket, not to the place.
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn of_a_direct_connection(listening: &str, calling: &str) -> Option<OriginalDst> {
        let listener = TcpListener::bind(listening).unwrap();
        let at = listener.local_addr().unwrap();
        let _client = TcpStream::connect((calling, at.port())).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        OriginalDst::of(&accepted, at).unwrap()
    }

    #[test]
    fn a_connection_to_the_listener_itself_has_no_other_destination() {
        for (listening, calling) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.9"),
            ("[::1]:0", "::1"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            assert_eq!(of_a_direct_connection(listening, calling), None, "{listening} {calling}");
        }
    }
}
