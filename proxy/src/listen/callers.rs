//! Whose connections the outbound side takes, on a host that others share: those of some users of this machine.
//!
//! A sidecar lends its identity to whoever reaches its outbound port, and on loopback that is everybody on the machine.
//! The kernel knows the user of every socket of this machine and tells it, asked for one connection (sock_diag). A
//! connection whose other end is no socket of this machine is nobody's.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};
use socket2::SockRef;

use crate::listen::original_dst::OriginalDst;

/// The users whose connections are taken.
#[derive(Clone, Debug)]
pub struct Callers(BTreeSet<u32>);

impl Callers {
    /// Takes those of `users`. An error where the kernel does not tell whose a connection is: nobody would be taken.
    pub fn only(users: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let _own = user_of(client.local_addr()?, client.peer_addr()?)?;
        Ok(Self(users.into_iter().collect()))
    }

    /// Whether a connection that a listener at `listening` accepted is of one of them. An error says whose it is, or why
    /// that is not known.
    pub fn admit(&self, stream: &impl AsFd, listening: SocketAddr) -> Result<(), String> {
        match user(stream, listening) {
            Ok(user) if self.0.contains(&user) => Ok(()),
            Ok(user) => Err(format!("it is of user {user}")),
            Err(error) => Err(format!("whose it is can not be told: {error}")),
        }
    }
}

/// The user at the other end.
fn user(stream: &impl AsFd, listening: SocketAddr) -> io::Result<u32> {
    let socket = SockRef::from(stream);
    let of =
        |address: socket2::SockAddr| address.as_socket().ok_or(io::Error::from(io::ErrorKind::Unsupported));
    let (from, local) = (of(socket.peer_addr()?)?, of(socket.local_addr()?)?);
    // The caller's socket knows the place where it wanted to go, not the one to which it was redirected.
    let to = OriginalDst::of(stream, listening)?.map_or(local, OriginalDst::address);
    user_of(from, to)
}

/// The user whose socket has a connection from `from` to `to`.
fn user_of(from: SocketAddr, to: SocketAddr) -> io::Result<u32> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    // It answers before the question's call returns; this is only so that nothing can ever be waited for.
    sockopt::set_socket_timeout(&kernel, sockopt::Timeout::Recv, Some(ANSWERS_WITHIN))?;
    let asked = question(from, to).ok_or(io::ErrorKind::InvalidInput)?;
    send(&kernel, &asked, SendFlags::empty())?;
    let mut answer = [0_u8; 1024];
    let (_, length) = recv(&kernel, &mut answer[..], RecvFlags::empty())?;
    read(answer.get(..length).unwrap_or_default())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (linux/netlink.h, linux/inet_diag.h): one socket of TCP, by its ends.
fn question(from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    let (source, destination) = (from.ip().to_canonical(), to.ip().to_canonical());
    let family = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => AddressFamily::INET,
        (IpAddr::V6(_), IpAddr::V6(_)) => AddressFamily::INET6,
        _ => return None,
    };
    let mut asked = Vec::with_capacity(ASKED);
    asked.extend(u32::try_from(ASKED).ok()?.to_ne_bytes());
    asked.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    asked.extend(NLM_F_REQUEST.to_ne_bytes());
    asked.extend([0; 8]);
    asked.extend([u8::try_from(family.as_raw()).ok()?, IPPROTO_TCP, 0, 0]);
    // In any state.
    asked.extend([0xff; 4]);
    asked.extend(from.port().to_be_bytes());
    asked.extend(to.port().to_be_bytes());
    for ip in [source, destination] {
        match ip {
            IpAddr::V4(ip) => asked.extend([&ip.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(ip) => asked.extend(ip.octets()),
        }
    }
    // Whatever interface, whatever cookie.
    asked.extend([0; 4]);
    asked.extend([0xff; 8]);
    Some(asked)
}

/// The user in the answer: `struct inet_diag_msg`, or `struct nlmsgerr` in its place.
fn read(answer: &[u8]) -> io::Result<u32> {
    let word = |at: usize| {
        let bytes = answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(io::ErrorKind::InvalidData)
    };
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        // What its process has closed belongs to nobody, and the kernel tells it as root's.
        Some(SOCK_DIAG_BY_FAMILY) if word(INODE)? == 0 => Err(io::ErrorKind::NotConnected.into()),
        Some(SOCK_DIAG_BY_FAMILY) => Ok(word(USER)?),
        Some(NLMSG_ERROR) => Err(io::Error::from_raw_os_error(word(HEADER)?.cast_signed().saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const HEADER: usize = 16;
const ASKED: usize = HEADER + 56;
/// Where the user stands in the answer: behind four bytes of state, the ends, and three words.
const USER: usize = HEADER + 4 + 48 + 12;
const INODE: usize = USER + 4;
const ANSWERS_WITHIN: std::time::Duration = std::time::Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn own_user() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn a_connection_is_of_the_user_who_made_it_in_both_families() {
        let own = own_user();
        let (ours, others) = (Callers::only([own]).unwrap(), Callers::only([own + 1]).unwrap());
        for (listening, calling) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")]
        {
            let Ok(listener) = TcpListener::bind(listening) else {
                println!("skipped: this machine has no {listening}");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let _client = TcpStream::connect((calling, at.port())).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(ours.admit(&accepted, at), Ok(()), "{listening} {calling}");
            assert_eq!(others.admit(&accepted, at), Err(format!("it is of user {own}")));
        }
    }

    #[test]
    fn a_connection_that_its_process_has_closed_is_of_nobody() {
        let callers = Callers::only([0, own_user()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(at).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(callers.admit(&accepted, at), Ok(()), "half of it is still its own");
        drop(client);
        assert!(callers.admit(&accepted, at).unwrap_err().contains("can not be told"));
    }

    #[test]
    fn a_connection_of_nobody_here_is_of_nobody() {
        let (from, to) = ("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:15001".parse().unwrap());
        assert!(user_of(from, to).is_err());
        assert!(user_of("[2001:db8::1]:40000".parse().unwrap(), to).is_err(), "of two families");
        for garbage in [&[][..], &[0; 8], &[0; 80], &[255; 80]] {
            assert!(read(garbage).is_err());
        }
    }
}
