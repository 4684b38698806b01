//! What the rules of HTTPRoutes and GRPCRoutes say besides their conditions and backends: names, times, sessions.

use std::collections::HashSet;

use outrigger_mesh::{Sticky, StickyBy, StickyTo, Timeouts, key_hash};

use crate::check::Found;
use crate::spec::{self, Code, CookieLifetime, Problem, RouteTimeouts, SessionPersistence, SessionType};
use crate::world::World;

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
    if !permanent && written.absolute_timeout.is_some() {
        let message = "only a permanent cookie can be given an end: nobody keeps account of other sessions";
        let problem = Problem::error(at("absoluteTimeout"), Code::Unsupported, message);
        found.add(problem.hint("add cookieConfig: {lifetimeType: Permanent}, or leave it out"));
        return None;
    }
    let name = written.session_name.clone().unwrap_or_else(|| {
        let short = key_hash(rule.as_bytes()) >> 32;
        format!("outrigger-session-{short:08x}")
    });
    let by = match kind {
        SessionType::Cookie => {
            let ttl = written.absolute_timeout.map(spec::Duration::get);
            StickyBy::Cookie { name: name.as_str().into(), ttl }
        }
        SessionType::Header => {
            let header = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                let message = format!("{name:?} is not the name of a header");
                found.add(Problem::error(at("sessionName"), Code::BadValue, message));
            });
            StickyBy::Header(header.ok()?)
        }
    };
    Some(Sticky { by, to: StickyTo::Endpoint, key: world.secret().key_for("session", rule) })
}
