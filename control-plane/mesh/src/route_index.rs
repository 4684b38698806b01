//! Finding the route of a request, with the Gateway API's order of precedence.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::route::{PathMatch, RequestHead, Route, RouteMatch};

/// The routes of a service, arranged so that the cost of a request does not grow with their number.
///
/// Exact paths are found by one hash lookup, prefixes by one lookup for each segment of the request's path. Only the
/// matches that share a path are tried one after the other.
///
/// Precedence (Gateway API v1, HTTPRouteRule.matches): exact path, then the longest prefix, then a method, then the
/// most headers, then the most query parameters, then (our own) the most claims, then the older route, then the earlier rule.
#[derive(Debug, Default)]
pub struct RouteIndex {
    routes: Vec<Arc<Route>>,
    exact: HashMap<Arc<str>, Vec<Candidate>>,
    /// Keyed by the prefix without its trailing slash; the empty key holds what matches every path.
    prefix: HashMap<Arc<str>, Vec<Candidate>>,
}

#[derive(Debug)]
struct Candidate {
    route: usize,
    conditions: RouteMatch,
}

impl RouteIndex {
    /// Arranges `routes`, which come the oldest first.
    pub fn new(routes: &[Route]) -> Self {
        let mut index = Self { routes: routes.iter().cloned().map(Arc::new).collect(), ..Self::default() };
        for (number, route) in routes.iter().enumerate() {
            if route.matches.is_empty() {
                index.add(number, &RouteMatch::default());
            }
            for conditions in &route.matches {
                index.add(number, conditions);
            }
        }
        for candidates in index.exact.values_mut().chain(index.prefix.values_mut()) {
            // A stable sort: among equals the older route and the earlier rule stay in front.
            candidates.sort_by_key(|c| {
                let m = &c.conditions;
                Reverse((m.method.is_some(), m.headers.len(), m.query.len(), m.claims.len()))
            });
        }
        index
    }

    fn add(&mut self, route: usize, conditions: &RouteMatch) {
        let candidate = Candidate { route, conditions: conditions.clone() };
        let (map, key) = match &conditions.path {
            Some(PathMatch::Exact(path)) => (&mut self.exact, path.clone()),
            Some(PathMatch::Prefix(path)) => {
                (&mut self.prefix, path.strip_suffix('/').unwrap_or(path).into())
            }
            None => (&mut self.prefix, "".into()),
        };
        map.entry(key).or_default().push(candidate);
    }

    /// Whether there is no route at all, which means that everything goes to all endpoints.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route a request takes; `None` when none matches.
    pub fn find(&self, request: &RequestHead<'_>) -> Option<&Arc<Route>> {
        self.position(request).map(|number| &self.routes[number])
    }

    /// The same as a position in the routes that the index was made of, for whoever keeps more beside each.
    pub fn position(&self, request: &RequestHead<'_>) -> Option<usize> {
        self.exact
            .get(request.path)
            .and_then(|candidates| first_that_holds(candidates, request))
            .or_else(|| self.find_by_prefix(request))
    }

    fn find_by_prefix(&self, request: &RequestHead<'_>) -> Option<usize> {
        let mut prefix = request.path.strip_suffix('/').unwrap_or(request.path);
        loop {
            let found = self.prefix.get(prefix).and_then(|candidates| first_that_holds(candidates, request));
            if found.is_some() || prefix.is_empty() {
                return found;
            }
            prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
        }
    }
}

