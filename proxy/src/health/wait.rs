//! `outrigger-proxy wait`: returns when the sidecar beside it has started. The hook of a container that stands before its
//! application's, where sidecars are no native ones.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::settings::duration;

/// Waits until the sidecar has an identity and configuration. Exit code 0: it has. 1: not in time, and why.
#[derive(Debug, Parser)]
#[command(name = "outrigger-proxy wait")]
pub struct Wait {
    /// The sidecar's --health.
    #[arg(long, default_value = "127.0.0.1:15020")]
    health: SocketAddr,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

impl Wait {
    /// Waits. The error is the last reason why not.
    pub async fn run(&self) -> Result<(), String> {
        let mut last = String::from("nobody answers");
        let waited = timeout(self.timeout, async {
            loop {
                match timeout(ONE, ask(self.health)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(why)) => last = why,
                    Err(_late) => last = format!("no answer within {ONE:?}"),
                }
                sleep(BETWEEN).await;
            }
        });
        let ended = waited.await;
        ended.map_err(|_| format!("{} has not started within {:?}: {last}", self.health, self.timeout))
    }
}

const ONE: Duration = Duration::from_secs(2);
const BETWEEN: Duration = Duration::from_millis(100);
const MOST: u64 = 4096;

async fn ask(health: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(health).await.map_err(|e| e.to_string())?;
    let request = format!("GET /startupz HTTP/1.1\r\nhost: {health}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.map_err(|e| e.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().replace('\n', "; "))
}
