//! The only place where an [`Error`] becomes a response.
//!
//! What a caller sees is the table of docs/refusals.md. Details go only to whoever belongs to the mesh: the own
//! application and authenticated peers.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use outrigger_mesh::{Hop, Reason};
use serde_json::json;

use crate::error::{Error, Told};
use crate::http::body::ResponseBody;
use crate::http::glance::Glance;
use crate::http::headers;

/// Who is answered.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Whether the request is gRPC.
    pub grpc: bool,
    /// Whether it accepts JSON.
    pub json: bool,
    /// Whether it may know details.
    pub trusted: bool,
    /// Whether it speaks HTTP/2, which knows no Connection header.
    pub http2: bool,
}

impl Asker {
    /// Who sent `request`.
    pub fn of<B>(request: &Request<B>, trusted: bool) -> Self {
        Self::seen(request, Glance::at(request.headers()), trusted)
    }

    /// The same, where what it has was looked at already.
    pub fn seen<B>(request: &Request<B>, seen: Glance, trusted: bool) -> Self {
        let headers = request.headers();
        let http2 = request.version() == Version::HTTP_2;
        let grpc = seen.saw(Glance::CONTENT_TYPE) && headers::is_grpc(headers);
        let json = seen.saw(Glance::ACCEPT) && accepts_json(headers);
        Self { grpc, json, trusted, http2 }
    }
}

/// The version of the answer to a request of `asked`. That of HTTP/1.0 is written by hyper, which takes one marked as such
/// for one whose connection ends.
pub fn version(asked: Version) -> Version {
    if asked == Version::HTTP_10 { Version::HTTP_11 } else { asked }
}

/// The response for a request that was refused or failed.
pub fn refusal(error: &Error, hop: Hop, asker: Asker, service: Option<&str>) -> Response<ResponseBody> {
    let mut response = if asker.grpc { grpc(error, asker) } else { plain(error, hop, asker, service) };
    let headers = response.headers_mut();
    headers.insert(headers::REASON, HeaderValue::from_static(error.reason.as_str()));
    headers.insert(headers::HOP, HeaderValue::from_static(hop.as_str()));
    if error.unprocessed && hop == Hop::Server {
        headers.insert(headers::UNPROCESSED, HeaderValue::from_static("1"));
    }
    if error.reason == Reason::Overloaded {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(told) = &error.told {
        tell(headers, told, asker);
    }
    if closes(error.reason) && !asker.http2 {
        // Whoever sends what can be read in two ways, or more than is read, does not get to send more of it.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn tell(headers: &mut HeaderMap, told: &Told, asker: Asker) {
    let bulkhead = told.bulkhead.as_ref().filter(|_| asker.trusted);
    if let Some(value) = bulkhead.and_then(|b| HeaderValue::try_from(b).ok()) {
        headers.insert(headers::BULKHEAD, value);
    }
    if let Some(after) = told.retry_after {
        // Whole seconds, and never too early.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    for (name, value) in &told.fields {
        headers.append(name, value.clone());
    }
}

/// The answer that a fault on purpose gives in place of the service's.
pub fn injected(status: StatusCode) -> Response<ResponseBody> {
    let bare = !status.is_client_error() && !status.is_server_error();
    let text = format!("{}\n", Reason::FaultInjected);
    let mut response =
        Response::new(if bare { ResponseBody::Empty } else { ResponseBody::Text(text.into()) });
    *response.status_mut() = status;
    if !bare {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    mark_injected(response)
}

/// The same for a call of gRPC.
pub fn injected_grpc(status: u8) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    headers.insert("grpc-message", HeaderValue::from_static(Reason::FaultInjected.as_str()));
    mark_injected(response)
}

fn mark_injected(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(headers::REASON, HeaderValue::from_static(Reason::FaultInjected.as_str()));
    headers.insert(headers::HOP, HeaderValue::from_static(Hop::Client.as_str()));
    response
}

/// Whether an HTTP/1 connection ends with a refusal.
fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest | Reason::HeaderTooLarge | Reason::UriTooLong | Reason::PayloadTooLarge
    )
}

/// Says over which budget a request's last answer was not tried again.
pub fn mark_budget_spent(headers: &mut HeaderMap) {
    headers.insert(headers::REASON, HeaderValue::from_static(Reason::RetryBudget.as_str()));
    headers.insert(headers::HOP, HeaderValue::from_static(Hop::Client.as_str()));
}

/// The status of a refusal: that of its reason, but 503 where no endpoint could even be connected to.
fn status(error: &Error) -> StatusCode {
    match error.reason {
        Reason::ConnectFailed if error.everywhere => StatusCode::SERVICE_UNAVAILABLE,
        reason => reason.status(),
    }
}