fn first_that_holds(candidates: &[Candidate], request: &RequestHead<'_>) -> Option<usize> {
    candidates.iter().find(|c| c.conditions.holds_beyond_path(request)).map(|c| c.route)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Timeouts;
    use crate::route::{HeaderMatch, QueryMatch, RouteName};

    fn route(name: &str, matches: Vec<RouteMatch>) -> Route {
        Route {
            name: RouteName::new(name).unwrap(),
            matches,
            backends: vec![],
            timeouts: Timeouts::default(),
            retry: None,
            policy: crate::RoutePolicy::default(),
        }
    }

    fn exact(path: &str) -> RouteMatch {
        RouteMatch { path: Some(PathMatch::Exact(path.into())), ..RouteMatch::default() }
    }

    fn prefix(path: &str) -> RouteMatch {
        RouteMatch { path: Some(PathMatch::Prefix(path.into())), ..RouteMatch::default() }
    }

    fn find<'a>(index: &'a RouteIndex, path: &str) -> Option<&'a str> {
        let headers = HeaderMap::new();
        let head = RequestHead { method: &Method::GET, path, query: None, headers: &headers, claims: None };
        index.find(&head).map(|r| r.name.as_str())
    }

    #[test]
    fn an_exact_path_beats_the_longest_prefix_which_beats_a_shorter_one() {
        let index = RouteIndex::new(&[
            route("root", vec![prefix("/")]),
            route("a", vec![prefix("/a/")]),
            route("ab", vec![prefix("/a/b")]),
            route("exact", vec![exact("/a/b")]),
        ]);
        for (path, expected) in [
            ("/", "root"),
            ("/x", "root"),
            ("/a", "a"),
            ("/ax", "root"),
            ("/a/b/c", "ab"),
            ("/a/b", "exact"),
            ("/a/b/", "ab"),
        ] {
            assert_eq!(find(&index, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn more_conditions_win_and_a_longer_path_that_does_not_hold_gives_way() {
        let user = HeaderMatch { name: HeaderName::from_static("x-user"), value: "7".into() };
        let index = RouteIndex::new(&[
            route("old", vec![prefix("/a")]),
            route("user", vec![RouteMatch { headers: vec![user.clone()], ..prefix("/a") }]),
            route("post", vec![RouteMatch { method: Some(Method::POST), ..prefix("/a") }]),
            route("deep", vec![RouteMatch { headers: vec![user], ..prefix("/a/b") }]),
        ]);
        let mut headers = HeaderMap::new();
        let get = |headers: &HeaderMap, method: &Method| {
            let head = RequestHead { method, path: "/a/b", query: None, headers, claims: None };
            index.find(&head).unwrap().name.as_str().to_owned()
        };
        assert_eq!(get(&headers, &Method::GET), "old");
        assert_eq!(get(&headers, &Method::POST), "post");
        headers.insert("x-user", "7".parse().unwrap());
        assert_eq!(get(&headers, &Method::GET), "deep");
    }

    #[test]
    fn a_route_without_matches_takes_everything_and_no_route_takes_nothing() {
        assert_eq!(find(&RouteIndex::new(&[route("all", vec![])]), "/x"), Some("all"));
        assert_eq!(find(&RouteIndex::new(&[route("a", vec![exact("/a")])]), "/x"), None);
    }

    fn any_path() -> impl Strategy<Value = String> {
        let segments = proptest::collection::vec(prop_oneof!["a", "b", "ab"], 0..4);
        (segments, any::<bool>()).prop_map(|(segments, slash)| {
            let path = format!("/{}", segments.join("/"));
            if slash && path.len() > 1 { path + "/" } else { path }
        })
    }

    fn any_match() -> impl Strategy<Value = RouteMatch> {
        let path = prop_oneof![
            Just(None),
            any_path().prop_map(|p| Some(PathMatch::Exact(p.as_str().into()))),
            any_path().prop_map(|p| Some(PathMatch::Prefix(p.as_str().into()))),
        ];
        let method = prop_oneof![Just(None), Just(Some(Method::GET)), Just(Some(Method::POST))];
        let headers = proptest::collection::vec(
            prop_oneof!["0", "1"]
                .prop_map(|v| HeaderMatch { name: HeaderName::from_static("x-h"), value: v.as_str().into() }),
            0..2,
        );
        let query = proptest::collection::vec(
            prop_oneof!["0", "1"].prop_map(|v| QueryMatch { name: "q".into(), value: v.as_str().into() }),
            0..2,
        );
        (path, method, headers, query).prop_map(|(path, method, headers, query)| RouteMatch {
            path,
            method,
            headers,
            query,
            claims: vec![],
        })
    }

    proptest! {
        /// The index agrees with the plain reading of the rules: of all that hold, the one of the highest precedence.
        #[test]
        fn the_index_agrees_with_trying_every_route(
            matches in proptest::collection::vec(proptest::collection::vec(any_match(), 0..3), 0..8),
            path in any_path(), header in "[01]", query in "q=[01]", post in any::<bool>(),
        ) {
            let routes: Vec<Route> =
                matches.into_iter().enumerate().map(|(i, m)| route(&format!("r{i}"), m)).collect();
            let mut headers = HeaderMap::new();
            headers.insert("x-h", header.parse().unwrap());
            let method = if post { Method::POST } else { Method::GET };
            let head = RequestHead { method: &method, path: &path, query: Some(&query), headers: &headers, claims: None };

            let everything = [RouteMatch::default()];
            let expected = routes
                .iter()
                .enumerate()
                .flat_map(|(i, r)| {
                    let all = if r.matches.is_empty() { &everything[..] } else { &r.matches[..] };
                    all.iter().map(move |m| (i, m))
                })
                .filter(|(_, m)| m.holds(&head))
                .min_by_key(|(i, m)| {
                    let path = match &m.path {
                        Some(PathMatch::Exact(_)) => (2, 0),
                        Some(PathMatch::Prefix(p)) => (1, p.strip_suffix('/').unwrap_or(p).len()),
                        None => (1, 0),
                    };
                    (Reverse((path, m.method.is_some(), m.headers.len(), m.query.len())), *i)
                })
                .map(|(i, _)| format!("r{i}"));
            let index = RouteIndex::new(&routes);
            prop_assert_eq!(index.find(&head).map(|r| r.name.as_str().to_owned()), expected);
        }
    }
}
