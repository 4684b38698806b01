//! Serves POST /inject. Every part is bounded: connections, the head, the body's length and time, the whole (`crate::listen`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use outrigger_certs::NamedAcceptor;
use outrigger_inject::{Decision, Settings as InjectSettings, decide};
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::events::{Events, Happened};
use super::facts::{Namespaces, owner};
use super::figures::Figures;
use super::review::{Review, in_words, is_surprising};
use crate::listen::{self, Limits, Tls};

/// Everything an answer is made from.
pub(super) struct Desk {
    pub(super) namespaces: Namespaces,
    pub(super) inject: InjectSettings,
    pub(super) events: Events,
    pub(super) figures: Arc<Figures>,
}

const BODY: Duration = Duration::from_secs(5);
/// The API server takes objects of three megabytes; a review has one, at most two.
const MOST_BYTES: usize = 8 * 1024 * 1024;
const LIMITS: Limits = Limits {
    of: "the webhook",
    connections: 256,
    head: Duration::from_secs(5),
    body: BODY,
    // The API server keeps its connections; it makes new ones when they end.
    life: Duration::from_mins(10),
};

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, tls: NamedAcceptor, desk: Arc<Desk>) {
    let answer = move |request: Request<Body>| {
        let desk = Arc::clone(&desk);
        async move { desk.answer(request).await }
    };
    listen::serve(listener, Tls::Named(tls), Router::new().fallback(answer), LIMITS, std::future::pending())
        .await;
}

impl Desk {
    async fn answer(&self, request: Request<Body>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/inject" {
            return text(StatusCode::NOT_FOUND, "there is POST /inject, and nothing else\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview\n");
        }
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.and_then(|kind| kind.split(';').next()).map(str::trim) != Some("application/json") {
            return self.bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json");
        }
        let body = Limited::new(request.into_body(), MOST_BYTES).collect();
        let body = match timeout(BODY, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) if e.is::<LengthLimitError>() => {
                return self.bad(StatusCode::PAYLOAD_TOO_LARGE, "more than 8 MiB are not read");
            }
            Ok(Err(_)) => return self.bad(StatusCode::BAD_REQUEST, "the body was cut short"),
            Err(_late) => return self.bad(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        };
        match Review::read(&body) {
            Ok(review) => json(&self.decide(&review).await),
            Err(why) => self.bad(StatusCode::BAD_REQUEST, &why),
        }
    }

    async fn decide(&self, review: &Review) -> Json {
        if !review.pod_is_made {
            let skip = Review::unsupported();
            self.figures.skipped(skip.reason);
            return review.answer(&Decision::Skip(skip));
        }
        let facts = match self.namespaces.facts(&review.namespace).await {
            Ok(facts) => facts,
            Err(why) => {
                self.figures.failed.fetch_add(1, Relaxed);
                tracing::warn!(namespace = review.namespace, why, "nothing can be decided over a pod");
                return review.not_now(&why);
            }
        };
        let decision = decide(&review.object, &facts, &self.inject);
        self.count(&decision);
        if !review.dry_run {
            self.tell(review, &decision);
        }
        review.answer(&decision)
    }

    fn count(&self, decision: &Decision) {
        let counter = match decision {
            Decision::Inject(injection) if injection.patch().is_empty() => &self.figures.unchanged,
            Decision::Inject(_) => &self.figures.injected,
            Decision::Refuse(_) => &self.figures.refused,
            Decision::Skip(skip) => return self.figures.skipped(skip.reason),
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Tells the owner, and the log.
    fn tell(&self, review: &Review, decision: &Decision) {
        let (reason, message) = match decision {
            Decision::Refuse(problems) => ("OutriggerRefused", in_words(problems)),
            Decision::Skip(skip) if is_surprising(skip.reason) => {
                ("OutriggerSkipped", format!("the pod does not become a member of the mesh: {skip}"))
            }
            Decision::Skip(_) | Decision::Inject(_) => return,
        };
        let namespace = review.namespace.as_str();
        tracing::info!(namespace, uid = review.uid, reason, message, "a pod does not become a member");
        if let Some(owner) = owner(&review.object, namespace) {
            self.events.tell(Happened { owner, reason, message });
        }
    }

    fn bad(&self, status: StatusCode, why: &str) -> Response<Full<Bytes>> {
        self.figures.bad.fetch_add(1, Relaxed);
        text(status, &format!("{why}\n"))
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn json(body: &Json) -> Response<Full<Bytes>> {
    answer(StatusCode::OK, "application/json", body.to_string())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
