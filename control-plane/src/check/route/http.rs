//! Whether an HTTPRoute holds.

use outrigger_mesh::{PathChange, PathMatch, Route, RouteMatch, RouteName};

use super::attach::{attachments, hostnames};
use super::parents::Parents;
use super::{CheckedRoute, CheckedRule, Context, rule, warnings};
use crate::check::Found;
use crate::spec::{self, Code, HttpRoute, Object, Problem};
use crate::world::World;

pub(crate) fn check(
    object: &Object,
    spec: &HttpRoute,
    world: &World,
    found: &mut Found,
) -> Option<CheckedRoute> {
    let namespace = &object.metadata.namespace;
    let cx = Context { namespace, world };
    let parents = cx.parents(&spec.parent_refs, found);
    let hostnames = hostnames(&spec.hostnames, &parents.services, found);
    rule::count(spec.rules.iter().map(|r| (r.name.as_deref(), r.matches.len())), found);
    let rules: Vec<CheckedRule> = spec
        .rules
        .iter()
        .enumerate()
        .filter_map(|(i, rule)| {
            let name = format!("{namespace}/{}/{i}", object.metadata.name);
            cx.http_rule(&name, &format!("/spec/rules/{i}"), rule, &parents, found)
        })
        .collect();
    if found.is_fatal() {
        return None;
    }
    let checked = CheckedRoute { parents: parents.services, gateways: parents.gateways, hostnames, rules };
    attachments(&checked, namespace, world, found);
    warnings::add(&object.key(), &checked, world, found);
    Some(checked)
}

impl Context<'_> {
    fn http_rule(
        &self,
        name: &str,
        pointer: &str,
        written: &spec::Rule,
        parents: &Parents,
        found: &mut Found,
    ) -> Option<CheckedRule> {
        let before = found.problems.len();
        let matches = written.matches.iter().enumerate();
        let mut matches: Vec<_> = matches
            .filter_map(|(i, m)| super::conditions(&format!("{pointer}/matches/{i}"), m, found))
            .collect();
        let filters = self.filters(pointer, &written.filters, &matches, found);
        let backends = written.backend_refs.iter().enumerate();
        let backends: Vec<_> = backends
            .filter_map(|(i, b)| self.backend(&format!("{pointer}/backendRefs/{i}"), b, parents, found))
            .collect();
        if filters.redirect.is_some() && !written.backend_refs.is_empty() {
            let message = "what is redirected goes to no backend from here";
            let problem = Problem::error(format!("{pointer}/backendRefs"), Code::Contradiction, message);
            found.add(problem.hint("leave backendRefs out, or RequestRedirect"));
        }
        let timeouts = rule::timeouts(pointer, written.timeouts.as_ref(), found);
        let session = written.session_persistence.as_ref();
        let session = session.and_then(|s| rule::session(pointer, s, name, self.world, found));
        let name = match RouteName::new(name) {
            Ok(name) => name,
            Err(e) => {
                found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string()));
                return None;
            }
        };
        let sound = found.problems[before..].iter().all(|p| p.severity != spec::Severity::Error);
        if replaces_prefix(&filters) {
            write_prefix_out(&mut matches);
        }
        let choice = outrigger_mesh::Choice { session, ..outrigger_mesh::Choice::default() };
        let route = Route { matches, filters, backends, timeouts, choice, ..Route::new(name) };
        sound.then(|| CheckedRule { route, retry: written.retry.clone() })
    }
}

fn replaces_prefix(filters: &outrigger_mesh::Filters) -> bool {
    let redirect = filters.redirect.as_ref().and_then(|r| r.path.as_ref());
    let rewrite = filters.rewrite.as_ref().and_then(|r| r.path.as_ref());
    redirect.or(rewrite).is_some_and(|path| matches!(path, PathChange::Prefix(_)))
}

/// A match that says nothing of the path means the prefix `/` (the Gateway API's default), which is then what is replaced.
fn write_prefix_out(matches: &mut Vec<RouteMatch>) {
    if matches.is_empty() {
        matches.push(RouteMatch::default());
    }
    for m in matches.iter_mut().filter(|m| m.path.is_none()) {
        m.path = Some(PathMatch::Prefix("/".into()));
    }
}
