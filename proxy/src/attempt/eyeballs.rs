//! TCP to a host that may have addresses of both families (RFC 8305).
//!
//! A host whose IPv6 is announced and leads nowhere must not cost a connect timeout each time: the second address is
//! tried a little after the first, and whichever answered is tried first for a while.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::attempt::connect::tcp;
use crate::config::registry::Alternate;
use crate::error::Error;

/// A connection to `address` or, where there is one, to its alternate, whichever answers first.
pub async fn connect(address: SocketAddr, alternate: Option<&Alternate>) -> Result<TcpStream, Error> {
    let Some(alternate) = alternate else { return tcp(address).await };
    let other = SocketAddr::new(alternate.ip, address.port());
    let other_leads = alternate.is_first();
    let (first, second) = if other_leads { (other, address) } else { (address, other) };
    let (stream, second_won) = race(first, second).await?;
    if second_won || other_leads {
        alternate.note(other_leads != second_won);
    }
    Ok(stream)
}

/// The connection that is there first, and whether it is that to `second`.
async fn race(first: SocketAddr, second: SocketAddr) -> Result<(TcpStream, bool), Error> {
    let mut leading = pin!(tcp(first));
    tokio::select! {
        made = &mut leading => match made {
            Ok(stream) => return Ok((stream, false)),
            // No route there, or nobody listens: nothing to wait for.
            Err(_) => return tcp(second).await.map(|stream| (stream, true)),
        },
        () = sleep(ATTEMPT_DELAY) => {}
    }
    let mut following = pin!(tcp(second));
    tokio::select! {
        made = &mut leading => match made {
            Ok(stream) => Ok((stream, false)),
            Err(_) => following.await.map(|stream| (stream, true)),
        },
        made = &mut following => match made {
            Ok(stream) => Ok((stream, true)),
            Err(_) => leading.await.map(|stream| (stream, false)),
        },
    }
}

/// What RFC 8305 recommends (section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;

    /// An address that swallows connections: its queue is full and nobody accepts.
    async fn black_hole(port: u16) -> (TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v6().unwrap();
        socket.bind(SocketAddr::new("::1".parse().unwrap(), port)).unwrap();
        let listener = socket.listen(1).unwrap();
        let at = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(at)).await
        {
            held.push(stream);
        }
        (listener, held)
    }

    #[tokio::test]
    async fn a_black_hole_of_one_family_costs_a_quarter_of_a_second_once() {
        let four = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = four.local_addr().unwrap().port();
        let hole = black_hole(port).await;
        let six = hole.0.local_addr().unwrap();
        let alternate = Alternate::new("127.0.0.1".parse().unwrap());
        let began = Instant::now();
        let stream = connect(six, Some(&alternate)).await.unwrap();
        assert!(stream.peer_addr().unwrap().is_ipv4());
        assert!(began.elapsed() >= ATTEMPT_DELAY, "{:?}", began.elapsed());
        let began = Instant::now();
        connect(six, Some(&alternate)).await.unwrap();
        assert!(began.elapsed() < ATTEMPT_DELAY, "the family that answered leads: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_first_address_is_used_while_it_answers_and_the_second_at_once_when_it_refuses() {
        let six = TcpListener::bind("[::1]:0").await.unwrap();
        let at = six.local_addr().unwrap();
        let alternate = Alternate::new("127.0.0.1".parse().unwrap());
        assert!(connect(at, Some(&alternate)).await.unwrap().peer_addr().unwrap().is_ipv6());
        assert!(!alternate.is_first());
        drop(six);
        let four = TcpListener::bind(SocketAddr::new(alternate.ip, at.port())).await.unwrap();
        let began = Instant::now();
        assert!(connect(at, Some(&alternate)).await.unwrap().peer_addr().unwrap().is_ipv4());
        assert!(began.elapsed() < ATTEMPT_DELAY && alternate.is_first());
        drop(four);
        assert!(connect(at, Some(&alternate)).await.is_err());
    }
}
