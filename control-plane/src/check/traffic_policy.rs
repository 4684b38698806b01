//! Whether what a policy holds for exists, and has no other policy.

use outrigger_mesh::{Label, ServiceName, SpiffeId};

use super::Found;
use super::settings::{self, Scope, no_service};
use crate::spec::{
    self, Code, Key, Kind, Object, ObjectName, PolicySettings, Problem, Spec, TargetKind, TargetRef,
    TrafficPolicy,
};
use crate::world::World;

/// A policy that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedPolicy {
    /// What it holds for.
    pub target: PolicyTarget,
    /// Whose requests; none for all.
    pub callers: Vec<SpiffeId>,
    /// What it says.
    pub settings: PolicySettings,
}

/// What a policy holds for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyTarget {
    /// A service.
    Service(ServiceName),
    /// A route, or one of its rules, counted from 0.
    Route(Key, Option<usize>),
}

impl PolicyTarget {
    /// The rule, if it is one.
    pub fn section(&self) -> Option<usize> {
        match self {
            Self::Service(_) => None,
            Self::Route(_, section) => *section,
        }
    }
}

pub(super) fn check(
    object: &Object,
    spec: &TrafficPolicy,
    world: &World,
    found: &mut Found,
) -> Option<CheckedPolicy> {
    group(&spec.target_ref, found);
    let target = target(object, &spec.target_ref, world, found)?;
    let callers = callers(object, spec, &target, world, found);
    let scope = match &target {
        PolicyTarget::Route(key, _) => Scope::Route(&key.namespace),
        PolicyTarget::Service(name) if !spec.callers.is_empty() => Scope::Callers(name),
        PolicyTarget::Service(name) if spec.target_ref.kind == TargetKind::EgressService => {
            Scope::Outside(name)
        }
        PolicyTarget::Service(name) => Scope::Service(name),
    };
    settings::check("/spec", &spec.settings, scope, world, found);
    alone(object, &target, &callers, world, found);
    if spec.settings == PolicySettings::default() {
        found.add(Problem::warning("/spec", Code::MissingField, "it says nothing but what it holds for"));
    }
    (!found.is_fatal()).then(|| CheckedPolicy { target, callers, settings: spec.settings.clone() })
}

fn group(target: &TargetRef, found: &mut Found) {
    let right = target.kind.group();
    if target.group.as_deref().is_some_and(|group| group != right) {
        let message = "this kind is not in this group";
        let problem = Problem::error("/spec/targetRef/group", Code::Contradiction, message);
        found.add(problem.hint(format!("write group: {right:?}")));
    }
}

fn target(object: &Object, target: &TargetRef, world: &World, found: &mut Found) -> Option<PolicyTarget> {
    const NAME: &str = "/spec/targetRef/name";
    const SECTION: &str = "/spec/targetRef/sectionName";
    let namespace = &object.metadata.namespace;
    let bad = |pointer: &str, message: String| Problem::error(pointer, Code::BadValue, message);
    if let Some(kind) = target.kind.route() {
        let name = ObjectName::new(&target.name).map_err(|e| found.add(bad(NAME, e))).ok()?;
        let key = Key { kind, namespace: namespace.clone(), name };
        let Some(entry) = world.route(&key) else {
            found.add(no_route(NAME, &key, world));
            return None;
        };
        let Some(section) = &target.section_name else { return Some(PolicyTarget::Route(key, None)) };
        let names = names_of_rules(&entry.object.spec);
        let Some(rule) = names.iter().position(|name| *name == Some(section)) else {
            let problem = Problem::error(SECTION, Code::Reference, format!("{key} has no rule {section:?}"));
            let names: Vec<_> = names.into_iter().flatten().collect();
            found.add(match spec::nearest(section, names.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None if names.is_empty() => problem.hint("give the rule a name: in the route"),
                None => problem.hint(format!("its rules are: {}", names.join(", "))),
            });
            return None;
        };
        return Some(PolicyTarget::Route(key, Some(rule)));
    }
    if target.section_name.is_some() {
        let problem =
            Problem::error(SECTION, Code::Unsupported, "a policy for one port is not supported yet");
        found.add(problem.hint("leave sectionName out"));
    }
    let label = Label::new(&target.name).map_err(|e| found.add(bad(NAME, e.to_string()))).ok()?;
    let name = ServiceName::new(namespace.clone(), label);
    let Some(entry) = world.service(&name) else {
        found.add(no_service(NAME, &name, world));
        return None;
    };
    let outside = entry.object.kind() == Kind::EgressService;
    if outside != (target.kind == TargetKind::EgressService) {
        let kind = entry.object.kind();
        let message = format!("{name} is of the kind {kind}");
        let problem = Problem::error("/spec/targetRef/kind", Code::Reference, message);
        found.add(problem.hint(format!("write kind: {kind}")));
    }
    Some(PolicyTarget::Service(name))
}

