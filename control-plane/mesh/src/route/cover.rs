//! Whether one match leaves anything for another: for those who write routes, never for requests.

use std::cmp::Reverse;

use super::matching::{PathMatch, RouteMatch, ValueMatch};

impl RouteMatch {
    /// Whether this one holds for every request that `other` holds for. Where that can not be told it is `false`: of
    /// two expressions it is known only if they are the same, or if this one takes everything.
    pub fn covers(&self, other: &Self) -> bool {
        let headers = |wanted: &super::HeaderMatch| {
            let same = other.headers.iter().filter(|h| h.name == wanted.name);
            same.into_iter().any(|h| wanted.value.covers(&h.value))
        };
        let query = |wanted: &super::QueryMatch| {
            let same = other.query.iter().filter(|q| q.name == wanted.name);
            same.into_iter().any(|q| wanted.value.covers(&q.value))
        };
        let cookies = |wanted: &super::CookieMatch| {
            let same = other.cookies.iter().filter(|c| c.name == wanted.name);
            same.into_iter().any(|c| wanted.value.covers(&c.value))
        };
        let callers = self.callers.is_empty()
            || !other.callers.is_empty() && other.callers.iter().all(|c| self.callers.contains(c));
        covers_path(self.path.as_ref(), other.path.as_ref())
            && (self.method.is_none() || self.method == other.method)
            && self.headers.iter().all(headers)
            && self.query.iter().all(query)
            && self.cookies.iter().all(cookies)
            && self.claims.iter().all(|c| other.claims.contains(c))
            && self.labels.iter().all(|(name, value)| other.labels.get(name) == Some(value))
            && callers
            && (!self.grpc || other.grpc)
    }

    /// Its place in the order of precedence: of two matches that hold, the one with the greater place wins, of equals the
    /// older one. The same order as in [`super::RouteIndex`].
    pub fn precedence(&self) -> impl Ord + use<> {
        let path = match &self.path {
            Some(PathMatch::Exact(_)) => (3, 0, Reverse(String::new())),
            Some(PathMatch::Regex(p)) => (2, p.as_str().len(), Reverse(p.as_str().to_owned())),
            Some(PathMatch::Prefix(p)) => (1, bare(p).len(), Reverse(String::new())),
            Some(PathMatch::Method(_)) | None => (1, 0, Reverse(String::new())),
        };
        let of_grpc = matches!(self.path, Some(PathMatch::Method(_)));
        let counts = (self.headers.len(), self.query.len(), self.own_conditions());
        (path, of_grpc, self.method.is_some(), counts)
    }
}

impl ValueMatch {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, _) => true,
            (Self::Regex(pattern), Self::Exact(value)) => pattern.holds(value.as_bytes()),
            (Self::Regex(pattern), _) if takes_everything(pattern.as_str()) => true,
            (own, other) => own == other,
        }
    }
}

fn covers_path(own: Option<&PathMatch>, other: Option<&PathMatch>) -> bool {
    match (own, other) {
        (None, _) => true,
        (Some(PathMatch::Prefix(prefix)), _) if bare(prefix).is_empty() => true,
        (Some(PathMatch::Regex(pattern)), _) if takes_every_path(pattern.as_str()) => true,
        (Some(PathMatch::Prefix(prefix)), Some(PathMatch::Prefix(path) | PathMatch::Exact(path))) => {
            bare(path).strip_prefix(bare(prefix)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (Some(PathMatch::Regex(pattern)), Some(PathMatch::Exact(path))) => pattern.holds(path.as_bytes()),
        (Some(own), Some(other)) => own == other,
        (Some(_), None) => false,
    }
}

fn bare(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

/// What `.` takes is anything but a line break, which no header, query or path has.
fn takes_everything(pattern: &str) -> bool {
    matches!(pattern, ".*" | "(.*)" | "^.*$" | "(?s).*")
}

fn takes_every_path(pattern: &str) -> bool {
    takes_everything(pattern) || matches!(pattern, "/.*" | "^/.*$" | ".+" | "/(.*)")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::route::{HeaderMatch, Pattern, QueryMatch, RequestHead, Source};

    fn any_match() -> impl Strategy<Value = RouteMatch> {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let path = select(vec![
            None,
            Some(PathMatch::Exact("/a".into())),
            Some(PathMatch::Exact("/a/b".into())),
            Some(PathMatch::Prefix("/".into())),
            Some(PathMatch::Prefix("/a".into())),
            Some(PathMatch::Prefix("/a/b/".into())),
            Some(PathMatch::Regex(pattern("/a.*"))),
            Some(PathMatch::Regex(pattern("/.*"))),
        ]);
        let value = select(vec![
            ValueMatch::Exact("1".into()),
            ValueMatch::Exact("2".into()),
            ValueMatch::Regex(pattern("[0-9]")),
            ValueMatch::Regex(pattern(".*")),
            ValueMatch::Present,
        ]);
        let name = HeaderName::from_static("x-h");
        let header = value.clone().prop_map(move |value| HeaderMatch { name: name.clone(), value });
        let query = value.prop_map(|value| QueryMatch { name: "q".into(), value });
        let method = select(vec![None, Some(Method::GET), Some(Method::POST)]);
        let many = |s| proptest::collection::vec(s, 0..2);
        (path, method, many(header.boxed()), proptest::collection::vec(query, 0..2), any::<bool>()).prop_map(
            |(path, method, headers, query, grpc)| RouteMatch {
                path,
                method,
                headers,
                query,
                grpc,
                ..RouteMatch::default()
            },
        )
    }

    proptest! {
        /// What is covered leaves no request that the covering match does not take.
        #[test]
        fn what_is_covered_is_taken(
            own in any_match(), other in any_match(), path in select(&["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab"][..]),
            header in select(&["1", "2", "x"][..]), query in select(&[None, Some("q=1"), Some("q=x")][..]),
            get in any::<bool>(), grpc in any::<bool>(),
        ) {
            let mut headers = HeaderMap::new();
            headers.insert("x-h", header.parse().unwrap());
            if grpc {
                headers.insert("content-type", "application/grpc".parse().unwrap());
            }
            let method = if get { Method::GET } else { Method::POST };
            let (claims, source) = (None, Source::default());
            let head = RequestHead { method: &method, path, query, headers: &headers, claims, source };
            if own.covers(&other) && other.holds(&head) {
                prop_assert!(own.holds(&head), "{own:?} does not take what {other:?} takes");
            }
        }
    }

    #[test]
    fn a_match_covers_itself_and_what_has_more_conditions() {
        let prefix = RouteMatch { path: Some(PathMatch::Prefix("/a".into())), ..RouteMatch::default() };
        let get = RouteMatch { method: Some(Method::GET), ..prefix.clone() };
        assert!(prefix.covers(&prefix) && prefix.covers(&get) && !get.covers(&prefix));
        assert!(get.precedence() > prefix.precedence());
    }
}
