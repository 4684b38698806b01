//! The loop that accepts.
//!
//! It stops where one connection more would cost those that are open: at the limit of its side, and where the file
//! descriptors are needed for something else. Whoever comes then waits in the system's backlog, and what idles makes
//! room.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http::connections::{Connections, Guard};
use crate::listen::descriptors;

/// What a side counts, and how much of it there may be. Shared by all workers.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its name.
    pub name: &'static str,
    /// Connections that are open.
    pub open: &'a AtomicU64,
    /// How many there may be.
    pub most: u64,
    /// Times that this limit was reached.
    pub limited: &'a AtomicU64,
    /// Times that the system was out of descriptors or memory.
    pub pauses: &'a AtomicU64,
}

/// Accepts until `closing` is done, then takes what waits in the backlog and closes the port.
pub async fn accept(
    listener: TcpListener,
    connections: &Connections,
    side: Side<'_>,
    closing: impl Future<Output = ()>,
    mut take: impl FnMut(TcpStream, Guard),
) {
    let mut closing = std::pin::pin!(closing);
    let mut trouble = Trouble::new(side);
    // Accepted under a number that is kept for something else: it waits for another.
    let mut held: Option<std::net::TcpStream> = None;
    let mut enter = |stream: TcpStream| {
        let _best_effort = stream.set_nodelay(true);
        take(stream, connections.enter());
    };
    loop {
        if let Some(stream) = held.take() {
            match descriptors::settle(stream).map(TcpStream::from_std) {
                Ok(settled) => settled.into_iter().for_each(&mut enter),
                Err(stream) => held = Some(stream),
            }
        }
        let full = held.is_some() || trouble.is_at_limit();
        if full {
            connections.make_room();
        }
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            () = tokio::time::sleep(LOOK_AGAIN), if full => continue,
            accepted = listener.accept(), if !full => accepted,
        };
        match accepted {
            Ok((stream, _)) if descriptors::is_beyond_accepting(&stream) => {
                trouble.few_descriptors();
                held = stream.into_std().ok();
            }
            Ok((stream, _)) => {
                trouble.over();
                enter(stream);
            }
            Err(e) if is_of_the_connection(&e) => {}
            Err(e) => {
                // Accepting again at once would only spin.
                let pause = trouble.failed(&e);
                tokio::select! {
                    () = &mut closing => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
    let waiting = held.and_then(|stream| TcpStream::from_std(stream).ok());
    waiting.into_iter().for_each(&mut enter);
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        enter(stream);
    }
}

/// What keeps the loop from accepting.
struct Trouble<'a> {
    side: Side<'a>,
    at_limit: bool,
    pause: Duration,
    told: Option<Instant>,
}

impl<'a> Trouble<'a> {
    fn new(side: Side<'a>) -> Self {
        Self { side, at_limit: false, pause: SHORTEST_PAUSE, told: None }
    }

    /// Whether there are as many connections as there may be.
    fn is_at_limit(&mut self) -> bool {
        let limited = self.side.open.load(Relaxed) >= self.side.most;
        if limited && !self.at_limit {
            self.side.limited.fetch_add(1, Relaxed);
            self.tell("the limit of connections is reached");
        }
        self.at_limit = limited;
        limited
    }

    fn few_descriptors(&mut self) {
        self.side.pauses.fetch_add(1, Relaxed);
        self.tell("the file descriptors run out");
    }

    /// How long to wait after the system has refused.
    fn failed(&mut self, error: &io::Error) -> Duration {
        self.side.pauses.fetch_add(1, Relaxed);
        self.tell(&error.to_string());
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn over(&mut self) {
        self.pause = SHORTEST_PAUSE;
    }

    /// Not more often than somebody could read it.
    fn tell(&mut self, why: &str) {
        if self.told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
            self.told = Some(Instant::now());
            let (side, open) = (self.side.name, self.side.open.load(Relaxed));
            tracing::warn!(side, open, why, "accepting pauses; callers wait in the backlog");
        }
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

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
const TELL_AGAIN: Duration = Duration::from_secs(10);
