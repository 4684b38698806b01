//! The ways of patching that clients use. A strategic merge patch is taken as a merge patch: lists are replaced.

use serde_json::{Map, Value};

/// A merge patch (RFC 7396).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// A JSON patch (RFC 6902): add, replace, remove, test.
pub(super) fn json(target: &mut Value, operations: &Value) -> Result<(), String> {
    for operation in operations.as_array().ok_or("a JSON patch is a list")? {
        let text = |field: &str| operation[field].as_str().unwrap_or_default();
        let value = operation.get("value").cloned().unwrap_or_default();
        one(target, text("op"), text("path"), value)
            .map_err(|why| format!("{} {}: {why}", text("op"), text("path")))?;
    }
    Ok(())
}

fn one(target: &mut Value, op: &str, path: &str, value: Value) -> Result<(), String> {
    if op == "test" {
        return if target.pointer(path) == Some(&value) { Ok(()) } else { Err("is something else".into()) };
    }
    let (parent, last) = path.rsplit_once('/').ok_or("is no pointer")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = target.pointer_mut(parent).ok_or("has no parent")?;
    match (parent, op) {
        (Value::Object(fields), "add") => drop(fields.insert(last, value)),
        (Value::Object(fields), "replace") => *fields.get_mut(&last).ok_or("is not there")? = value,
        (Value::Object(fields), "remove") => drop(fields.shift_remove(&last).ok_or("is not there")?),
        (Value::Array(items), "add") if last == "-" => items.push(value),
        (Value::Array(items), op) => {
            let at: usize = last.parse().map_err(|_| "is no place in a list")?;
            match op {
                "add" if at <= items.len() => items.insert(at, value),
                "replace" if at < items.len() => items[at] = value,
                "remove" if at < items.len() => drop(items.remove(at)),
                _ => return Err("is not there".into()),
            }
        }
        _ => return Err("can not be done".into()),
    }
    Ok(())
}
