//! The loop that accepts.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http::connections::{Connections, Guard};
use crate::telemetry::metrics::Counters;

/// Accepts until `closing` is done, then takes what waits in the backlog and closes the port.
pub async fn accept(
    listener: TcpListener,
    connections: &Connections,
    counters: &Counters,
    closing: impl Future<Output = ()>,
    mut take: impl FnMut(TcpStream, Guard),
) {
    let mut pause = SHORTEST_PAUSE;
    let mut closing = std::pin::pin!(closing);
    let mut enter = |stream: TcpStream| {
        let _best_effort = stream.set_nodelay(true);
        take(stream, connections.enter());
    };
    loop {
        if connections.len() >= MAX_CONNECTIONS {
            // What waits in the backlog waits on, or is refused by the system.
            tokio::select! {
                () = tokio::time::sleep(SHORTEST_PAUSE) => continue,
                () = &mut closing => break,
            }
        }
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = SHORTEST_PAUSE;
                enter(stream);
            }
            Err(e) if is_of_the_connection(&e) => {}
            Err(e) => {
                // Out of descriptors or memory: accepting again at once would only spin.
                counters.accept_pauses.fetch_add(1, Relaxed);
                tracing::warn!(error = %e, ?pause, "accepting pauses");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        enter(stream);
    }
}

/// Whether only the connection that was to be accepted failed.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Of one worker and one side.
const MAX_CONNECTIONS: usize = 16_384;
