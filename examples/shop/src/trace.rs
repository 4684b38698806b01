//! The trace context of a request, as opaque values that are passed on. The shop makes no spans
//! and starts no traces: the sidecars do.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

/// `traceparent` and `tracestate` of the request being served.
#[derive(Clone, Debug, Default)]
pub struct TraceContext {
    parent: Option<HeaderValue>,
    state: Vec<HeaderValue>,
}

impl TraceContext {
    /// What `headers` carry; `tracestate` may come in several lines and their order matters.
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            parent: headers.get(TRACEPARENT).cloned(),
            state: headers.get_all(TRACESTATE).iter().cloned().collect(),
        }
    }

    /// Passes it on. A state without its parent means nothing and stays behind.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let Some(parent) = &self.parent else { return };
        headers.insert(TRACEPARENT, parent.clone());
        for state in &self.state {
            headers.append(TRACESTATE, state.clone());
        }
    }
}

impl<S: Sync> FromRequestParts<S> for TraceContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}

/// The W3C header that names the trace and the span of the caller.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The W3C header with what tracing systems add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_the_parent_and_every_line_of_the_state_in_order() {
        let mut came = HeaderMap::new();
        came.insert(TRACEPARENT, HeaderValue::from_static("00-aa-bb-01"));
        came.append(TRACESTATE, HeaderValue::from_static("one=1"));
        came.append(TRACESTATE, HeaderValue::from_static("two=2"));
        let mut sent = HeaderMap::new();
        TraceContext::of(&came).apply(&mut sent);
        assert_eq!(sent, came);
    }

    #[test]
    fn makes_nothing_up_when_nothing_came() {
        let mut came = HeaderMap::new();
        came.append(TRACESTATE, HeaderValue::from_static("one=1"));
        let mut sent = HeaderMap::new();
        TraceContext::of(&came).apply(&mut sent);
        assert!(sent.is_empty());
    }
}
