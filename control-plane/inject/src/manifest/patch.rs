//! A JSON patch carried out on a value.

use serde_json::{Map, Value};

use crate::Operation;

/// Carries the steps out, one after the other; a step that does not fit is an error, told with its path.
pub(super) fn apply(target: &mut Value, steps: &[Operation]) -> Result<(), String> {
    steps.iter().try_for_each(|step| one(target, step))
}

fn one(target: &mut Value, step: &Operation) -> Result<(), String> {
    let (path, value) = match step {
        Operation::Add { path, value } | Operation::Replace { path, value } => (path, Some(value)),
        Operation::Remove { path } => (path, None),
    };
    let misses = || format!("the patch has a step for {path:?}, which is not there");
    let (parent, key) = path.rsplit_once('/').ok_or_else(misses)?;
    let key = key.replace("~1", "/").replace("~0", "~");
    match target.pointer_mut(parent).ok_or_else(misses)? {
        Value::Object(map) => match value {
            Some(value) if matches!(step, Operation::Add { .. }) || map.contains_key(&key) => {
                map.insert(key, value.clone());
            }
            None if map.contains_key(&key) => {
                map.shift_remove(&key);
            }
            _ => return Err(misses()),
        },
        Value::Array(items) => {
            let at = if key == "-" { items.len() } else { key.parse().map_err(|_| misses())? };
            match (step, value) {
                (Operation::Add { .. }, Some(value)) if at <= items.len() => items.insert(at, value.clone()),
                (Operation::Replace { .. }, Some(value)) => {
                    *items.get_mut(at).ok_or_else(misses)? = value.clone();
                }
                (Operation::Remove { .. }, _) if at < items.len() => {
                    items.remove(at);
                }
                _ => return Err(misses()),
            }
        }
        _ => return Err(misses()),
    }
    Ok(())
}

/// The mapping of `key` in `object`, made if it is not there; nothing, where something else stands there.
pub(super) fn member<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let member = object.as_object_mut()?.entry(key).or_insert(Value::Null);
    if member.is_null() {
        *member = Value::Object(Map::new());
    }
    member.as_object_mut()
}
