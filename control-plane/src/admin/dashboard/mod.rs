//! `/dashboard/`: the mesh as pages for people.
//!
//! What is served here are files, the same for every mesh, so nobody has to say who he is; what they show they ask of the API, as
//! whoever's token was typed in (on loopback, as the API is started, as whoever is near). They come with the control plane and are
//! served from its memory: nothing is built, and nothing is fetched from anywhere. The policy allows scripts and styles from files of
//! this origin only, and asks of this origin only.
//!
//! The files lie in `control-plane/dashboard`; `files` lists them.

mod files;

use std::fmt::Write as _;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::ApiError;
use super::problem;
use files::File;

/// `GET /`: a browser is shown the dashboard; whoever wants no page hears that there is nothing.
pub(super) async fn entrance(headers: HeaderMap, uri: Uri) -> Response {
    let wants_a_page =
        headers.get(header::ACCEPT).is_some_and(|accepts| accepts.as_bytes().starts_with(b"text/html"));
    if wants_a_page { to_the_page() } else { problem::no_such_path(uri).await.into_response() }
}

/// `GET /dashboard`: names in the page begin where it lies.
pub(super) async fn without_slash() -> Response {
    to_the_page()
}

fn to_the_page() -> Response {
    (StatusCode::FOUND, [(header::LOCATION, HeaderValue::from_static("/dashboard/"))]).into_response()
}

/// `GET /dashboard/`.
pub(super) async fn page(headers: HeaderMap) -> Result<Response, ApiError> {
    serve("index.html", &headers)
}

/// `GET /dashboard/{*file}`: what the page is made of.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    serve(&name, &headers)
}

fn serve(name: &str, asked: &HeaderMap) -> Result<Response, ApiError> {
    let Some(file) = files::named(name) else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "the dashboard has no such file"));
    };
    let tag = tag(file);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.kind())),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (OPENER, HeaderValue::from_static("same-origin")),
        (RESOURCES, HeaderValue::from_static("same-origin")),
        (PERMISSIONS, HeaderValue::from_static("camera=(), geolocation=(), microphone=()")),
        // Asked about each time and sent once: what a newer control plane has is seen at once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| is_among(known, &tag));
    let mut response = if known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, file.content).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// The name of the content, in quotes: its SHA-256, as far as it takes.
fn tag(file: &File) -> String {
    format!("\"{}\"", &sha256(file.content)[..32])
}

/// In hex.
fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Whether an If-None-Match names it; that it may be weak is no matter to one who reads (RFC 9110, 13.1.2).
fn is_among(known: &HeaderValue, tag: &str) -> bool {
    let Ok(known) = known.to_str() else { return false };
    known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// No inline script or style, no eval, no other origin; nobody frames it, and forms go nowhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCES: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

#[cfg(test)]
mod tests;
