//! Copies of requests, whose answers nobody waits for (HTTPRequestMirrorFilter of the Gateway API). A copy never makes the
//! request wait, is tried once, says nothing to breakers, and does not belong to the caller's trace. It is sent when the
//! request's body has come to its end, whether or not the request is answered by then, with the body as it was kept; a
//! longer one is not copied, and neither is one that has not come to its end when the request has.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use http_body_util::BodyExt;
use outrigger_mesh::{Between, Fraction, Mirror, Port, Protocol, ServiceName, TokenTravel};
use tokio::time::timeout;

use super::Counts;
use super::counts::Mirrored;
use crate::attempt::send::{Kept, Outgoing, Ready, Speak, send};
use crate::config::routes::{Resolve, RoutePlan};
use crate::error::Error;
use crate::http::body::{Replay, RequestBody};
use crate::http::glance::Glance;
use crate::http::headers;
use crate::live::LiveService;
use crate::request::affinity::Affinity;
use crate::request::choose::{Aim, Chosen, choose, port_of};
use crate::request::decided::Decided;
use crate::request::places;
use crate::request::told::told_of;
use crate::token::{Verified, carry};
use crate::worker::Worker;

/// Who gets copies.
#[derive(Debug)]
pub struct MirrorPlan {
    /// `None`: the service whose route it is.
    service: Option<Arc<LiveService>>,
    plan: RoutePlan,
    port: Option<outrigger_mesh::PortNumber>,
    share: Fraction,
}

impl MirrorPlan {
    pub(super) fn new(mirror: &Mirror, own: Option<&ServiceName>, resolve: &mut Resolve<'_>) -> Self {
        let Mirror { service, version, port, share } = mirror;
        let service = (own != Some(service)).then(|| resolve(service));
        Self { service, plan: RoutePlan::of_version(version.clone()), port: *port, share: *share }
    }

    /// Whether this request is among those that are copied.
    pub(super) fn is_drawn(&self) -> bool {
        self.share.takes(fastrand::u64(..))
    }
}

/// The copies of one request, until they are sent.
#[derive(Debug)]
pub struct Copies {
    to: Vec<Arc<MirrorPlan>>,
    head: Kept,
    own: Arc<LiveService>,
    port: Port,
    grpc: bool,
    token: Option<Arc<Verified>>,
}

impl Copies {
    /// The copies that are made of a request for `own`, if there are any. `token`: of the request for whose sake it is made.
    pub fn of<'a>(
        to: impl Iterator<Item = &'a Arc<MirrorPlan>>,
        head: &Outgoing,
        (own, port): (&Arc<LiveService>, Port),
        grpc: bool,
        token: Option<&Arc<Verified>>,
    ) -> Option<Box<Self>> {
        let to: Vec<_> = to.cloned().collect();
        if to.is_empty() || head.upgrade.is_some() {
            return None;
        }
        let (own, token) = (Arc::clone(own), token.cloned());
        Some(Box::new(Self { to, head: head.keep(), own, port, grpc, token }))
    }

    /// Sends them as soon as the body has come to its end, while `work`, the request itself, goes on and goes first.
    pub async fn beside<T>(self, worker: &Worker, body: Option<&Replay>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => body.map_or(Poll::Ready(()), |body| body.poll_end(cx)).map(|()| None),
        });
        let done = done.await;
        self.send(worker, body);
        match done {
            Some(done) => done,
            None => work.await,
        }
    }

    /// Sends them, with what came of the request's body by now.
    fn send(self, worker: &Worker, body: Option<&Replay>) {
        let counts = &worker.shared.live.filters;
        let body = match body.map(Replay::whole) {
            None => None,
            Some(Some(whole)) => Some(whole),
            Some(None) => return self.to.iter().for_each(|_| counts.mirrored(Mirrored::TooLarge)),
        };
        let Some(worker) = worker.me() else { return };
        let Self { to, head, own, port, grpc, token } = self;
        let mut head = head.again();
        for name in APART {
            head.headers.remove(name);
        }
        // It is no part of the caller's trace, nor of what was decided on that.
        head.seen = head.seen.without(Glance::UNTRACED);
        head.headers.insert(headers::MIRROR, HeaderValue::from_static("1"));
        for mirror in to {
            if counts.copies.fetch_add(1, Relaxed) >= MOST {
                counts.copies.fetch_sub(1, Relaxed);
                counts.mirrored(Mirrored::TooMany);
                continue;
            }
            let copy = Copy { head: head.keep().again(), body: body.clone(), grpc, token: token.clone() };
            let (worker, own) = (Rc::clone(&worker), Arc::clone(&own));
            // Ends by itself in time, or with the worker.
            tokio::task::spawn_local(async move {
                let counts: &Counts = &worker.shared.live.filters;
                let sent = timeout(LONGEST, copy.send(&worker, &mirror, &own, port)).await;
                counts.mirrored(if matches!(sent, Ok(Ok(()))) {
                    Mirrored::Answered
                } else {
                    Mirrored::Failed
                });
                counts.copies.fetch_sub(1, Relaxed);
            });
        }
    }
}

