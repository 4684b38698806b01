//! What each address of the admin surface answers.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use outrigger_certs::WorkloadIdentity;
use outrigger_mesh::TapFilter;
use serde_json::{Value, json};

use super::Readiness;
use crate::config::registry::Registry;
use crate::config::status::LinkStatus;
use crate::drain::{Ask, Drain, Phase};
use crate::gateway::Edge;
use crate::identity::RenewalStatus;
use crate::live::Live;
use crate::settings::duration;
use crate::telemetry::tap::{Tap, TooMany};
use outrigger_process::level::{self, LogLevel};
use outrigger_process::panics;

/// Everything the admin surface shows or can tell. What comes later than the surface itself is set when it comes.
pub struct AdminState {
    /// Whether the sidecar can serve.
    pub readiness: Readiness,
    /// The end of this instance.
    pub drain: Drain,
    /// What is configured.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub live: Arc<Live>,
    /// The own identity, once there is one.
    pub identity: OnceLock<Arc<WorkloadIdentity>>,
    /// How renewal is going, where we renew.
    pub renewal: OnceLock<Arc<RenewalStatus>>,
    /// How the link is doing, where there is one.
    pub link: OnceLock<Arc<LinkStatus>>,
    /// What is served at the edge, in gateway mode.
    pub edge: OnceLock<Arc<Edge>>,
    /// What is logged.
    pub log: Arc<LogLevel>,
    /// Whether the application may end this sidecar, at the listener for reading.
    pub ended_by_application: bool,
}

/// An answer.
pub(crate) type Page = Response<Full<Bytes>>;

