//! What differs between two objects, field by field.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

/// One place at which two objects differ.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FieldChange {
    /// Where, as a JSON pointer (RFC 6901); of an element of a list, its place in the longer one.
    pub pointer: String,
    /// What was there; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Json>,
    /// What is there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Json>,
}

/// Every place at which `before` and `after` differ, in the order of the fields. Only what differs is named, not the whole
/// of what it is in; what is there in one alone is named once, at its top.
pub fn difference(before: Option<&Json>, after: Option<&Json>) -> Vec<FieldChange> {
    let mut found = vec![];
    walk(&mut String::new(), before, after, &mut found);
    found
}

fn walk(pointer: &mut String, before: Option<&Json>, after: Option<&Json>, found: &mut Vec<FieldChange>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Json::Object(old)), Some(Json::Object(new))) => {
            for (name, value) in old {
                step(pointer, &escaped(name), |pointer| walk(pointer, Some(value), new.get(name), found));
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                step(pointer, &escaped(name), |pointer| walk(pointer, None, Some(value), found));
            }
        }
        (Some(Json::Array(old)), Some(Json::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                step(pointer, &at.to_string(), |pointer| walk(pointer, old.get(at), new.get(at), found));
            }
        }
        (before, after) => {
            let (before, after) = (before.cloned(), after.cloned());
            found.push(FieldChange { pointer: pointer.clone(), before, after });
        }
    }
}

fn step(pointer: &mut String, name: &str, then: impl FnOnce(&mut String)) {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(name);
    then(pointer);
    pointer.truncate(length);
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: &Json, after: &Json) -> Vec<(String, Option<Json>, Option<Json>)> {
        let all = difference(Some(before), Some(after)).into_iter();
        all.map(|change| (change.pointer, change.before, change.after)).collect()
    }

    #[test]
    fn only_what_differs_is_named_and_at_its_place() {
        let before = json!({"a": 1, "b": {"c": [1, 2, 3], "d": "x"}, "e/f~": true, "g": {"h": 1}});
        let after = json!({"a": 1, "b": {"c": [1, 5], "d": "x", "new": {"deep": 1}}, "e/f~": false});
        assert_eq!(
            told(&before, &after),
            [
                ("/b/c/1".into(), Some(json!(2)), Some(json!(5))),
                ("/b/c/2".into(), Some(json!(3)), None),
                ("/b/new".into(), None, Some(json!({"deep": 1}))),
                ("/e~1f~0".into(), Some(json!(true)), Some(json!(false))),
                ("/g".into(), Some(json!({"h": 1})), None),
            ]
        );
        assert_eq!(told(&before, &before), []);
    }

    #[test]
    fn what_comes_or_goes_is_named_whole() {
        let object = json!({"spec": {}});
        assert_eq!(difference(None, Some(&object))[0].pointer, "");
        assert_eq!(difference(Some(&object), None)[0].after, None);
        assert_eq!(difference(None, None), []);
    }
}
