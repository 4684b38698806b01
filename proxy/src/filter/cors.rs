//! Which pages of other origins may ask, as browsers want to be told (Fetch standard, CORS protocol; HTTPCORSFilter of the
//! Gateway API). Preflights are answered here: the application never sees one.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use outrigger_mesh::Cors;

use crate::error::Error;
use crate::http::body::ResponseBody;

/// What a request is, seen as a browser's.
#[derive(Debug)]
pub(super) enum Asked {
    /// The browser asks whether it may ask. This is the answer.
    Preflight(Box<Response<ResponseBody>>),
    /// The request itself.
    Request(Allowed),
}

/// What the answer to a request tells the browser.
#[derive(Debug)]
pub struct Allowed(Vec<(HeaderName, HeaderValue)>);

/// Judges a request.
pub(super) fn judge(cors: &Cors, parts: &Parts) -> Asked {
    let origin =
        parts.headers.get(header::ORIGIN).filter(|origin| origin.to_str().is_ok_and(|o| cors.allows(o)));
    let mut told = origin.map(|origin| of_origin(cors, origin)).unwrap_or_default();
    let method = parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = parts.method == Method::OPTIONS && parts.headers.contains_key(header::ORIGIN);
    let Some(method) = method.filter(|_| preflight) else {
        let exposed = exposed(cors);
        if origin.is_some() && !exposed.is_empty() {
            told.extend(list(&exposed).map(|all| (header::ACCESS_CONTROL_EXPOSE_HEADERS, all)));
        }
        return Asked::Request(Allowed(told));
    };
    if origin.is_some() {
        told.extend(methods(cors, method).map(|all| (header::ACCESS_CONTROL_ALLOW_METHODS, all)));
        let wanted = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        told.extend(wanted_headers(cors, wanted).map(|all| (header::ACCESS_CONTROL_ALLOW_HEADERS, all)));
        told.push((header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age)));
    }
    let mut answer = Response::new(ResponseBody::Empty);
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Allowed(told).write(answer.headers_mut());
    Asked::Preflight(Box::new(answer))
}

/// Beside credentials a wildcard means a header of that name (Fetch standard), so it is not told.
fn exposed(cors: &Cors) -> Vec<Arc<str>> {
    cors.expose.iter().filter(|name| !(cors.credentials && &***name == "*")).cloned().collect()
}

impl Allowed {
    /// Tells the browser with the answer, be it a refusal: else its page would not even learn the status.
    pub fn tell(
        self,
        outcome: Result<Response<ResponseBody>, Error>,
    ) -> Result<Response<ResponseBody>, Error> {
        match outcome {
            Ok(mut answer) => {
                self.write(answer.headers_mut());
                Ok(answer)
            }
            Err(mut error) => {
                error.told_mut().fields.extend(self.0);
                Err(error)
            }
        }
    }

    /// What the route says stands in place of what the application says of it.
    fn write(self, headers: &mut HeaderMap) {
        for name in [
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        // Caches keep the answers to different origins apart.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        for (name, value) in self.0 {
            headers.insert(name, value);
        }
    }
}

/// A request with credentials wants to hear its own origin, never the wildcard.
fn of_origin(cors: &Cors, origin: &HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    let any = cors.origins.iter().any(|own| &**own == "*");
    let told = if any && !cors.credentials { HeaderValue::from_static("*") } else { origin.clone() };
    let mut all = vec![(header::ACCESS_CONTROL_ALLOW_ORIGIN, told)];
    if cors.credentials {
        all.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
    }
    all
}

/// The methods that may be used. Where every one may, and credentials go along, the one that is asked for.
fn methods(cors: &Cors, asked: &HeaderValue) -> Option<HeaderValue> {
    let any = cors.methods.iter().any(|own| &**own == "*");
    if any && cors.credentials { Some(asked.clone()) } else { list(&cors.methods) }
}

/// The same of headers.
fn wanted_headers(cors: &Cors, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    let any = cors.headers.iter().any(|own| &**own == "*");
    if any && cors.credentials { asked.cloned() } else { list(&cors.headers) }
}

fn list(all: &[Arc<str>]) -> Option<HeaderValue> {
    if all.is_empty() { None } else { HeaderValue::try_from(all.join(", ")).ok() }
}
