//! The sidecar that runs beside this process, asked over its Unix socket, which only its own user can open.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where it is.
#[derive(Debug, clap::Args)]
pub struct Beside {
    /// The folder of the sidecar.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "OUTRIGGER_PROXY_DATA",
        default_value = "./outrigger-proxy-data"
    )]
    data: PathBuf,
    /// Its socket [default: admin.sock in --data].
    #[arg(long, value_name = "PATH", env = "OUTRIGGER_PROXY_ADMIN_SOCKET")]
    admin_socket: Option<PathBuf>,
}

impl Beside {
    /// What the sidecar says to `question`: method and path; or why it does not do what is asked.
    pub fn ask(&self, question: &str) -> Result<String, String> {
        let socket = self.admin_socket.clone().unwrap_or_else(|| self.data.join("admin.sock"));
        UnixStream::connect(&socket)
            .and_then(|stream| exchange(stream, question))
            .map_err(|e| e.to_string())
            .and_then(|answer| understood(&answer))
            .map_err(|why| format!("{}: {why}", socket.display()))
    }
}

fn exchange(mut stream: UnixStream, question: &str) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!("{question} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = vec![];
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(answer)
}

fn understood(answer: &[u8]) -> Result<String, String> {
    let answer = String::from_utf8_lossy(answer);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned();
    if answer.starts_with("HTTP/1.1 20") { Ok(body) } else { Err(body) }
}

const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u64 = 4_096;
