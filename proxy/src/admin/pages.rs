//! What each address of the admin surface answers.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use outrigger_certs::WorkloadIdentity;
use serde_json::{Value, json};

use super::Readiness;
use crate::breaker;
use crate::config::registry::Registry;
use crate::config::status::LinkStatus;
use crate::drain::{Ask, Drain, Phase};
use crate::gateway::Edge;
use crate::identity::RenewalStatus;
use crate::listen::descriptors;
use crate::live::Live;

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
    /// Changes what is logged.
    pub set_log_level: SetLogLevel,
}

/// Changes what is logged; an error says what is wrong with the filter.
pub type SetLogLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// An answer.
pub(crate) type Page = Response<Full<Bytes>>;

impl AdminState {
    /// Answers on the TCP listener: reading only.
    pub(super) fn read(&self, method: &Method, uri: &Uri) -> Page {
        let page: fn(&Self) -> Page = match uri.path() {
            "/" => |_| text(StatusCode::OK, &format!("{}\n", READ.join("\n"))),
            "/ready" => Self::ready,
            "/config_dump" => |s| json(&s.config_dump()),
            "/clusters" => |s| json(&s.registry.clusters()),
            "/policies" => |s| json(&s.policies()),
            "/certs" => |s| json(&s.certs()),
            "/stats/prometheus" => Self::prometheus,
            path if CHANGE.contains(&path) => {
                let hint = "this changes state: POST it to the admin socket\n";
                return text(StatusCode::METHOD_NOT_ALLOWED, hint);
            }
            _ => return not_found(&READ),
        };
        match *method {
            Method::GET | Method::HEAD => page(self),
            _ => not_allowed("GET, HEAD"),
        }
    }

    /// Answers on the Unix socket: everything.
    pub(super) fn change(&self, method: &Method, uri: &Uri) -> Page {
        let path = uri.path();
        if !CHANGE.contains(&path) {
            return if READ.contains(&path) { self.read(method, uri) } else { not_found(&CHANGE) };
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
            _ => return None,
        })
    }

    fn ask(&self, ask: Ask) -> Page {
        self.drain.ask(ask);
        text(StatusCode::ACCEPTED, "draining\n")
    }

    fn logging(&self, query: &str) -> Page {
        let level = query.split('&').find_map(|pair| pair.strip_prefix("level=")).map(percent_decoded);
        let Some(level) = level.filter(|l| !l.is_empty()) else {
            return text(StatusCode::BAD_REQUEST, "say which: /logging?level=info or ?level=info,h2=debug\n");
        };
        match (self.set_log_level)(&level) {
            Ok(()) => {
                tracing::info!(level, "logging changed");
                text(StatusCode::OK, "done\n")
            }
            Err(why) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        }
    }

    /// Whether the sidecar can serve, and if not, why.
    pub(crate) fn ready(&self) -> Page {
        let phase = self.drain.phase();
        if phase != Phase::Serving {
            return text(StatusCode::SERVICE_UNAVAILABLE, &format!("draining: {}\n", phase.as_str()));
        }
        let reasons = self.readiness.reasons();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", reasons.join("\n")))
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

    fn prometheus(&self) -> Page {
        let mut page = text(StatusCode::OK, &self.prometheus_text());
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        page.headers_mut().insert(header::CONTENT_TYPE, kind);
        page
    }

    /// Everything that is counted, in the text form of Prometheus.
    pub(crate) fn prometheus_text(&self) -> String {
        let mut out = self.live.prometheus();
        breaker::metrics::write(&mut out, &self.registry.live_services());
        self.registry.write_budgets(&mut out);
        let mut metric = |name: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let yes = |b: bool| u8::from(b).to_string();
        let ready = self.readiness.is_ready() && self.drain.phase() == Phase::Serving;
        metric("outrigger_ready", "gauge", "Whether the sidecar can serve.", yes(ready));
        if let Some(open) = descriptors::open() {
            metric("process_open_fds", "gauge", "Open file descriptors.", open.to_string());
        }
        let shed = self.live.overload.episodes().to_string();
        metric("outrigger_memory_shedding_total", "counter", "Times that memory came near its limit.", shed);
        let most = descriptors::limit().to_string();
        metric("process_max_fds", "gauge", "How many there may be.", most);
        if let Some(identity) = self.identity.get() {
            let left = seconds_left(identity.expires_at()).to_string();
            metric("outrigger_cert_expiry_seconds", "gauge", "Time until the own certificate ends.", left);
        }
        if let Some(renewal) = self.renewal.get() {
            let (done, failed) = (renewal.renewals().to_string(), renewal.failures().to_string());
            metric("outrigger_cert_renewals_total", "counter", "Certificates renewed.", done);
            metric("outrigger_cert_renewal_failures_total", "counter", "Renewals that failed.", failed);
        }
        if let Some(link) = self.link.get() {
            let help = "Whether the control plane is linked.";
            metric("outrigger_control_connected", "gauge", help, yes(link.is_connected()));
            let connections = link.connections().borrow().to_string();
            let help = "Links made to the control plane.";
            metric("outrigger_control_connections_total", "counter", help, connections);
            let help = "Latest revision something was applied of.";
            metric("outrigger_config_revision", "gauge", help, link.revision().to_string());
            let help = "Resources refused.";
            metric("outrigger_config_rejected_total", "counter", help, link.rejected_total().to_string());
        }
        out
    }
}

pub(crate) fn text(status: StatusCode, body: &str) -> Page {
    let mut page = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *page.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    page
}

fn json(value: &Value) -> Page {
    let mut page = text(StatusCode::OK, &format!("{value:#}\n"));
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
fn percent_decoded(text: &str) -> String {
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

fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Negative once it has ended.
fn seconds_left(at: SystemTime) -> i64 {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match at.duration_since(SystemTime::now()) {
        Ok(left) => seconds(left),
        Err(over) => -seconds(over.duration()),
    }
}

const READ: [&str; 6] = ["/ready", "/config_dump", "/clusters", "/policies", "/certs", "/stats/prometheus"];
const CHANGE: [&str; 3] = ["/drain", "/quitquitquit", "/logging"];
