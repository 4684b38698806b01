//! Finding the route of a request, with the Gateway API's order of precedence.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderName;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::matching::{PathMatch, RouteMatch, ValueMatch};
use super::pattern;
use super::{RequestHead, Route};

/// The routes of a service, arranged so that the cost of a request does not grow with their number.
///
/// Exact paths are found by one hash lookup, expressions by one pass over the path, prefixes by one lookup for each
/// segment of it, of those that a prefix of the table is as long as. Where many matches share a path they are told apart by the value of a header; only what is left is
/// tried one after the other.
///
/// Precedence (Gateway API v1, HTTPRouteRule.matches): exact path, then the longest expression (where it comes is left
/// to the implementation), then the longest prefix, then a method, then the most headers, then the most query
/// parameters, then (our own) the most other conditions, then the older route, then the earlier rule and match.
/// A method of gRPC without its service comes after every path with one (GRPCRouteRule.matches).
#[derive(Debug, Default)]
pub struct RouteIndex {
    routes: Vec<Arc<Route>>,
    exact: HashMap<Arc<str>, Candidates>,
    expressions: Expressions,
    /// Keyed by the prefix without its trailing slash; the empty key holds what matches every path.
    prefix: HashMap<Arc<str>, Candidates>,
    /// The length of the longest of those keys.
    longest: usize,
}

/// The route that a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its number among the routes that the index was made of.
    pub route: usize,
    /// The number of the match that held, among the route's; 0 also where the route has none.
    pub rule: usize,
}

/// One match of a route.
#[derive(Clone, Debug)]
struct Candidate {
    hit: Hit,
    conditions: RouteMatch,
}

impl RouteIndex {
    /// Arranges `routes`, which come the oldest first.
    pub fn new(routes: &[Route]) -> Self {
        Self::of(routes.iter().cloned().map(Arc::new).collect())
    }

    /// The same of routes that are shared.
    pub fn of(routes: Vec<Arc<Route>>) -> Self {
        let (mut exact, mut prefix): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        let mut expressions: BTreeMap<(Reverse<usize>, Arc<str>), Vec<Candidate>> = BTreeMap::new();
        let everything = [RouteMatch::default()];
        for (number, route) in routes.iter().enumerate() {
            let matches = if route.matches.is_empty() { &everything[..] } else { &route.matches[..] };
            for (rule, conditions) in matches.iter().enumerate() {
                let candidate =
                    Candidate { hit: Hit { route: number, rule }, conditions: conditions.clone() };
                match &conditions.path {
                    Some(PathMatch::Exact(path)) => {
                        exact.entry(Arc::clone(path)).or_default().push(candidate);
                    }
                    Some(PathMatch::Prefix(path)) => {
                        let bare: Arc<str> = path.strip_suffix('/').unwrap_or(path).into();
                        prefix.entry(bare).or_default().push(candidate);
                    }
                    Some(PathMatch::Regex(pattern)) => {
                        let key = (Reverse(pattern.as_str().len()), pattern.as_str().into());
                        expressions.entry(key).or_default().push(candidate);
                    }
                    Some(PathMatch::Method(_)) | None => {
                        prefix.entry("".into()).or_default().push(candidate);
                    }
                }
            }
        }
        let arranged = |map: HashMap<Arc<str>, Vec<Candidate>>| {
            map.into_iter().map(|(path, all)| (path, Candidates::new(all))).collect()
        };
        let expressions = Expressions::new(expressions.into_values().collect());
        let longest = prefix.keys().map(|key| key.len()).max().unwrap_or(0);
        Self { routes, exact: arranged(exact), expressions, prefix: arranged(prefix), longest }
    }

    /// Whether there is no route at all, which means that everything goes to all endpoints.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route a request takes; `None` when none matches.
    pub fn find(&self, request: &RequestHead<'_>) -> Option<&Arc<Route>> {
        self.hit(request).map(|hit| &self.routes[hit.route])
    }

    /// The same as a position in the routes that the index was made of, for whoever keeps more beside each.
    pub fn position(&self, request: &RequestHead<'_>) -> Option<usize> {
        self.hit(request).map(|hit| hit.route)
    }

    /// The same with the match that held.
    pub fn hit(&self, request: &RequestHead<'_>) -> Option<Hit> {
        let by_exact = || self.exact.get(request.path).and_then(|candidates| candidates.first(request));
        by_exact().or_else(|| self.expressions.first(request)).or_else(|| self.find_by_prefix(request))
    }

