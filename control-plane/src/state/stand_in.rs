//! What stands for an object that is kept and does not hold: because another version wrote it, or somebody did past the admin API.
//!
//! What was in force before stays. Where nothing is known of before, as after a start, nothing stands for it; but what keeps
//! somebody out keeps him out: an AccessPolicy lets nobody in, what a TokenPolicy wants a token for is refused, and of a Denylist
//! everything counts that can be read.

use outrigger_mesh::{Denylist, Label, ServiceName};
use serde_json::{Value as Json, json};

use super::load::put;
use crate::check::{Checked, CheckedTokenPolicy, check_stored};
use crate::spec::{Key, Kind, Object, closed};
use crate::store::Record;
use crate::world::{Entry, World};

/// Puts in `world` what stands for the record at `path`, which does not hold for this reason.
pub(super) fn stand_in(
    world: &mut World,
    before: Option<&World>,
    path: &str,
    record: &Record,
    mut why: String,
) {
    let key = Key::from_path(path).filter(|key| key.kind != Kind::Instance);
    let earlier = key.as_ref().and_then(|key| before?.object(key)).map(|entry| entry.object().to_json());
    // It has the version of what is kept, on which the next write is decided.
    let held = |value: Json| Record { created: record.created, changed: record.changed, value };
    let instead = if let Some(key) = key.as_ref().filter(|key| key.kind == Kind::Denylist) {
        let (list, passed_over) = readable(world, key, &record.value, earlier.as_ref());
        if !passed_over.is_empty() {
            why = format!("{why}; passed over: {}", passed_over.join("; "));
        }
        if put(world, held(list)).is_ok() { "what of it can be read denies" } else { "left out" }
    } else if earlier.is_some_and(|value| !has_no_keys(&value) && put(world, held(value)).is_ok()) {
        "what was in force before stays"
    } else if shut(world, key.as_ref(), &held(record.value.clone())) {
        "nobody comes in by it"
    } else {
        "left out"
    };
    tracing::error!(object = path, why, instead, "it is kept, but does not hold");
    if let Some(key) = key {
        world.does_not_hold(key, why);
    }
}

/// Puts in `world` what lets in nobody whom the record could have kept out; whether there is such a thing.
fn shut(world: &mut World, key: Option<&Key>, record: &Record) -> bool {
    let Some(key) = key else { return false };
    if key.kind == Kind::TokenPolicy {
        let Some((object, checked)) = tokens(world, key, &record.value) else { return false };
        world.put_token_policy(Entry { object, created: record.created, changed: record.changed, checked });
        return true;
    }
    let is_there = |name: &Label| world.service(&service(key, name)).is_some();
    let shut = closed(&record.value, is_there);
    shut.is_some_and(|value| put(world, Record { value, ..record.clone() }).is_ok())
}

fn service(key: &Key, name: &Label) -> ServiceName {
    ServiceName::new(key.namespace.clone(), name.clone())
}

/// The policy for tokens by which no token is good, for the services of one that does not hold.
///
/// What needed no token by it needs none still: as far as its rules can be read in their order, and where all of them can, by
/// what it says of all other requests. Issuers that can be read are known by name, so that their tokens are answered as ones that
/// nobody can verify now.
fn tokens(world: &World, key: &Key, value: &Json) -> Option<(Object, CheckedTokenPolicy)> {
    let said = &value["spec"];
    let closed = |spec: &Json| without_keys(world, key, spec);
    let holds = |spec: &Json| closed(spec).is_some();
    let mut own =
        json!({ "targetRefs": targets(world, key, &said["targetRefs"]), "requirement": "required" });
    own["issuers"] = said["issuers"].as_array().into_iter().flatten().map(without_key).collect();
    if !holds(&own) {
        let nobody = json!({ "name": "nobody", "issuer": "urn:outrigger:nobody", "audiences": ["nobody"] });
        own["issuers"] = json!([without_key(&nobody)]);
    }
    // Headers of claims that callers send are removed by this alone, so without it nothing passes. Nor where something is said that
    // nobody knows.
    let given = with(&own, "toApplication", said.get("toApplication").unwrap_or(&json!({})));
    let mut fields = said.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    if fields.any(|field| !FIELDS.contains(&field)) || !holds(&given) {
        own["toApplication"] = json!({ "token": "strip" });
        return closed(&own);
    }
    own = given;
    let (rules, are_all) = rules(said, |rules| holds(&with(&own, "rules", rules)));
    own["rules"] = rules.into();
    let otherwise = with(&own, "requirement", said.get("requirement").unwrap_or(&json!("required")));
    if are_all && holds(&otherwise) {
        own = otherwise;
    }
    closed(&own)
}

/// The rules that hold, up to the first that does not, and whether they are all: nobody knows for which requests that one was meant.
fn rules(said: &Json, hold: impl Fn(&[Json]) -> bool) -> (Vec<Json>, bool) {
    let all = match said.get("rules") {
        None => return (vec![], true),
        Some(rules) => rules.as_array().map(Vec::as_slice),
    };
    let mut rules = vec![];
    for rule in all.unwrap_or_default() {
        let mut rule = rule.clone();
        if let Some(rule) = rule.as_object_mut() {
            // Whose tokens makes no difference any more.
            rule.shift_remove("issuers");
        }
        rules.push(rule);
        if !hold(&rules) {
            rules.pop();
            return (rules, false);
        }
    }
    (rules, all.is_some())
}

