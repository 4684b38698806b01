//! What has become of each object, written into its status: conditions, as Kubernetes has them.
//!
//! Routes have `status.parents` as the Gateway API words it, beside those that other controllers wrote. Everything else has
//! `Accepted`: whether it is in force, and if not, why. A condition names the generation of the object that it is about, and since
//! when it is as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

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
        let refused = store.refused();
        let mut written = 0;
        // A ReferenceGrant has none, and whether an Instance is there the one that registered it sees.
        let kinds = Kind::ALL.into_iter().filter(|k| !matches!(k, Kind::Instance | Kind::ReferenceGrant));
        for (key, raw) in kinds.flat_map(|kind| store.written(kind)) {
            let Some(status) = wanted(world, &key, &raw, refused.get(&key).map(Vec::as_slice)) else {
                continue;
            };
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
fn wanted(world: &World, key: &Key, raw: &Json, refused: Option<&[String]>) -> Option<Json> {
    let generation = raw["metadata"]["generation"].as_u64().unwrap_or(1);
    let wrong = wrong_with(world, key, raw, refused);
    if key.kind.is_route() {
        let own = parents(world, key, raw, &wrong, generation);
        let all = raw["status"]["parents"].as_array().into_iter().flatten();
        let others = all.filter(|parent| parent["controllerName"] != CONTROLLER).cloned();
        let parents: Vec<Json> = others.chain(own).collect();
        return (raw["status"]["parents"] != json!(parents)).then(|| json!({ "parents": parents }));
    }
    let mut conditions = vec![accepted(&wrong, generation)];
    if key.kind == Kind::Gateway {
        conditions.push(Json::from_iter([
            ("type", json!("Programmed")),
            ("status", conditions[0]["status"].clone()),
            ("reason", json!(if wrong.is_empty() { "Programmed" } else { "Invalid" })),
            (
                "message",
                json!(if wrong.is_empty() { "its proxies are told of it" } else { "it is not accepted" }),
            ),
            ("observedGeneration", generation.into()),
        ]));
    }
    let before = raw["status"]["conditions"].as_array();
    let since = |condition: &mut Json| {
        let same = before.into_iter().flatten().find(|b| b["type"] == condition["type"]);
        let at = same.filter(|b| b["status"] == condition["status"]).map(|b| b["lastTransitionTime"].clone());
        condition["lastTransitionTime"] = at.unwrap_or_else(|| Time::now().to_string().into());
    };
    conditions.iter_mut().for_each(since);
    let is_own = |condition: &&Json| !conditions.iter().any(|own| own["type"] == condition["type"]);
    let others = before.into_iter().flatten().filter(is_own).cloned();
    let all: Vec<Json> = conditions.iter().cloned().chain(others).collect();
    let same = before.is_some_and(|before| all.iter().all(|one| before.contains(one)));
    (!same).then(|| json!({ "conditions": all }))
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
    let holds = wrong.is_empty();
    let message =
        if holds { "it is in force".to_owned() } else { wrong.join("; ").chars().take(1_000).collect() };
    json!({
        "type": "Accepted", "status": if holds { "True" } else { "False" },
        "reason": if holds { "Accepted" } else { "Invalid" }, "message": message, "observedGeneration": generation,
    })
}

/// What is said of each parent of a route.
fn parents(world: &World, key: &Key, raw: &Json, wrong: &[String], generation: u64) -> Vec<Json> {
    let told = world.route(key).filter(|_| wrong.is_empty()).map(|entry| status::of_route(world, entry));
    let mut own = if let Some(told) = told {
        told["parents"].as_array().cloned().unwrap_or_default()
    } else {
        let refs = raw["spec"]["parentRefs"].as_array().into_iter().flatten().take(32);
        let mut accepted = accepted(wrong, generation);
        accepted["reason"] = "UnsupportedValue".into();
        let parent = |parent: &Json| json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": [accepted] });
        refs.map(parent).collect()
    };
    let before = raw["status"]["parents"].as_array();
    for parent in &mut own {
        let mine = |b: &&Json| b["controllerName"] == CONTROLLER && b["parentRef"] == parent["parentRef"];
        let known = before.into_iter().flatten().find(mine).map(|b| b["conditions"].clone());
        for condition in parent["conditions"].as_array_mut().into_iter().flatten() {
            condition["observedGeneration"] = generation.into();
            let same = known.as_ref().and_then(Json::as_array).into_iter().flatten();
            let same = same.filter(|b| b["type"] == condition["type"] && b["status"] == condition["status"]);
            // Since when is told by the object itself, whichever control plane looks.
            let at = same.map(|b| b["lastTransitionTime"].clone()).next().filter(Json::is_string);
            let at = at.or_else(|| condition.get("lastTransitionTime").filter(|t| t.is_string()).cloned());
            condition["lastTransitionTime"] = at.unwrap_or_else(|| Time::now().to_string().into());
        }
    }
    own
}