    /// The prefix of its path by which a request was matched.
    pub fn prefix_of(&self, hit: Hit) -> Option<&str> {
        match &self.routes.get(hit.route)?.matches.get(hit.rule).and_then(|m| m.path.as_ref()) {
            Some(PathMatch::Prefix(prefix)) => Some(prefix),
            // What matches every path is matched by its prefix "/", which is the default of a match.
            None => Some("/"),
            Some(_) => None,
        }
    }

    fn find_by_prefix(&self, request: &RequestHead<'_>) -> Option<Hit> {
        let path = request.path.strip_suffix('/').unwrap_or(request.path);
        // What no prefix of the table is as long as is not looked up: a long path costs what a short one does.
        let mut prefix = match path.as_bytes().get(..=self.longest) {
            Some(within) => &path[..within.iter().rposition(|byte| *byte == b'/').unwrap_or(0)],
            None => path,
        };
        loop {
            let found = self.prefix.get(prefix).and_then(|candidates| candidates.first(request));
            if found.is_some() || prefix.is_empty() {
                return found;
            }
            prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
        }
    }
}

/// Matches, each with its place in the order of precedence among those that share a path.
type Ranked = Vec<(usize, Candidate)>;

/// Matches that share a path, in the order of their precedence.
#[derive(Debug, Default)]
struct Candidates {
    /// What is tried whatever the request says.
    rest: Ranked,
    /// What can only hold for one value of this header.
    by_header: Option<(HeaderName, HashMap<Arc<str>, Ranked>)>,
}

impl Candidates {
    fn new(mut all: Vec<Candidate>) -> Self {
        // A stable sort: among equals the older route and the earlier rule stay in front.
        all.sort_by_key(|c| {
            let m = &c.conditions;
            let of_grpc = matches!(m.path, Some(PathMatch::Method(_)));
            let own = m.own_conditions();
            Reverse((of_grpc, m.method.is_some(), m.headers.len(), m.query.len(), own))
        });
        let name = (all.len() > FEW).then(|| common_header(&all)).flatten();
        let ranked = all.into_iter().enumerate();
        let Some(name) = name else { return Self { rest: ranked.collect(), by_header: None } };
        let (mut rest, mut by_value): (Vec<_>, HashMap<_, Vec<_>>) = Default::default();
        for (rank, candidate) in ranked {
            match exact_value(&candidate.conditions, &name) {
                Some(value) => by_value.entry(Arc::clone(value)).or_default().push((rank, candidate)),
                None => rest.push((rank, candidate)),
            }
        }
        Self { rest, by_header: Some((name, by_value)) }
    }

    fn first(&self, request: &RequestHead<'_>) -> Option<Hit> {
        let mut best = self.rest.iter().find(|(_, c)| c.holds(request));
        if let Some((name, by_value)) = &self.by_header {
            // Each value of a repeated header is looked at by itself.
            for value in request.headers.get_all(name) {
                let all = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| by_value.get(text));
                let found = all.and_then(|all| all.iter().find(|(_, c)| c.holds(request)));
                best = best.into_iter().chain(found).min_by_key(|(rank, _)| *rank);
            }
        }
        best.map(|(_, candidate)| candidate.hit)
    }
}

impl Candidate {
    /// Whether it holds, where its path does. A method of gRPC is a path that no map finds.
    fn holds(&self, request: &RequestHead<'_>) -> bool {
        match &self.conditions.path {
            Some(PathMatch::Method(_)) => self.conditions.holds(request),
            _ => self.conditions.holds_beyond_path(request),
        }
    }
}

/// The header by whose exact value the most of them are told apart, if it is worth it.
fn common_header(all: &[Candidate]) -> Option<HeaderName> {
    let mut counts: HashMap<&HeaderName, usize> = HashMap::new();
    for header in all.iter().flat_map(|c| &c.conditions.headers) {
        if matches!(header.value, ValueMatch::Exact(_)) {
            *counts.entry(&header.name).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|(name, count)| (*count, Reverse(name.as_str())))?;
    (most.1 > FEW).then(|| most.0.clone())
}

fn exact_value<'a>(conditions: &'a RouteMatch, name: &HeaderName) -> Option<&'a Arc<str>> {
    conditions.headers.iter().find_map(|header| match &header.value {
        ValueMatch::Exact(value) if header.name == *name => Some(value),
        _ => None,
    })
}

/// Matches by expressions, the longest expression first.
#[derive(Debug, Default)]
struct Expressions {
    /// All of them at once, where there are several.
    set: Option<RegexSet>,
    all: Vec<(pattern::Pattern, Candidates)>,
}

