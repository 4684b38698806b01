//! From the application to a place outside the mesh, as it is.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use outrigger_mesh::Reason;
use tokio::time::timeout;

use crate::error::Error;
use crate::tcp::outbound::Upstream;
use crate::worker::Worker;

/// Connects to `to`. The connection is known for this sidecar's own, should it come back.
pub async fn dial(worker: &Worker, to: SocketAddr) -> Result<Upstream, Error> {
    let live = &worker.shared.live;
    live.counters.passed_on.fetch_add(1, Relaxed);
    let why = match timeout(CONNECT, live.own_calls.connect(to)).await {
        Ok(Ok((stream, call))) => {
            let _best_effort = stream.set_nodelay(true);
            return Ok(Upstream::outside(stream, call, IDLE));
        }
        Ok(Err(error)) => format!("{to}, outside the mesh: {error}"),
        Err(_) => format!("{to}, outside the mesh, did not answer within {CONNECT:?}"),
    };
    live.counters.connect_failures.fetch_add(1, Relaxed);
    Err(Error::not_sent(Reason::ConnectFailed, why))
}

/// What is far away takes its time.
const CONNECT: Duration = Duration::from_secs(10);
/// As long as databases and shells leave their connections alone.
const IDLE: Duration = Duration::from_hours(4);
