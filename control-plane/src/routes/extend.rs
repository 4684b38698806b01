//! What our own filters add to a rule.

use outrigger_mesh::{KeyRange, Partition, Route, RouteMatch, Unresolved};

use super::Dangling;
use crate::check::{CheckedFilter, CheckedRule, Extension};
use crate::world::World;

/// Adds what the filters that `rule` names say to `route`, which is what the rule has become so far. The first filter that
/// is not there, or does not go together with the rest, is why the rule can not be followed.
pub(crate) fn apply(world: &World, rule: &CheckedRule, route: &mut Route) -> Result<(), Dangling> {
    for extension in &rule.extensions {
        let key = match extension {
            Extension::Filter(key) => key,
            Extension::Foreign(kind) => {
                let message = format!("nothing of the kind {kind} is a filter here");
                let hint = "write group: outrigger.dev, kind: RouteFilter";
                return Err(wrong(Unresolved::InvalidKind, message, hint));
            }
        };
        let Some(filter) = world.filter(key) else {
            let message = format!("{key} does not exist");
            return Err(wrong(Unresolved::BackendNotFound, message, "apply it first, or together with this"));
        };
        add(&filter.checked, rule, route).map_err(|message| {
            let message = format!("{key} does not go together with the rule: {message}");
            let hint = "change one of the two, or make two rules";
            Dangling { why: INCOMPATIBLE, ..wrong(Unresolved::InvalidKind, message, hint) }
        })?;
    }
    Ok(())
}

fn wrong(why: Unresolved, message: String, hint: &str) -> Dangling {
    Dangling { field: "extensionRef", why: why.as_str(), message, hint: hint.into() }
}

/// The reason of filters that do not go together.
pub(crate) const INCOMPATIBLE: &str = "IncompatibleFilters";

fn add(filter: &CheckedFilter, rule: &CheckedRule, route: &mut Route) -> Result<(), String> {
    if filter.conditions != RouteMatch::default() {
        if route.matches.is_empty() {
            route.matches.push(RouteMatch::default());
        }
        route.matches.iter_mut().try_for_each(|m| narrow(m, &filter.conditions))?;
    }
    let filters = &mut route.filters;
    filters.faults.extend(filter.fault.clone());
    if filters.faults.len() > outrigger_mesh::Filters::MAX_FAULTS {
        return Err("there are too many faults".into());
    }
    if let Some(direct) = &filter.direct {
        if filters.redirect.is_some() {
            return Err("an answer of its own and a redirect are two answers".into());
        }
        if filters.direct.replace(direct.clone()).is_some() {
            return Err("there are two answers of its own".into());
        }
    }
    filters.max_body = filters.max_body.into_iter().chain(filter.max_body).min();
    for limit in &filter.rate_limits {
        if filters.rate_limits.iter().any(|other| other.name == limit.name) {
            return Err(format!("there are two limits of the name {}", limit.name));
        }
        filters.rate_limits.push(limit.clone());
    }
    if let Some(key) = &filter.split_by
        && route.choice.by.replace(key.clone()).is_some()
    {
        return Err("two keys to split by are said".into());
    }
    if let Some((key, ranges)) = &filter.partition {
        let range = |range: &crate::spec::route_filter::Range| {
            let at = rule.names.iter().position(|name| *name == range.backend);
            let backend = at.ok_or_else(|| {
                let known = rule.names.join(", ");
                format!("its partition leads to {:?}, and the backends are: {known}", range.backend)
            })?;
            let end = |end: &Option<String>| end.as_deref().map(Into::into);
            Ok(KeyRange { from: end(&range.from), to: end(&range.to), backend })
        };
        let ranges = ranges.iter().map(range).collect::<Result<Vec<_>, String>>()?;
        if route.choice.partition.replace(Partition { key: key.clone(), ranges }).is_some() {
            return Err("two partitions are said".into());
        }
    }
    Ok(())
}

/// Makes `m` hold only where `own` does, too.
fn narrow(m: &mut RouteMatch, own: &RouteMatch) -> Result<(), String> {
    m.claims.extend(own.claims.iter().cloned());
    m.cookies.extend(own.cookies.iter().cloned());
    if !own.callers.is_empty() {
        if !m.callers.is_empty() {
            return Err("two filters say who may send the requests".into());
        }
        m.callers.clone_from(&own.callers);
    }
    for (name, value) in &own.labels {
        if m.labels.insert(name.clone(), value.clone()).is_some_and(|other| other != *value) {
            return Err(format!("two filters want different values of the label {name}"));
        }
    }
    Ok(())
}
