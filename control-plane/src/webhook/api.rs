//! Requests to the API server of Kubernetes, each over a connection of its own, with the control plane's own token.
//!
//! The token and the roots are read again for each request, since the kubelet replaces them. Neither is ever in an error.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideName, certificates_from_pem};
use outrigger_mesh::{Hostname, OutsideRoots};
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::ca::KubernetesSettings;

/// What the webhook asks of a cluster.
pub(super) trait Cluster: Send + Sync + 'static {
    /// The object at `path`; `None` if there is none.
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Json>, String>>;

    /// Makes an object.
    fn create<'a>(&'a self, path: &'a str, object: &'a Json) -> BoxFuture<'a, Result<(), String>>;

    /// Changes an object by a JSON patch.
    fn patch<'a>(&'a self, path: &'a str, patch: &'a Json) -> BoxFuture<'a, Result<(), String>>;
}

/// A real one.
pub(super) struct ApiServer {
    settings: KubernetesSettings,
    host: String,
    port: u16,
    name: OutsideName,
}

/// As long as one request may take: the API server waits for our own answer meanwhile.
const WHOLE: Duration = Duration::from_secs(4);
/// A list of the Services of a namespace may be long.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const MAX_FILE: u64 = 1024 * 1024;

impl ApiServer {
    /// Proves the settings; the error names what is wrong with which.
    pub(super) fn new(settings: KubernetesSettings) -> anyhow::Result<Self> {
        let api: Uri = settings.api.parse()?;
        let (Some("https"), Some(host), "/" | "") = (api.scheme_str(), api.host(), api.path()) else {
            bail!("--kubernetes-api {}: write https://HOST, or https://HOST:PORT", settings.api);
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => Some(OutsideName::of_address(ip)),
            Err(_) => Hostname::new(&host).ok().and_then(|name| OutsideName::of_host(&name)),
        };
        let Some(name) = name else {
            bail!("--kubernetes-api {}: no certificate can be for that host", settings.api);
        };
        let port = api.port_u16().unwrap_or(443);
        Ok(Self { settings, host, port, name })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Json)>) -> Answer {
        let asked = timeout(WHOLE, self.send(method, path, body)).await;
        let late = |_| format!("{}: the API server took longer than {WHOLE:?}", self.settings.api);
        asked.map_err(late)?
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&str, &Json)>) -> Answer {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", self.settings.api);
        let (connector, own) = (self.connector()?, self.own_token()?);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| failed(&e))?;
        let stream =
            connector.connect(stream, &self.name, OutsideAlpn::Http1).await.map_err(|e| failed(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        // Ends with the answer, or when that is dropped: nothing is kept alive.
        tokio::spawn(async move { drop(timeout(WHOLE, connection).await) });
        let mut bearer = header::HeaderValue::from_str(&format!("Bearer {}", *own))
            .map_err(|_| format!("{} holds no token", self.settings.token.display()))?;
        bearer.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close");
        let request = match body {
            Some((kind, body)) => {
                request.header(header::CONTENT_TYPE, kind).body(Full::new(Bytes::from(body.to_string())))
            }
            None => request.body(Full::new(Bytes::new())),
        };
        let request = request.map_err(|_| "it can not be asked".to_owned())?;
        read(sender.send_request(request).await.map_err(|e| failed(&e))?).await
    }

    /// With the roots as they are in the file now.
    fn connector(&self) -> Result<OutsideConnector, String> {
        let path = self.settings.ca.display();
        let roots =
            certificates_from_pem(&small_file(&self.settings.ca)?).map_err(|e| format!("{path}: {e}"))?;
        OutsideConnector::new(&OutsideRoots::Only(roots)).map_err(|e| format!("{path}: {e}"))
    }

    fn own_token(&self) -> Result<Zeroizing<String>, String> {
        let text = small_file(&self.settings.token)?;
        let token = Zeroizing::new(text.trim().to_owned());
        if token.is_empty() {
            return Err(format!("{} is empty", self.settings.token.display()));
        }
        Ok(token)
    }
}

type Answer = Result<(StatusCode, Bytes), String>;

impl Cluster for ApiServer {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Json>, String>> {
        Box::pin(async move {
            match self.ask(Method::GET, path, None).await? {
                (StatusCode::OK, body) => serde_json::from_slice(&body)
                    .map(Some)
                    .map_err(|_| format!("the API server answers {path} with no JSON")),
                (StatusCode::NOT_FOUND, _) => Ok(None),
                (status, _) => Err(refused(status, "get", path)),
            }
        })
    }

    fn create<'a>(&'a self, path: &'a str, object: &'a Json) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let (status, _) = self.ask(Method::POST, path, Some(("application/json", object))).await?;
            if status.is_success() { Ok(()) } else { Err(refused(status, "create", path)) }
        })
    }

    fn patch<'a>(&'a self, path: &'a str, patch: &'a Json) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let body = Some(("application/json-patch+json", patch));
            let (status, _) = self.ask(Method::PATCH, path, body).await?;
            if status.is_success() { Ok(()) } else { Err(refused(status, "patch", path)) }
        })
    }
}

fn refused(status: StatusCode, verb: &str, path: &str) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": its service account must be allowed to",
        _ => "",
    };
    format!("the API server answers {status} to the control plane's {verb} {path}{hint}")
}

async fn read(answer: Response<Incoming>) -> Answer {
    let status = answer.status();
    let all = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let all = all.map_err(|_| "the API server's answer is too long, or was cut short".to_owned())?;
    Ok((status, all.to_bytes()))
}

fn small_file(path: &Path) -> Result<Zeroizing<String>, String> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE { Err(format!("{} is too large", path.display())) } else { Ok(text) }
}