/// What a policy says, if it holds, with the keys of no issuer.
fn without_keys(world: &World, key: &Key, spec: &Json) -> Option<(Object, CheckedTokenPolicy)> {
    let metadata = json!({ "name": key.name.as_str(), "namespace": key.namespace.as_str() });
    let (version, kind) = (Kind::TokenPolicy.api_version(), Kind::TokenPolicy.as_str());
    let whole = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec });
    let object = Object::from_json(whole).ok()?;
    let Checked::Tokens(mut checked) = check_stored(&object, world).ok()?.0 else { return None };
    checked.has_no_keys();
    Some((object, checked))
}

/// An issuer as it is known by name alone.
fn without_key(said: &Json) -> Json {
    let keys = json!({ "file": NO_KEYS });
    json!({ "name": said["name"], "issuer": said["issuer"], "audiences": said["audiences"], "jwks": keys })
}

/// What is known of a policy for tokens; what any other field says nobody knows.
const FIELDS: [&str; 8] =
    ["targetRefs", "issuers", "requirement", "rules", "toApplication", "maxSize", "propagation", "exchange"];

fn with(spec: &Json, field: &str, value: impl serde::Serialize) -> Json {
    let mut spec = spec.clone();
    spec[field] = json!(value);
    spec
}

/// The services that a policy names, as far as they are there and no other policy is for them. Where a name can not be read those of
/// its whole namespace.
fn targets(world: &World, key: &Key, said: &Json) -> Vec<Json> {
    let said = said.as_array().map_or(&[][..], Vec::as_slice);
    let names: Option<Vec<Label>> =
        said.iter().map(|target| Label::new(target["name"].as_str()?).ok()).collect();
    let mut all: Vec<ServiceName> = if let Some(names) = names.filter(|names| !names.is_empty()) {
        names.iter().map(|name| service(key, name)).collect()
    } else {
        let own = world.services().map(|entry| entry.checked.name().clone());
        own.filter(|name| *name.namespace() == key.namespace).collect()
    };
    all.sort();
    all.dedup();
    all.retain(|name| {
        let is_inside = world.service(name).is_some_and(|entry| entry.object.kind() == Kind::MeshService);
        is_inside && world.token_policy_of(name).is_none()
    });
    let target = |name: &ServiceName| json!({ "group": "outrigger.dev", "kind": "MeshService", "name": name.name().as_str() });
    all.iter().map(target).collect()
}

/// Where keys are that nobody has.
const NO_KEYS: &str = "/nowhere/of-a-policy-that-does-not-hold";

/// The list of everything that can be read of one that does not hold, and of what was in force before; and what is passed over.
fn readable(world: &World, key: &Key, value: &Json, earlier: Option<&Json>) -> (Json, Vec<String>) {
    let metadata = json!({ "name": key.name.as_str(), "namespace": key.namespace.as_str() });
    let list = |spec: Json| json!({ "apiVersion": Kind::Denylist.api_version(), "kind": Kind::Denylist.as_str(), "metadata": metadata, "spec": spec });
    let wrong = |spec: Json| match Object::from_json(list(spec)) {
        Err(why) => Some(why),
        Ok(object) => check_stored(&object, world)
            .err()
            .map(|all| all.first().map_or_else(String::new, |problem| problem.message.clone())),
    };
    let (mut spec, mut passed_over) = (json!({}), vec![]);
    for field in ["tokens", "identities"] {
        let mut good: Vec<Json> = vec![];
        let before = earlier.and_then(|earlier| earlier["spec"][field].as_array());
        for entry in before.into_iter().flatten() {
            good.push(entry.clone());
        }
        let said = match value["spec"].get(field) {
            None => &[][..],
            Some(Json::Array(entries)) => entries,
            Some(_) => {
                passed_over.push(format!("/spec/{field}: it is no list"));
                &[]
            }
        };
        for (i, entry) in said.iter().enumerate() {
            let at = format!("/spec/{field}/{i}");
            if good.len() >= Denylist::MAX_ENTRIES {
                passed_over.push(format!("{at}: and all after it, of which there are too many"));
                break;
            }
            match wrong(json!({ field: [entry] })) {
                None if good.contains(entry) => {}
                None => good.push(entry.clone()),
                Some(why) => passed_over.push(format!("{at}: {why}")),
            }
        }
        spec[field] = good.into();
    }
    let others = value["spec"].as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    let others = others.filter(|field| !["tokens", "identities", "why"].contains(field));
    passed_over.extend(others.map(|field| format!("/spec/{field}: nobody knows what it says")));
    let more = passed_over.len().saturating_sub(MOST_NAMED);
    passed_over.truncate(MOST_NAMED);
    if more > 0 {
        passed_over.push(format!("and {more} more"));
    }
    (list(spec), passed_over)
}

/// Whether an object is one that stood for another: it is made anew of what is there now.
fn has_no_keys(value: &Json) -> bool {
    let mut issuers = value["spec"]["issuers"].as_array().into_iter().flatten();
    issuers.any(|issuer| issuer["jwks"]["file"] == NO_KEYS)
}

/// So many entries are named that can not be read.
const MOST_NAMED: usize = 20;
