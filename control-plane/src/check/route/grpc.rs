//! Whether a GRPCRoute holds, and its conditions as those on requests.

use outrigger_mesh::{PathMatch, RouteMatch};

use super::matches::{metadata, pattern};
use super::{CheckedRoute, CheckedRule, Context, rule};
use crate::check::Found;
use crate::spec::grpc_route::{GrpcMatch, GrpcRoute, MethodMatch, MethodMatchType};
use crate::spec::{Code, Object, Problem};
use crate::world::World;

pub(crate) fn check(
    object: &Object,
    spec: &GrpcRoute,
    world: &World,
    found: &mut Found,
) -> Option<CheckedRoute> {
    let key = object.key();
    let cx = Context { key: &key, world };
    let counts = spec.rules.iter().map(|r| (r.name.as_deref(), r.matches.len()));
    let frame = cx.frame(&spec.parent_refs, &spec.hostnames, counts, found);
    let mut rules: Vec<CheckedRule> = vec![];
    for (i, written) in spec.rules.iter().enumerate() {
        let pointer = format!("/spec/rules/{i}");
        let before = found.problems.len();
        let mut matches: Vec<RouteMatch> = written
            .matches
            .iter()
            .enumerate()
            .filter_map(|(i, m)| conditions(&format!("{pointer}/matches/{i}"), m, found))
            .collect();
        if written.matches.is_empty() {
            matches.push(RouteMatch { grpc: true, ..RouteMatch::default() });
        }
        let said = rule::Said {
            filters: &written.filters,
            backends: &written.backend_refs,
            session: written.session_persistence.as_ref(),
            ..rule::Said::default()
        };
        let checked = cx.rule(i, matches, &said, &frame.parents, found);
        let sound = found.problems[before..].iter().all(|p| p.severity != crate::spec::Severity::Error);
        rules.extend(checked.filter(|_| sound));
    }
    cx.framed(frame, rules, found)
}

fn conditions(pointer: &str, written: &GrpcMatch, found: &mut Found) -> Option<RouteMatch> {
    let before = found.problems.len();
    let path = written.method.as_ref().and_then(|m| method(&format!("{pointer}/method"), m, found));
    let headers = metadata(pointer, &written.headers, found);
    (found.problems.len() == before).then(|| RouteMatch {
        path,
        headers,
        grpc: true,
        ..RouteMatch::default()
    })
}

/// What is called stands in the path: `/package.Service/Method`.
fn method(at: &str, written: &MethodMatch, found: &mut Found) -> Option<PathMatch> {
    let (service, method) = (written.service.as_deref(), written.method.as_deref());
    if service.is_none() && method.is_none() {
        let problem = Problem::error(at, Code::MissingField, "it names neither a service nor a method");
        found.add(problem.hint("add service: shop.Cart, or leave method out for every call"));
        return None;
    }
    if written.kind == MethodMatchType::RegularExpression {
        let sound = |field: &str, text: Option<&str>, found: &mut Found| {
            text.is_none_or(|text| pattern(&format!("{at}/{field}"), text, found).is_some())
        };
        let both = [sound("service", service, found), sound("method", method, found)];
        if both != [true, true] {
            return None;
        }
        let (service, method) = (service.unwrap_or("[^/]+"), method.unwrap_or("[^/]+"));
        return pattern(at, &format!("/(?:{service})/(?:{method})"), found).map(PathMatch::Regex);
    }
    let mut sound = true;
    for (field, text, dots) in [("service", service, true), ("method", method, false)] {
        if let Some(text) = text.filter(|text| !is_name(text, dots)) {
            let problem = Problem::error(
                format!("{at}/{field}"),
                Code::BadValue,
                format!("{text:?} is not the name of a {field} of gRPC"),
            );
            found.add(problem.hint(if dots {
                "write it with its package, like shop.Cart"
            } else {
                "write it alone, like Get"
            }));
            sound = false;
        }
    }
    sound.then_some(match (service, method) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}").into()),
        (None, method) => PathMatch::Method(method.unwrap_or_default().into()),
    })
}

/// Words of letters, digits and `_`, none of which begins with a digit, joined by dots where there may be some.
fn is_name(text: &str, dots: bool) -> bool {
    let word = |word: &str| {
        word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && word.bytes().next().is_some_and(|b| !b.is_ascii_digit())
    };
    if dots { text.strip_prefix('.').unwrap_or(text).split('.').all(word) } else { word(text) }
}
