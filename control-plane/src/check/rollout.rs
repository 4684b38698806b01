//! Whether a Rollout can be carried out: its versions differ, its steps rise to the whole, its gates can be met, and
//! nobody else divides the same service.

use std::time::Duration;

use outrigger_mesh::{
    ClaimMatch, ClaimPath, ClaimTest, CookieMatch, HashKey, Label, RouteMatch, ServiceName, ValueMatch,
    Version,
};

use super::Found;
use super::access_policy::read_caller;
use super::route::conditions;
use super::settings::no_service;
use crate::rollout::{Gates, Plan, Step};
use crate::spec::rollout::{self as written, Rollout, Strategy};
use crate::spec::{self, Code, Hundredths, Kind, Object, Problem};
use crate::world::World;

pub(super) fn check(object: &Object, spec: &Rollout, world: &World, found: &mut Found) -> Option<Plan> {
    let namespace = &object.metadata.namespace;
    let service = Label::new(&spec.service).map(|label| ServiceName::new(namespace.clone(), label)).ok();
    if let Some(service) = &service {
        of_service(object, service, world, found);
    }
    let version = |pointer: &str, text: &str, found: &mut Found| {
        let read = Version::new(text);
        read.map_err(|e| found.add(Problem::error(pointer, Code::BadValue, e.to_string()))).ok()
    };
    let stable = version("/spec/stable", &spec.stable, found);
    let candidate = version("/spec/candidate", &spec.candidate, found);
    if stable.is_some() && stable == candidate {
        let message = format!("{} would take its own place", spec.candidate);
        let problem = Problem::error("/spec/candidate", Code::Contradiction, message);
        found.add(problem.hint("name the new version, the one of its instances' label"));
    }
    if let (Some(service), Some(stable), false) = (&service, &stable, found.stored) {
        nobody_is_stable(service, stable, world, found);
    }
    misplaced(spec, found);
    let gates = gates("/spec/gates", &Gates::default(), spec.gates.as_ref(), found);
    let steps = match spec.strategy {
        Strategy::Canary => canary(spec, &gates, found),
        Strategy::BlueGreen => blue_green(spec, &gates),
    };
    doubtful(&steps, found);
    let preview = spec.matches.iter().enumerate();
    let preview = preview
        .filter_map(|(i, m)| preview_of(&format!("/spec/match/{i}"), m, object, world, found))
        .collect();
    let by = spec.sticky.as_ref().and_then(|sticky| key(sticky, found));
    if found.is_fatal() {
        return None;
    }
    Some(Plan {
        service: service?,
        strategy: spec.strategy,
        stable: stable?,
        candidate: candidate?,
        steps,
        preview,
        by,
        on_failure: spec.on_failure.unwrap_or_default(),
        ack_timeout: spec.ack_timeout.map_or(ACK_TIMEOUT, spec::Duration::get),
        ready_timeout: spec.ready_timeout.map_or(READY_TIMEOUT, spec::Duration::get),
    })
}

const HOLD: Duration = Duration::from_secs(300);
const MAX_DRAIN: Duration = Duration::from_secs(600);
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// What is reported every second or two says nothing about less.
const SHORTEST_WINDOW: Duration = Duration::from_secs(2);
const LONGEST_WINDOW: Duration = Duration::from_hours(1);

fn of_service(object: &Object, service: &ServiceName, world: &World, found: &mut Found) {
    match world.service(service) {
        None => {
            found.add(no_service("/spec/service", service, world));
            return;
        }
        Some(entry) if entry.object.kind() == Kind::EgressService => {
            let message = format!("{service} is an EgressService, and what is outside has no versions");
            found.add(Problem::error("/spec/service", Code::Reference, message));
        }
        Some(_) => {}
    }
    let own = object.key();
    if let Some(other) = world.rollout_of(service).filter(|e| e.object.key() != own) {
        let key = other.object.key();
        let message = format!("{key} divides {service} already");
        let problem = Problem::error("/spec/service", Code::Conflict, message);
        found.add(
            problem.hint(format!("change that one, or delete it: outrigger delete rollout {}", key.name)),
        );
    }
    for route in world.routes_from(service) {
        let names = |b: &outrigger_mesh::Backend| b.service == *service && b.version.is_some();
        if route.checked.rules.iter().any(|rule| rule.route.backends.iter().any(names)) {
            let key = route.object.key();
            let message = format!("{key} names versions of {service} itself: what it takes stays as it says");
            found.add(Problem::warning("/spec/service", Code::Contradiction, message));
        }
    }
}

