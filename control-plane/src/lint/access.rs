//! Access rules that others undo.

use outrigger_mesh::{AccessAction, AccessPolicy, AccessRule, CallerMatch, InboundService};

use super::Finding;
use crate::spec::{Code, Kind, Problem};

/// Deny wins: what a deny rule covers whole, an allow rule allows in vain, and an audit rule tells nothing of.
pub(super) fn of_service(service: &InboundService) -> Vec<Finding> {
    let of = |action| service.access.policies.iter().filter(move |p| p.action == action);
    let mut found = vec![];
    for denying in of(AccessAction::Deny) {
        for deny in &denying.rules {
            for undone in of(AccessAction::Allow).chain(of(AccessAction::Audit)) {
                let covered = undone.rules.iter().enumerate().filter(|(_, rule)| covers(deny, rule));
                found.extend(covered.map(|(i, _)| in_vain(undone, i, denying, deny)));
            }
        }
    }
    for policy in of(AccessAction::Allow).filter(|policy| policy.rules.is_empty()) {
        let message = format!(
            "it allows nothing, so every request to {} that no other allows is refused",
            service.name
        );
        found.push(finding(policy, "/spec".into(), Code::NoTraffic, message));
    }
    found
}

fn in_vain(undone: &AccessPolicy, rule: usize, denying: &AccessPolicy, deny: &AccessRule) -> Finding {
    let (word, name) = (undone.action.as_str(), &denying.name);
    let message = format!(
        "this {word} rule never counts: policy {name}, rule {} denies all that it holds for",
        deny.name
    );
    finding(undone, format!("/spec/rules/{rule}"), Code::Contradiction, message)
}

fn finding(policy: &AccessPolicy, pointer: String, code: Code, message: String) -> Finding {
    let problem = Problem::warning(pointer, code, message);
    Finding { kinds: &[Kind::AccessPolicy], object: policy.name.as_str().to_owned(), problem }
}

/// Whether `wide` holds for everything that `narrow` holds for. Of paths only those that are written alike are compared.
fn covers(wide: &AccessRule, narrow: &AccessRule) -> bool {
    let headers = wide.headers.iter().all(|h| narrow.headers.contains(h));
    let claims = wide.claims.iter().all(|c| narrow.claims.contains(c));
    each(&wide.from, &narrow.from, covers_caller)
        && each(&wide.ports, &narrow.ports, |a, b| a == b)
        && each(&wide.methods, &narrow.methods, |a, b| a == b)
        && each(&wide.paths, &narrow.paths, |a, b| a == b)
        && headers
        && claims
}

/// Whether each of `narrow` is covered by one of `wide`; a list that is empty says nothing.
fn each<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|n| wide.iter().any(|w| covers(w, n)))
}

fn covers_caller(wide: &CallerMatch, narrow: &CallerMatch) -> bool {
    match (wide, narrow) {
        (wide, CallerMatch::Id(id)) => wide.holds(Some(id)),
        (CallerMatch::TrustDomain(own), CallerMatch::Namespace(of, _)) => own == of,
        (CallerMatch::Authenticated, narrow) => *narrow != CallerMatch::Unauthenticated,
        (wide, narrow) => wide == narrow,
    }
}
