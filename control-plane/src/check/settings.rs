//! Whether the settings of a policy say something that can be done, and where they stand make sense. Whether they agree
//! with those of other layers is judged when all layers are known (`crate::policy`).

use http::{HeaderName, HeaderValue};
use outrigger_mesh::{Label, ServiceName};

use super::Found;
use super::route::{conditions, keeps_no_place};
use crate::spec::policy::{
    Balance, BalanceAlgorithm, Bulkheads, Fallback, HealthCheck, PolicySettings, RateBy, RateLimit,
};
use crate::spec::{self, Code, Problem};
use crate::world::World;

/// Where settings stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    /// In the defaults of the mesh.
    Mesh,
    /// In the policy of a service of the mesh.
    Service(&'a ServiceName),
    /// In the policy of hosts outside.
    Outside(&'a ServiceName),
    /// In the policy of some callers of a service.
    Callers(&'a ServiceName),
    /// In the policy of a route.
    Route(&'a Label),
}

pub(super) fn check(
    prefix: &str,
    settings: &PolicySettings,
    scope: Scope<'_>,
    world: &World,
    found: &mut Found,
) {
    misplaced(prefix, settings, scope, found);
    if let Some(balance) = &settings.balance {
        self::balance(&format!("{prefix}/balance"), balance, found);
    }
    if let Some(fallback) = settings.service_breaker.as_ref().and_then(|b| b.fallback.as_ref()) {
        self::fallback(&format!("{prefix}/serviceBreaker/fallback"), fallback, scope, world, found);
    }
    if let Some(health) = &settings.health_check {
        self::health(&format!("{prefix}/healthCheck"), health, scope, world, found);
    }
    for (i, limit) in settings.rate_limits.iter().flatten().enumerate() {
        let all = settings.rate_limits.as_deref().unwrap_or_default();
        rate_limit(&format!("{prefix}/rateLimits/{i}"), limit, &all[..i], found);
    }
}

/// Refuses what would be ignored where it stands.
fn misplaced(prefix: &str, settings: &PolicySettings, scope: Scope<'_>, found: &mut Found) {
    let mut refuse = |written: bool, field: &str, message: &str, hint: &str| {
        if written {
            let pointer = format!("{prefix}/{field}");
            found.add(Problem::error(pointer, Code::Contradiction, message).hint(hint));
        }
    };
    let bulkhead = settings.bulkhead.as_ref();
    let of_caller = bulkhead.is_some_and(|b: &Bulkheads| b.caller.is_some());
    let limits = settings.rate_limits.is_some();
    match scope {
        Scope::Mesh | Scope::Service(_) => {}
        Scope::Outside(_) => {
            let message = "it is kept by the sidecar of the service, and what is outside has none";
            let hint = "leave it out; bulkhead and connections bound what leaves the mesh";
            refuse(of_caller, "bulkhead/caller", message, hint);
            refuse(limits, "rateLimits", message, hint);
        }
        Scope::Callers(_) => {
            let message = "it is kept by the sidecar of the service, for all of its callers alike";
            let hint =
                "write it in the policy of the service, without callers; by: caller counts each for itself";
            refuse(of_caller, "bulkhead/caller", message, hint);
            refuse(limits, "rateLimits", message, hint);
        }
        Scope::Route(_) => {
            let message = "it holds for the endpoints of a service, whatever route leads to them";
            let hint = "write it in the policy of the service";
            refuse(settings.balance.is_some(), "balance", message, hint);
            refuse(settings.endpoint_breaker.is_some(), "endpointBreaker", message, hint);
            refuse(settings.slow_start.is_some(), "slowStart", message, hint);
            refuse(settings.connections.is_some(), "connections", message, hint);
            refuse(settings.health_check.is_some(), "healthCheck", message, hint);
            refuse(bulkhead.is_some_and(|b| b.endpoint.is_some()), "bulkhead/endpoint", message, hint);
            refuse(bulkhead.is_some_and(|b| b.max_streams.is_some()), "bulkhead/maxStreams", message, hint);
            refuse(of_caller, "bulkhead/caller", message, hint);
            let connect = settings.timeouts.as_ref().is_some_and(|t| t.connect.is_some());
            refuse(connect, "timeouts/connect", message, hint);
            let hint = "write it in the policy of the service, with matches for the requests it counts";
            refuse(limits, "rateLimits", "a route has no rate limits of its own", hint);
            let retry = settings.retry.as_ref();
            let (message, hint) = ("there is one budget of retries for a service", hint_of_service());
            refuse(retry.is_some_and(|r| r.budget_percent.is_some()), "retry/budgetPercent", message, hint);
            refuse(retry.is_some_and(|r| r.budget_floor.is_some()), "retry/budgetFloor", message, hint);
        }
    }
}

const fn hint_of_service() -> &'static str {
    "write it in the policy of the service"
}

fn balance(pointer: &str, balance: &Balance, found: &mut Found) {
    if let Some(hash) = &balance.hash {
        let said = [
            hash.header.is_some(),
            hash.cookie.is_some(),
            hash.query.is_some(),
            hash.claim.is_some(),
            hash.source.is_some(),
        ];
        one_of(&format!("{pointer}/hash"), &said, "header, cookie, query, claim, source", found);
        if balance.algorithm.is_some_and(|a| a != BalanceAlgorithm::Maglev) {
            let message = "what is hashed means nothing to this algorithm";
            let problem = Problem::error(format!("{pointer}/hash"), Code::Contradiction, message);
            found.add(problem.hint("write algorithm: maglev, or leave hash out"));
        }
    }
    if let Some(sticky) = balance.sticky.as_ref().filter(|s| s.enabled != Some(false)) {
        let said = [sticky.cookie.is_some(), sticky.header.is_some()];
        one_of(&format!("{pointer}/sticky"), &said, "cookie, header", found);
        let header = sticky.header.as_ref().filter(|_| !found.stored);
        if let Some((message, hint)) = header.and_then(|h| keeps_no_place(h.get())) {
            let problem = Problem::error(format!("{pointer}/sticky/header"), Code::Conflict, message);
            found.add(problem.hint(hint));
        }
    }
}

fn fallback(pointer: &str, fallback: &Fallback, scope: Scope<'_>, world: &World, found: &mut Found) {
    one_of(pointer, &[fallback.status.is_some(), fallback.service.is_some()], "status, service", found);
    if fallback.status.is_none() && (fallback.body.is_some() || !fallback.headers.is_empty()) {
        let message = "headers and body belong to an answer, which has a status";
        found.add(Problem::error(pointer, Code::Contradiction, message).hint("add status: 200"));
    }
    if fallback.headers.len() > 32 {
        let message = "there are more than 32 headers";
        found.add(Problem::error(format!("{pointer}/headers"), Code::TooLarge, message));
    }
    for (name, value) in &fallback.headers {
        let named = HeaderName::from_bytes(name.as_bytes());
        if named.is_err() || HeaderValue::from_str(value).is_err() {
            let at = format!("{pointer}/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            found.add(Problem::error(at, Code::BadValue, format!("{name:?} is not a header with a value")));
        } else if named.is_ok_and(|n| OURS.contains(&n.as_str()) || n.as_str().starts_with("x-outrigger-")) {
            let at = format!("{pointer}/headers/{name}");
            found.add(Problem::error(at, Code::Conflict, format!("{name} is written by the proxy itself")));
        }
    }
    let Some(service) = &fallback.service else { return };
    let at = format!("{pointer}/service");
    let (namespace, own) = match scope {
        Scope::Mesh => {
            let message = "the defaults of the mesh can name no service: each has its own";
            let problem = Problem::error(at, Code::Contradiction, message);
            found.add(problem.hint("write status and body, or a policy of the service"));
            return;
        }
        Scope::Service(of) | Scope::Outside(of) | Scope::Callers(of) => (of.namespace(), Some(of)),
        Scope::Route(namespace) => (namespace, None),
    };
    let Ok(label) = Label::new(service) else { return };
    let name = ServiceName::new(namespace.clone(), label);
    if own == Some(&name) {
        let message = "a service can not stand in for itself";
        found.add(Problem::error(at, Code::Contradiction, message));
    } else if world.service(&name).is_none() && !found.stored {
        found.add(no_service(&at, &name, world));
    }
}

/// Headers that say how long an answer is or what becomes of its connection.
const OURS: [&str; 6] =
    ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"];

/// There is no service of this name; perhaps one of nearly this name.
pub(super) fn no_service(pointer: &str, name: &ServiceName, world: &World) -> Problem {
    let problem = Problem::error(pointer, Code::Reference, format!("there is no service {name}"));
    let names: Vec<_> = world.services().map(|s| s.checked.name().clone()).collect();
    let same = names.iter().filter(|n| n.namespace() == name.namespace());
    match spec::nearest(name.name().as_str(), same.map(|n| n.name().as_str())) {
        Some(near) => problem.hint(format!("did you mean {near:?}?")),
        None => problem.hint("apply it first, or together with this"),
    }
}

fn health(pointer: &str, health: &HealthCheck, scope: Scope<'_>, world: &World, found: &mut Found) {
    let said = [health.http.is_some(), health.grpc.is_some(), health.tcp.is_some()];
    if said.iter().filter(|s| **s).count() > 1 {
        one_of(pointer, &said, "http, grpc, tcp", found);
    }
    let (Scope::Service(name) | Scope::Outside(name) | Scope::Callers(name)) = scope else { return };
    let Some(entry) = world.service(name) else { return };
    let ports = &entry.checked.service().ports;
    if let Some(port) = health.port.filter(|port| ports.iter().all(|p| p.number.get() != *port)) {
        let message = format!("the service {name} has no port {port}");
        found.add(Problem::error(format!("{pointer}/port"), Code::Reference, message));
    }
}

pub(super) fn rate_limit(pointer: &str, limit: &RateLimit, before: &[RateLimit], found: &mut Found) {
    if before.iter().any(|other| other.name == limit.name) {
        let message = format!("there are two limits of the name {}", limit.name);
        found.add(Problem::error(format!("{pointer}/name"), Code::Duplicate, message));
    }
    match (limit.by == Some(RateBy::Header), &limit.header) {
        (true, None) => {
            let message = "by: header does not say which header";
            found.add(Problem::error(pointer, Code::MissingField, message).hint("add header: x-api-key"));
        }
        (false, Some(_)) => {
            let message = "a header is only looked at with by: header";
            let problem = Problem::error(format!("{pointer}/header"), Code::Contradiction, message);
            found.add(problem.hint("write by: header, or leave header out"));
        }
        _ => {}
    }
    match (limit.by == Some(RateBy::Claim), &limit.claim) {
        (true, None) => {
            let message = "by: claim does not say which claim";
            found.add(Problem::error(pointer, Code::MissingField, message).hint("add claim: sub"));
        }
        (false, Some(_)) => {
            let message = "a claim is only looked at with by: claim";
            let problem = Problem::error(format!("{pointer}/claim"), Code::Contradiction, message);
            found.add(problem.hint("write by: claim, or leave claim out"));
        }
        _ => {}
    }
    if limit.per.get() > std::time::Duration::from_hours(24) {
        let message = "a rate is counted over a day at most";
        found.add(Problem::error(format!("{pointer}/per"), Code::BadValue, message));
    }
    for (i, written) in limit.matches.iter().enumerate() {
        conditions(&format!("{pointer}/matches/{i}"), written, found);
    }
}

pub(super) fn one_of(pointer: &str, said: &[bool], words: &str, found: &mut Found) {
    let count = said.iter().filter(|said| **said).count();
    if count != 1 {
        let message = if count == 0 { "it says nothing" } else { "it says more than one thing" };
        let problem = Problem::error(pointer, Code::Contradiction, message);
        found.add(problem.hint(format!("write one of: {words}")));
    }
}