/// The name of each rule of a route that has one.
fn names_of_rules(spec: &Spec) -> Vec<Option<&str>> {
    match spec {
        Spec::HttpRoute(route) => route.rules.iter().map(|rule| rule.name.as_deref()).collect(),
        Spec::GrpcRoute(route) => route.rules.iter().map(|rule| rule.name.as_deref()).collect(),
        _ => vec![],
    }
}

fn no_route(pointer: &str, key: &Key, world: &World) -> Problem {
    let problem = Problem::error(pointer, Code::Reference, format!("{key} does not exist"));
    let all = world.objects(key.kind, Some(&key.namespace));
    let names = all.iter().map(|e| e.object().metadata.name.as_str());
    match spec::nearest(key.name.as_str(), names) {
        Some(near) => problem.hint(format!("did you mean {near:?}?")),
        None => problem.hint("apply the route first, or together with this"),
    }
}

fn callers(
    object: &Object,
    spec: &TrafficPolicy,
    target: &PolicyTarget,
    world: &World,
    found: &mut Found,
) -> Vec<SpiffeId> {
    if let (PolicyTarget::Route(..), false) = (target, spec.callers.is_empty()) {
        let message = "a policy for some callers is one of a service";
        let problem = Problem::error("/spec/callers", Code::Contradiction, message);
        found.add(problem.hint("leave callers out, or let targetRef name the service"));
    }
    let mut all = vec![];
    for (i, text) in spec.callers.iter().enumerate() {
        let pointer = format!("/spec/callers/{i}");
        let account =
            |label| SpiffeId::new(world.trust_domain().clone(), object.metadata.namespace.clone(), label);
        let identity = if text.contains(':') { text.parse() } else { Label::new(text).map(account) };
        match identity {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, e.to_string())),
            Ok(id) if all.contains(&id) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{id} is there twice")));
            }
            Ok(id) => all.push(id),
        }
    }
    all
}

/// Two policies for the same would leave open which holds.
fn alone(object: &Object, target: &PolicyTarget, callers: &[SpiffeId], world: &World, found: &mut Found) {
    let own = object.key();
    let mut conflict = |pointer: &str, what: String, other: &Key| {
        let problem =
            Problem::error(pointer, Code::Conflict, format!("{what} has a policy already, {other}"));
        found.add(problem.hint(format!("write it there, or delete {other} together with this")));
    };
    match target {
        PolicyTarget::Service(name) => {
            for other in world.policies_of(name).filter(|e| e.object.key() != own) {
                let key = other.object.key();
                if callers.is_empty() && other.checked.callers.is_empty() {
                    conflict("/spec/targetRef", format!("the service {name}"), &key);
                }
                for (i, caller) in callers.iter().enumerate() {
                    if other.checked.callers.contains(caller) {
                        conflict(
                            &format!("/spec/callers/{i}"),
                            format!("the caller {caller} of {name}"),
                            &key,
                        );
                    }
                }
            }
        }
        PolicyTarget::Route(route, section) => {
            let same = |e: &&std::sync::Arc<crate::world::Entry<CheckedPolicy>>| {
                e.object.key() != own && e.checked.target.section() == *section
            };
            for other in world.policies_of_route(route).filter(same) {
                conflict("/spec/targetRef", format!("{route}"), &other.object.key());
            }
        }
    }
}
