//! The admin API, as far as it is needed here: one request a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value as Json;

/// The admin API of the control plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Puts objects in force, as one change.
    pub(crate) async fn apply(self, items: &[Json]) -> anyhow::Result<()> {
        let body = serde_json::json!({ "items": items }).to_string();
        self.request("POST", "/v1/apply", body).await.map(drop)
    }

    /// A join token of a service account.
    pub(crate) async fn join_token(self, namespace: &str, account: &str) -> anyhow::Result<String> {
        let body = serde_json::json!({ "namespace": namespace, "serviceAccount": account }).to_string();
        let made: Json = serde_json::from_str(&self.request("POST", "/v1/join-tokens", body).await?)?;
        Ok(made["token"].as_str().context("a join token")?.to_owned())
    }

    /// How many sidecars are connected.
    pub(crate) async fn connected(self) -> anyhow::Result<usize> {
        let all: Json = serde_json::from_str(&self.request("GET", "/v1/proxies", String::new()).await?)?;
        Ok(all["items"].as_array().context("a list of sidecars")?.len())
    }

    /// The samples of the metrics whose names begin so.
    pub(crate) async fn metrics(self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let text = self.request("GET", "/metrics", String::new()).await?;
        Ok(text.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect())
    }

    async fn request(self, method: &'static str, path: &'static str, body: String) -> anyhow::Result<String> {
        tokio::task::spawn_blocking(move || ask(self.address, method, path, &body)).await?
    }
}

fn ask(to: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    if head.split(' ').nth(1).is_none_or(|status| !status.starts_with('2')) {
        bail!("{method} {path}: {}", answer.chars().take(2_000).collect::<String>());
    }
    Ok(body.to_owned())
}
