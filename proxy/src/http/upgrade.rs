//! Connections that stop being HTTP: Upgrade of HTTP/1.1 (RFC 9110, section 7.8), extended CONNECT of HTTP/2 (RFC 8441),
//! and every way from the one to the other.
//!
//! A caller's wish ([`wish`]) is held against the service's rules ([`Wish::allowed`]) and becomes two values: [`Wanted`]
//! goes with each attempt and is written in the protocol spoken there; [`Asked`] stays and makes the answer in the
//! protocol that the caller speaks. Between them, once the upstream has switched, lies a [`Tunnel`].
//!
//! hyper can hand over connections by itself, but only ones that may move to another thread, which ours never do. So
//! HTTP/1 connections are polled to their end by their owner, which then takes them apart: nothing of it needs `Send`, and
//! a connection that is never upgraded pays nothing. Streams of HTTP/2 are handed over by hyper.
//!
//! Deliberately elsewhere: passing the bytes (`tcp::relay`), and CONNECT to a host and a port (`tcp::connect`), which ends in
//! a [`Tunnel`], too.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use outrigger_mesh::{HttpRules, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::attempt::exchange::Exchange;
use crate::attempt::send::Speak;
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::fuse::{Fuse, Fused};
use crate::http::glance::Glance;
use crate::http::patience::{self, Late};
use crate::http::{headers, websocket};
use crate::request::places::Places;
use crate::tcp::outbound::Upstream;
use crate::tcp::relay::{self, Ahead, End, Flow, Limits};
use crate::telemetry::observe::{BodyEnd, Note};
use crate::telemetry::ports::{Ended, PortStats};

/// What a caller would like its connection to become.
#[derive(Debug)]
pub struct Wish {
    on: OnUpgrade,
    /// What it lists, the most wanted first.
    protocols: Vec<Box<str>>,
    http2: bool,
}