/// One copy on its way.
struct Copy {
    head: Outgoing,
    body: Option<Bytes>,
    grpc: bool,
    token: Option<Arc<Verified>>,
}

impl Copy {
    async fn send(
        mut self,
        worker: &Worker,
        mirror: &MirrorPlan,
        own: &Arc<LiveService>,
        meant: Port,
    ) -> Result<(), Error> {
        let service = mirror.service.as_ref().unwrap_or(own);
        told_of(worker, service).await;
        let unknown = || Error::refused(outrigger_mesh::Reason::UnknownService, "the mirror is not known");
        let snapshot = service.snapshot.load_full().ok_or_else(unknown)?;
        let port = port_of(&snapshot.service, mirror.port, meant)?;
        let of_this = Decided::of_connection(&mirror.plan, &snapshot, None);
        let (plan, instance, affinity) = (&mirror.plan, None, &Affinity::NONE);
        let aim = Aim { service, snapshot: &snapshot, plan, port, instance, decided: &of_this, affinity };
        let chosen = choose(worker, aim, fastrand::u64(..), &[]).await?;
        // What was let through comes back unused: a copy is no evidence.
        drop((chosen.pass.take(), chosen.watched.take()));
        let _room =
            places::at_endpoint(&chosen.place.endpoint).ok_or_else(|| places::endpoints_full(service))?;
        let (mesh, known) = (chosen.place.secured.is_mesh(), &worker.shared.live.tokens);
        // A narrowed token is made for the service that the caller means, and for nobody else.
        let travel = if matches!(chosen.travel, TokenTravel::Exchange { .. }) {
            TokenTravel::Strip
        } else {
            chosen.travel
        };
        carry::outgoing(known, travel, mesh, self.token.as_ref(), &mut self.head.headers);
        let speak = speak(&chosen, self.grpc);
        let body = self.body.map_or(RequestBody::Empty, RequestBody::Text);
        let ready = Ready::new(&chosen.place, speak, self.head, body)?;
        let (answer, mut exchange) = send(&worker.mesh, &chosen.place, speak, ready).await?;
        let mut rest = answer.into_body();
        while let Some(frame) = rest.frame().await {
            if frame.is_err() {
                // Without a word to the breaker of the endpoint.
                return Ok(());
            }
        }
        exchange.finish();
        Ok(())
    }
}

fn speak(chosen: &Chosen, grpc: bool) -> Speak {
    let between = chosen.between == Between::Http2;
    let http2 = matches!(chosen.port.protocol, Protocol::Http2 | Protocol::Grpc);
    let mesh = chosen.place.secured.is_mesh();
    if grpc || (mesh && between) || (!mesh && http2) { Speak::Http2 } else { Speak::Http1 }
}

/// What a copy does not have: it is no part of the caller's trace, and nobody sends it a word before its body.
const APART: [HeaderName; 4] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("b3"),
    header::EXPECT,
];
/// Copies under way in the whole process.
const MOST: usize = 128;
/// How long one may take.
const LONGEST: Duration = Duration::from_secs(15);
