//! What a route does to a request besides choosing where it goes: the filters of [`outrigger_mesh::Filters`], in the order
//! in which they stand there. A route without any pays a branch.
//!
//! [`enter`] comes before anything is asked where the request goes: limits, CORS, faults, answers of the route's own. The
//! changes to its head come when it goes out, those of a backend with each attempt (`request/dispatch.rs`,
//! `request/stack.rs`).

mod cors;
mod counts;
mod faults;
mod limits;
mod mirror;
mod redirect;
mod rewrite;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body::Body;
use outrigger_mesh::{
    Backend, DirectResponse, Filters, HeaderChanges, PortNumber, Reason, Route, ServiceName,
};

pub use cors::Allowed;
pub use counts::Counts;
pub use faults::Broken;
pub use limits::RouteLimits;
pub use mirror::{Copies, MirrorPlan};

use crate::attempt::send::Outgoing;
use crate::config::routes::{Resolve, RoutePlan, Taken};
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::glance::Glance;
use crate::http::headers;
use crate::policy::rate_limit::Limit;
use crate::request::dispatch::Arrived;
use crate::worker::Worker;

/// The filters of one route, arranged.
#[derive(Debug)]
pub struct FilterPlan {
    filters: Filters,
    /// Its rate limits, with buckets that outlive it.
    limits: Vec<Limit>,
    mirrors: Vec<std::sync::Arc<MirrorPlan>>,
    /// What each backend changes in requests and in responses.
    backends: Vec<(HeaderChanges, HeaderChanges)>,
}

/// What became of a request at the filters.
#[derive(Debug)]
pub enum Entered {
    /// It goes on. What its answer tells a browser, where it is one's.
    Goes(Option<Allowed>),
    /// This is the answer.
    Answered(Box<Response<ResponseBody>>),
}

impl FilterPlan {
    /// The filters of `route`, if it has any. `own`: the service whose route it is.
    pub fn of(route: &Route, own: Option<&ServiceName>, resolve: &mut Resolve<'_>) -> Option<Box<Self>> {
        let of_backend = |b: &Backend| (sound(&b.request), sound(&b.response));
        let backends: Vec<_> = route.backends.iter().map(of_backend).collect();
        let changes = backends.iter().any(|(request, response)| !request.is_empty() || !response.is_empty());
        if route.filters.is_empty() && !changes {
            return None;
        }
        let mirror = |mirror| std::sync::Arc::new(MirrorPlan::new(mirror, own, resolve));
        let mirrors = route.filters.mirrors.iter().map(mirror).collect();
        let (request, response) = (sound(&route.filters.request), sound(&route.filters.response));
        let filters = Filters { request, response, ..route.filters.clone() };
        Some(Box::new(Self { filters, limits: vec![], mirrors, backends }))
    }

    /// Takes the buckets of its rate limits from those that outlive it.
    pub fn keep_buckets(&mut self, route: &str, all: &RouteLimits) {
        self.limits = all.of(route, &self.filters.rate_limits);
    }

    /// Whether it asks for the prefix by which a request was matched.
    pub fn asks_for_prefix(&self) -> bool {
        let redirect = self.filters.redirect.as_ref().and_then(|r| r.path.as_ref());
        let path = redirect.or_else(|| self.filters.rewrite.as_ref()?.path.as_ref());
        matches!(path, Some(outrigger_mesh::PathChange::Prefix(_)))
    }

    /// The longest body that it takes, where the service takes `most`.
    pub fn max_body(&self, most: Option<u64>) -> Option<u64> {
        [self.filters.max_body, most].into_iter().flatten().min()
    }

    /// Changes the head of a request that was matched by `prefix`.
    pub fn change(&self, head: &mut Outgoing, prefix: Option<&str>) {
        if !self.filters.request.is_empty() {
            self.filters.request.apply(&mut head.headers);
            head.seen = Glance::at(&head.headers);
        }
        if let Some(rewrite) = &self.filters.rewrite {
            rewrite::apply(rewrite, head, prefix);
        }
    }

    /// Changes the head of an attempt at the backend of this place.
    pub fn change_for(&self, backend: Option<usize>, head: &mut Outgoing) {
        let changes = backend.and_then(|at| self.backends.get(at)).map(|(request, _)| request);
        if let Some(changes) = changes.filter(|changes| !changes.is_empty()) {
            changes.apply(&mut head.headers);
            head.seen = Glance::at(&head.headers);
        }
    }

