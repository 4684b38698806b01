//! Attestation by Kubernetes: its API server says whose a projected service-account token is (`TokenReview`).
//!
//! A token counts for our own audience alone, so that one made for somebody else opens nothing here, and what is sent to us
//! opens nothing elsewhere. No token is ever in an error or in the log, the control plane's own least of all.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideName, certificates_from_pem};
use outrigger_mesh::{Hostname, Label, OutsideRoots};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Where the API server is, and how the control plane proves itself to it.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// Its URL, https.
    pub api: String,
    /// The control plane's own token, which the kubelet replaces now and then.
    pub token: PathBuf,
    /// Who vouches for the API server, PEM.
    pub ca: PathBuf,
    /// The audience that tokens of workloads must be for.
    pub audience: String,
}

/// Asks the API server whose tokens are.
pub struct TokenReviews {
    settings: KubernetesSettings,
    host: String,
    port: u16,
    name: OutsideName,
    places: Semaphore,
}

/// Why a token attests nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAttested {
    /// It is not good.
    #[error("the Kubernetes token is refused: {0}")]
    Refused(String),
    /// Nobody could say whether it is good.
    #[error("the Kubernetes token can not be reviewed now: {0}")]
    Unknown(String),
    /// Too many are being reviewed.
    #[error("too many Kubernetes tokens are being reviewed")]
    Busy,
}

/// As long as a review may take.
const WHOLE: Duration = Duration::from_secs(5);
/// A review is about a kilobyte, and the token in it.
const MAX_ANSWER: usize = 64 * 1024;
/// Kubernetes makes tokens of one to two kilobytes.
const MAX_TOKEN: usize = 16 * 1024;
/// As many are reviewed at a time: who has no certificate must not drive the API server.
const AT_ONCE: usize = 16;
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCOUNT: &str = "system:serviceaccount:";

impl TokenReviews {
    /// Proves the settings; the error names what is wrong with which.
    pub fn new(settings: KubernetesSettings) -> anyhow::Result<Self> {
        let api: Uri = settings.api.parse().with_context(|| format!("--kubernetes-api {}", settings.api))?;
        let (Some("https"), Some(host), "/" | "") = (api.scheme_str(), api.host(), api.path()) else {
            bail!("--kubernetes-api {}: write https://HOST, or https://HOST:PORT", settings.api);
        };
        if settings.audience.is_empty() {
            bail!("--kubernetes-audience is empty: tokens for anybody would be good");
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => Some(OutsideName::of_address(ip)),
            Err(_) => Hostname::new(&host).ok().and_then(|name| OutsideName::of_host(&name)),
        };
        let Some(name) = name else {
            bail!("--kubernetes-api {}: no certificate can be for that host", settings.api);
        };
        let port = api.port_u16().unwrap_or(443);
        let reviews = Self { settings, host, port, name, places: Semaphore::new(AT_ONCE) };
        reviews.connector().map_err(anyhow::Error::msg)?;
        reviews.own_token().map_err(anyhow::Error::msg)?;
        Ok(reviews)
    }

    /// The namespace and service account that `token` proves.
    pub async fn review(&self, token: &str) -> Result<(Label, Label), NotAttested> {
        // What can not be a token is not worth asking for.
        if !is_token(token) {
            return Err(NotAttested::Refused("it is no JSON Web Token".into()));
        }
        let Ok(_place) = self.places.try_acquire() else { return Err(NotAttested::Busy) };
        let answer = timeout(WHOLE, self.ask(token)).await;
        let late = |_| NotAttested::Unknown(format!("the API server took longer than {WHOLE:?}"));
        let answer = answer.map_err(late)?.map_err(NotAttested::Unknown)?;
        let review: Review = serde_json::from_slice(&answer)
            .map_err(|_| NotAttested::Unknown("the API server answered with no TokenReview".into()))?;
        if review.kind != "TokenReview" {
            return Err(NotAttested::Unknown("the API server answered with no TokenReview".into()));
        }
        self.whose(&review.status).map_err(NotAttested::Refused)
    }

    fn whose(&self, status: &Status) -> Result<(Label, Label), String> {
        let audience = &self.settings.audience;
        if !status.authenticated {
            return Err(format!("the API server does not know it, or not for the audience {audience}"));
        }
        if !status.audiences.contains(audience) {
            return Err(format!("it is not for the audience {audience}: project one that is"));
        }
        let account = status.user.username.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
        let Some((namespace, account)) = account else { return Err("it is of no service account".into()) };
        let label = |text: &str| Label::new(text).map_err(|e| format!("its service account: {e}"));
        Ok((label(namespace)?, label(account)?))
    }

    async fn ask(&self, token: &str) -> Result<Bytes, String> {
        let (connector, own) = (self.connector()?, self.own_token()?);
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [self.settings.audience] },
        });
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|e| format!("{}: {e}", self.settings.api))?;
        let stream = connector.connect(stream, &self.name, OutsideAlpn::Http1).await;
        let stream = stream.map_err(|e| format!("{}: {e}", self.settings.api))?;
        let failed = |e: hyper::Error| format!("{}: {e}", self.settings.api);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the answer, or when that is dropped: nothing is kept alive.
        tokio::spawn(async move { drop(timeout(WHOLE, connection).await) });
        let mut bearer = header::HeaderValue::from_str(&format!("Bearer {}", *own))
            .map_err(|_| format!("{} holds no token", self.settings.token.display()))?;
        bearer.set_sensitive(true);
        let request = Request::post(PATH)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::AUTHORIZATION, bearer)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|_| "it can not be asked".to_owned())?;
        read(sender.send_request(request).await.map_err(failed)?).await
    }

    /// With the roots as they are in the file now.
    fn connector(&self) -> Result<OutsideConnector, String> {
        let path = self.settings.ca.display();
        let text = small_file(&self.settings.ca)?;
        let roots = certificates_from_pem(&text).map_err(|e| format!("{path}: {e}"))?;
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

async fn read(answer: Response<Incoming>) -> Result<Bytes, String> {
    match answer.status() {
        StatusCode::OK | StatusCode::CREATED => {}
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(format!(
                "the API server answers {status} to the control plane: its service account must be allowed to create \
                 tokenreviews (ClusterRole system:auth-delegator)"
            ));
        }
        status => return Err(format!("the API server answers {status}")),
    }
    let all = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok(all.map_err(|_| "the API server's answer is too long, or was cut short".to_owned())?.to_bytes())
}

fn small_file(path: &Path) -> Result<Zeroizing<String>, String> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE { Err(format!("{} is too large", path.display())) } else { Ok(text) }
}

const MAX_FILE: u64 = 1024 * 1024;

/// Three parts of base64url: what the API server would take to pieces.
fn is_token(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= MAX_TOKEN && text.split('.').count() == 3 && text.split('.').all(is_part)
}

/// What of an answer counts. Whatever else an API server says is passed over.
#[derive(Deserialize)]
struct Review {
    kind: String,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}
