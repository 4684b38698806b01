//! A request whose route is known is made ready for its attempts: what it may ask of the service, its headers, its
//! deadline, its body. The same for the application's requests and for those that come to a gateway.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderValue, Response, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use outrigger_mesh::{
    Between, Port, PortNumber, Reason, RequestHead, ServiceName, Source, SpiffeId, Timeouts,
};

use crate::attempt::send::Outgoing;
use crate::config::routes::{Asks, RoutePlan, Taken};
use crate::config::snapshot::ServiceSnapshot;
use crate::error::Error;
use crate::filter::{self, Allowed, Copies, FilterPlan};
use crate::http::body::{Replay, ResponseBody};
use crate::http::glance::Glance;
use crate::http::headers;
use crate::http::upgrade::{Wanted, Wish};
use crate::live::{Live, LiveService};
use crate::request::affinity::Affinity;
use crate::request::deadline::Deadline;
use crate::request::decided::Decided;
use crate::request::fallback::{self, Entered, Watch};
use crate::request::handle::Sake;
use crate::request::places::Places;
use crate::request::retry::Nature;
use crate::request::stack::{self, Call};
use crate::request::told::{awaits, told};
use crate::telemetry::metrics::requests::{Parties, Series, Timed};
use crate::telemetry::observe::Note;
use crate::token::{Verified, carry};
use crate::worker::Worker;

/// A request as it came, without what only the mesh may say.
pub struct Arrived {
    /// Its head.
    pub parts: Parts,
    /// Which headers it has.
    pub seen: Glance,
    /// Its body.
    pub incoming: Incoming,
    /// Its canonical path and its query.
    pub target: PathAndQuery,
    /// The upgrade it asks for, if it does.
    pub wish: Option<Wish>,
    /// Where it came from, where that tells callers apart: at a gateway.
    pub from: Option<IpAddr>,
    /// Whether it came over TLS, at a gateway.
    pub tls: bool,
    /// For whose sake it is made.
    pub sake: Sake,
    /// The verified token by which it is routed, where anybody asks for one.
    pub token: Option<Arc<Verified>>,
    /// Whose sidecar or gateway routes it, where anybody asks for that.
    pub who: Option<Arc<SpiffeId>>,
    /// When and how it came.
    pub arrival: Timed,
    /// Of the access log.
    pub note: Option<Rc<Note>>,
}

impl Arrived {
    /// Looks up what is asked for beyond its head, unless that was done already.
    pub fn learn(&mut self, live: &Live, asks: Asks) {
        if asks.claims && self.token.is_none() {
            self.token = carry::claims(&live.tokens, self.sake.token.as_ref(), &self.parts.headers);
        }
        if asks.source && self.who.is_none() {
            self.who = live.identity();
        }
    }

    /// It goes by this route, whatever becomes of it there.
    fn takes(&mut self, plan: &RoutePlan) {
        if let Some(note) = &self.note {
            note.by(plan.name.as_ref(), plan.traced, &mut self.parts.headers);
        }
    }

    /// What routes look at, as far as it was looked up.
    pub fn head<'a>(&'a self, live: &'a Live) -> RequestHead<'a> {
        RequestHead {
            method: &self.parts.method,
            path: self.target.path(),
            query: self.target.query(),
            headers: &self.parts.headers,
            claims: carry::of(self.token.as_ref()),
            source: Source { identity: self.who.as_deref(), labels: live.labels(), address: self.from },
        }
    }
}

/// Where it goes.
pub struct Routed {
    /// The service whose policies hold.
    pub service: Arc<LiveService>,
    /// That service at this moment.
    pub snapshot: Arc<ServiceSnapshot>,
    /// The route.
    pub plan: Arc<RoutePlan>,
    /// The prefix by which it was matched, where the route asks for that.
    pub prefix: Option<Box<str>>,
    /// The port that is meant.
    pub port: Port,
    /// The one instance it is for, if it was sent to the address of one.
    pub instance: Option<SocketAddr>,
}

