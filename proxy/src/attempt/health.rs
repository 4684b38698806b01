//! Active health checks: the endpoints of services in use are asked whether they are well, where the service wants it.
//!
//! On a thread of its own, so that no request waits for a check, over connections of its own, on the way that requests go:
//! through mutual TLS to the sidecar of the endpoint and on to its application. One task for each endpoint, which ends
//! with the endpoint, the service or its policy; what was found out is forgotten then. What is made of it is elsewhere:
//! `attempt/balance`.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use outrigger_mesh::{Algorithm, HealthCheck, Probe, Protocol, Reason};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::attempt::balance::{Counts, Known};
use crate::attempt::exchange::Exchange;
use crate::attempt::send::{Outgoing, Ready, Speak, send};
use crate::config::snapshot::{EndpointView, ServiceSnapshot};
use crate::drain::Phase;
use crate::error::{Error, Who};
use crate::http::body::RequestBody;
use crate::http::glance::Glance;
use crate::http::headers;
use crate::live::{EndpointLive, LiveService};
use crate::request::choose;
use crate::worker::{Shared, Worker};

/// Starts what asks endpoints. It ends with [`Phase::Ended`], or when the sender of `phases` is gone.
pub fn start(
    shared: &Arc<Shared>,
    phases: &watch::Receiver<Phase>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let (shared, mut phases) = (Arc::clone(shared), phases.clone());
    std::thread::Builder::new().name("health".into()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            tokio::select! {
                () = follow(Worker::new(shared)) => {}
                _ended = phases.wait_for(|phase| *phase >= Phase::Ended) => {}
            }
        });
        // Dropping the runtime drops every task that is left.
        Ok(())
    })
}

