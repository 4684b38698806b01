//! What is refused before anything is read: requests that a page in somebody's browser could have made.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Api, ApiError};

/// Lets through what names this machine, comes from no foreign page, and says that it is JSON where it carries a body.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let asks = Asks { method: request.method(), path: request.uri().path() };
    let mut response = match allowed(api.door.hosts(), &asks, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    // An answer is data: nothing that a browser could show, run or keep.
    for (name, value) in SEALED {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

const SEALED: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// What this API is called.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    /// Names beside those of loopback.
    pub(super) names: Vec<String>,
    /// Whether it can be reached by addresses of other machines' networks.
    pub(super) beyond_loopback: bool,
}

impl Hosts {
    /// Whether a host, with or without a port, is us. A page that wants to pass for us needs a name that it owns; an
    /// address is none.
    fn are(&self, host: &str) -> bool {
        let name = without_port(host);
        is_loopback(host)
            || (self.beyond_loopback && bare(name).parse::<IpAddr>().is_ok())
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// What a request is for.
struct Asks<'a> {
    method: &'a Method,
    path: &'a str,
}

impl Asks<'_> {
    /// Whether somebody follows a link to the dashboard, from a handbook or a chat: the browser leaves that page for ours, which
    /// says nothing before it has asked for itself.
    fn follows_a_link(&self, mode: Option<&str>, shown: Option<&str>) -> bool {
        let to_the_page = matches!(self.path, "/" | "/dashboard" | "/dashboard/");
        to_the_page && *self.method == Method::GET && mode == Some("navigate") && shown == Some("document")
    }
}

fn allowed(hosts: &Hosts, asks: &Asks<'_>, headers: &HeaderMap) -> Result<(), ApiError> {
    // Said twice it is not understood: two readers could take two different ones.
    let text = |name: HeaderName| {
        let mut all = headers.get_all(name).iter();
        let first = all.next()?;
        Some(if all.next().is_some() { "?" } else { first.to_str().unwrap_or("?") })
    };
    // A foreign name that resolves to loopback is how a page gets around the browser's own rules.
    let host = text(header::HOST);
    if !host.is_some_and(|host| hosts.are(host)) {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this is the admin API of 127.0.0.1 or localhost only; --admin-host gives it another name",
        ));
    }
    if let Some(origin) = text(header::ORIGIN)
        && !origin.split_once("://").is_some_and(|(_, from)| is_loopback(from) || Some(from) == host)
    {
        return Err(ApiError::new(StatusCode::FORBIDDEN, FOREIGN));
    }
    // Browsers say it also of what carries no Origin: pictures, scripts, forms that only ask.
    let foreign = text(SEC_FETCH_SITE).is_some_and(|site| !matches!(site, "none" | "same-origin"));
    if foreign && !asks.follows_a_link(text(SEC_FETCH_MODE), text(SEC_FETCH_DEST)) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, FOREIGN));
    }
    if matches!(*asks.method, Method::POST | Method::PUT | Method::PATCH) {
        let kind = text(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // No form of a page sends either.
        let patch =
            *asks.method == Method::PATCH && kind.eq_ignore_ascii_case("application/merge-patch+json");
        if !patch && !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send it as Content-Type: application/json",
            ));
        }
    }
    Ok(())
}

const FOREIGN: &str = "pages of other origins may not use the admin API";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether a host, with or without a port, names this machine.
fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost") || bare(name).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &Method, headers: &[(&str, &str)]) -> u16 {
        verdict_at("/v1/services", method, headers)
    }

    fn verdict_at(path: &str, method: &Method, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        allowed(&Hosts::default(), &Asks { method, path }, &map)
            .map_or_else(|e| e.into_response().status().as_u16(), |()| 200)
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
                Method::GET,
                &[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil")],
                403,
            ),
            (Method::GET, &[("host", "localhost"), ("host", "evil.example")], 421),
            (Method::GET, &[("host", "localhost"), ("sec-fetch-site", "same-origin")], 200),
            (Method::GET, &[("host", "localhost"), ("sec-fetch-site", "none")], 200),
            (Method::GET, &[("host", "localhost"), ("sec-fetch-site", "cross-site")], 403),
            (Method::GET, &[("host", "localhost"), ("sec-fetch-site", "same-site")], 403),
            (Method::DELETE, &[("host", "localhost"), ("sec-fetch-site", "cross-site")], 403),
            (
                Method::POST,
                &[
                    ("host", "localhost"),
                    ("content-type", "application/json"),
                    ("content-type", "text/plain"),
                ],
                415,
            ),
            (
                Method::POST,
                &[("host", "localhost"), ("content-type", "application/json; charset=utf-8")],
                200,
            ),
            (Method::POST, &[("host", "localhost"), ("content-type", "text/plain")], 415),
            (Method::PUT, &[("host", "localhost")], 415),
            (Method::PATCH, &[("host", "localhost"), ("content-type", "application/merge-patch+json")], 200),
            (Method::PUT, &[("host", "localhost"), ("content-type", "application/merge-patch+json")], 415),
            (Method::PATCH, &[("host", "localhost"), ("content-type", "application/json-patch+json")], 415),
            (Method::DELETE, &[("host", "localhost")], 200),
        ] {
            assert_eq!(verdict(&method, headers), expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn a_link_of_another_page_leads_to_the_dashboard_and_nowhere_else() {
        let led = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        let to = |dest| [led.as_slice(), &[("sec-fetch-dest", dest)]].concat();
        for (path, method, headers, expected) in [
            ("/dashboard/", Method::GET, to("document"), 200),
            ("/", Method::GET, to("document"), 200),
            ("/dashboard/", Method::GET, to("iframe"), 403),
            ("/dashboard/", Method::GET, led.to_vec(), 403),
            ("/dashboard/", Method::POST, to("document"), 403),
            ("/dashboard/app.js", Method::GET, to("document"), 403),
            ("/v1/services", Method::GET, to("document"), 403),
        ] {
            assert_eq!(verdict_at(path, &method, &headers), expected, "{method} {path} {headers:?}");
        }
    }

    #[test]
    fn beyond_loopback_it_is_known_by_addresses_and_by_the_names_it_was_given() {
        let hosts = Hosts { names: vec!["mesh.example".into()], beyond_loopback: true };
        for host in
            ["10.1.2.3:15080", "[2001:db8::1]:15080", "mesh.example", "MESH.example:15080", "localhost"]
        {
            assert!(hosts.are(host), "{host}");
        }
        for host in
            ["evil.example", "mesh.example.evil.example", "10.1.2.3.evil.example", "", "[mesh.example]"]
        {
            assert!(!hosts.are(host), "{host}");
        }
    }
}