/// Answers a request that came to `port` and took a route: by its filters, for which the `service` is counted that it would
/// have gone to, or by what comes of it where it goes, which `find` finds.
///
/// What gets a request as a whole is no async fn: that would keep it twice, as it came and as it is used. And it is inlined: a
/// future that is made elsewhere is copied, with all the room it has for what it awaits.
#[allow(
    clippy::manual_async_fn,
    clippy::inline_always,
    reason = "an async fn keeps what it is given twice; not inlined, it is copied twice"
)]
#[inline(always)]
pub fn send(
    worker: &Worker,
    mut arrived: Arrived,
    taken: Taken,
    port: PortNumber,
    service: Option<&ServiceName>,
    find: impl AsyncFnOnce(&mut Arrived, Taken) -> Result<Routed, Error>,
) -> impl Future<Output = Result<Response<ResponseBody>, Error>> {
    async move {
        let live = &worker.shared.live;
        arrived.takes(&taken.plan);
        let allowed = match filtered(worker, &taken, &mut arrived, (port, service)).await? {
            filter::Entered::Goes(allowed) => allowed,
            filter::Entered::Answered(answer) => return Ok(*answer),
        };
        let routed = find(&mut arrived, taken).await;
        let entered = routed.and_then(|routed| fallback::enter(routed, &mut arrived, live));
        let (routed, watch) = match entered {
            Ok(Entered::Goes(routed, watch)) => (routed, watch),
            // Boxed: it is rare.
            Ok(Entered::Elsewhere(routed, watch)) => {
                return tell(allowed, Box::pin(instead(worker, arrived, routed, watch)).await);
            }
            Ok(Entered::Answered(answer)) => return tell(allowed, Ok(*answer)),
            Err(error) => return tell(allowed, Err(error)),
        };
        let ready = match known(worker, &arrived, &routed).await.and_then(|()| ready(live, arrived, routed)) {
            Ok(ready) => ready,
            Err(error) => return tell(allowed, Err(error)),
        };
        tell(allowed, go(worker, ready, watch).await)
    }
}

/// Sends a request to the service that stands in: its route there is met whole, like that of any other request.
async fn instead(
    worker: &Worker,
    mut arrived: Arrived,
    routed: Routed,
    watch: Watch,
) -> Result<Response<ResponseBody>, Error> {
    let taken = Taken { plan: Arc::clone(&routed.plan), prefix: routed.prefix.clone() };
    arrived.takes(&taken.plan);
    let to = (routed.port.number, Some(&routed.service.name));
    match filtered(worker, &taken, &mut arrived, to).await? {
        filter::Entered::Goes(allowed) => {
            let live = &worker.shared.live;
            match known(worker, &arrived, &routed).await.and_then(|()| ready(live, arrived, routed)) {
                Ok(ready) => tell(allowed, go(worker, ready, watch).await),
                Err(error) => tell(allowed, Err(error)),
            }
        }
        filter::Entered::Answered(answer) => Ok(*answer),
    }
}

/// Counts a request that is answered without anybody being asked.
pub(super) fn answered_here(
    live: &Live,
    arrived: &Arrived,
    service: Option<&ServiceName>,
    plan: &RoutePlan,
    answer: &Response<ResponseBody>,
) {
    arrived.arrival.refused(&counts_here(live, service, plan), answer);
}

/// What the filters of a route refuse is counted for it, like what they answer.
fn counted_here(live: &Live, error: Error, service: Option<&ServiceName>, plan: &RoutePlan) -> Error {
    let counts = error.counts.unwrap_or_else(|| counts_here(live, service, plan));
    Error { counts: Some(counts), ..error }
}

fn counts_here(live: &Live, service: Option<&ServiceName>, plan: &RoutePlan) -> Arc<Series> {
    let find = |who: Parties<'_>| plan.requests.to(&live.requests, who);
    live.client_requests(service, None, plan.name.as_ref(), find)
}

/// Brings a request before the filters of the route that it took. What they answer or refuse is counted for the service.
async fn filtered(
    worker: &Worker,
    taken: &Taken,
    arrived: &mut Arrived,
    (port, service): (PortNumber, Option<&ServiceName>),
) -> Result<filter::Entered, Error> {
    let Some(filters) = &taken.plan.filters else { return Ok(filter::Entered::Goes(None)) };
    // Boxed: only routes with filters pay for it.
    Box::pin(async move {
        let live = &worker.shared.live;
        match filter::enter(worker, taken, filters, arrived, port).await {
            Ok(filter::Entered::Answered(answer)) => {
                answered_here(live, arrived, service, &taken.plan, &answer);
                Ok(filter::Entered::Answered(answer))
            }
            Ok(goes @ filter::Entered::Goes(_)) => Ok(goes),
            Err(error) => Err(counted_here(live, error, service, &taken.plan)),
        }
    })
    .await
}

fn tell(
    allowed: Option<Allowed>,
    outcome: Result<Response<ResponseBody>, Error>,
) -> Result<Response<ResponseBody>, Error> {
    match allowed {
        None => outcome,
        Some(allowed) => allowed.tell(outcome),
    }
}

/// Waits until the targets of a route are known, a little, where nothing is known of one yet.
async fn known(worker: &Worker, arrived: &Arrived, routed: &Routed) -> Result<(), Error> {
    if !awaits(&routed.plan) {
        return Ok(());
    }
    // Boxed: it happens once for each service.
    arrived.sake.wait(Box::pin(told(worker, &routed.plan)).as_mut()).await
}

