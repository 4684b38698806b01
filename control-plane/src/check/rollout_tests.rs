//! Rollouts that hold, and those that could never be carried out.

use std::time::Duration;

use outrigger_mesh::HashKey;

use crate::check::{Checked, check};
use crate::rollout::Plan;
use crate::spec::{Code, Problem, Severity};
use crate::testing::{egress, instance, name, put, rollout, route, service, world};
use crate::world::World;

fn shop() -> World {
    let mut world = world();
    put(&mut world, service("cart", "ports: [{port: 80}]")).unwrap();
    put(&mut world, instance("cart-1", "service: cart, version: v1, address: 10.0.0.1")).unwrap();
    world
}

fn read(world: &World, rest: &str) -> (Plan, Vec<Problem>) {
    match check(&rollout("cart", "cart", rest), world) {
        Ok((Checked::Rollout(plan), warnings)) => (plan, warnings),
        other => panic!("{rest}: {other:#?}"),
    }
}

/// What is wrong with it, each with its place and hint.
fn wrong(world: &World, service: &str, rest: &str) -> Vec<(String, Code, bool)> {
    let found = check(&rollout("cart", service, rest), world).unwrap_err();
    let errors = found.into_iter().filter(|p| p.severity == Severity::Error);
    errors.map(|p| (p.pointer, p.code, p.hint.is_some())).collect()
}

#[test]
fn what_is_not_said_has_a_sensible_default() {
    let (plan, warnings) = read(&shop(), "strategy: canary");
    assert_eq!(plan.service, name("shop/cart"));
    assert_eq!(plan.steps.iter().map(|s| s.share).collect::<Vec<_>>(), [100, 1_000, 5_000, 10_000]);
    assert!(plan.steps.iter().all(|s| s.hold == Duration::from_secs(300) && s.gates.ask_nothing()));
    assert!(warnings.iter().any(|w| w.message.contains("no gate")), "{warnings:?}");
    let (plan, _) = read(
        &shop(),
        "strategy: blueGreen, maxDrain: 1m, preview: 5m, match: [{headers: [{name: x-new, value: \"1\"}]}]",
    );
    let told: Vec<_> = plan.steps.iter().map(|s| (s.share, s.hold.as_secs(), s.waits_for_requests)).collect();
    assert_eq!(told, [(0, 300, false), (10_000, 60, false)]);
    assert_eq!(plan.preview[0].headers[0].name, "x-new");
}

#[test]
fn a_step_can_differ_from_the_gates_of_the_whole() {
    let rest = "strategy: canary, sticky: {cookie: user}, gates: {successRate: {min: 99.5}, minRequests: 400, window: 30s}, \
                steps: [{weight: 0.5, hold: 10s, gates: {successRate: {min: 98}, latency: {p99: 200ms}}}, {weight: 100, hold: 0s}]";
    let (plan, warnings) = read(&shop(), rest);
    assert_eq!(warnings, []);
    let [first, last] = &plan.steps[..] else { panic!("{plan:?}") };
    assert_eq!((first.share, first.gates.min_success, first.gates.min_requests), (50, Some(9_800), 400));
    assert_eq!((first.gates.p99, first.gates.window.as_secs()), (Some(Duration::from_millis(200)), 30));
    assert_eq!((last.gates.min_success, last.gates.p99, last.hold), (Some(9_950), None, Duration::ZERO));
    assert_eq!(plan.by, Some(HashKey::Cookie("user".into())));
}

#[test]
fn everything_that_can_not_be_carried_out_is_told_at_once() {
    let rest = "strategy: canary, preview: 1m, sticky: {header: x-user, cookie: user}, match: [{}], \
                gates: {successRate: {comparedWithStable: 1}, latency: {p50: 2s, p99: 1s, comparedWithStable: 1.05}, window: 1s}, \
                steps: [{weight: 10}, {weight: 5}, {weight: 50, gates: {minRequests: 5}}]";
    let mut told = wrong(&shop(), "cart", rest);
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let at: Vec<&str> = told.iter().map(|(pointer, ..)| pointer.as_str()).collect();
    assert_eq!(
        at,
        [
            "/spec/gates/latency/comparedWithStable",
            "/spec/gates/latency/p50",
            "/spec/gates/successRate/comparedWithStable",
            "/spec/gates/window",
            "/spec/match/0",
            "/spec/preview",
            "/spec/steps",
            "/spec/steps/1/weight",
            "/spec/sticky",
        ]
    );
    assert!(told.iter().all(|(.., hint)| *hint), "each has a hint: {told:?}");
}

#[test]
fn a_rollout_is_of_one_service_of_the_mesh_and_the_only_one_of_it() {
    let mut world = shop();
    put(&mut world, egress("cards", "hosts: [pay.example], ports: [{port: 443}]")).unwrap();
    assert_eq!(wrong(&world, "card", "strategy: canary"), [("/spec/service".into(), Code::Reference, true)]);
    assert_eq!(wrong(&world, "cards", "strategy: canary")[0].1, Code::Reference);
    assert_eq!(wrong(&world, "cart", "strategy: canary, gates: {minRequests: 5}")[0].0, "/spec/gates");
    put(&mut world, rollout("first", "cart", "strategy: canary")).unwrap();
    let found = check(&rollout("second", "cart", "strategy: canary"), &world).unwrap_err();
    assert!(found.iter().any(|p| p.code == Code::Conflict && p.message.contains("shop/first")), "{found:?}");
    put(&mut world, rollout("first", "cart", "strategy: blueGreen")).unwrap();
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let mut world = shop();
    let backend = "backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: cart.v1}]";
    put(&mut world, route("beta", "cart", backend)).unwrap();
    let gates = "strategy: canary, gates: {successRate: {min: 99.5}, minRequests: 20}";
    let (_, warnings) = read(&world, gates);
    let told: Vec<_> = warnings.iter().map(|w| w.pointer.as_str()).collect();
    assert_eq!(told, ["/spec/service", "/spec/gates/minRequests"]);
    assert!(warnings[1].message.contains("one failed request"), "{warnings:?}");
}
