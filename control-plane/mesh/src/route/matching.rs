//! What a request must look like for a rule.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::head::{Labels, RequestHead};
use super::pattern::Pattern;
use crate::policy::CallerMatch;
use crate::token::ClaimMatch;

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
    /// On cookies, all of which must hold.
    pub cookies: Vec<CookieMatch>,
    /// On who sends it: any of them. None: everybody.
    pub callers: Vec<CallerMatch>,
    /// Labels that the sending instance must have, all of them. One that is not known has none.
    pub labels: Labels,
    /// Whether it must be a call of gRPC.
    pub grpc: bool,
}

impl RouteMatch {
    /// Whether every condition holds.
    pub fn holds(&self, request: &RequestHead<'_>) -> bool {
        self.path.as_ref().is_none_or(|p| p.holds(request.path)) && self.holds_beyond_path(request)
    }

    /// Whether every condition but that on the path holds. Of a gRPC method without its service the method counts here:
    /// no index finds it.
    pub(crate) fn holds_beyond_path(&self, request: &RequestHead<'_>) -> bool {
        self.method.as_ref().is_none_or(|m| m == request.method)
            && self.headers.iter().all(|h| h.holds(request.headers))
            && self.query.iter().all(|q| q.holds(request))
            && self.is_sent_by(request)
            && self.claims.iter().all(|c| c.holds(request.claims))
            && self.cookies.iter().all(|c| c.holds(request))
            && (!self.grpc || request.is_grpc())
    }

    fn is_sent_by(&self, request: &RequestHead<'_>) -> bool {
        let own = |name: &Arc<str>| request.source.labels.and_then(|labels| labels.get(name));
        (self.callers.is_empty() || self.callers.iter().any(|c| c.holds(request.source.identity)))
            && self.labels.iter().all(|(name, value)| own(name) == Some(value))
    }

    /// Whether it asks who sends a request.
    pub fn looks_at_source(&self) -> bool {
        !(self.callers.is_empty() && self.labels.is_empty())
    }

    /// How many of the conditions are our own, which the Gateway API does not know.
    pub(crate) fn own_conditions(&self) -> usize {
        self.claims.len()
            + self.cookies.len()
            + self.labels.len()
            + usize::from(!self.callers.is_empty())
            + usize::from(self.grpc)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.claims.iter().try_for_each(ClaimMatch::check)?;
        match &self.path {
            Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => {
                if !path.starts_with('/') {
                    return Err(format!("the path {path:?} does not begin with '/'"));
                }
                // A canonical path has no empty segment, so such a match could never hold.
                if path.contains("//") {
                    return Err(format!("the path {path:?} has an empty segment"));
                }
                Ok(())
            }
            Some(PathMatch::Method(method)) if method.is_empty() || method.contains('/') => {
                Err(format!("{method:?} is no method of gRPC"))
            }
            Some(PathMatch::Method(_) | PathMatch::Regex(_)) | None => Ok(()),
        }
    }
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(Arc<str>),
    /// Leading path segments: `/a` holds for `/a`, `/a/` and `/a/b`, not for `/ab`. A trailing `/` means nothing.
    Prefix(Arc<str>),
    /// The whole path, by an expression.
    Regex(Pattern),
    /// This method of gRPC, whatever its service: the last of exactly two segments.
    Method(Arc<str>),
}

impl PathMatch {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => pattern.holds(path.as_bytes()),
            Self::Method(method) => {
                let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
                parts.is_some_and(|(_, own)| own == &**method)
            }
        }
    }
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// Exactly this.
    Exact(Arc<str>),
    /// The whole of it, by an expression.
    Regex(Pattern),
    /// Any value.
    Present,
}

impl ValueMatch {
    /// Whether it holds for `value`.
    pub fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(pattern) => pattern.holds(value),
            Self::Present => true,
        }
    }
}

impl From<&str> for ValueMatch {
    fn from(text: &str) -> Self {
        Self::Exact(text.into())
    }
}

/// A header that must be there with such a value. Each value of a repeated header is looked at by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header's name.
    pub name: HeaderName,
    /// The value wanted.
    pub value: ValueMatch,
}

impl HeaderMatch {
    fn holds(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|v| self.value.holds(v.as_bytes()))
    }
}

/// A query parameter whose first value must be such, compared as it stands in the URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryMatch {
    /// The parameter's name.
    pub name: Arc<str>,
    /// The value wanted.
    pub value: ValueMatch,
}

impl QueryMatch {
    fn holds(&self, request: &RequestHead<'_>) -> bool {
        request.parameter(&self.name).is_some_and(|value| self.value.holds(value.as_bytes()))
    }
}

/// A cookie that must be there with such a value; of several with one name it is enough that one has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieMatch {
    /// The cookie's name.
    pub name: Arc<str>,
    /// The value wanted.
    pub value: ValueMatch,
}

impl CookieMatch {
    fn holds(&self, request: &RequestHead<'_>) -> bool {
        request.cookies(&self.name).any(|value| self.value.holds(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Source;

    fn head<'a>(query: Option<&'a str>, headers: &'a HeaderMap) -> RequestHead<'a> {
        RequestHead {
            method: &Method::GET,
            path: "/",
            query,
            headers,
            claims: None,
            source: Source::default(),
        }
    }

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
    fn a_method_of_grpc_is_the_last_of_two_segments() {
        let get = PathMatch::Method("Get".into());
        for (path, expected) in
            [("/shop.Cart/Get", true), ("/a/Get/b", false), ("/Get", false), ("/a/b/Get", false)]
        {
            assert_eq!(get.holds(path), expected, "{path}");
        }
    }

    #[test]
    fn the_first_value_of_a_query_parameter_counts() {
        let none = HeaderMap::new();
        let wanted = QueryMatch { name: "v".into(), value: "2".into() };
        assert!(wanted.holds(&head(Some("a=1&v=2&v=3"), &none)));
        assert!(!wanted.holds(&head(Some("v=3&v=2"), &none)));
        assert!(!wanted.holds(&head(Some("xv=2"), &none)));
        assert!(!wanted.holds(&head(None, &none)));
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

    #[test]
    fn who_sends_it_and_its_cookies_are_conditions_too() {
        let headers = HeaderMap::from_iter([(http::header::COOKIE, "a=1; tier=gold".parse().unwrap())]);
        let id = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        let labels = Labels::from([("team".into(), "blue".into())]);
        let source = Source { identity: Some(&id), labels: Some(&labels), address: None };
        let sent = RequestHead { source, ..head(None, &headers) };
        let holds = |m: RouteMatch| m.holds(&sent);
        let cookie = |value: &str| RouteMatch {
            cookies: vec![CookieMatch { name: "tier".into(), value: value.into() }],
            ..RouteMatch::default()
        };
        assert!(holds(cookie("gold")) && !holds(cookie("silver")));
        let by = |c| RouteMatch { callers: vec![c], ..RouteMatch::default() };
        assert!(holds(by(CallerMatch::Id(id.clone()))) && !holds(by(CallerMatch::Unauthenticated)));
        let from = |value: &str| RouteMatch {
            labels: Labels::from([("team".into(), value.into())]),
            ..RouteMatch::default()
        };
        assert!(holds(from("blue")) && !holds(from("red")));
        assert!(!from("blue").holds(&head(None, &headers)));
        assert!(!holds(RouteMatch { grpc: true, ..RouteMatch::default() }));
    }
}
