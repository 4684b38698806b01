//! Whether an HTTPRoute holds.

use super::{CheckedRoute, CheckedRule, Context, rule};
use crate::check::Found;
use crate::spec::{HttpRoute, Object, Severity};
use crate::world::World;

pub(crate) fn check(
    object: &Object,
    spec: &HttpRoute,
    world: &World,
    found: &mut Found,
) -> Option<CheckedRoute> {
    let key = object.key();
    let cx = Context { key: &key, world };
    let counts = spec.rules.iter().map(|r| (r.name.as_deref(), r.matches.len()));
    let frame = cx.frame(&spec.parent_refs, &spec.hostnames, counts, found);
    let mut rules: Vec<CheckedRule> = vec![];
    for (i, written) in spec.rules.iter().enumerate() {
        let before = found.problems.len();
        let matches = written.matches.iter().enumerate();
        let matches = matches
            .filter_map(|(j, m)| super::conditions(&format!("/spec/rules/{i}/matches/{j}"), m, found))
            .collect();
        let said = rule::Said {
            filters: &written.filters,
            backends: &written.backend_refs,
            timeouts: written.timeouts.as_ref(),
            retry: written.retry.as_ref(),
            session: written.session_persistence.as_ref(),
        };
        let checked = cx.rule(i, matches, &said, &frame.parents, found);
        let sound = found.problems[before..].iter().all(|p| p.severity != Severity::Error);
        rules.extend(checked.filter(|_| sound));
    }
    cx.framed(frame, rules, found)
}
