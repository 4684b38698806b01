//! What is refused before anything is read: requests that a page in somebody's browser could have made.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;

/// Lets through what names this machine, comes from no foreign page, and says that it is JSON where it carries a body.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match allowed(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn allowed(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    // A foreign name that resolves to loopback is how a page gets around the browser's own rules.
    if !text(header::HOST).is_some_and(is_loopback) {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this is the admin API of 127.0.0.1 or localhost only",
        ));
    }
    if let Some(origin) = text(header::ORIGIN)
        && !origin.split_once("://").is_some_and(|(_, host)| is_loopback(host))
    {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "pages of other origins may not use the admin API"));
    }
    if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        let kind = text(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send it as Content-Type: application/json",
            ));
        }
    }
    Ok(())
}

/// Whether a host, with or without a port, names this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &Method, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        allowed(method, &map).map_or_else(|e| e.into_response().status().as_u16(), |()| 200)
    }

    #[test]
    fn only_this_machine_and_its_own_pages_are_let_in() {
        for (method, headers, expected) in [
            (Method::GET, &[("host", "127.0.0.1:15080")][..], 200),
            (Method::GET, &[("host", "[::1]:15080")], 200),
            (Method::GET, &[("host", "localhost")], 200),
            (Method::GET, &[], 421),
            (Method::GET, &[("host", "evil.example:15080")], 421),
            (Method::GET, &[("host", "127.0.0.1.evil.example")], 421),
            (Method::GET, &[("host", "localhost"), ("origin", "http://localhost:15080")], 200),
            (Method::GET, &[("host", "localhost"), ("origin", "https://evil.example")], 403),
            (Method::GET, &[("host", "localhost"), ("origin", "null")], 403),
            (
                Method::POST,
                &[("host", "localhost"), ("content-type", "application/json; charset=utf-8")],
                200,
            ),
            (Method::POST, &[("host", "localhost"), ("content-type", "text/plain")], 415),
            (Method::PUT, &[("host", "localhost")], 415),
            (Method::DELETE, &[("host", "localhost")], 200),
        ] {
            assert_eq!(verdict(&method, headers), expected, "{method} {headers:?}");
        }
    }
}
