//! Routes: what a request must look like, and where it goes then.
//!
//! The semantics are those of the Gateway API's HTTPRoute (v1). Which of several matching routes wins is decided in
//! `route_index`, how a route divides its traffic in `split`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use crate::name::{InvalidName, PortNumber, ServiceName, Version};
use crate::policy::{RetryPolicy, RoutePolicy, Timeouts};
use crate::token::{ClaimMatch, Claims};

/// The name of one rule of a route object: `namespace/route/index`. It labels metrics and keys live state.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

impl RouteName {
    /// Proves `text` to be the name of a route: 1 to 300 visible ASCII characters.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 300 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidName::new(
                "a route's name",
                text,
                "it must be 1 to 300 visible ASCII characters",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RouteName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

/// One rule: any of its matches sends a request to its backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// What a request must look like; it is enough that one of them holds. Empty: everything matches.
    pub matches: Vec<RouteMatch>,
    /// Where it goes, by weight. Empty, or all of weight 0: nowhere, and the request is refused.
    pub backends: Vec<Backend>,
    /// What differs from the service's timeouts.
    pub timeouts: Timeouts,
    /// The retry rule, where it differs from the service's.
    pub retry: Option<RetryPolicy>,
    /// Its own breaker and bulkhead, in front of the service's.
    pub policy: RoutePolicy,
}

impl Route {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.backends.iter().any(|b| b.weight > Backend::MAX_WEIGHT) {
            return Err(format!("a weight is above {}", Backend::MAX_WEIGHT));
        }
        self.timeouts_check()?;
        self.matches.iter().try_for_each(RouteMatch::check)
    }

    fn timeouts_check(&self) -> Result<(), String> {
        let policy = crate::TrafficPolicy {
            timeouts: self.timeouts.clone(),
            retry: self.retry.clone().unwrap_or_default(),
            ..crate::TrafficPolicy::default()
        };
        policy.check().and_then(|()| self.policy.check()).map_err(|e| e.to_string())
    }
}

/// A share of a route's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The service that gets it.
    pub service: ServiceName,
    /// The subset that gets it; `None` means all endpoints of the service.
    pub version: Option<Version>,
    /// The port of it that gets it; `None` means the one its caller meant, and at a gateway its first.
    pub port: Option<PortNumber>,
    /// Its weight relative to the other backends of the route, 0 to [`Backend::MAX_WEIGHT`].
    pub weight: u32,
}

impl Backend {
    /// The Gateway API's bound of a weight.
    pub const MAX_WEIGHT: u32 = 1_000_000;
}

/// A conjunction of conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// On the path. `None`: any path.
    pub path: Option<PathMatch>,
    /// On the method.
    pub method: Option<Method>,
    /// On headers, all of which must hold.
    pub headers: Vec<HeaderMatch>,
    /// On query parameters, all of which must hold.
    pub query: Vec<QueryMatch>,
    /// On claims of the verified token, all of which must hold. Without one they never do.
    pub claims: Vec<ClaimMatch>,
}

impl RouteMatch {
    /// Whether every condition holds.
    pub fn holds(&self, request: &RequestHead<'_>) -> bool {
        self.path.as_ref().is_none_or(|p| p.holds(request.path)) && self.holds_beyond_path(request)
    }

    /// Whether every condition but that on the path holds.
    pub(crate) fn holds_beyond_path(&self, request: &RequestHead<'_>) -> bool {
        self.method.as_ref().is_none_or(|m| m == request.method)
            && self.headers.iter().all(|h| h.holds(request.headers))
            && self.query.iter().all(|q| q.holds(request.query))
            && self.claims.iter().all(|c| c.holds(request.claims))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.claims.iter().try_for_each(ClaimMatch::check)?;
        let Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) = &self.path else { return Ok(()) };
        if !path.starts_with('/') {
            return Err(format!("the path {path:?} does not begin with '/'"));
        }
        // A canonical path has no empty segment, so such a match could never hold.
        if path.contains("//") {
            return Err(format!("the path {path:?} has an empty segment"));
        }
        Ok(())
    }
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(Arc<str>),
    /// Leading path segments: `/a` holds for `/a`, `/a/` and `/a/b`, not for `/ab`. A trailing `/` means nothing.
    Prefix(Arc<str>),
}

impl PathMatch {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// A header that must be there with exactly this value. Each value of a repeated header is looked at by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header's name.
    pub name: HeaderName,
    /// The value wanted.
    pub value: Arc<str>,
}

impl HeaderMatch {
    fn holds(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|v| v.as_bytes() == self.value.as_bytes())
    }
}

/// A query parameter whose first value must be exactly this, compared as it stands in the URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryMatch {
    /// The parameter's name.
    pub name: Arc<str>,
    /// The value wanted.
    pub value: Arc<str>,
}

impl QueryMatch {
    fn holds(&self, query: Option<&str>) -> bool {
        let pairs =
            query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(name, _)| *name == &*self.name).map(|(_, value)| value);
        values.next().is_some_and(|value| value == &*self.value)
    }
}

/// The part of a request that routes look at. The path is the canonical one.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its canonical path, without the query.
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What its token says, if it has one that was verified.
    pub claims: Option<&'a Claims>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_on_a_segment_border() {
        let check = |prefix: &str, path: &str| PathMatch::Prefix(prefix.into()).holds(path);
        for (prefix, path, expected) in [
            ("/", "/", true),
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a", "/a/b", true),
            ("/a/", "/a", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(check(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn the_first_value_of_a_query_parameter_counts() {
        let wanted = QueryMatch { name: "v".into(), value: "2".into() };
        assert!(wanted.holds(Some("a=1&v=2&v=3")));
        assert!(!wanted.holds(Some("v=3&v=2")));
        assert!(!wanted.holds(Some("xv=2")));
        assert!(!wanted.holds(None));
    }

    #[test]
    fn each_value_of_a_repeated_header_is_looked_at_by_itself() {
        let wanted = HeaderMatch { name: HeaderName::from_static("x-user"), value: "7".into() };
        let mut headers = HeaderMap::new();
        headers.append("x-user", "6".parse().unwrap());
        headers.append("x-user", "7".parse().unwrap());
        assert!(wanted.holds(&headers));
        headers.clear();
        headers.append("x-user", "6,7".parse().unwrap());
        assert!(!wanted.holds(&headers));
    }
}
