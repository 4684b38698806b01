//! What a CustomResourceDefinition says of its objects, as an API server takes it: what is unknown is dropped, what does not
//! fit is refused, and a definition whose schema is not structural is refused itself.

use regex::Regex;
use serde_json::Value;

/// What is found in an object.
#[derive(Default)]
pub(super) struct Found {
    /// What does not fit.
    pub(super) wrong: Vec<String>,
    /// What is not known, and was dropped.
    pub(super) unknown: Vec<String>,
}

/// Drops what the schema does not know, and tells that and what does not fit.
pub(super) fn fit(schema: &Value, value: &mut Value, at: &str, found: &mut Found) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_i64() && !value.is_u64() && !value.is_string() {
            found.wrong.push(format!("{at}: Invalid value: must be an integer or a string"));
        }
        return;
    }
    let wanted = schema["type"].as_str().unwrap_or_default();
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        return found.wrong.push(format!("{at}: Invalid value: must be of type {wanted}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        found.wrong.push(format!("{at}: Unsupported value: {value}: supported values: {}", schema["enum"]));
    }
    let beyond = |bound: &str, is: fn(f64, f64) -> bool| {
        value.as_f64().zip(schema[bound].as_f64()).is_some_and(|(value, bound)| is(value, bound))
    };
    if beyond("minimum", |v, b| v < b) || beyond("maximum", |v, b| v > b) {
        found.wrong.push(format!("{at}: Invalid value: {value}: is out of bounds"));
    }
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.wrong.push(format!("{at}.{name}: Required value"));
                }
            }
            let is_root = at.is_empty();
            let servers = |name: &str| is_root && ["apiVersion", "kind", "metadata"].contains(&name);
            if schema.get("additionalProperties").is_none() {
                fields.retain(|name, _| {
                    let known = servers(name) || schema["properties"].get(name).is_some();
                    if !known {
                        found.unknown.push(format!(
                            "unknown field \"{}\"",
                            format!("{at}.{name}").trim_start_matches('.')
                        ));
                    }
                    known
                });
            }
            let of_name = &schema["properties"]["metadata"]["properties"]["name"];
            if let Some(name) = fields.get_mut("metadata").and_then(|m| m.get_mut("name"))
                && is_root
                && of_name.is_object()
            {
                fit(of_name, name, "metadata.name", found);
            }
            for (name, field) in fields.iter_mut().filter(|(name, _)| !servers(name)) {
                let of_it = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                if let Some(of_it) = of_it {
                    fit(of_it, field, &format!("{at}.{name}"), found);
                }
            }
        }
        Value::String(text) => of_text(schema, text, at, found),
        Value::Array(items) => {
            within(schema, ["minItems", "maxItems"], items.len(), at, found);
            twice(schema, items, at, found);
            for (i, item) in items.iter_mut().enumerate() {
                fit(&schema["items"], item, &format!("{at}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// Whether a text is as long as it may be, and of its form.
fn of_text(schema: &Value, text: &str, at: &str, found: &mut Found) {
    within(schema, ["minLength", "maxLength"], text.chars().count(), at, found);
    let pattern = schema["pattern"].as_str().map(|pattern| Regex::new(pattern).expect("a pattern"));
    if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
        found.wrong.push(format!("{at}: Invalid value: {text:?}: should match {}", schema["pattern"]));
    }
    // As far as a moment in UTC goes, which is how everybody writes them.
    let is_moment = || {
        let form =
            Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$").expect("a pattern");
        form.is_match(text)
    };
    if schema["format"] == "date-time" && !is_moment() {
        found.wrong.push(format!("{at}: Invalid value: {text:?}: must be a moment of RFC 3339"));
    }
}

fn within(schema: &Value, [least, most]: [&str; 2], long: usize, at: &str, found: &mut Found) {
    let bound = |name: &str| schema[name].as_u64().and_then(|n| usize::try_from(n).ok());
    if bound(least).is_some_and(|least| long < least) {
        found.wrong.push(format!("{at}: Invalid value: {least} is {}, and there are {long}", schema[least]));
    }
    if bound(most).is_some_and(|most| long > most) {
        found.wrong.push(format!("{at}: Too many: {most} is {}, and there are {long}", schema[most]));
    }
}

/// Whether two of a list are the same one: in a list that is a map, by its keys.
fn twice(schema: &Value, items: &[Value], at: &str, found: &mut Found) {
    if schema["x-kubernetes-list-type"] != "map" {
        return;
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    let key = |item: &Value| keys.iter().filter_map(|k| item.get(k.as_str()?).cloned()).collect::<Vec<_>>();
    for (i, item) in items.iter().enumerate() {
        if items[..i].iter().any(|other| key(other) == key(item)) {
            found.wrong.push(format!("{at}[{i}]: Duplicate value: {:?}", key(item)));
        }
    }
}

/// Why a schema is not structural (Kubernetes: "Specifying a structural schema"), and what an API server refuses besides.
pub(super) fn faults(schema: &Value, at: &str, wrong: &mut Vec<String>) {
    let Value::Object(fields) = schema else { return wrong.push(format!("{at}: must be an object")) };
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let either = schema["x-kubernetes-int-or-string"] == true;
    if !fields.contains_key("type") && !open && !either {
        wrong.push(format!("{at}.type: Required value: must not be empty for specified object fields"));
    }
    for name in fields.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        wrong.push(format!("{at}.{name}: Forbidden: is not of a structural schema"));
    }
    if fields.contains_key("properties") && fields.contains_key("additionalProperties") {
        wrong.push(format!("{at}.additionalProperties: Forbidden: mutual exclusive with properties"));
    }
    if schema["additionalProperties"].is_boolean() {
        wrong.push(format!("{at}.additionalProperties: Forbidden: must be a schema"));
    }
    if schema["type"] == "array" && !fields.contains_key("items") {
        wrong.push(format!("{at}.items: Required value: must be specified"));
    }
    let is_root = at.ends_with(".openAPIV3Schema");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if is_root && name == "metadata" {
            of_metadata(field, &format!("{at}.properties[metadata]"), wrong);
        }
        faults(field, &format!("{at}.properties[{name}]"), wrong);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(below) = fields.get(inner).filter(|below| below.is_object()) {
            faults(below, &format!("{at}.{inner}"), wrong);
        }
    }
}

/// Of metadata a schema may say what names are like, and nothing else.
fn of_metadata(schema: &Value, at: &str, wrong: &mut Vec<String>) {
    let odd = |fields: &Value, known: &[&str]| {
        let names: Vec<String> = fields.as_object().into_iter().flat_map(|f| f.keys()).cloned().collect();
        names.into_iter().find(|name| !known.contains(&name.as_str()))
    };
    let odd = odd(schema, &["type", "properties"])
        .or_else(|| odd(&schema["properties"], &["name", "generateName"]));
    if let Some(odd) = odd {
        wrong.push(format!("{at}.{odd}: Forbidden: only name and generateName can be restricted"));
    }
}

/// What may stand in one, of what is used here.
const KNOWN: &[&str] = &[
    "type",
    "description",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "default",
    "nullable",
    "title",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];