    /// Changes the head of the answer of the backend of this place.
    pub fn change_answer(&self, backend: Option<usize>, headers: &mut HeaderMap) {
        if let Some((_, changes)) = backend.and_then(|at| self.backends.get(at)) {
            changes.apply(headers);
        }
        self.filters.response.apply(headers);
    }

    /// Whether any request is copied.
    pub fn has_mirrors(&self) -> bool {
        !self.mirrors.is_empty()
    }

    /// Who gets a copy of this request.
    pub fn mirrors(&self) -> impl Iterator<Item = &std::sync::Arc<MirrorPlan>> {
        self.mirrors.iter().filter(|mirror| mirror.is_drawn())
    }
}

/// Brings a request, which came to `port`, before the filters of the route that it took.
pub async fn enter(
    worker: &Worker,
    taken: &Taken,
    plan: &FilterPlan,
    arrived: &mut Arrived,
    port: PortNumber,
) -> Result<Entered, Error> {
    if plan.filters.max_body.is_some_and(|most| arrived.incoming.size_hint().lower() > most) {
        return Err(Error::downstream(Reason::PayloadTooLarge, "the body is longer than the route takes"));
    }
    let live = &worker.shared.live;
    limits::check(&plan.limits, arrived.head(live))?;
    let allowed = match &plan.filters.cors {
        None => None,
        Some(cors) => match cors::judge(cors, &arrived.parts) {
            cors::Asked::Preflight(answer) => return Ok(Entered::Answered(answer)),
            cors::Asked::Request(allowed) => Some(allowed),
        },
    };
    let outcome = answer_here(worker, &taken.plan, taken.prefix.as_deref(), plan, arrived, port).await;
    let answered = |answer| Entered::Answered(Box::new(answer));
    match (outcome.transpose(), allowed) {
        (None, allowed) => Ok(Entered::Goes(allowed)),
        (Some(outcome), Some(allowed)) => allowed.tell(outcome).map(answered),
        (Some(outcome), None) => outcome.map(answered),
    }
}

/// Faults and the answers of the route's own.
async fn answer_here(
    worker: &Worker,
    route: &RoutePlan,
    prefix: Option<&str>,
    plan: &FilterPlan,
    arrived: &mut Arrived,
    port: PortNumber,
) -> Result<Option<Response<ResponseBody>>, Error> {
    let live = &worker.shared.live;
    if !plan.filters.faults.is_empty()
        && let Some(fault) = faults::drawn(&plan.filters.faults, &arrived.head(live))
    {
        let grpc = headers::is_grpc(&arrived.parts.headers);
        if let Some(answer) =
            faults::happen(fault, &route.timeouts, &arrived.sake, grpc, &live.filters).await?
        {
            return Ok(Some(answer));
        }
    }
    if let Some(redirect) = &plan.filters.redirect {
        return redirect::answer(redirect, arrived, prefix, port).map(Some);
    }
    Ok(plan.filters.direct.as_ref().map(direct))
}

fn direct(direct: &DirectResponse) -> Response<ResponseBody> {
    let body = if direct.body.is_empty() {
        ResponseBody::Empty
    } else {
        ResponseBody::Text(Bytes::copy_from_slice(&direct.body))
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(direct.status).unwrap_or(StatusCode::OK);
    for (name, value) in &direct.headers {
        if !is_framing(name) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

/// The changes without those of which no message may be: what frames it, and what only the mesh says. Whoever checks
/// resources refuses them; here they are not made.
fn sound(changes: &HeaderChanges) -> HeaderChanges {
    let keep = |all: &[(HeaderName, http::HeaderValue)]| {
        all.iter().filter(|(name, _)| !is_framing(name)).cloned().collect()
    };
    let remove = changes.remove.iter().filter(|name| !is_framing(name)).cloned().collect();
    HeaderChanges { remove, set: keep(&changes.set), add: keep(&changes.add) }
}

fn is_framing(name: &HeaderName) -> bool {
    const FRAMING: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    FRAMING.contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
        || name.as_str().starts_with("x-outrigger-")
}