fn grpc(error: &Error, asker: Asker) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(error.reason.grpc_status())));
    headers.insert("grpc-message", grpc_message(&text(error, asker)));
    response
}

fn plain(error: &Error, hop: Hop, asker: Asker, service: Option<&str>) -> Response<ResponseBody> {
    let status = status(error);
    let (kind, body) = if asker.json {
        let mut problem = json!({
            "type": format!("https://outrigger.dev/refusals#{}", error.reason),
            "title": title(error.reason),
            "status": status.as_u16(),
            "detail": if asker.trusted { Some(&*error.detail) } else { None },
            "reason": error.reason.as_str(),
            "hop": hop.as_str(),
            "service": service.filter(|_| asker.trusted),
        });
        let bulkhead = error.told.as_ref().and_then(|t| t.bulkhead.as_deref()).filter(|_| asker.trusted);
        if let Some(bulkhead) = bulkhead {
            problem["bulkhead"] = bulkhead.into();
        }
        ("application/problem+json", problem.to_string())
    } else {
        ("text/plain; charset=utf-8", text(error, asker) + "\n")
    };
    let mut response = Response::new(ResponseBody::Text(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(error: &Error, asker: Asker) -> String {
    if asker.trusted { error.to_string() } else { error.reason.to_string() }
}

fn title(reason: Reason) -> String {
    reason.as_str().replace('_', " ")
}

/// Percent-encoded as gRPC over HTTP/2 wants it.
fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes().take(1024) {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                let _never = write!(encoded, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn accepts_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(lists_json)
}

/// Whether an Accept lists JSON.
pub(crate) fn lists_json(accept: &HeaderValue) -> bool {
    accept.to_str().is_ok_and(|v| {
        v.split(',').any(|t| {
            let kind = t.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/json")
                || kind.eq_ignore_ascii_case("application/problem+json")
        })
    })
}

/// A refusal as the last bytes of an HTTP/1 connection, for a request that never became one.
pub(crate) fn last_words(mut response: Response<ResponseBody>, with_body: bool) -> Vec<u8> {
    let body = match std::mem::replace(response.body_mut(), ResponseBody::Empty) {
        ResponseBody::Text(text) => text,
        _ => Bytes::new(),
    };
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let reason = status.canonical_reason().unwrap_or_default();
    let mut words = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &*headers {
        words.extend_from_slice(name.as_str().as_bytes());
        words.extend_from_slice(b": ");
        words.extend_from_slice(value.as_bytes());
        words.extend_from_slice(b"\r\n");
    }
    words.extend_from_slice(b"\r\n");
    if with_body {
        words.extend_from_slice(&body);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: Asker = Asker { grpc: false, json: false, trusted: true, http2: false };

    #[test]
    fn every_reason_has_its_status_in_both_worlds() {
        for reason in Reason::ALL {
            let error = Error::upstream(reason, "why");
            let response = refusal(&error, Hop::Client, TRUSTED, None);
            assert_eq!(response.status(), reason.status());
            assert_eq!(response.headers()[headers::REASON], reason.as_str());
            let response = refusal(&error, Hop::Client, Asker { grpc: true, ..TRUSTED }, None);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], reason.grpc_status().to_string().as_str());
        }
    }

    #[test]
    fn strangers_learn_the_reason_and_nothing_more() {
        let error = Error::upstream(Reason::ConnectFailed, "10.0.0.7:80 refused");
        for json in [false, true] {
            let asker = Asker { json, trusted: false, ..TRUSTED };
            let response = refusal(&error, Hop::Server, asker, Some("shop/cart"));
            let ResponseBody::Text(text) = response.into_body() else { panic!("a text") };
            let text = String::from_utf8_lossy(&text);
            assert!(
                text.contains("connect_failed") && !text.contains("10.0.0.7") && !text.contains("cart"),
                "{text}"
            );
        }
    }

    #[test]
    fn only_the_servers_proxy_says_that_nothing_was_processed() {
        let error = Error::refused(Reason::Draining, "");
        assert!(refusal(&error, Hop::Server, TRUSTED, None).headers().contains_key(headers::UNPROCESSED));
        assert!(!refusal(&error, Hop::Client, TRUSTED, None).headers().contains_key(headers::UNPROCESSED));
    }

    #[test]
    fn a_grpc_message_is_a_valid_header_whatever_it_says() {
        assert_eq!(grpc_message("50% of\nä"), "50%25 of%0A%C3%A4");
    }
}
