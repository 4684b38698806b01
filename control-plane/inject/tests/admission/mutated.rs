//! Reviews that nobody would send: recorded ones of which parts are taken away, doubled, swapped and replaced. Nothing panics, and
//! a pod that is still one becomes a member without a fault, to which a second call has nothing to add.

use outrigger_inject::{Decision, NamespaceFacts, Settings, decide, removal};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::check::{apply, faults};
use crate::support::{asking, member, merge, pod, recorded};

/// One change: a place, counted through the whole object, and what becomes of it.
#[derive(Clone, Debug)]
struct Change {
    place: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Remove,
    Double,
    Replace(Value),
    Annotate(String, String),
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(-1)),
        Just(json!(65536)),
        Just(json!(1.5e300)),
        Just(json!("")),
        Just(json!("outrigger-proxy")),
        Just(json!("15020")),
        Just(json!([])),
        Just(json!([{}])),
        Just(json!({})),
        Just(json!({"name": "outrigger-token", "httpGet": {"port": "http"}})),
        Just(json!({"path": "/app-health/app/livez", "port": 15020})),
        "[ -~]{0,12}".prop_map(Value::from),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let name = "(native-sidecar|proxy-uid|service|port|version|status|scrape|env\\.A|proxy-cpu-limit)";
    let annotation = (name, "[a-z0-9,/{}\"-]{0,8}")
        .prop_map(|(name, value)| What::Annotate(format!("outrigger.dev/{name}"), value));
    let what = prop_oneof![
        3 => Just(What::Remove),
        2 => Just(What::Double),
        4 => odd_value().prop_map(What::Replace),
        1 => annotation,
    ];
    (any::<usize>(), what).prop_map(|(place, what)| Change { place, what })
}

/// Pointers of every place of `value`.
fn places(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                places(value, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), into);
            }
        }
        Value::Array(elements) => {
            for (number, value) in elements.iter().enumerate() {
                places(value, format!("{at}/{number}"), into);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        into.push(at);
    }
}

fn mutate(pod: &mut Value, change: Change) {
    if let What::Annotate(name, value) = &change.what {
        if pod.get("metadata").is_none_or(Value::is_object) {
            merge(pod, &json!({"metadata": {"annotations": {name: value}}}));
        }
        return;
    }
    let mut all = Vec::new();
    places(pod, String::new(), &mut all);
    if all.is_empty() {
        return;
    }
    let pointer = &all[change.place % all.len()];
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/").replace("~0", "~");
    match (pod.pointer_mut(parent), change.what) {
        (Some(Value::Object(members)), What::Remove) => drop(members.remove(&last)),
        (Some(Value::Array(elements)), What::Remove) => drop(elements.remove(last.parse().unwrap())),
        (Some(Value::Array(elements)), What::Double) => {
            let again = elements[last.parse::<usize>().unwrap()].clone();
            elements.push(again);
        }
        (Some(Value::Object(members)), What::Double) => {
            let again = members[&last].clone();
            members.insert(format!("{last}2"), again);
        }
        (Some(_), What::Replace(value)) => *pod.pointer_mut(pointer).unwrap() = value,
        _ => {}
    }
}

fn settings(native: bool) -> Settings {
    Settings::from_json(&json!({"nativeSidecar": native, "imagePullSecrets": ["s"]})).unwrap()
}

/// What must hold for any pod. Returns whether it became a member.
fn judge(pod: &Value, namespace: &NamespaceFacts) -> Result<bool, TestCaseError> {
    let mut injected = false;
    let _any = removal(pod);
    for settings in [settings(true), settings(false)] {
        let Decision::Inject(injection) = decide(pod, namespace, &settings) else { continue };
        injected = true;
        let patch = serde_json::to_value(injection.patch()).unwrap();
        let member = apply(pod, &patch).map_err(TestCaseError::fail)?;
        let native = member["spec"]["initContainers"][1]["name"] == "outrigger-proxy";
        let wrong: Vec<String> =
            faults(&member, native).into_iter().filter(|fault| !is_the_authors(fault)).collect();
        prop_assert!(wrong.is_empty(), "{wrong:?}");
        match decide(&member, namespace, &settings) {
            Decision::Inject(again) => prop_assert!(again.patch().is_empty(), "again: {:?}", again.patch()),
            other => prop_assert!(false, "again: {other:?}"),
        }
    }
    Ok(injected)
}

/// Faults of containers that are not ours, and mounts that others put into ours, are the API server's to refuse.
fn is_the_authors(fault: &str) -> bool {
    let others = fault.split_once(": ").is_some_and(|(name, _)| !name.starts_with("outrigger-"));
    (others && !fault.starts_with("native") && !fault.starts_with("classical"))
        || fault.ends_with("a mount of a volume that is not there")
}

#[test]
fn no_mutation_makes_it_panic_and_what_is_valid_stays_so() {
    let cases = if std::env::var_os("OUTRIGGER_SOAK").is_some() { 10_000 } else { 1_000 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let probed = json!({"livenessProbe": {"httpGet": {"port": "http"}}, "lifecycle": {"preStop": {"httpGet": {"port": 1}}},
        "resources": {"limits": {"cpu": 1, "memory": "1Mi"}}});
    let full = pod(&json!({"spec": {"volumes": [{"name": "outrigger-roots"}], "containers": [probed],
        "initContainers": [{"name": "own", "restartPolicy": "Always", "startupProbe": {"grpc": {"port": 5}}}]}}));
    let starts = [
        recorded("bare.0.json"),
        recorded("notoken.0.json"),
        recorded("svcports.0.json"),
        member(&recorded("deployment.0.json")),
        full,
    ];
    let injected = std::cell::Cell::new(0_u32);
    let strategy = (0..starts.len(), prop::collection::vec(change(), 1..6));
    let ran = runner.run(&strategy, |(start, changes)| {
        let mut pod = starts[start].clone();
        for change in changes {
            mutate(&mut pod, change);
        }
        if judge(&pod, &asking())? {
            injected.set(injected.get() + 1);
        }
        Ok(())
    });
    ran.unwrap();
    // Else nothing would have been seen.
    assert!(injected.get() > cases / 3, "{} of {cases}", injected.get());
}
