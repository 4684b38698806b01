//! The protocol matrix: what a client speaks, what is spoken between the sidecars, what the application speaks, and six
//! things that may happen. One row a cell in a report; an empty or failed cell fails.
//!
//! `OUTRIGGER_SOAK=1` streams 1 GiB a cell instead of 64 MiB.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test")]

mod body;
mod origin;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version, header};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_mesh::{Between, Port, PortNumber, Protocol, Resource, Service, ServiceName};
use outrigger_testkit::{real, resources};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use body::{Made, judge};
use origin::{Application, PAUSE, SLOW_PIECE};
use support::{Mesh, Sidecar};

const BETWEEN: [Between; 3] = [Between::Http1, Between::Http2, Between::Auto];
const VERSIONS: [Version; 3] = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];
const CASES: [&str; 6] = ["small", "streamed", "trailers", "early answer", "cancelled", "slow"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_1_0_get_every_answer_whole_and_in_time() {
    matrix(Version::HTTP_10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_1_1_get_every_answer_whole_and_in_time() {
    matrix(Version::HTTP_11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_2_get_every_answer_whole_and_in_time() {
    matrix(Version::HTTP_2).await;
}

async fn matrix(client: Version) {
    let mesh = Mesh::new();
    let caller = mesh.client();
    let mut rows = Vec::new();
    for server in VERSIONS {
        let application = Application::start(server).await;
        for between in BETWEEN {
            let cell = Cell::new(&mesh, &caller, &application, client, between, server);
            for case in CASES {
                let limit =
                    if case == "streamed" { Duration::from_secs(600) } else { Duration::from_secs(10) };
                let result = tokio::time::timeout(limit, cell.run(case)).await;
                let result = result.unwrap_or_else(|_| Err("it hangs".into()));
                let who =
                    [format!("{client:?}"), format!("{between:?}").to_lowercase(), format!("{server:?}")];
                rows.push((who, case, result));
            }
        }
    }
    let report = report(client, &rows);
    assert_eq!(rows.len(), VERSIONS.len() * BETWEEN.len() * CASES.len());
    let failed: Vec<_> = rows.iter().filter(|r| r.2.as_ref().map_or(true, String::is_empty)).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", report.display());
}

type Row = ([String; 3], &'static str, Result<String, String>);

/// Writes this client's rows, and the report of all clients from what is there.
fn report(client: Version, rows: &[Row]) -> std::path::PathBuf {
    let folder = real::target().join("reports");
    std::fs::create_dir_all(&folder).unwrap();
    let mut text = String::new();
    for ([client, between, server], case, result) in rows {
        let (mark, said) = match result {
            Ok(said) => ("ok", said),
            Err(why) => ("FAILED", why),
        };
        writeln!(text, "| {client} | {between} | {server} | {case} | {mark} | {said} |").unwrap();
    }
    std::fs::write(folder.join(format!("protocol-matrix-{client:?}.part").replace('/', "-")), text).unwrap();
    let mut all = String::from(
        "# Protocol matrix\n\n| client | between | server | case | | what was seen |\n|---|---|---|---|---|---|\n",
    );
    for version in VERSIONS {
        let part = folder.join(format!("protocol-matrix-{version:?}.part").replace('/', "-"));
        all += &std::fs::read_to_string(part).unwrap_or_default();
    }
    let path = folder.join("protocol-matrix.md");
    std::fs::write(&path, all).unwrap();
    path
}

/// One way through the mesh.
struct Cell<'a> {
    caller: &'a Sidecar,
    application: &'a Application,
    client: Version,
    server: Version,
    host: String,
    _sidecar: Sidecar,
}

type Sent = UnsyncBoxBody<Bytes, std::convert::Infallible>;

impl<'a> Cell<'a> {
    fn new(
        mesh: &Mesh,
        caller: &'a Sidecar,
        application: &'a Application,
        client: Version,
        between: Between,
        server: Version,
    ) -> Self {
        let name: ServiceName = format!("shop/{between:?}-{server:?}")
            .to_lowercase()
            .replace("http/", "v")
            .replace('.', "-")
            .parse()
            .unwrap();
        let protocol = if server == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http };
        let ports = vec![Port { number: PortNumber::HTTP, protocol }];
        let service = Service { between, ports, ..resources::service(&name.to_string()) };
        let sidecar = mesh.server(&name.to_string(), application.addr);
        sidecar.set(Resource::Inbound(resources::inbound(&service.identities[0], &[&service])));
        caller.knows(service, [sidecar.endpoint(&name.to_string(), "i-1")]);
        Self { caller, application, client, server, host: name.name().to_string(), _sidecar: sidecar }
    }

    async fn run(&self, case: &str) -> Result<String, String> {
        match case {
            "small" => self.small().await,
            "streamed" => self.streamed().await,
            "trailers" => self.trailers().await,
            "early answer" => self.early().await,
            "cancelled" => self.cancelled().await,
            "slow" => self.slow().await,
            other => Err(format!("nobody knows how to try {other}")),
        }
    }

    async fn small(&self) -> Result<String, String> {
        let (response, _connection) = self.send("/small", None).await?;
        let got = judge(response.into_body()).await?;
        expect(got.right && got.bytes == 5, || format!("{got:?}"))?;
        Ok("200, 5 bytes".into())
    }

    /// A body up and the same down, at once where the application can.
    async fn streamed(&self) -> Result<String, String> {
        let size = if std::env::var("OUTRIGGER_SOAK").is_ok_and(|v| v == "1") { 1 << 30 } else { 64 << 20 };
        let old = self.client == Version::HTTP_10 || self.server == Version::HTTP_10;
        let made = if old { Made::new(size).told() } else { Made::new(size) };
        // What one transfer leaves behind in pools and buffers is not growth.
        let memory = Memory::now();
        let (response, _connection) = self.send("/echo", Some(made)).await?;
        let got = judge(response.into_body()).await?;
        expect(got.right && got.bytes == size, || format!("{got:?}"))?;
        let grown = memory.grown();
        expect(grown < MOST_GROWTH, || format!("memory grew by {} MiB", grown >> 20))?;
        Ok(format!("{} MiB up and down, memory grew by at most {} MiB", size >> 20, grown >> 20))
    }

    async fn trailers(&self) -> Result<String, String> {
        let old = self.client == Version::HTTP_10 || self.server == Version::HTTP_10;
        let body = if old { Made::new(1_000).told() } else { Made::new(1_000).with_trailer() };
        let (response, _connection) = self.send("/trailers", Some(body)).await?;
        let came = response.headers().get("x-request-trailers").is_some_and(|v| v == "true");
        let got = judge(response.into_body()).await?;
        expect(got.right && got.bytes == 1_000, || format!("{got:?}"))?;
        let back = got.trailers.is_some_and(|t| t.get("x-end").is_some_and(|v| v == "yes"));
        if old {
            expect(!back && !came, || "HTTP/1.0 has no trailers, and here are some".into())?;
            return Ok("body whole, no trailers: HTTP/1.0 has none".into());
        }
        expect(came, || "the application did not get the request's trailers".into())?;
        expect(back, || "the client did not get the answer's trailers".into())?;
        Ok("both ways".into())
    }

    async fn early(&self) -> Result<String, String> {
        // Again and again: whether the answer or the end of the connection is seen first must not matter.
        for _ in 0..EARLY {
            let endless = Made { stalls: true, ..Made::new(1 << 20).told() };
            let (response, _connection) = self.send("/early", Some(endless)).await?;
            let (head, body) = response.into_parts();
            if head.status != 413 {
                let said = body.collect().await.map(http_body_util::Collected::to_bytes);
                return Err(format!("{} {:?} {said:?}", head.status, head.headers));
            }
        }
        Ok("413 while the upload stood still".into())
    }

    async fn cancelled(&self) -> Result<String, String> {
        let before = self.application.hanging.load(SeqCst);
        let connection = self.connect().await?;
        let (mut sender, owner) = connection;
        let request = self.request("/hang", None);
        let asking = tokio::spawn(async move { sender.send(request).await.map(drop) });
        self.hanging(before + 1).await?;
        asking.abort();
        drop(owner);
        self.hanging(before).await?;
        Ok("the application heard of it".into())
    }

    async fn hanging(&self, count: i64) -> Result<(), String> {
        for _ in 0..400 {
            if self.application.hanging.load(SeqCst) == count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{} requests hang there, not {count}", self.application.hanging.load(SeqCst)))
    }

    async fn slow(&self) -> Result<String, String> {
        let (response, _connection) = self.send("/slow", None).await?;
        let got = judge(response.into_body()).await?;
        expect(got.right && got.bytes == 5 * SLOW_PIECE, || format!("{got:?}"))?;
        expect(got.spread > PAUSE * 2, || {
            format!("the pieces came within {:?}: something kept them", got.spread)
        })?;
        Ok("each piece as it came".into())
    }

    fn request(&self, path: &str, body: Option<Made>) -> Request<Sent> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let uri = match self.client {
            Version::HTTP_2 => format!("http://{}{path}", self.host),
            _ => path.to_owned(),
        };
        let mut request = Request::builder().method(method).uri(uri).version(self.client);
        if self.client != Version::HTTP_2 {
            request = request.header(header::HOST, &self.host);
        }
        if self.client != Version::HTTP_10 {
            request = request.header(header::TE, "trailers").header(header::TRAILER, "x-end");
        }
        if self.client == Version::HTTP_11 {
            request = request.header(header::CONNECTION, "te");
        }
        let body = body.map_or_else(|| http_body_util::Empty::new().boxed_unsync(), BodyExt::boxed_unsync);
        request.body(body).unwrap()
    }

    async fn connect(&self) -> Result<(Sender, Owner), String> {
        let text = |e: hyper::Error| e.to_string();
        let stream = TcpStream::connect(self.caller.outbound).await.map_err(|e| e.to_string())?;
        if self.client == Version::HTTP_2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
            return Ok((
                Sender::H2(sender),
                Owner(tokio::spawn(async { drop(connection.await) }).abort_handle()),
            ));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        Ok((Sender::H1(sender), Owner(tokio::spawn(async { drop(connection.await) }).abort_handle())))
    }

    /// Sends, and checks that the answer has the version of its request.
    async fn send(
        &self,
        path: &str,
        body: Option<Made>,
    ) -> Result<(Response<Incoming>, (Sender, Owner)), String> {
        let (mut sender, owner) = self.connect().await?;
        let response = sender.send(self.request(path, body)).await?;
        let same = response.version() == self.client;
        expect(same, || format!("an answer in {:?}", response.version()))?;
        let good = response.status() == 200 || path == "/early";
        expect(good, || format!("{} {:?}", response.status(), response.headers()))?;
        Ok((response, (sender, owner)))
    }
}

enum Sender {
    H1(http1::SendRequest<Sent>),
    H2(http2::SendRequest<Sent>),
}

impl Sender {
    async fn send(&mut self, request: Request<Sent>) -> Result<Response<Incoming>, String> {
        let sent = match self {
            Self::H1(sender) => sender.send_request(request).await,
            Self::H2(sender) => sender.send_request(request).await,
        };
        sent.map_err(|e| format!("{e}: {:?}", std::error::Error::source(&e)))
    }
}

/// The task of a connection.
struct Owner(AbortHandle);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn expect(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// What the whole process holds: client, both sidecars and application.
struct Memory(u64);

impl Memory {
    fn now() -> Self {
        // From here on the high-water mark is the present.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        Self(status("VmRSS:"))
    }

    /// By how much it grew at the most.
    fn grown(&self) -> u64 {
        status("VmHWM:").saturating_sub(self.0)
    }
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

const EARLY: usize = 20;
/// Far below what is streamed, and above what the buffers of four parties hold.
const MOST_GROWTH: u64 = 32 << 20;
