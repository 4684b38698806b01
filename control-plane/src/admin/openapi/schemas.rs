//! The schemas of the document: kinds of objects, and the types that requests are read into and answers are made of.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::answers;
use super::operations::{Answer, Operation};
use crate::spec::{Kind, published};

/// Schemas by their names.
pub(super) struct Schemas(Map<String, Json>);

impl Schemas {
    /// The kinds.
    pub(super) fn new() -> Self {
        let mut own = Self(Map::new());
        for kind in Kind::ALL {
            own.add(kind.as_str(), object(kind));
            own.add(&format!("{kind}List"), page(kind));
        }
        own
    }

    pub(super) fn add(&mut self, name: &str, schema: Json) {
        self.0.insert(name.to_owned(), schema);
    }

    /// What these operations answer, and what that refers to.
    pub(super) fn take(&mut self, operations: &[Operation]) {
        let answered = operations.iter().flat_map(|operation| &operation.answers);
        let names = answered
            .filter_map(|(_, answer)| if let Answer::Json(name) = answer { Some(*name) } else { None });
        for name in names.chain(answers::EVERYWHERE) {
            if !self.0.contains_key(name) {
                self.0.insert(name.to_owned(), answers::schema(name));
            }
        }
    }

    pub(super) fn into_json(self) -> Json {
        Json::Object(self.0)
    }
}

/// A reference to one of them.
pub(super) fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What a type reads.
pub(super) fn read<T: JsonSchema>() -> Json {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    plain(schema.to_value())
}

/// What a type is told as.
pub(super) fn told<T: JsonSchema>() -> Json {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    let mut plain = plain(schema.to_value());
    // There may be more of it in a later version: what reads it must not mind.
    open(&mut plain);
    plain
}

fn object(kind: Kind) -> Json {
    let versions = published::versions(kind);
    let mut required = vec!["apiVersion", "kind", "metadata"];
    if !published::stands_alone(kind) {
        required.push("spec");
    }
    json!({
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string", "enum": versions },
            "kind": { "type": "string", "enum": [kind.as_str()] },
            "metadata": published::metadata_of(kind),
            "spec": published::specification(kind),
            "status": {
                "type": "object",
                "description": "What has become of it; the control plane says so, and what is sent is not looked at.",
            },
        },
        "required": required,
        "additionalProperties": false,
    })
}

fn page(kind: Kind) -> Json {
    json!({
        "type": "object",
        "properties": {
            "revision": { "type": "integer", "format": "int64", "description": "The revision it is of." },
            "generation": { "type": "integer", "format": "int64", "description": "The same count of instances." },
            "items": { "type": "array", "items": reference(kind.as_str()) },
            "continue": { "type": "string", "description": "There are more: send this as `continue`." },
        },
        "required": ["revision", "generation", "items"],
    })
}

/// A schema as a client's generator likes it: nothing refers to anything, nothing is null, a word is one of a list.
fn plain(mut schema: Json) -> Json {
    let named = schema.as_object_mut().and_then(|fields| fields.shift_remove("$defs")).unwrap_or_default();
    simplify(&mut schema, &named);
    schema
}

fn simplify(schema: &mut Json, named: &Json) {
    if *schema == Json::Bool(true) {
        *schema = json!({});
    }
    let Json::Object(fields) = schema else { return };
    for noise in ["$schema", "title"] {
        if fields.get(noise).is_some_and(Json::is_string) {
            fields.shift_remove(noise);
        }
    }
    if fields.get("default").is_some_and(Json::is_null) {
        fields.shift_remove("default");
    }
    let name = fields.shift_remove("$ref");
    let name = name.as_ref().and_then(Json::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    merge(fields, name.and_then(|name| named.get(name)).cloned());
    if let Some(Json::Array(several)) = fields.shift_remove("anyOf") {
        merge(fields, several.into_iter().find(|one| one["type"] != "null"));
        return simplify(schema, named);
    }
    if let Some(Json::Array(several)) = fields.shift_remove("oneOf") {
        let words: Vec<Json> = several.iter().flat_map(words).collect();
        fields.insert("type".into(), "string".into());
        fields.insert("enum".into(), words.into());
    }
    if let Some(Json::Array(types)) = fields.get("type") {
        let one = types.iter().find(|one| *one != "null").cloned().unwrap_or_default();
        fields.insert("type".into(), one);
    }
    if fields.get("format").and_then(Json::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.insert("format".into(), "int64".into());
    }
    if let Some(Json::String(said)) = fields.get_mut("description") {
        *said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(inner).filter(|inner| inner.is_object()) {
            simplify(inner, named);
        }
    }
    if let Some(Json::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(|property| simplify(property, named));
    }
}

/// Adds what is not said yet.
fn merge(fields: &mut Map<String, Json>, more: Option<Json>) {
    let Some(Json::Object(more)) = more else { return };
    for (name, value) in more {
        fields.entry(name).or_insert(value);
    }
}

/// The words of one alternative of an enumeration.
fn words(one: &Json) -> Vec<Json> {
    match (one.get("const"), one.get("enum")) {
        (Some(word), _) => vec![word.clone()],
        (None, Some(Json::Array(words))) => words.clone(),
        (None, _) => vec![],
    }
}

fn open(schema: &mut Json) {
    let Json::Object(fields) = schema else { return };
    if fields.get("additionalProperties") == Some(&Json::Bool(false)) {
        fields.shift_remove("additionalProperties");
    }
    if let Some(items) = fields.get_mut("items") {
        open(items);
    }
    if let Some(Json::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(open);
    }
}
