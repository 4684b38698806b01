//! A request as it comes to where it goes: with what its route and its backend have changed of it. The sidecar there decides on
//! this, and not on what the caller sent.

use outrigger_mesh::{Backend, RequestHead, Route, canonical_path};

use axum::http::{HeaderMap, HeaderValue, header};

/// What differs from the request that was sent.
pub(super) struct Arriving {
    path: String,
    headers: HeaderMap,
}

impl Arriving {
    /// A request that took `route` by this prefix, at one of its backends.
    pub(super) fn of(
        head: &RequestHead<'_>,
        route: Option<&Route>,
        prefix: Option<&str>,
        backend: Option<&Backend>,
    ) -> Self {
        let (mut path, mut headers) = (head.path.to_owned(), head.headers.clone());
        if let Some(route) = route {
            route.filters.request.apply(&mut headers);
        }
        if let Some(rewrite) = route.and_then(|route| route.filters.rewrite.as_ref()) {
            if let Some(change) = &rewrite.path {
                path = change.of(head.path, prefix);
                path = canonical_path(&path).map(std::borrow::Cow::into_owned).unwrap_or(path);
            }
            let host = rewrite.host.as_ref().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            host.map(|host| headers.insert(header::HOST, host));
        }
        if let Some(backend) = backend {
            backend.request.apply(&mut headers);
        }
        Self { path, headers }
    }

    /// Its head, where that of the request as it was sent is `sent`.
    pub(super) fn head<'a>(&'a self, sent: &RequestHead<'a>) -> RequestHead<'a> {
        RequestHead {
            method: sent.method,
            path: &self.path,
            query: sent.query,
            headers: &self.headers,
            claims: sent.claims,
            source: sent.source,
        }
    }
}
