//! Sending one request to one endpoint and waiting for the head of the answer.

use std::rc::Rc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use outrigger_mesh::Reason;

use crate::attempt::exchange::Exchange;
use crate::attempt::place::{Place, Secured};
use crate::attempt::pool::{Pool, Sender};
use crate::error::Error;
use crate::http::body::RequestBody;
use crate::http::expect::Gate;
use crate::http::glance::Glance;
use crate::http::headers;
use crate::http::upgrade::Wanted;
use crate::request::trace_context::{self, Context};

/// The protocol of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The head of a request in a form that both protocols are made from.
#[derive(Debug)]
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Its canonical path with its query.
    pub target: PathAndQuery,
    /// Whom it names, where that was not in Host.
    pub authority: Option<Authority>,
    /// Its headers, cleaned. Host is there unless the authority is.
    pub headers: HeaderMap,
    /// Which of them it came with.
    pub seen: Glance,
    /// What the connection shall become, where it is an upgrade.
    pub upgrade: Option<Rc<Wanted>>,
    /// How HTTP/1 spelled its headers, where that is kept.
    pub spelling: Extensions,
}

/// What is kept of a head that is sent, to begin another attempt with. Seldom needed, so it is only what it takes to make
/// the head again: the map itself goes, since it has room for what is added, and for the head of the answer, which hyper
/// reads into it.
#[derive(Debug)]
pub struct Kept {
    method: Method,
    target: PathAndQuery,
    authority: Option<Authority>,
    headers: Vec<(HeaderName, HeaderValue)>,
    seen: Glance,
    upgrade: Option<Rc<Wanted>>,
    spelling: Extensions,
}

impl Kept {
    /// The head as it was.
    pub fn again(self) -> Outgoing {
        let Self { method, target, authority, headers, seen, upgrade, spelling } = self;
        let mut all = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            all.append(name, value);
        }
        Outgoing { method, target, authority, headers: all, seen, upgrade, spelling }
    }
}

impl Outgoing {
    /// What it takes to make it again.
    pub fn keep(&self) -> Kept {
        let mut headers = Vec::with_capacity(self.headers.len());
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Kept {
            method: self.method.clone(),
            target: self.target.clone(),
            authority: self.authority.clone(),
            headers,
            seen: self.seen,
            upgrade: self.upgrade.clone(),
            spelling: self.spelling.clone(),
        }
    }

    /// The request in `speak`, as it is sent to `place`.
    fn request(
        mut self,
        speak: Speak,
        body: RequestBody,
        place: &Place,
    ) -> Result<Request<RequestBody>, Error> {
        let mut all = self.headers;
        if self.seen.saw(Glance::UNTRACED) {
            say_untraced(&mut all, place.secured.is_mesh());
        }
        frame(speak, &self.method, &mut all, self.seen, &body);
        let mut request = Request::new(body);
        *request.extensions_mut() = self.spelling;
        let mut uri = http::uri::Parts::default();
        if let Some(upgrade) = self.upgrade {
            upgrade.write(
                speak,
                place.secured.is_mesh(),
                &mut self.method,
                &mut all,
                request.extensions_mut(),
            );
        }
        match speak {
            Speak::Http1 => {
                if let Some(authority) = self.authority {
                    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad_host())?;
                    all.insert(header::HOST, host);
                }
                if self.seen.saw(Glance::COOKIE) {
                    headers::join_cookies(&mut all);
                }
            }
            Speak::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                let host = all.remove(header::HOST);
                let authority = match (self.authority, host) {
                    (Some(authority), _) => authority,
                    (None, Some(host)) => Authority::try_from(host.as_bytes()).map_err(|_| bad_host())?,
                    (None, None) => return Err(bad_host()),
                };
                let outside = matches!(place.secured, Secured::Outside(_));
                uri.scheme = Some(if outside { Scheme::HTTPS } else { Scheme::HTTP });
                uri.authority = Some(authority);
            }
        }
        uri.path_and_query = Some(self.target);
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| bad_host())?;
        if speak == Speak::Http1 && self.seen.saw(Glance::BODY) && all.contains_key(header::EXPECT) {
            let gate = Gate::before(&mut request);
            request.body_mut().wait(gate);
        }
        *request.method_mut() = self.method;
        *request.headers_mut() = all;
        Ok(request)
    }
}

/// Says that no trace is kept: to a sidecar in a word, to others by a context that is not sampled.
fn say_untraced(all: &mut HeaderMap, mesh: bool) {
    if mesh {
        all.insert(headers::UNTRACED, HeaderValue::from_static("1"));
    } else {
        trace_context::write(all, &Context::begun(false));
    }
}

