//! What has become of each object, written into its status: conditions, as Kubernetes has them.
//!
//! Routes have `status.parents` as the Gateway API words it, beside those that other controllers wrote; Gateways of our class have
//! `status.listeners` besides (`gateway`). Everything else has `Accepted`: whether it is in force, and if not, why. A condition names
//! the generation of the object that it is about, and since when it is as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::gateway;
use crate::check::check_stored;
use crate::spec::{Key, Kind, Object, Severity, Time};
use crate::status::{self, CONTROLLER};
use crate::store::kubernetes::{KubernetesStore, collection};
use crate::world::World;

/// What was written last, so that nothing is written twice.
#[derive(Default)]
pub(super) struct Statuses {
    /// At how many tellings, and which revision, everything was as it should be.
    settled: Option<(u64, u64)>,
    /// What could not be written is not tried before.
    failed: BTreeMap<Key, Instant>,
}

/// So many are written together; more wait for the next round.
const AT_ONCE: usize = 100;
const TRY_AGAIN: Duration = Duration::from_secs(10);

impl Statuses {
    pub(super) async fn round(&mut self, store: &KubernetesStore, world: &World) {
        let now = (store.told(), world.revision());
        if self.settled == Some(now) {
            return;
        }
        let mut written = 0;
        // A ReferenceGrant has none.
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::ReferenceGrant);
        for (key, raw) in kinds.flat_map(|kind| store.written(kind)) {
            let Some(status) = wanted(store, world, &key, &raw) else { continue };
            let waits = self.failed.get(&key).is_some_and(|until| Instant::now() < *until);
            if waits || written >= AT_ONCE {
                continue;
            }
            written += 1;
            let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
            match store.api().merge_status(&collection(key.kind), namespace, name, &status).await {
                Ok(_) => drop(self.failed.remove(&key)),
                Err(error) => {
                    tracing::warn!(object = %key, %error, "its status is not written");
                    self.failed.insert(key, Instant::now() + TRY_AGAIN);
                }
            }
        }
        self.settled = (written == 0 && self.failed.is_empty()).then_some(now);
    }
}

/// The status that an object should have; `None` where it has it.
fn wanted(store: &KubernetesStore, world: &World, key: &Key, raw: &Json) -> Option<Json> {
    let generation = raw["metadata"]["generation"].as_u64().unwrap_or(1);
    let refused = store.refusal(key);
    let wrong = wrong_with(world, key, raw, refused.as_deref());
    let status = if key.kind.is_route() {
        let own = parents(store, world, key, raw, &wrong, generation);
        let all = raw["status"]["parents"].as_array().into_iter().flatten();
        let others = all.filter(|parent| parent["controllerName"] != CONTROLLER).cloned();
        json!({ "parents": others.chain(own).collect::<Vec<_>>() })
    } else if key.kind == Kind::Gateway {
        gateway::status(world, key, raw, &wrong)
    } else {
        let before = raw["status"]["conditions"].as_array();
        let mut own = vec![accepted(&wrong, generation)];
        in_time(&mut own, before);
        let others =
            before.into_iter().flatten().filter(|condition| condition["type"] != "Accepted").cloned();
        json!({ "conditions": own.into_iter().chain(others).collect::<Vec<_>>() })
    };
    let is_there = |(field, said): (&String, &Json)| {
        let there = &raw["status"][field];
        // The order of conditions means nothing, and another program may have put its own in between.
        let all = |said: &Vec<Json>| {
            there.as_array().is_some_and(|t| t.len() == said.len() && said.iter().all(|s| t.contains(s)))
        };
        said.as_array().is_some_and(|said| (said.is_empty() && there.is_null()) || all(said))
    };
    let same = status.as_object().is_some_and(|fields| fields.iter().all(is_there));
    (!same).then_some(status)
}

/// Gives each condition the moment since when it is as it is: that which is told of it already, or now.
pub(super) fn in_time(conditions: &mut [Json], before: Option<&Vec<Json>>) {
    for condition in conditions {
        let mut same = before.into_iter().flatten().filter(|b| b["type"] == condition["type"]);
        // Since when is told by the object itself, whichever control plane looks.
        let kept = same.find(|b| b["status"] == condition["status"]).map(|b| b["lastTransitionTime"].clone());
        let own = || condition.get("lastTransitionTime").cloned();
        let at = kept.filter(Json::is_string).or_else(own).filter(Json::is_string);
        condition["lastTransitionTime"] = at.unwrap_or_else(|| Time::now().to_string().into());
    }
}