impl AdminState {
    /// Answers on the TCP listener: reading only, but for an application that may end its sidecar.
    pub(super) fn read(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Page {
        let page: fn(&Self) -> Page = match uri.path() {
            "/" => |_| text(StatusCode::OK, &format!("{}\n", READ.join("\n"))),
            "/ready" | "/readyz" if is_reading(method) => return self.ready(headers),
            "/healthz" if is_reading(method) => return Self::alive(headers),
            "/config_dump" => |s| json(&s.config_dump()),
            "/clusters" => |s| json(&s.registry.clusters()),
            "/policies" => |s| json(&s.policies()),
            "/certs" => |s| json(&s.certs()),
            "/stats/prometheus" if is_reading(method) => return self.metrics(headers),
            "/ready" | "/readyz" | "/healthz" | "/stats/prometheus" => return not_allowed("GET, HEAD"),
            "/quitquitquit" if self.ended_by_application => return self.change(method, uri, headers),
            path if CHANGE.contains(&path) => {
                let hint = "this changes state: POST it to the admin socket\n";
                return text(StatusCode::METHOD_NOT_ALLOWED, hint);
            }
            _ => return not_found(&READ),
        };
        if is_reading(method) { page(self) } else { not_allowed("GET, HEAD") }
    }

    /// Answers on the Unix socket: everything.
    pub(super) fn change(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Page {
        let path = uri.path();
        if !CHANGE.contains(&path) {
            return if READ.contains(&path) { self.read(method, uri, headers) } else { not_found(&CHANGE) };
        }
        if path == "/logging" && is_reading(method) {
            return json(&self.log.told());
        }
        if method != Method::POST {
            return not_allowed("POST");
        }
        match path {
            "/drain" => self.ask(Ask::Inbound),
            "/quitquitquit" => self.ask(Ask::End),
            _ => self.logging(uri.query().unwrap_or_default()),
        }
    }

    /// A page by the name that the control plane knows it by.
    pub(super) fn page(&self, name: &str) -> Option<Value> {
        Some(match name {
            "breakers" => self.registry.breakers(),
            "certs" => self.certs(),
            "config" => self.config_dump(),
            "endpoints" => self.registry.clusters(),
            "policies" => self.policies(),
            "routes" => self.live.requests.by_route(),
            _ => return None,
        })
    }

    /// Live requests, as somebody wants to see them.
    pub(super) fn tap(&self, filter: TapFilter) -> Result<Tap, TooMany> {
        self.live.taps.open(&self.live.observe, filter, self.live.identity())
    }

    fn ask(&self, ask: Ask) -> Page {
        self.drain.ask(ask);
        text(StatusCode::ACCEPTED, "draining\n")
    }

    fn logging(&self, query: &str) -> Page {
        let asked = |name: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            found.map(percent_decoded).filter(|value| !value.is_empty())
        };
        let Some(level) = asked("level") else {
            let hint = "say which: /logging?level=info or ?level=info,h2=debug&for=10m\n";
            return text(StatusCode::BAD_REQUEST, hint);
        };
        let lasting = asked("for").map_or(Ok(level::USUAL), |text| duration(&text));
        match lasting.and_then(|lasting| self.log.change(&level, lasting)) {
            Ok(()) => json(&self.log.told()),
            Err(why) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        }
    }

    /// Whether the sidecar can serve, and if not, why.
    pub(crate) fn ready(&self, headers: &HeaderMap) -> Page {
        let (phase, reasons) = (self.drain.phase(), self.readiness.reasons());
        let serves = phase == Phase::Serving && reasons.is_empty();
        let status = if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if wants_json(headers) {
            let all = self.readiness.conditions().into_iter().map(
                |(condition, why)| json!({ "name": condition.as_str(), "met": why.is_none(), "why": why }),
            );
            let all: Vec<Value> = all.collect();
            return json_of(status, &json!({ "ready": serves, "phase": phase.as_str(), "conditions": all }));
        }
        match (phase, reasons) {
            (Phase::Serving, reasons) if reasons.is_empty() => text(status, "ready\n"),
            (Phase::Serving, reasons) => text(status, &format!("{}\n", reasons.join("\n"))),
            (phase, _) => text(status, &format!("draining: {}\n", phase.as_str())),
        }
    }

    /// Whether the process does what it is for: none of its parts has fallen.
    pub(crate) fn alive(headers: &HeaderMap) -> Page {
        let fallen = panics::fallen();
        let status = if fallen.is_empty() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        if wants_json(headers) {
            let told = json!({ "alive": fallen.is_empty(), "fallen": fallen, "panics": panics::count() });
            return json_of(status, &told);
        }
        if fallen.is_empty() {
            return text(status, "alive\n");
        }
        text(status, &format!("ended in a panic: {}\n", fallen.join(", ")))
    }

    fn config_dump(&self) -> Value {
        let mut dump = self.registry.dump();
        if let Some(dump) = dump.as_object_mut() {
            let link = self.link.get().map(|link| link.dump());
            dump.insert("controlPlane".into(), link.unwrap_or(Value::Null));
            dump.insert("gateway".into(), self.edge.get().map_or(Value::Null, |edge| edge.dump()));
            dump.insert("phase".into(), self.drain.phase().as_str().into());
        }
        dump
    }

    /// The policies of the services that are called from here, and what protects those that are served here.
    fn policies(&self) -> Value {
        self.registry.policies(self.identity.get().map(|identity| identity.id()))
    }

    /// The public side of the identity: never a key.
    fn certs(&self) -> Value {
        let Some(identity) = self.identity.get() else { return json!({"identity": null}) };
        json!({
            "identity": identity.id().to_string(),
            "notBefore": unix(identity.not_before()),
            "notAfter": unix(identity.expires_at()),
            "expiresInSeconds": seconds_left(identity.expires_at()),
            "sha256": identity.certificate_sha256(),
            "renewals": self.renewal.get().map(|r| r.renewals()),
            "renewalFailures": self.renewal.get().map(|r| r.failures()),
        })
    }
}

pub(crate) fn text(status: StatusCode, body: &str) -> Page {
    let mut page = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *page.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    page
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether JSON is asked for.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepts.into_iter().any(|accept| accept.to_ascii_lowercase().contains("application/json"))
}

fn json(value: &Value) -> Page {
    json_of(StatusCode::OK, value)
}

fn json_of(status: StatusCode, value: &Value) -> Page {
    let mut page = text(status, &format!("{value:#}\n"));
    let kind = HeaderValue::from_static("application/json");
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    page
}

fn not_found(known: &[&str]) -> Page {
    text(StatusCode::NOT_FOUND, &format!("not found; there is {}\n", known.join(" ")))
}

fn not_allowed(allow: &'static str) -> Page {
    let mut page = text(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allow} here\n"));
    page.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    page
}

/// A log filter has commas and equals signs, which some clients encode. Anything odd stays as it is and is refused by
/// the filter's own parser.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        if let Some(byte) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Negative once it has ended.
pub(super) fn seconds_left(at: SystemTime) -> i64 {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match at.duration_since(SystemTime::now()) {
        Ok(left) => seconds(left),
        Err(over) => -seconds(over.duration()),
    }
}

const READ: [&str; 9] = [
    "/ready",
    "/readyz",
    "/healthz",
    "/config_dump",
    "/clusters",
    "/policies",
    "/certs",
    "/stats/prometheus",
    "/tap",
];
const CHANGE: [&str; 3] = ["/drain", "/quitquitquit", "/logging"];
