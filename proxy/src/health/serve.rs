//! The listener of the health port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use outrigger_certs::UnverifiedConnector;
use outrigger_mesh::{ExpositionForm, exposition_as, merged_exposition};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::ask::{ask, get};
use super::table::{Metrics, Probes};
use crate::admin::{AdminState, Condition, Connections, Page, figures, text};

/// What is asked of the application, and where that is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Where everybody may ask.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub application: IpAddr,
    /// The kubelet's questions.
    pub probes: Probes,
    /// Its metrics.
    pub metrics: Option<Metrics>,
}

/// Everything an answer is made from.
pub struct HealthState {
    /// The sidecar itself.
    pub admin: Arc<AdminState>,
    /// The application.
    pub health: Health,
    /// How an application that speaks TLS is asked.
    pub tls: UnverifiedConnector,
}

/// Opens the listener: on both families where `[::]` is said, and on IPv4 alone on a host without IPv6.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match listen(address) {
        Err(e) if address.is_ipv6() && address.ip().is_unspecified() => {
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            listen(v4).map_err(|_| e)
        }
        bound => bound,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, state: Arc<HealthState>) {
    let mut connections = Connections::of("health");
    loop {
        let stream = connections.next(|| listener.accept()).await;
        let state = Arc::clone(&state);
        connections.serve(stream, LONGEST_CONNECTION, move |request| {
            let state = Arc::clone(&state);
            async move { state.answer(&request).await }
        });
    }
}

/// Longer than any probe.
const LONGEST_CONNECTION: Duration = Duration::from_mins(61);
/// As long as the application's metrics are waited for; Prometheus waits ten seconds.
const METRICS: Duration = Duration::from_secs(5);

impl HealthState {
    async fn answer(&self, request: &Request<Incoming>) -> Page {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n");
        }
        match request.uri().path() {
            "/healthz" => AdminState::alive(request.headers()),
            "/startupz" => self.started(),
            "/readyz" => self.admin.ready(request.headers()),
            "/metrics" => self.metrics(request.headers()).await,
            path => self.application(path).await,
        }
    }

    /// Whether there are an identity and configuration. The application is not waited for: it waits for this.
    fn started(&self) -> Page {
        let missing = self.admin.readiness.missing_of(&[Condition::Identity, Condition::Configuration]);
        if missing.is_empty() {
            return text(StatusCode::OK, "started\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", missing.join("\n")))
    }

    async fn application(&self, path: &str) -> Page {
        let Some(question) = self.health.probes.get(path) else {
            return text(StatusCode::NOT_FOUND, "no probe asks here\n");
        };
        match ask(question, self.health.application, &self.tls).await {
            Ok(()) => text(StatusCode::OK, "well\n"),
            Err(why) => {
                text(StatusCode::SERVICE_UNAVAILABLE, &format!("the application is not well: {why}\n"))
            }
        }
    }

    /// The sidecar's metrics, and after them the application's, where these come in time.
    /// Together they are told in the form of Prometheus alone.
    async fn metrics(&self, headers: &HeaderMap) -> Page {
        let own = self.admin.prometheus_text();
        let plain = |others: &str| merged_exposition(&own, others);
        let merged = match &self.health.metrics {
            None => {
                let form = figures::form(headers);
                return figures::page(form, &exposition_as(form, &own));
            }
            Some(metrics) => match timeout(METRICS, self.scrape(metrics)).await {
                Ok(Ok(others)) => plain(&without_end(&others)),
                Ok(Err(why)) => plain(&format!("# the application's metrics: {}\n", why.replace('\n', " "))),
                Err(_late) => {
                    plain(&format!("# the application's metrics did not come within {METRICS:?}\n"))
                }
            },
        };
        figures::page(ExpositionForm::Prometheus, &merged)
    }

    async fn scrape(&self, metrics: &Metrics) -> Result<String, String> {
        let (ip, port) = (self.health.application, metrics.port);
        let stream = TcpStream::connect((ip, port.get())).await.map_err(|e| e.to_string())?;
        let accept = (header::ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4"));
        let agent = (header::USER_AGENT, HeaderValue::from_static("outrigger-proxy"));
        let headers: [(HeaderName, HeaderValue); 2] = [accept, agent];
        match get(stream, &metrics.path, (ip, port), &headers).await? {
            (StatusCode::OK, Some(body)) => {
                String::from_utf8(body.into()).map_err(|_| "they are no text".into())
            }
            (StatusCode::OK, None) => Err("they are too long, or were cut short".into()),
            (status, _) => Err(format!("it answers {status}")),
        }
    }
}

/// Without the mark of the end that OpenMetrics has, and with an end of its last line.
fn without_end(metrics: &str) -> String {
    let body = metrics.trim_end().strip_suffix("# EOF").unwrap_or(metrics).trim_end();
    format!("{body}\n")
}
