//! `outrigger-proxy log-level [FILTER] [--for 10m] [--data FOLDER]`: shows what the sidecar beside it logs, or changes that
//! for a time, over its Unix socket, which only its own user can open.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

/// What to ask of the sidecar.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger-proxy log-level",
    about = "Shows what the sidecar logs, or changes it for a time"
)]
pub struct Asked {
    /// What to log: a level (error, warn, info, debug, trace) or a list such as `info,h2=debug`. Shows it when left out.
    filter: Option<String>,
    /// For how long, 24h at most.
    #[arg(long = "for", value_name = "DURATION", default_value = "10m")]
    lasting: String,
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

impl Asked {
    /// Asks; what the sidecar says, or why it does not do it.
    pub fn run(&self) -> Result<String, String> {
        let question = match &self.filter {
            None => "GET /logging".to_owned(),
            Some(filter) => format!("POST /logging?level={}&for={}", encoded(filter), encoded(&self.lasting)),
        };
        let socket = self.admin_socket.clone().unwrap_or_else(|| self.data.join("admin.sock"));
        ask(&socket, &question).map_err(|why| format!("{}: {why}", socket.display()))
    }
}

/// What the sidecar says to `question`: method and path.
pub(crate) fn ask(socket: &Path, question: &str) -> Result<String, String> {
    let told = |e: std::io::Error| e.to_string();
    let mut stream = UnixStream::connect(socket).map_err(told)?;
    let bounded =
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    bounded.map_err(told)?;
    let head = format!("{question} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(told)?;
    let mut answer = vec![];
    stream.take(MOST).read_to_end(&mut answer).map_err(told)?;
    let answer = String::from_utf8_lossy(&answer);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned();
    if answer.starts_with("HTTP/1.1 20") { Ok(body) } else { Err(body) }
}

/// `text` as a value in a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_filter_has_in_it_is_encoded() {
        assert_eq!(encoded("info,h2=debug"), "info%2Ch2%3Ddebug");
    }
}
