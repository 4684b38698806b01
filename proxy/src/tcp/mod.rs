//! Connections whose bytes nobody looks into.
//!
//! An opaque connection is one exchange: it is sent to an endpoint as a request is, without the routes of HTTP, and what
//! can not be had is refused by a reset, as there is nobody to read a status. docs/opaque.md has the whole story.

pub mod connect;
pub mod greeting;
pub mod inbound;
pub mod outbound;
pub mod outside;
pub mod relay;

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long an opaque connection may be silent where its service says nothing else.
///
/// Longer than for requests: an idle HTTP connection costs a client one more handshake, an idle connection to a database
/// is part of a pool that believes in it. Keep-alive finds peers that are gone long before.
pub const IDLE: Duration = Duration::from_hours(1);

/// Makes `stream` end with a reset unless it is said otherwise: whatever becomes of this process, its peer never takes
/// it for the end of what was sent.
pub fn cut_on_close(stream: &TcpStream) {
    let _best_effort = stream.set_zero_linger();
    keep_alive(stream);
}

/// Finds out when whoever is at the other end is gone without a word.
pub fn keep_alive(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let _best_effort = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Makes `stream` end as it should: everything has been said.
pub fn end_on_close(stream: &TcpStream) {
    let _best_effort = SockRef::from(stream).set_linger(None);
}

const PROBE_AFTER: Duration = Duration::from_mins(2);
const PROBE_EVERY: Duration = Duration::from_secs(30);
const PROBES: u32 = 4;
