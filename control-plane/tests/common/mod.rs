//! The smallest HTTP client, and a control plane as a process of its own.

#![allow(dead_code, unreachable_pub, reason = "shared by tests that each use a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]
#![allow(clippy::format_push_string, clippy::needless_pass_by_value, reason = "short to write")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

/// What came back.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Json,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The codes and pointers of the problems it tells.
    pub fn problems(&self) -> Vec<(String, String)> {
        let text = |p: &Json, field: &str| p[field].as_str().unwrap_or_default().to_owned();
        let all = self.body["problems"].as_array().cloned().unwrap_or_default();
        all.iter().map(|p| (text(p, "pointer"), text(p, "code"))).collect()
    }
}

/// Sends one request over a connection of its own. `headers` are whole lines.
pub fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|h| h.to_ascii_lowercase().starts_with("host:")) {
        head += &format!("Host: {to}\r\n");
    }
    if !body.is_empty() && !headers.iter().any(|h| h.to_ascii_lowercase().starts_with("content-type:")) {
        head += "Content-Type: application/json\r\n";
    }
    for header in headers {
        head += &format!("{header}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // A server that refuses by the head may close before it has read the body.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = vec![];
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        read?;
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = serde_json::from_str(body).unwrap_or_else(|_| Json::String(body.to_owned()));
    Ok(Answer { status, head: head.to_owned(), body })
}

pub fn service(name: &str, spec: Json) -> Json {
    serde_json::json!({
        "apiVersion": "outrigger.dev/v1alpha1",
        "kind": "MeshService",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": spec,
    })
}

/// A control plane as a process. Dropped, it is killed.
pub struct Process {
    pub child: Child,
    pub admin: SocketAddr,
    pub push: SocketAddr,
}

impl Process {
    /// Starts one on ports of the system's choice and waits until it serves.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with more settings.
    pub fn start_with(data: &Path, settings: &[&str]) -> Self {
        let ready = data.with_extension("ready");
        let _ = fs::remove_file(&ready);
        let mut command = command(data);
        command.args(settings).arg("--ready-file").arg(&ready);
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut process = Self { child, admin: ([127, 0, 0, 1], 0).into(), push: ([127, 0, 0, 1], 0).into() };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(text) = fs::read_to_string(&ready) {
                let json: Json = serde_json::from_str(&text).unwrap();
                process.admin = json["admin"].as_str().unwrap().parse().unwrap();
                process.push = json["push"].as_str().unwrap().parse().unwrap();
                return process;
            }
            assert!(process.child.try_wait().unwrap().is_none(), "it ended before it served");
            assert!(Instant::now() < deadline, "it does not serve");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As the kernel does when memory is short, or a machine fails: no goodbye.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-control"));
    command.arg("--data").arg(data).args(["--push", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.stdout(Stdio::null()).stdin(Stdio::null());
    command
}

pub fn data_folder(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("data")
}