/// Refuses to begin where other versions have the traffic: none of it would be left for anybody from the first look on.
/// Once it is under way the old version may go.
fn nobody_is_stable(service: &ServiceName, stable: &Version, world: &World, found: &mut Found) {
    let under_way = world.rollouts.progress(service).is_some_and(|p| p.of.stable == stable.as_str());
    let versions = world.instances(service).map(|i| i.checked.endpoint.version.clone());
    let there: std::collections::BTreeSet<_> = versions.collect();
    if under_way || there.contains(&Some(stable.clone())) {
        return;
    }
    if there.is_empty() {
        let message = format!("{service} has no instance yet: those that come first must be of {stable}");
        found.add(Problem::warning("/spec/stable", Code::Reference, message));
        return;
    }
    let names = there.into_iter().map(|v| v.map_or("none at all".to_owned(), |v| v.as_str().to_owned()));
    let names = names.collect::<Vec<_>>().join(", ");
    let message = format!("no instance of {service} is of {stable}, so all requests would be refused");
    let hint = format!("its instances say as their version: {names}; a sidecar says it with --version");
    found.add(Problem::error("/spec/stable", Code::Reference, message).hint(hint));
}

/// Refuses what would be ignored with this strategy.
fn misplaced(spec: &Rollout, found: &mut Found) {
    let mut refuse = |written: bool, field: &str, message: &str, hint: &str| {
        if written {
            let problem = Problem::error(format!("/spec/{field}"), Code::Contradiction, message);
            found.add(problem.hint(hint));
        }
    };
    match spec.strategy {
        Strategy::Canary => {
            let hint = "leave it out, or write strategy: blueGreen";
            refuse(spec.preview.is_some(), "preview", "a canary begins with its first step", hint);
            refuse(spec.max_drain.is_some(), "maxDrain", "a canary keeps the old version to its end", hint);
        }
        Strategy::BlueGreen => {
            let message = "blue-green gives everything at once";
            refuse(!spec.steps.is_empty(), "steps", message, "leave them out, or write strategy: canary");
            let nothing = spec.preview.is_some() && spec.matches.is_empty();
            let hint = "add match: [{headers: [{name: x-preview, value: \"1\"}]}]";
            refuse(nothing, "preview", "a preview that nobody sees", hint);
        }
    }
}

fn canary(spec: &Rollout, gates: &Gates, found: &mut Found) -> Vec<Step> {
    let default = [100, 1_000, 5_000, 10_000].map(|weight| written::Step {
        weight: Hundredths::new(weight),
        hold: None,
        gates: None,
    });
    let steps = if spec.steps.is_empty() { &default[..] } else { &spec.steps };
    let mut before = 0;
    let mut read = vec![];
    for (i, step) in steps.iter().enumerate() {
        let (at, share) = (format!("/spec/steps/{i}"), step.weight.get());
        if share <= before {
            let least = Hundredths::new(before);
            let message = format!("step {i} gives {}, and the one before it {least}", step.weight);
            let problem = Problem::error(format!("{at}/weight"), Code::Contradiction, message);
            found.add(problem.hint(format!("steps rise: write more than {least}")));
        }
        before = before.max(share);
        read.push(Step {
            share: u32::try_from(share).unwrap_or_default(),
            hold: step.hold.map_or(HOLD, spec::Duration::get),
            gates: self::gates(&format!("{at}/gates"), gates, step.gates.as_ref(), found),
            waits_for_requests: true,
        });
    }
    if before != 10_000 {
        let message = format!("the last step gives {}, so it would never be done", Hundredths::new(before));
        found.add(Problem::error("/spec/steps", Code::Contradiction, message).hint("add - weight: 100"));
    }
    read
}

fn blue_green(spec: &Rollout, gates: &Gates) -> Vec<Step> {
    let step = |share, hold: Duration| Step { share, hold, gates: gates.clone(), waits_for_requests: false };
    let preview = spec.preview.map(|hold| step(0, hold.get()));
    let drain = step(10_000, spec.max_drain.map_or(MAX_DRAIN, spec::Duration::get));
    preview.into_iter().chain([drain]).collect()
}

/// The gates of one step: what it says itself, else what the whole says.
fn gates(at: &str, wider: &Gates, spec: Option<&written::Gates>, found: &mut Found) -> Gates {
    let Some(spec) = spec else { return wider.clone() };
    let success = spec.success_rate.clone().unwrap_or_default();
    let latency = spec.latency.clone().unwrap_or_default();
    let read = Gates {
        min_success: success.min.map(Hundredths::get).or(wider.min_success),
        success_below_stable: success
            .compared_with_stable
            .map(Hundredths::get)
            .or(wider.success_below_stable),
        p50: latency.p50.map(spec::Duration::get).or(wider.p50),
        p99: latency.p99.map(spec::Duration::get).or(wider.p99),
        latency_of_stable: latency.compared_with_stable.map(Hundredths::get).or(wider.latency_of_stable),
        min_requests: spec.min_requests.unwrap_or(wider.min_requests),
        window: spec.window.map_or(wider.window, spec::Duration::get),
    };
    let mut bad = |field: &str, message: String, hint: &str| {
        found.add(Problem::error(format!("{at}/{field}"), Code::BadValue, message).hint(hint));
    };
    if success.compared_with_stable.is_some_and(|points| points.get() > 0) {
        let message = "a candidate as good as stable would fail".into();
        bad("successRate/comparedWithStable", message, "write by how many points it may lie below: -0.5");
    }
    if latency.compared_with_stable.is_some_and(|factor| factor.get() < LEAST_FACTOR) {
        let least = Hundredths::new(LEAST_FACTOR);
        let message = format!("latencies are counted in steps of an eighth: {least} is the least that tells");
        bad("latency/comparedWithStable", message, "write a factor: 1.5");
    }
    if let (Some(p50), Some(p99)) = (read.p50, read.p99)
        && p50 > p99
        && (latency.p50.is_some() || latency.p99.is_some())
    {
        let message = format!("half within {p50:?} says nothing where 99 of 100 come within {p99:?}");
        bad("latency/p50", message, "p50 is the shorter of both");
    }
    if spec.window.is_some() && !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&read.window) {
        bad("window", "a window is from 2s to 1h".into(), "sidecars report every second or two");
    }
    if read.ask_nothing() {
        let message = "these gates ask for nothing";
        let problem = Problem::error(at, Code::MissingField, message);
        found.add(problem.hint("add successRate: {min: 99}, or leave gates out"));
    }
    read
}