/// A condition as Kubernetes has them, but for its moment.
pub(super) fn condition(kind: &str, holds: bool, reason: &str, message: &str, generation: u64) -> Json {
    json!({
        "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
        "message": message.chars().take(MOST_TOLD).collect::<String>(), "observedGeneration": generation,
    })
}

/// Why an object is not in force.
fn wrong_with(world: &World, key: &Key, raw: &Json, refused: Option<&[String]>) -> Vec<String> {
    if let Some(refused) = refused {
        return refused.to_vec();
    }
    if let Some(why) = world.unheld(key) {
        return vec![why.to_owned()];
    }
    if world.object(key).is_some() {
        return vec![];
    }
    let plain = json!({
        "apiVersion": raw["apiVersion"], "kind": raw["kind"], "spec": raw["spec"],
        "metadata": { "name": raw["metadata"]["name"], "namespace": raw["metadata"]["namespace"] },
    });
    match Object::from_json(plain).map(|object| check_stored(&object, world)) {
        Ok(Err(problems)) => {
            let errors = problems.into_iter().filter(|p| p.severity == Severity::Error);
            errors.map(|p| p.to_string()).collect()
        }
        // It holds by now, and the next look finds it in force.
        Ok(Ok(_)) => vec!["it is not in force yet".into()],
        Err(why) => vec![why],
    }
}

fn accepted(wrong: &[String], generation: u64) -> Json {
    if wrong.is_empty() {
        return condition("Accepted", true, "Accepted", "it is in force", generation);
    }
    condition("Accepted", false, "Invalid", &wrong.join("; "), generation)
}

/// What is said of each parent of a route that is ours to speak of.
fn parents(
    store: &KubernetesStore,
    world: &World,
    key: &Key,
    raw: &Json,
    wrong: &[String],
    generation: u64,
) -> Vec<Json> {
    let told = world.route(key).filter(|_| wrong.is_empty()).map(|entry| status::of_route(world, entry));
    let mut own = if let Some(told) = told {
        told["parents"].as_array().cloned().unwrap_or_default()
    } else {
        let refs = raw["spec"]["parentRefs"].as_array().into_iter().flatten().take(MOST_PARENTS);
        let mut accepted = accepted(wrong, generation);
        accepted["reason"] = "UnsupportedValue".into();
        let parent = |parent: &Json| json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": [accepted] });
        refs.map(parent).collect()
    };
    own.retain(|parent| is_ours(store, key, &parent["parentRef"]));
    let before = raw["status"]["parents"].as_array();
    for parent in &mut own {
        let mine = |b: &&Json| b["controllerName"] == CONTROLLER && b["parentRef"] == parent["parentRef"];
        let known = before.into_iter().flatten().find(mine).and_then(|b| b["conditions"].as_array());
        if let Some(conditions) = parent["conditions"].as_array_mut() {
            for condition in conditions.iter_mut() {
                condition["observedGeneration"] = generation.into();
            }
            in_time(conditions, known);
        }
    }
    own
}

/// Whether a parent is one of the mesh: nothing that only others know, no Gateway of another class, and none that is not there, or
/// not known yet, since whose it is its class will say (Gateway API, RouteStatus.parents: a controller speaks of those Gateways
/// alone that it is responsible for).
fn is_ours(store: &KubernetesStore, route: &Key, parent: &Json) -> bool {
    let word = |field: &str| parent[field].as_str();
    let kind = word("kind").unwrap_or("Gateway");
    let group = word("group").unwrap_or(if kind == "Gateway" { GATEWAY_API } else { "" });
    if (group, kind) == (GATEWAY_API, "Gateway") {
        let namespace = word("namespace").unwrap_or(route.namespace.as_str());
        return store.has(Kind::Gateway, namespace, word("name").unwrap_or_default());
    }
    matches!((group, kind), ("", "Service") | ("outrigger.dev", _))
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
/// As many parents as the Gateway API lets a route have.
const MOST_PARENTS: usize = 32;
/// So many characters of why are told: an API server takes 32,768.
const MOST_TOLD: usize = 1_000;