impl Expressions {
    fn new(groups: Vec<Vec<Candidate>>) -> Self {
        let all: Vec<_> = groups
            .into_iter()
            .filter_map(|group| {
                let pattern = match &group.first()?.conditions.path {
                    Some(PathMatch::Regex(pattern)) => pattern.clone(),
                    _ => return None,
                };
                Some((pattern, Candidates::new(group)))
            })
            .collect();
        let set = (all.len() > FEW).then(|| {
            let texts = all.iter().map(|(pattern, _)| pattern.anchored());
            let mut builder = RegexSetBuilder::new(texts);
            let size = pattern::SIZE.saturating_mul(all.len());
            builder
                .unicode(false)
                .size_limit(size)
                .dfa_size_limit(size.min(MOST_OF_SET))
                .nest_limit(33)
                .build()
                .ok()
        });
        Self { set: set.flatten(), all }
    }

    fn first(&self, request: &RequestHead<'_>) -> Option<Hit> {
        let path = request.path.as_bytes();
        match &self.set {
            None => {
                let mut holding = self.all.iter().filter(|(pattern, _)| pattern.holds(path));
                holding.find_map(|(_, candidates)| candidates.first(request))
            }
            Some(set) => set.matches(path).iter().find_map(|at| self.all[at].1.first(request)),
        }
    }
}

/// So many are tried one after the other before they are told apart by anything.
const FEW: usize = 4;
/// The memory of a set's cache, in bytes.
const MOST_OF_SET: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::route::{HeaderMatch, Pattern, QueryMatch, RouteName, Source};

    fn route(name: &str, matches: Vec<RouteMatch>) -> Route {
        Route { matches, ..Route::new(RouteName::new(name).unwrap()) }
    }

    fn exact(path: &str) -> RouteMatch {
        RouteMatch { path: Some(PathMatch::Exact(path.into())), ..RouteMatch::default() }
    }

    fn prefix(path: &str) -> RouteMatch {
        RouteMatch { path: Some(PathMatch::Prefix(path.into())), ..RouteMatch::default() }
    }

    fn find<'a>(index: &'a RouteIndex, path: &str) -> Option<&'a str> {
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            path,
            query: None,
            headers: &headers,
            claims: None,
            source: Source::default(),
        };
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
            let head = RequestHead {
                method,
                path: "/a/b",
                query: None,
                headers,
                claims: None,
                source: Source::default(),
            };
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

    /// Looking up every one of the prefixes of such a path would take minutes in the end.
    #[test]
    fn a_path_of_thousands_of_segments_costs_what_a_short_one_does() {
        let index = RouteIndex::new(&[route("root", vec![prefix("/")]), route("ab", vec![prefix("/a/b")])]);
        let (long, within) = ("/a".repeat(8_192), format!("/a/b{}", "/c".repeat(8_192)));
        let began = std::time::Instant::now();
        for _ in 0..500 {
            assert_eq!((find(&index, &long), find(&index, &within)), (Some("root"), Some("ab")));
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
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
            proptest::sample::select(&["/a", "/[ab]+", "/.*", "/a/.+", "(?i)/A.*", "/[^a]*"][..])
                .prop_map(|p| Some(PathMatch::Regex(Pattern::new(p).unwrap()))),
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
            ..RouteMatch::default()
        })
    }

    proptest! {
        /// The index agrees with the plain reading of the rules: of all that hold, the one of the highest precedence.
        #[test]
        fn the_index_agrees_with_trying_every_route(
            matches in proptest::collection::vec(proptest::collection::vec(any_match(), 0..4), 0..16),
            path in any_path(), header in "[01]", query in "q=[01]", post in any::<bool>(),
        ) {
            let routes: Vec<Route> =
                matches.into_iter().enumerate().map(|(i, m)| route(&format!("r{i}"), m)).collect();
            let mut headers = HeaderMap::new();
            headers.insert("x-h", header.parse().unwrap());
            let method = if post { Method::POST } else { Method::GET };
            let head = RequestHead { method: &method, path: &path, query: Some(&query), headers: &headers, claims: None, source: Source::default() };

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
                        Some(PathMatch::Exact(_)) => (3, 0, Reverse(String::new())),
                        Some(PathMatch::Regex(p)) => (2, p.as_str().len(), Reverse(p.as_str().to_owned())),
                        Some(PathMatch::Prefix(p)) => {
                            (1, p.strip_suffix('/').unwrap_or(p).len(), Reverse(String::new()))
                        }
                        Some(PathMatch::Method(_)) | None => (1, 0, Reverse(String::new())),
                    };
                    (Reverse((path, m.method.is_some(), m.headers.len(), m.query.len())), *i)
                })
                .map(|(i, _)| format!("r{i}"));
            let index = RouteIndex::new(&routes);
            prop_assert_eq!(index.find(&head).map(|r| r.name.as_str().to_owned()), expected);
        }
    }
}