/// Takes a wish out of the head of a request, so that what is left reads as a plain request. An extended CONNECT becomes
/// the method it stands for: GET, or what a sidecar (`from_mesh`) says.
///
/// Upgrades that could not be undone again are none: with a body, and of HTTP/1.0.
pub fn wish(parts: &mut Parts, seen: Glance, no_body: bool, from_mesh: bool) -> Option<Wish> {
    let http2 = parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_some();
    if !http2 && !seen.saw(Glance::UPGRADE) {
        return None;
    }
    let protocols = if http2 {
        let told = parts.headers.remove(headers::METHOD).filter(|_| from_mesh);
        parts.method = told.and_then(|m| Method::from_bytes(m.as_bytes()).ok()).unwrap_or(Method::GET);
        parts.extensions.remove::<Protocol>().iter().map(|p| p.as_str().into()).collect()
    } else {
        let meant =
            lists(&parts.headers, header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
        let protocols: Vec<Box<str>> =
            lists(&parts.headers, header::UPGRADE).take(HttpRules::MAX_UPGRADES).map(Into::into).collect();
        parts.headers.remove(header::UPGRADE);
        // It belongs to an upgrade to h2c, which is never made.
        parts.headers.remove("http2-settings");
        if meant && no_body { protocols } else { Vec::new() }
    };
    let on = parts.extensions.remove::<OnUpgrade>()?;
    Some(Wish { on, protocols, http2 })
}

impl Wish {
    /// What of it `rules` allow. Over HTTP/1.1 the rest of the request stands without it; over HTTP/2 nothing is left.
    pub fn allowed(self, rules: &HttpRules, parts: &mut Parts) -> Result<Option<(Asked, Rc<Wanted>)>, Error> {
        let Some(protocol) = self.protocols.iter().find(|p| rules.allows_upgrade(p)) else {
            let refused = || {
                let what = self.protocols.first().map_or("nothing", |p| p);
                Error::refused(Reason::UpgradeDenied, format!("upgrades to {what} are not allowed there"))
            };
            return if self.http2 { Err(refused()) } else { Ok(None) };
        };
        let spelled = HeaderValue::from_str(protocol)
            .map_err(|_| Error::downstream(Reason::BadRequest, "the protocol is not text"))?;
        let websocket = protocol.eq_ignore_ascii_case(websocket::PROTOCOL);
        let key = parts.headers.remove(websocket::KEY).filter(|_| websocket && !self.http2);
        if websocket && !self.http2 && key.is_none() {
            return Ok(None); // Nobody can prove to have read it.
        }
        let wanted = Wanted {
            protocol: spelled.clone(),
            method: parts.method.clone(),
            key: key.clone().or_else(|| websocket.then(websocket::new_key)),
        };
        let asked = Asked { on: self.on, protocol: spelled, key, http2: self.http2 };
        Ok(Some((asked, Rc::new(wanted))))
    }
}

/// An upgrade as it goes upstream.
#[derive(Debug)]
pub struct Wanted {
    protocol: HeaderValue,
    method: Method,
    /// The WebSocket key: the caller's, or one of ours for a caller over HTTP/2.
    key: Option<HeaderValue>,
}

impl Wanted {
    /// Writes it into a request. `mesh`: a sidecar reads it.
    pub fn write(
        &self,
        speak: Speak,
        mesh: bool,
        method: &mut Method,
        all: &mut HeaderMap,
        with: &mut Extensions,
    ) {
        match speak {
            Speak::Http1 => {
                all.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                all.insert(header::UPGRADE, self.protocol.clone());
                if let Some(key) = &self.key {
                    all.insert(websocket::KEY, key.clone());
                }
            }
            Speak::Http2 => {
                *method = Method::CONNECT;
                let lower = String::from_utf8_lossy(self.protocol.as_bytes()).to_ascii_lowercase();
                with.insert(Protocol::from(lower.as_str()));
                if mesh
                    && self.method != Method::GET
                    && let Ok(method) = HeaderValue::from_str(self.method.as_str())
                {
                    all.insert(headers::METHOD, method);
                }
            }
        }
    }

    /// The stream behind an answer that accepts the upgrade; `None` for one that does not. `handed` is where an HTTP/1
    /// connection arrives once hyper is done with it.
    pub async fn switched(
        &self,
        speak: Speak,
        answer: &mut Response<Incoming>,
        handed: Option<oneshot::Receiver<Handed>>,
    ) -> Result<Option<Handed>, Error> {
        let broken = |why: &'static str| Error::upstream(Reason::UpstreamReset, why);
        match (speak, handed) {
            (Speak::Http1, Some(handed)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.check(answer.headers()).map_err(broken)?;
                handed.await.map(Some).map_err(|_| broken("the connection broke off while it was upgraded"))
            }
            (Speak::Http2, _) if answer.status().is_success() => {
                let stream = hyper::upgrade::on(answer).await;
                let stream = stream.map_err(|_| broken("the stream broke off while it was upgraded"))?;
                Ok(Some(Handed { io: Box::new(TokioIo::new(stream)), ahead: Bytes::new() }))
            }
            (Speak::Http2, _) => {
                // The application answered without switching, which extended CONNECT has no success for.
                let told = answer.headers_mut().remove(headers::STATUS);
                if let Some(status) = told.and_then(|s| StatusCode::from_bytes(s.as_bytes()).ok()) {
                    *answer.status_mut() = status;
                }
                Ok(None)
            }
            _ if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(broken("nobody asked for the 101"))
            }
            _ => Ok(None),
        }
    }

    /// Whether a 101 says what it must: the protocol that was asked for, and that the key was read.
    fn check(&self, all: &HeaderMap) -> Result<(), &'static str> {
        let mut named = lists(all, header::UPGRADE);
        if !named.any(|p| p.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes())) {
            return Err("the 101 does not name the protocol that was asked for");
        }
        match &self.key {
            Some(key) if all.get(websocket::ACCEPT) != Some(&websocket::accept(key)) => {
                Err("the 101 has no proof that the WebSocket key was read")
            }
            _ => Ok(()),
        }
    }
}

/// An upgrade as its caller asked for it.
#[derive(Debug)]
pub struct Asked {
    on: OnUpgrade,
    protocol: HeaderValue,
    key: Option<HeaderValue>,
    http2: bool,
}

