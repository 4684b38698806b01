//! What an object of ours should be, laid over what became of it: the API server fills in defaults, admission plugins add
//! mounts, other webhooks their variables. What is theirs stays, so that a second call has nothing to do.

use serde_json::Value;

use crate::quantity;

/// `wanted`, with what is in `found` besides.
pub(crate) fn overlay(wanted: Value, found: &Value) -> Value {
    at("", wanted, found)
}

fn at(name: &str, wanted: Value, found: &Value) -> Value {
    match (wanted, found) {
        // What a container of ours may do is nobody else's to add to.
        (wanted, _) if matches!(name, "capabilities" | "seccompProfile") => wanted,
        (Value::Object(wanted), Value::Object(found)) => {
            let mut both = found.clone();
            for (name, value) in wanted {
                let value = match found.get(&name) {
                    Some(found) => at(&name, value, found),
                    None => value,
                };
                both.insert(name, value);
            }
            Value::Object(both)
        }
        (Value::Array(wanted), Value::Array(found)) => Value::Array(lists(name, wanted, found)),
        (Value::String(wanted), Value::String(found))
            if is_amount(name) && quantity::same(&wanted, found) =>
        {
            Value::String(found.clone())
        }
        (wanted, _) => wanted,
    }
}

fn is_amount(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | "sizeLimit")
}

/// Lists whose elements have a name of their own keep those of others. Any other is as wanted.
fn lists(name: &str, wanted: Vec<Value>, found: &[Value]) -> Vec<Value> {
    let key = match name {
        "env" => "name",
        "volumeMounts" => "mountPath",
        "ports" => "containerPort",
        _ if wanted.len() == found.len() => {
            return wanted.into_iter().zip(found).map(|(wanted, found)| at("", wanted, found)).collect();
        }
        _ => return wanted,
    };
    let key_of = |value: &Value| value.get(key).cloned();
    let mut wanted: Vec<Option<Value>> = wanted.into_iter().map(Some).collect();
    let mut both: Vec<Value> = Vec::with_capacity(found.len());
    for found in found {
        let same = |wanted: &&mut Option<Value>| {
            wanted.as_ref().is_some_and(|wanted| key_of(wanted) == key_of(found))
        };
        match wanted.iter_mut().find(same).and_then(Option::take) {
            Some(wanted) => both.push(at("", wanted, found)),
            // A variable of ours that is no longer wanted.
            None if name == "env" && is_ours(found) => {}
            // Kubernetes takes none of them twice.
            None if both.iter().any(|before| key_of(before) == key_of(found)) => {}
            None => both.push(found.clone()),
        }
    }
    both.extend(wanted.into_iter().flatten());
    both
}

fn is_ours(variable: &Value) -> bool {
    variable.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("OUTRIGGER_"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_added_stays_and_what_is_ours_is_as_wanted() {
        let wanted = json!({"image": "b", "env": [{"name": "A", "value": "1"}], "command": ["x"],
            "volumeMounts": [{"name": "t", "mountPath": "/t"}], "resources": {"requests": {"cpu": "0.1"}}});
        let found = json!({"image": "a", "env": [{"name": "O", "value": "o"}, {"name": "A", "value": "0"},
            {"name": "OUTRIGGER_GONE", "value": ""}], "command": ["x", "y"], "terminationMessagePath": "/dev",
            "volumeMounts": [{"name": "k", "mountPath": "/k"}], "resources": {"requests": {"cpu": "100m"}}});
        let both = json!({"image": "b", "env": [{"name": "O", "value": "o"}, {"name": "A", "value": "1"}],
            "command": ["x"], "terminationMessagePath": "/dev", "resources": {"requests": {"cpu": "100m"}},
            "volumeMounts": [{"name": "k", "mountPath": "/k"}, {"name": "t", "mountPath": "/t"}]});
        assert_eq!(overlay(wanted, &found), both);
    }
}