/// What is allowed, but probably not meant.
fn doubtful(steps: &[Step], found: &mut Found) {
    if steps.iter().all(|step| step.gates.ask_nothing()) {
        let message = "there is no gate: whatever the candidate does, it goes on";
        let problem = Problem::warning("/spec/gates", Code::MissingField, message);
        found.add(problem.hint("add gates: {successRate: {min: 99}}"));
    }
    // One failure among so few requests is more than may fail.
    let hasty = |gates: &Gates| {
        let may_fail = gates.min_success.and_then(|min| u64::try_from(10_000 - min).ok());
        may_fail.is_some_and(|share| share > 0 && gates.min_requests * share < 10_000)
    };
    if let Some(gates) = steps.iter().map(|step| &step.gates).find(|gates| hasty(gates)) {
        let share = u64::try_from(10_000 - gates.min_success.unwrap_or_default()).unwrap_or(1);
        let message = format!("one failed request of {} fails the gate", gates.min_requests);
        let problem = Problem::warning("/spec/gates/minRequests", Code::Contradiction, message);
        found.add(problem.hint(format!("write minRequests: {} or more", 10_000_u64.div_ceil(share))));
    }
}

/// In hundredths: two equal latencies can be told an eighth apart.
const LEAST_FACTOR: i32 = 120;

fn preview_of(
    at: &str,
    spec: &written::Preview,
    object: &Object,
    world: &World,
    found: &mut Found,
) -> Option<RouteMatch> {
    if *spec == written::Preview::default() {
        let message = "it matches every request, so there would be no steps";
        found.add(Problem::error(at, Code::Contradiction, message).hint("say which requests are meant"));
        return None;
    }
    // The same words as a route's.
    let of_route =
        spec::Match { headers: spec.headers.clone(), method: spec.method.clone(), ..spec::Match::default() };
    let mut read = conditions(at, &of_route, found).unwrap_or_default();
    for (i, claim) in spec.claims.iter().enumerate() {
        let values: Vec<_> = claim.values.iter().map(|v| v.as_str().into()).collect();
        let test = if values.is_empty() { ClaimTest::Present } else { ClaimTest::OneOf(values) };
        match ClaimPath::new(&claim.claim) {
            Ok(claim) => read.claims.push(ClaimMatch { claim, test }),
            Err(e) => {
                found.add(Problem::error(format!("{at}/claims/{i}/claim"), Code::BadValue, e.to_string()));
            }
        }
    }
    let exact = |c: &written::Cookie| CookieMatch {
        name: c.name.as_str().into(),
        value: ValueMatch::Exact(c.value.as_str().into()),
    };
    read.cookies = spec.cookies.iter().map(exact).collect();
    for (i, caller) in spec.callers.iter().enumerate() {
        read.callers.extend(read_caller(&format!("{at}/callers/{i}"), object, caller, world, found));
    }
    Some(read)
}

fn key(sticky: &written::StickyKey, found: &mut Found) -> Option<HashKey> {
    let claim = sticky.claim.as_deref().and_then(|claim| ClaimPath::new(claim).ok());
    let mut said = [
        sticky.header.as_ref().map(|name| HashKey::Header(name.get().clone())),
        sticky.cookie.as_deref().map(|name| HashKey::Cookie(name.into())),
        claim.map(HashKey::Claim),
        (sticky.identity == Some(true)).then_some(HashKey::SourceIdentity),
    ]
    .into_iter()
    .flatten();
    let first = said.next();
    if first.is_none() || said.next().is_some() {
        let message = "a caller stays by exactly one key";
        let problem = Problem::error("/spec/sticky", Code::Contradiction, message);
        found.add(problem.hint("write one of: header, cookie, claim, identity: true"));
    }
    first
}