impl Asked {
    /// The answer to it: a tunnel where the upstream has switched. `mesh`: a sidecar reads it.
    pub fn answer(
        self,
        mut head: http::response::Parts,
        mut exchange: Exchange,
        limits: Limits,
        mesh: bool,
        otherwise: impl FnOnce(Exchange) -> ResponseBody,
    ) -> Response<ResponseBody> {
        let Some(stream) = exchange.switched() else {
            if self.http2 && head.status.is_success() {
                if mesh {
                    head.headers.insert(headers::STATUS, HeaderValue::from(head.status.as_u16()));
                }
                head.status = StatusCode::NOT_IMPLEMENTED;
            }
            return Response::from_parts(head, otherwise(exchange));
        };
        for name in [header::CONTENT_LENGTH, websocket::ACCEPT] {
            // A 101 has no body, and its proof is that of another key when it came over HTTP/2.
            if name == header::CONTENT_LENGTH || self.http2 || self.key.is_some() {
                head.headers.remove(name);
            }
        }
        if self.http2 {
            head.status = StatusCode::OK;
        } else {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, self.protocol);
            if let Some(key) = &self.key {
                head.headers.insert(websocket::ACCEPT, websocket::accept(key));
            }
        }
        let tunnel =
            Tunnel { on: self.on, behind: Behind::Switched { stream, exchange, limits }, note: None };
        Response::from_parts(head, ResponseBody::Tunnel(Box::new(tunnel)))
    }
}

/// Anything that bytes go into and come out of.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A connection, or a stream of one, after its HTTP: what it is, and what was already read of it.
pub struct Handed {
    /// The connection.
    pub io: Box<dyn Duplex>,
    /// Bytes that came behind the answer.
    pub ahead: Bytes,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

/// What a connection or a stream of the caller becomes once its HTTP is over, and where the caller's side will be found.
#[derive(Debug)]
pub struct Tunnel {
    on: OnUpgrade,
    behind: Behind,
    /// Of the access log.
    note: Option<Rc<Note>>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lies in a box as a whole")]
enum Behind {
    /// An upstream that has switched. It counts as a request in flight until both directions have ended.
    Switched { stream: Handed, exchange: Exchange, limits: Limits },
    /// An opaque connection.
    Opaque(Upstream, Arc<PortStats>),
}

impl Tunnel {
    /// To an opaque connection, which is counted in `stats`.
    pub fn opaque(on: OnUpgrade, upstream: Upstream, stats: Arc<PortStats>) -> Self {
        Self { on, behind: Behind::Opaque(upstream, stats), note: None }
    }

    /// Holds the places of its request to its end.
    pub fn hold(&mut self, places: Places) {
        if let Behind::Switched { exchange, .. } = &mut self.behind {
            exchange.hold_places(places);
        }
    }

    /// Holds the note of its request to its end.
    pub fn hold_note(&mut self, note: Rc<Note>) {
        note.body(BodyEnd::Open);
        self.note = Some(note);
    }

    /// Whether an end that nobody meant must be told from one that was.
    pub fn is_opaque(&self) -> bool {
        matches!(self.behind, Behind::Opaque(..))
    }

    /// Passes bytes over what was an HTTP/1 connection of the caller, of which `ahead` was already read. Says whether it
    /// ended as it should.
    pub async fn over_http1(self, io: &mut impl Duplex, ahead: Bytes) -> bool {
        // hyper says here whether the answer went out; where the caller left before it, there is nobody to talk to.
        let left = matches!((&mut { self.on.clone() }).now_or_never(), Some(Err(e)) if e.is_canceled());
        !left && self.behind.pass(io, ahead, self.note.as_deref()).await
    }

    /// Passes bytes over a stream of the caller's HTTP/2 connection, once the answer is on its way.
    pub async fn over_http2(self, fuse: Fuse) {
        if let Ok(stream) = self.on.await {
            let mut stream = Fused::new(TokioIo::new(stream), fuse);
            if self.behind.pass(&mut stream, Bytes::new(), self.note.as_deref()).await {
                stream.ends();
            }
        }
    }
}

impl Behind {
    /// Whether both sides have ended as they should.
    async fn pass(self, caller: &mut impl Duplex, ahead: Bytes, note: Option<&Note>) -> bool {
        match self {
            Self::Switched { mut stream, mut exchange, limits } => {
                let ahead = Ahead { from_a: ahead, from_b: stream.ahead };
                let flow = Flow::default();
                let outcome = relay::relay(caller, &mut stream.io, ahead, limits, &flow).await;
                tracing::debug!(?outcome, "an upgraded connection ended");
                note.inspect(|note| note.ended(Ended::of(&outcome), outcome.a_to_b, outcome.b_to_a));
                match outcome.end {
                    End::Late => _ = patience::met(Late::Stream),
                    End::Idle => _ = patience::met(Late::Idle),
                    End::Finished | End::Aborted(..) => {}
                }
                exchange.finish();
                matches!(outcome.end, End::Finished)
            }
            Self::Opaque(upstream, stats) => upstream.carry(caller, ahead, &stats, note).await,
        }
    }
}

/// The members of a list that may stand in several headers.
fn lists(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty())
}
