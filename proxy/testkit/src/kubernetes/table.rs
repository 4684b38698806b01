//! A list as `kubectl get` wants it: a table, with the columns that a definition names.

use serde_json::{Value, json};

use super::kinds::Resource;

/// The table of an object or of a list.
pub(super) fn of(resource: &Resource, told: &Value) -> Value {
    let name =
        json!({ "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 });
    let column = |column: &Value| {
        let kind = column["type"].clone();
        json!({ "name": column["name"], "type": kind, "format": "", "description": "", "priority": 0 })
    };
    let columns: Vec<Value> = std::iter::once(name).chain(resource.columns.iter().map(column)).collect();
    let one = [told.clone()];
    let items = told["items"].as_array().map_or(&one[..], Vec::as_slice);
    let row = |object: &Value| {
        let shown = |column: &Value| cell(object, column["jsonPath"].as_str().unwrap_or_default());
        let cells =
            std::iter::once(object["metadata"]["name"].clone()).chain(resource.columns.iter().map(shown));
        let partial = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        });
        json!({ "cells": cells.collect::<Vec<_>>(), "object": partial })
    };
    let rows: Vec<Value> = items.iter().map(row).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": told["metadata"]["resourceVersion"] },
        "columnDefinitions": columns, "rows": rows,
    })
}

/// What a path shows, as an API server does: the first that it finds, or nothing.
fn cell(object: &Value, path: &str) -> Value {
    let mut found = vec![object];
    for part in parts(path) {
        let (name, of_list) = part.split_once('[').map_or((part, None), |(name, rest)| (name, Some(rest)));
        found = found.into_iter().filter_map(|value| value.get(name)).collect();
        let Some(which) = of_list else { continue };
        let items = found.into_iter().filter_map(Value::as_array).flatten();
        let wanted = which.strip_prefix("?(@.").and_then(|rest| rest.trim_end_matches(")]").split_once("=="));
        found = match wanted {
            Some((field, word)) => items.filter(|item| item[field] == word.trim_matches('"')).collect(),
            None => items.collect(),
        };
    }
    match found.first() {
        None => Value::Null,
        Some(Value::Array(_) | Value::Object(_)) => found[0].to_string().into(),
        Some(value) => (*value).clone(),
    }
}

/// The parts between dots, but for those within brackets.
fn parts(path: &str) -> Vec<&str> {
    let (mut all, mut start, mut depth) = (vec![], 0, 0);
    for (at, c) in path.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            '.' if depth == 0 => {
                all.push(&path[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(&path[start..]);
    all.retain(|part| !part.is_empty());
    all
}
