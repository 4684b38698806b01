//! Whether the layers of a policy agree: each may be sound, and two of them contradict each other.

use outrigger_mesh::{InvalidPolicy, ServiceName, TrafficPolicy};
use serde_json::{Value as Json, json};

use super::{caller_policies, key_of, merge, of_rule, of_service, policy_of, rules, whole};
use crate::spec::{Key, PolicySettings};
use crate::world::World;

/// Two settings that can not both hold, or one that can not hold at all.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Whose policy it is: a service, some of its callers, or a route.
    pub(crate) about: String,
    /// What is wrong.
    pub(crate) invalid: InvalidPolicy,
    /// Everything that speaks of it, the widest first.
    pub(crate) layers: Vec<Layer>,
}

impl Fault {
    /// Whether `other` is the same, whoever said it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.about == other.about && self.invalid == other.invalid
    }
}

/// An object that says something of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The object.
    pub(crate) key: Key,
    /// Where in it the settings stand.
    prefix: String,
    settings: Json,
}

impl Layer {
    fn of(key: Key, prefix: &str, settings: &PolicySettings) -> Self {
        Self { key, prefix: prefix.into(), settings: serde_json::to_value(settings).unwrap_or_default() }
    }

    /// Where it says `field`, or something else of the same part, or where it says anything: the nearest there is.
    /// Whether it says the field itself comes with it.
    pub(crate) fn pointer(&self, field: &str) -> Option<(String, bool)> {
        let exact = format!("/{}", field.replace('.', "/"));
        let said = |at: &str| self.settings.pointer(at).is_some();
        if said(&exact) {
            return Some((format!("{}{}", self.prefix, self.written(&exact)), true));
        }
        let part = format!("/{}", field.split('.').next().unwrap_or_default());
        let of_part = self.settings.pointer(&part)?;
        // One setting of the part alone is what the field does not agree with.
        let only = of_part.as_object().filter(|all| all.len() == 1).and_then(|all| all.keys().next());
        let at = only.map_or_else(|| part.clone(), |only| format!("{part}/{only}"));
        Some((format!("{}{}", self.prefix, self.written(&at)), false))
    }

    /// A route has its own word for one setting.
    fn written(&self, pointer: &str) -> String {
        if self.key.kind == crate::spec::Kind::HttpRoute {
            pointer.replace("/perTry", "/backendRequest")
        } else {
            pointer.to_owned()
        }
    }
}

/// Everything that does not agree in the policies of a service, its callers and its routes.
pub(crate) fn faults_of(world: &World, name: &ServiceName) -> Vec<Fault> {
    let Some(entry) = world.service(name) else { return vec![] };
    let base = of_service(world, name);
    let mut layers = defaults(world);
    layers.push(Layer::of(entry.object.key(), "/spec", entry.checked.inline()));
    if let Some(own) = policy_of(world, name) {
        layers.push(Layer::of(own.object.key(), "/spec", &own.checked.settings));
    }
    let found = invalid(world, name, &base);
    let mut all: Vec<Fault> = found
        .iter()
        .map(|e| Fault { about: name.to_string(), invalid: e.clone(), layers: layers.clone() })
        .collect();
    for callers in caller_policies(world, name) {
        let settings = merge::over(&callers.checked.settings, &base);
        let of_callers = invalid(world, name, &settings).into_iter().filter(|e| !found.contains(e));
        let mut layers = layers.clone();
        layers.push(Layer::of(callers.object.key(), "/spec", &callers.checked.settings));
        let about = format!("{name} for the callers of {}", callers.object.key());
        all.extend(of_callers.map(|invalid| Fault { about: about.clone(), invalid, layers: layers.clone() }));
    }
    for route in world.routes_naming(name) {
        let of_route = of_route(world, route, Some(name), &layers);
        all.extend(of_route.into_iter().filter(|f| !found.contains(&f.invalid)));
    }
    all
}

/// Everything that does not agree in the policies of a route at its gateways.
pub(crate) fn faults_at_gateways(world: &World, route: &Key) -> Vec<Fault> {
    let attached = world.route(route).is_some_and(|r| !r.checked.gateways.is_empty());
    if attached { of_route(world, route, None, &defaults(world)) } else { vec![] }
}

fn defaults(world: &World) -> Vec<Layer> {
    let written = world.defaults().zip(world.default_policy());
    written
        .map(|(entry, settings)| Layer::of(entry.object.key(), "/spec/trafficPolicy", settings))
        .into_iter()
        .collect()
}

fn invalid(world: &World, name: &ServiceName, settings: &PolicySettings) -> Vec<InvalidPolicy> {
    let mut all = whole::policy(settings, name.namespace(), &key_of(world, name)).faults();
    all.extend(whole::protection(settings).check().err());
    all
}

/// What a policy of a route makes of its rules. Rules that no policy speaks of have warnings of their own.
fn of_route(world: &World, key: &Key, before: Option<&ServiceName>, layers: &[Layer]) -> Vec<Fault> {
    let service = before.map(|name| super::service(world, name)).unwrap_or_default();
    let mut all = vec![];
    for (i, rule) in rules(world, key, before).into_iter().enumerate() {
        if of_rule(world, key, i).is_none() {
            continue;
        }
        let both = TrafficPolicy {
            timeouts: rule.timeouts.or(&service.timeouts).of_route(),
            retry: rule.retry.clone().unwrap_or_else(|| service.retry.clone()),
            ..TrafficPolicy::default()
        };
        let mut layers = layers.to_vec();
        if let Some(written) = world.route(key).and_then(|r| r.checked.rules.get(i)).map(|r| &r.route) {
            let told = |d: Option<std::time::Duration>| d.map(|d| format!("{}ms", d.as_millis()));
            let mut timeouts = json!({});
            for (name, value) in [("request", written.timeouts.request), ("perTry", written.timeouts.per_try)]
            {
                if let Some(value) = told(value) {
                    timeouts[name] = value.into();
                }
            }
            let prefix = format!("/spec/rules/{i}");
            layers.push(Layer { key: key.clone(), prefix, settings: json!({ "timeouts": timeouts }) });
        }
        for policy in world.policies_of_route(key) {
            let section = policy.checked.target.section();
            if section.is_none_or(|section| section == i) {
                layers.push(Layer::of(policy.object.key(), "/spec", &policy.checked.settings));
            }
        }
        let found = both.faults().into_iter().chain(rule.policy.faults());
        let about = rule.name.to_string();
        all.extend(found.map(|invalid| Fault { about: about.clone(), invalid, layers: layers.clone() }));
    }
    all
}