/// Sends a request where it goes, and answers with what came of it.
#[allow(
    clippy::manual_async_fn,
    clippy::inline_always,
    reason = "an async fn keeps what it is given twice; not inlined, it is copied twice"
)]
#[inline(always)]
fn go(
    worker: &Worker,
    Ready { mut call, head, copies }: Ready,
    watch: Watch,
) -> impl Future<Output = Result<Response<ResponseBody>, Error>> {
    async move {
        let (grpc, upload) = (call.nature.grpc, call.body.clone());
        let mut places = enter(&call).await?;
        let outcome = {
            let work = pin!(stack::run(worker, &mut call, head));
            let work = pin!(places.around(grpc, work));
            match copies {
                None => work.await,
                // Boxed: few requests have copies.
                Some(copies) => Box::pin(copies.beside(worker, upload.as_ref(), work)).await,
            }
        };
        let mut outcome = outcome.map_err(|error| Replay::explain(upload.as_ref(), error));
        watch.leave(grpc, &mut outcome);
        places.go_with(outcome?)
    }
}

/// Takes the places that a request needs before its first attempt.
async fn enter(call: &Call) -> Result<Places, Error> {
    let until = || call.deadline.whole(call.body.as_ref());
    let entered = Places::enter(&call.service, &call.plan, until, call.asked.is_some()).await;
    entered.inspect_err(|_| call.service.traffic.record(false, call.arrival.began.elapsed()))
}

/// A request that is ready for its attempts.
struct Ready {
    call: Call,
    head: Outgoing,
    copies: Option<Box<Copies>>,
}

fn ready(live: &Live, mut arrived: Arrived, routed: Routed) -> Result<Ready, Error> {
    let decided = Decided::of(&routed, &mut arrived, live);
    let affinity = Affinity::of(&routed.plan, &routed.snapshot, &mut arrived, live);
    let Arrived { mut parts, seen, incoming, target, wish, sake, arrival, note, .. } = arrived;
    let Routed { service, snapshot, plan, prefix, port, instance } = routed;
    let filters = plan.filters.as_deref();
    let upgrade = match wish {
        None => None,
        Some(wish) => wish.allowed(&snapshot.service.http, &mut parts)?,
    };
    headers::remove_hop_by_hop(&mut parts.headers);
    let nature = Nature::of(&parts.method, &parts.headers, seen, plan.retry.idempotent);
    let deadline = Deadline::new(&plan.timeouts, nature.grpc, &sake);
    let idle = plan.timeouts.idle.unwrap_or(Timeouts::IDLE);
    let keeps = filters.is_some_and(FilterPlan::has_mirrors);
    let body = (!incoming.is_end_stream()).then(|| Replay::new(incoming, &plan.retry, keeps, idle));
    let most = snapshot.service.http.max_body;
    let most = filters.map_or(most, |filters| filters.max_body(most));
    let body = body.map(|b| b.within(most)).transpose()?;
    let http2 = parts.version == Version::HTTP_2;
    let (asked, wanted) = upgrade.unzip();
    let keep_case = snapshot.service.between == Between::Http1;
    let expects = body.is_some() && seen.saw(Glance::BODY) && parts.headers.contains_key(header::EXPECT);
    let mut head = outgoing(parts, seen, target, wanted, keep_case)?;
    let copies = filters.and_then(|filters| {
        filters.change(&mut head, prefix.as_deref());
        Copies::of(filters.mirrors(), &head, (&service, port), nature.grpc, sake.token.as_ref())
    });
    let call = Call {
        service,
        snapshot,
        plan,
        port,
        instance,
        decided,
        affinity,
        nature,
        http2,
        sake,
        deadline,
        expects,
        body,
        asked,
        arrival,
        note,
    };
    Ok(Ready { call, head, copies })
}

/// The request as every attempt begins with it: an absolute target's authority has taken the place of Host.
fn outgoing(
    mut parts: Parts,
    seen: Glance,
    target: PathAndQuery,
    upgrade: Option<Rc<Wanted>>,
    keep_case: bool,
) -> Result<Outgoing, Error> {
    let uri = std::mem::take(&mut parts.uri).into_parts();
    let mut authority = uri.authority;
    if let Some(named) = authority.take_if(|_| parts.version != Version::HTTP_2) {
        let host = HeaderValue::from_str(named.as_str())
            .map_err(|_| Error::downstream(Reason::BadRequest, "the target's authority is no Host"))?;
        parts.headers.insert(header::HOST, host);
    }
    let spelling = if keep_case { parts.extensions } else { Extensions::new() };
    let (method, headers) = (parts.method, parts.headers);
    Ok(Outgoing { method, target, authority, headers, seen, upgrade, spelling })
}