/// Keeps one task for each endpoint that is to be asked.
async fn follow(worker: Rc<Worker>) {
    let slots = Rc::new(Semaphore::new(AT_ONCE));
    let mut asked: HashMap<u64, Asked> = HashMap::new();
    let registry = &worker.shared.registry;
    // What is known changes in the one; that a service is used for the first time is told by the other.
    let (mut changed, mut used) = (registry.changed(), registry.locations());
    loop {
        changed.borrow_and_update();
        used.borrow_and_update();
        let mut before = std::mem::take(&mut asked);
        for (service, snapshot) in registry.in_use() {
            if matches!(snapshot.service.policy.balance.algorithm, Algorithm::Maglev(_)) {
                // Here, so that no request has to.
                service.endpoints.load().prepare();
            }
            let Some(check) = &snapshot.service.policy.health else { continue };
            for view in &service.endpoints.load().subset(None).members {
                let same = before.remove(&view.live.id).filter(|old| old.check == *check);
                let now = same.unwrap_or_else(|| Asked::new(&worker, &service, view, check, &slots));
                asked.insert(view.live.id, now);
            }
        }
        // Ends those that are not wanted any more.
        drop(before);
        sleep(SETTLE).await;
        loop {
            tokio::select! {
                moved = changed.changed() => match moved {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Ok(()) = used.changed() => break,
                () = sleep(SWEEP), if !asked.is_empty() => worker.mesh.sweep(),
            }
        }
    }
}

/// An endpoint that is asked, until this is dropped.
struct Asked {
    check: HealthCheck,
    task: AbortHandle,
}

impl Asked {
    fn new(
        worker: &Rc<Worker>,
        service: &Arc<LiveService>,
        view: &Arc<EndpointView>,
        check: &HealthCheck,
        slots: &Rc<Semaphore>,
    ) -> Self {
        let (worker, slots) = (Rc::clone(worker), Rc::clone(slots));
        let (service, view) = (Arc::clone(service), Arc::clone(view));
        let asking = ask(worker, service, view, check.clone(), slots);
        Self { check: check.clone(), task: tokio::task::spawn_local(asking).abort_handle() }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks one endpoint for as long as it is left to.
async fn ask(
    worker: Rc<Worker>,
    service: Arc<LiveService>,
    view: Arc<EndpointView>,
    check: HealthCheck,
    slots: Rc<Semaphore>,
) {
    let mut noted =
        Noted { live: Arc::clone(&view.live), counts: Arc::clone(&service.balance), row: Row::default() };
    // Not all at once after a start.
    sleep(check.interval.min(FIRST_WITHIN).mul_f64(fastrand::f64())).await;
    loop {
        let said = match slots.acquire().await {
            Ok(_slot) => match timeout(check.timeout, probe(&worker, &service, &view, &check)).await {
                Ok(said) => said,
                Err(_) => Said::Unwell(format!("no answer within {:?}", check.timeout)),
            },
            Err(_) => return,
        };
        if noted.note(&said, &check) {
            let (service, endpoint) = (&service.name, &view.endpoint.uid);
            match said {
                Said::Unwell(why) => tracing::warn!(%service, %endpoint, why, "an endpoint is unwell"),
                Said::Well | Said::Nothing => {
                    tracing::info!(%service, %endpoint, "an endpoint is well again");
                }
            }
        }
        sleep(check.interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Well,
    Unwell(String),
    /// Nothing of the endpoint: this sidecar or that one had no room for the check.
    Nothing,
}

/// What was found out of an endpoint; forgotten when this is dropped.
struct Noted {
    live: Arc<EndpointLive>,
    counts: Arc<Counts>,
    row: Row,
}

impl Noted {
    /// Notes what came of a check. True when the endpoint has become unwell by it, or well again.
    fn note(&mut self, said: &Said, check: &HealthCheck) -> bool {
        let count = match said {
            Said::Well => &self.counts.passed,
            Said::Unwell(_) => &self.counts.failed,
            Said::Nothing => return false,
        };
        count.fetch_add(1, Relaxed);
        let before = self.row.known;
        let now = self.row.note(*said == Said::Well, check);
        self.live.health.set(now.unwrap_or(Known::Nothing));
        match (before == Some(Known::Unwell), now == Some(Known::Unwell)) {
            (false, true) => self.counts.unwell.fetch_add(1, Relaxed),
            (true, false) => self.counts.unwell.fetch_sub(1, Relaxed),
            _ => return false,
        };
        true
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if self.row.known == Some(Known::Unwell) {
            self.counts.unwell.fetch_sub(1, Relaxed);
        }
        self.live.health.set(Known::Nothing);
    }
}

/// Answers in a row, and what they have shown.
#[derive(Debug, Default)]
struct Row {
    good: u32,
    bad: u32,
    known: Option<Known>,
}

impl Row {
    /// What is known with this answer. One good one is enough of an endpoint of which nothing is known.
    fn note(&mut self, good: bool, check: &HealthCheck) -> Option<Known> {
        (self.good, self.bad) = if good { (self.good + 1, 0) } else { (0, self.bad + 1) };
        let needed = if self.known == Some(Known::Unwell) { check.healthy } else { 1 };
        if self.good >= needed {
            self.known = Some(Known::Well);
        } else if self.bad >= check.unhealthy {
            self.known = Some(Known::Unwell);
        }
        self.known
    }
}

async fn probe(
    worker: &Worker,
    service: &LiveService,
    view: &Arc<EndpointView>,
    check: &HealthCheck,
) -> Said {
    let Some(snapshot) = service.snapshot.load_full() else { return Said::Nothing };
    match answered(worker, &snapshot, view, check).await {
        Ok(said) => said,
        Err(error) if error.who == Who::Us => Said::Nothing,
        Err(error) => Said::Unwell(error.to_string()),
    }
}

async fn answered(
    worker: &Worker,
    snapshot: &Arc<ServiceSnapshot>,
    view: &Arc<EndpointView>,
    check: &HealthCheck,
) -> Result<Said, Error> {
    let none = || Error::refused(Reason::NoRoute, "the service does not have that port");
    let port = *snapshot.service.port(check.port).ok_or_else(none)?;
    let place = choose::place(worker, snapshot, view, port, check.timeout)?;
    let mesh = place.secured.is_mesh();
    let (head, speak, body) = match &check.probe {
        Probe::Tcp if port.protocol.is_opaque() => {
            worker.mesh.opaque(&place).await?;
            return Ok(Said::Well);
        }
        Probe::Tcp => {
            worker.mesh.http1(&place).await?;
            return Ok(Said::Well);
        }
        Probe::Http { path, .. } => {
            let plain = matches!(port.protocol, Protocol::Http2 | Protocol::Grpc) && !mesh;
            let speak = if plain { Speak::Http2 } else { Speak::Http1 };
            (head(snapshot, Method::GET, path)?, speak, Bytes::new())
        }
        Probe::Grpc { service } => {
            let mut head = head(snapshot, Method::POST, GRPC_PATH)?;
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
            (head, Speak::Http2, grpc_question(service))
        }
    };
    let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::Text(body) };
    let (response, exchange) =
        send(&worker.mesh, &place, speak, Ready::new(&place, speak, head, body)?).await?;
    if mesh && refused_for_room(response.headers()) {
        return Ok(Said::Nothing);
    }
    judge(&check.probe, response, exchange).await
}

async fn judge(probe: &Probe, response: Response<Incoming>, mut exchange: Exchange) -> Result<Said, Error> {
    let (head, body) = response.into_parts();
    let broke = |_| Error::upstream(Reason::UpstreamReset, "the answer broke off, or is too long");
    let collected = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(broke)?;
    exchange.finish();
    let status = head.status.as_u16();
    Ok(match probe {
        Probe::Http { expect: (low, high), .. } if (*low..=*high).contains(&status) => Said::Well,
        Probe::Http { .. } => Said::Unwell(format!("status {status}")),
        Probe::Grpc { .. } => {
            let trailers = collected.trailers().unwrap_or(&head.headers);
            let code = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status")).cloned();
            match (code, grpc_serving(&collected.to_bytes())) {
                (Some(code), _) if code != "0" => Said::Unwell(format!("grpc-status {code:?}")),
                (_, Some(true)) if status == 200 => Said::Well,
                (_, serving) => Said::Unwell(format!("status {status}, serving: {serving:?}")),
            }
        }
        Probe::Tcp => Said::Well,
    })
}

fn head(snapshot: &ServiceSnapshot, method: Method, path: &str) -> Result<Outgoing, Error> {
    let bad = |what: &str| Error::refused(Reason::BadRequest, format!("a health check has no {what}"));
    let target = path.parse().map_err(|_| bad("path"))?;
    let mut headers = HeaderMap::new();
    let host = snapshot.service.hostnames.first().ok_or_else(|| bad("host"))?;
    headers.insert(header::HOST, HeaderValue::from_str(host.as_str()).map_err(|_| bad("host"))?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("outrigger-health"));
    let seen = Glance::at(&headers);
    Ok(Outgoing {
        method,
        target,
        authority: None,
        headers,
        seen,
        upgrade: None,
        spelling: Extensions::new(),
    })
}

/// Whether the sidecar there had no room: its application may be as well as can be.
fn refused_for_room(of: &HeaderMap) -> bool {
    of.get(headers::REASON)
        .is_some_and(|reason| matches!(reason.as_bytes(), b"bulkhead_full" | b"rate_limited" | b"overloaded"))
}

/// `grpc.health.v1.HealthCheckRequest { string service = 1; }`, as one message of gRPC.
fn grpc_question(service: &str) -> Bytes {
    let mut message = Vec::new();
    // A length of more than seven bits would need more bytes, and no name of a service is as long.
    if let Ok(length @ 1..=127) = u8::try_from(service.len()) {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// Whether `grpc.health.v1.HealthCheckResponse { ServingStatus status = 1; }` says SERVING. `None` where it says nothing.
fn grpc_serving(body: &[u8]) -> Option<bool> {
    let (&[compressed, a, b, c, d], rest) = body.split_first_chunk::<5>()?;
    let message = rest.get(..usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?)?;
    match (compressed, message) {
        // UNKNOWN is 0, and is not written.
        (0, []) => Some(false),
        (0, [0x08, status, ..]) => Some(*status == 1),
        _ => None,
    }
}

const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";
/// Checks under way at a time, of all services.
const AT_ONCE: usize = 32;
/// The first check comes within this time, whatever the interval.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(50);
const SWEEP: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_unwell_after_some_bad_answers_and_well_after_some_good_ones() {
        let check = HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval: HealthCheck::INTERVAL,
            timeout: HealthCheck::TIMEOUT,
            healthy: 2,
            unhealthy: 3,
        };
        let mut row = Row::default();
        let known: Vec<_> = [false, false, true, false, false, false, true, false, true, true]
            .map(|good| row.note(good, &check).map(Known::as_str))
            .to_vec();
        let (none, well, unwell) = (None, Some("well"), Some("unwell"));
        assert_eq!(known, [none, none, well, well, well, unwell, unwell, unwell, unwell, well]);
    }

    #[test]
    fn the_messages_of_grpc_are_those_of_the_health_protocol() {
        assert_eq!(grpc_question(""), &[0, 0, 0, 0, 0][..]);
        assert_eq!(grpc_question("a.B"), &[0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B'][..]);
        assert_eq!(grpc_serving(&[0, 0, 0, 0, 2, 8, 1]), Some(true));
        assert_eq!(grpc_serving(&[0, 0, 0, 0, 2, 8, 2]), Some(false));
        assert_eq!(grpc_serving(&[0, 0, 0, 0, 0]), Some(false));
        for wrong in [&[][..], &[0, 0, 0, 0, 9, 8, 1], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 2, 7, 1]] {
            assert_eq!(grpc_serving(wrong), None);
        }
    }
}
