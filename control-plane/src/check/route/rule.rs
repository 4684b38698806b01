//! What the rules of HTTPRoutes and GRPCRoutes say besides their conditions and backends: names, times, sessions.

use std::collections::HashSet;

use outrigger_mesh::{
    Backend, Choice, Filters, PathChange, PathMatch, Route, RouteMatch, RouteName, SessionEnd, Sticky,
    StickyBy, StickyTo, Timeouts, key_hash,
};

use super::headers::keeps_no_place;
use super::parents::Parents;
use super::{CheckedRule, Context};
use crate::routes;

use crate::check::Found;
use crate::spec::{
    self, BackendRef, Code, CookieLifetime, Filter, Problem, RouteRetry, RouteTimeouts, SessionPersistence,
    SessionType,
};
use crate::world::World;

/// What a rule says besides its conditions.
#[derive(Clone, Copy, Default)]
pub(super) struct Said<'a> {
    pub(super) filters: &'a [Filter],
    pub(super) backends: &'a [BackendRef],
    pub(super) timeouts: Option<&'a RouteTimeouts>,
    pub(super) retry: Option<&'a RouteRetry>,
    pub(super) session: Option<&'a SessionPersistence>,
}

impl Context<'_> {
    /// The rule of this number, with these conditions.
    pub(super) fn rule(
        &self,
        number: usize,
        mut matches: Vec<RouteMatch>,
        said: &Said<'_>,
        parents: &Parents,
        found: &mut Found,
    ) -> Option<CheckedRule> {
        let pointer = format!("/spec/rules/{number}");
        let name = self.name_of_rule(number);
        let filters = self.filters(&pointer, said.filters, &matches, found);
        let extensions = self.extensions(&pointer, said.filters, found);
        let backends: Vec<Option<Backend>> = said
            .backends
            .iter()
            .enumerate()
            .map(|(i, b)| self.backend(&format!("{pointer}/backendRefs/{i}"), b, parents, found))
            .collect();
        if filters.redirect.is_some() && !said.backends.is_empty() {
            let message = "what is redirected goes to no backend from here";
            let problem = Problem::error(format!("{pointer}/backendRefs"), Code::Contradiction, message);
            found.add(problem.hint("leave backendRefs out, or RequestRedirect"));
        }
        let timeouts = timeouts(&pointer, said.timeouts, found);
        let session = said.session.and_then(|s| session(&pointer, s, &name, self.world, found));
        let name = RouteName::new(&name).map_err(|e| {
            found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string()));
        });
        if replaces_prefix(&filters) {
            write_prefix_out(&mut matches);
        }
        let choice = Choice { session, ..Choice::default() };
        let backends = backends.into_iter().collect::<Option<Vec<_>>>()?;
        let rule = CheckedRule {
            route: Route { matches, filters, backends, timeouts, choice, ..Route::new(name.ok()?) },
            retry: said.retry.cloned(),
            extensions,
            names: said.backends.iter().map(|backend| backend.name.clone()).collect(),
        };
        if let Err(wrong) = routes::extend(self.world, &rule, &mut rule.route.clone()) {
            let problem = Problem::error(format!("{pointer}/filters"), Code::Reference, wrong.message);
            found.missing(problem.hint(wrong.hint));
        }
        Some(rule)
    }
}

fn replaces_prefix(filters: &Filters) -> bool {
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

/// How many rules and matches there are, and that no two rules have one name.
pub(super) fn count<'a>(rules: impl Iterator<Item = (Option<&'a str>, usize)>, found: &mut Found) {
    let (mut names, mut matches, mut rules_there) = (HashSet::new(), 0, false);
    for (i, (name, own)) in rules.enumerate() {
        rules_there = true;
        matches += own;
        if let Some(name) = name.filter(|name| !names.insert(*name)) {
            let message = format!("there are two rules {name:?}");
            found.add(Problem::error(format!("/spec/rules/{i}/name"), Code::Duplicate, message));
        }
    }
    if !rules_there {
        found.add(Problem::error("/spec/rules", Code::MissingField, "a route without rules routes nothing"));
    }
    if matches > MOST_MATCHES {
        let message =
            format!("its rules have {matches} matches together, at most {MOST_MATCHES} are allowed");
        found.add(Problem::error("/spec/rules", Code::TooLarge, message).hint("make two routes of it"));
    }
}

/// The Gateway API's bound of all matches of a route.
const MOST_MATCHES: usize = 128;

/// How long a request may take. Zero is no limit, which is the longest that can be said.
pub(super) fn timeouts(pointer: &str, written: Option<&RouteTimeouts>, found: &mut Found) -> Timeouts {
    let Some(written) = written else { return Timeouts::default() };
    let get = |d: Option<spec::Duration>| {
        d.map(spec::Duration::get).map(|d| if d.is_zero() { Timeouts::UNBOUNDED } else { d })
    };
    let (request, mut per_try) = (get(written.request), get(written.backend_request));
    if let (Some(one), Some(whole)) = (per_try, request)
        && one > whole
    {
        if one != Timeouts::UNBOUNDED {
            let message = format!("backendRequest ({one:?}) must not be longer than request ({whole:?})");
            let at = format!("{pointer}/timeouts/backendRequest");
            found.add(Problem::error(at, Code::Contradiction, message));
        }
        per_try = Some(whole);
    }
    Timeouts { request, per_try, ..Timeouts::default() }
}

/// Where callers stay. `rule` names the rule, which gives the session its name where it has none, and its key.
pub(super) fn session(
    pointer: &str,
    written: &SessionPersistence,
    rule: &str,
    world: &World,
    found: &mut Found,
) -> Option<Sticky> {
    let at = |field: &str| format!("{pointer}/sessionPersistence/{field}");
    let kind = written.kind.unwrap_or(SessionType::Cookie);
    let lifetime = written.cookie_config.and_then(|c| c.lifetime_type);
    let permanent = lifetime == Some(CookieLifetime::Permanent);
    if kind == SessionType::Header && written.cookie_config.is_some() {
        let problem = Problem::error(at("cookieConfig"), Code::Contradiction, "a header is no cookie");
        found.add(problem.hint("leave cookieConfig out, or write type: Cookie"));
        return None;
    }
    if permanent && written.absolute_timeout.is_none() {
        let message = "a permanent cookie does not say how long it lives";
        let problem = Problem::error(at("absoluteTimeout"), Code::MissingField, message);
        found.add(problem.hint("add absoluteTimeout: 24h"));
        return None;
    }
    let name = written.session_name.clone().unwrap_or_else(|| {
        let short = key_hash(rule.as_bytes()) >> 32;
        format!("outrigger-session-{short:08x}")
    });
    let get = |d: Option<spec::Duration>| d.map(spec::Duration::get);
    let end = SessionEnd { absolute: get(written.absolute_timeout), idle: get(written.idle_timeout) };
    let by = match kind {
        SessionType::Cookie => {
            let ttl = end.absolute.filter(|_| permanent);
            StickyBy::Cookie { name: name.as_str().into(), ttl }
        }
        SessionType::Header => {
            let header = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                let message = format!("{name:?} is not the name of a header");
                found.add(Problem::error(at("sessionName"), Code::BadValue, message));
            });
            let header = header.ok()?;
            // What was in force before this was refused stays in force.
            if let (Some((message, hint)), false) = (keeps_no_place(&header), found.stored) {
                found.add(Problem::error(at("sessionName"), Code::Conflict, message).hint(hint));
                return None;
            }
            StickyBy::Header(header)
        }
    };
    Some(Sticky { by, to: StickyTo::Endpoint, end, key: world.secret().key_for("session", rule) })
}