/// Writes the framing anew: what the caller said of it is gone, what the body is counts. A length that is known, and what
/// HTTP/2 says, are written by hyper.
fn frame(speak: Speak, method: &Method, headers: &mut HeaderMap, seen: Glance, body: &RequestBody) {
    let said = if seen.saw(Glance::BODY) { headers.remove(header::CONTENT_LENGTH) } else { None };
    if speak == Speak::Http2 {
        return;
    }
    if body.is_end_stream() {
        if said.is_some() || [Method::POST, Method::PUT, Method::PATCH].contains(method) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if body.size_hint().exact().is_none() {
        // Else hyper takes a GET for one without a body.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn bad_host() -> Error {
    Error::downstream(Reason::BadRequest, "the host can not be written as an authority")
}

/// The head of an answer; its body goes with the exchange.
pub type Answer = (Response<Incoming>, Exchange);

/// A request that is about to be sent to a place. Its exchange has begun, so that waiting for a connection counts as load of
/// the endpoint.
#[derive(Debug)]
pub struct Ready {
    exchange: Exchange,
    upgrade: Option<Rc<Wanted>>,
    request: Request<RequestBody>,
}

impl Ready {
    /// Ready for `place`, in `speak`.
    pub fn new(place: &Place, speak: Speak, head: Outgoing, body: RequestBody) -> Result<Self, Error> {
        let exchange = Exchange::begin(std::sync::Arc::clone(&place.endpoint), body.upload());
        let upgrade = head.upgrade.clone();
        let request = head.request(speak, body, place)?;
        Ok(Self { exchange, upgrade, request })
    }
}

/// Sends a request to the `place` for which it was made ready.
///
/// An idle connection that died unnoticed gives the request back unwritten; that is no attempt, and another connection
/// gets it.
#[allow(
    clippy::manual_async_fn,
    clippy::inline_always,
    reason = "an async fn keeps what it is given twice; not inlined, it is copied twice"
)]
#[inline(always)]
pub fn send(
    pool: &Pool,
    place: &Place,
    speak: Speak,
    Ready { mut exchange, upgrade, mut request }: Ready,
) -> impl Future<Output = Result<Answer, Error>> {
    async move {
        loop {
            let mut lease = match speak {
                Speak::Http1 => pool.http1(place).await?,
                Speak::Http2 => pool.http2(place).await?,
            };
            let reused = lease.is_reused();
            let mut inherits = None;
            let sent = match lease.sender() {
                Sender::H1(sender) => match sender.ready().await {
                    Err(_) if reused => continue,
                    Err(e) => return Err(Error::not_sent(Reason::UpstreamReset, e.to_string())),
                    Ok(()) => {
                        inherits = upgrade.is_some().then(|| sender.inherit());
                        sender.try_send_request(request, upgrade.is_some()).await
                    }
                },
                Sender::H2(mut sender) => sender.try_send_request(request).await,
            };
            match sent {
                // The guard sees to it on HTTP/1.
                Ok(response) if response.status().as_u16() >= 600 => {
                    let why = "the answer's status is outside 100 to 599";
                    return Err(Error::upstream(Reason::UpstreamReset, why));
                }
                Ok(mut response) => {
                    if let Some(upgrade) = &upgrade {
                        // Boxed: rare, and no part of every other request's future.
                        let switched = Box::pin(upgrade.switched(speak, &mut response, inherits)).await?;
                        if let Some(stream) = switched {
                            exchange.hold_switched(stream);
                            if speak == Speak::Http1 {
                                // Its place in the pool is free: it never comes back.
                                return Ok((response, exchange));
                            }
                        }
                    }
                    exchange.hold(lease);
                    return Ok((response, exchange));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if reused => request = unsent,
                    Some(_) => {
                        return Err(Error::not_sent(Reason::UpstreamReset, failed.error().to_string()));
                    }
                    None if exchange.caller_is_silent() => {
                        return Err(Error::downstream(Reason::TimeoutIdle, "the caller stopped sending"));
                    }
                    None => return Err(classify(failed.error())),
                },
            }
        }
    }
}

/// What a failure after sending means. Only HTTP/2 can say that a request was not looked at.
fn classify(error: &hyper::Error) -> Error {
    let text = describe(error);
    if is_unprocessed(error) {
        Error::not_sent(Reason::UpstreamReset, text)
    } else {
        Error::upstream(Reason::UpstreamReset, text)
    }
}

fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            // A graceful GOAWAY fails only streams above its last id: those the peer has not looked at.
            let beyond = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            return h2.is_remote() && (refused || beyond);
        }
        source = cause.source();
    }
    false
}

fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
