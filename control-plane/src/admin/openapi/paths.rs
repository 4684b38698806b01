//! The operations written out as paths, each collection with operations of its own.

use axum::http::Method;
use serde_json::{Map, Value as Json, json};

use super::super::PAGES;
use super::super::routes::{self, Known, Need};
use super::operations::{Answer, Body, Operation};
use super::schemas::reference;
use super::{answers, examples};
use crate::spec::{Kind, published};

/// All paths.
pub(super) fn all(operations: &[Operation]) -> Json {
    let mut paths = Map::new();
    let mut put = |path: String, method: &Method, operation: Json| {
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method.as_str().to_ascii_lowercase()] = operation;
    };
    let (of_kinds, others): (Vec<_>, Vec<_>) = operations.iter().partition(|o| is_of_kinds(o));
    for operation in others {
        put(operation.path.to_owned(), &operation.method, written(operation, None));
    }
    for kind in Kind::ALL {
        for operation in &of_kinds {
            let path = operation.path.replace("{collection}", kind.collection());
            put(path, &operation.method, written(operation, Some(kind)));
        }
    }
    Json::Object(paths)
}

/// What operations are grouped by, in the order in which they come.
pub(super) fn tags(operations: &[Operation]) -> Vec<&'static str> {
    let mut tags: Vec<&str> = vec![];
    for operation in operations.iter().filter(|o| !is_of_kinds(o)) {
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
    }
    tags.extend(Kind::ALL.into_iter().map(Kind::as_str));
    tags
}

/// The headers that operations take.
pub(super) fn parameters() -> Json {
    let header = |name: &str, said: &str, schema: Json| json!({ "name": name, "in": "header", "required": false, "description": said, "schema": schema });
    json!({
        "If-Match": header(
            "If-Match",
            "The ETag that was read, or * for whatever is there. A write has this or If-None-Match.",
            json!({ "type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$", "examples": ["*"] }),
        ),
        "If-None-Match": header(
            "If-None-Match",
            "*: only where there is none yet.",
            json!({ "type": "string", "enum": ["*"] }),
        ),
        "X-Outrigger-Why": header(
            "X-Outrigger-Why",
            "Why; kept in the audit log, up to 500 characters.",
            json!({ "type": "string" }),
        ),
        "X-Outrigger-Namespaces": header(
            "X-Outrigger-Namespaces",
            "With a token of Kubernetes: the namespaces that it is about, up to 16, where a role may be bound in some alone.",
            json!({ "type": "string", "examples": ["shop,bank"] }),
        ),
        "Last-Event-ID": header(
            "Last-Event-ID",
            "The last position that was seen: a watch goes on after it.",
            json!({ "type": "string", "pattern": "^[0-9]{1,19}$" }),
        ),
    })
}

fn is_of_kinds(operation: &Operation) -> bool {
    operation.path.contains("{collection}")
}

fn written(operation: &Operation, kind: Option<Kind>) -> Json {
    let of_kind = |text: &str| kind.map_or_else(|| text.to_owned(), |kind| text.replace("{}", kind.as_str()));
    let mut told = json!({
        "operationId": of_kind(operation.id),
        "tags": [of_kind(operation.tag)],
        "summary": operation.summary,
    });
    let needs = routes::known(operation.path, &operation.method);
    let free = needs == Known::Needs(Need::Nothing);
    if free {
        told["security"] = json!([]);
    }
    let parameters = parameters_of(operation, kind);
    if !parameters.is_empty() {
        told["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        told["requestBody"] = taken(body, kind);
    }
    told["responses"] = responses(operation, kind, free);
    told
}

fn parameters_of(operation: &Operation, kind: Option<Kind>) -> Vec<Json> {
    let of_path = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Json> =
        of_path.filter(|name| *name != "collection").map(|name| parameter(name, kind)).collect();
    for (name, schema) in
        operation.query.as_ref().and_then(|q| q["properties"].as_object()).into_iter().flatten()
    {
        let (mut schema, mut parameter) =
            (schema.clone(), json!({ "name": name, "in": "query", "required": false }));
        if let Some(said) = schema.as_object_mut().and_then(|fields| fields.shift_remove("description")) {
            parameter["description"] = said;
        }
        parameter["schema"] = schema;
        all.push(parameter);
    }
    let header = |name: &&str| json!({ "$ref": format!("#/components/parameters/{name}") });
    all.extend(operation.headers.iter().map(header));
    all
}

/// A parameter of a path, by its name.
fn parameter(name: &str, kind: Option<Kind>) -> Json {
    let count = json!({ "type": "integer", "format": "int64", "minimum": 0 });
    let text = json!({ "type": "string", "minLength": 1 });
    // Rollouts have operations of their own, too.
    let object = examples::object(kind.unwrap_or(Kind::Rollout));
    let (said, schema, example) = match name {
        "namespace" => ("The namespace.", published::label(), object["metadata"]["namespace"].clone()),
        "name" => (
            "The name in it.",
            published::name_of(kind.unwrap_or(Kind::Rollout)),
            object["metadata"]["name"].clone(),
        ),
        "number" => ("The number of a revision; 0 is the mesh before anything was written.", count, 1.into()),
        "to" => (
            "The number of a revision, or `now`.",
            json!({ "type": "string", "pattern": "^(now|[0-9]{1,19})$" }),
            "now".into(),
        ),
        "id" => ("The id of a token.", json!({ "type": "string", "pattern": "^[0-9a-f]{16}$" }), Json::Null),
        "verb" => (
            "What is to be done.",
            json!({ "type": "string", "enum": ["promote", "pause", "resume", "abort"] }),
            "pause".into(),
        ),
        "page" => ("The page.", json!({ "type": "string", "enum": PAGES }), "breakers".into()),
        "node" => ("The name of a sidecar.", text, Json::Null),
        _ => ("", text, Json::Null),
    };
    let mut told =
        json!({ "name": name, "in": "path", "required": true, "description": said, "schema": schema });
    if !example.is_null() {
        told["example"] = example;
    }
    told
}

fn taken(body: &Body, kind: Option<Kind>) -> Json {
    let of_kind = || kind.map_or_else(|| json!({}), |kind| reference(kind.as_str()));
    let (required, schema, example) = match body {
        Body::Named(name, example) => (true, reference(name), example.clone()),
        Body::MayBe(name, example) => (false, reference(name), example.clone()),
        Body::Object => (true, of_kind(), kind.map(examples::object).unwrap_or_default()),
        Body::Patch => {
            let media = json!({ "schema": reference("MergePatch"), "example": examples::patch() });
            let content = json!({ "application/merge-patch+json": media, "application/json": media });
            return json!({ "required": true, "content": content });
        }
    };
    json!({ "required": required, "content": { "application/json": { "schema": schema, "example": example } } })
}

fn responses(operation: &Operation, kind: Option<Kind>, free: bool) -> Json {
    let mut all = Map::new();
    for (status, answer) in &operation.answers {
        all.insert(status.to_string(), answered(*answer, kind));
    }
    let mut errors = vec![403, 421, 503];
    if !free {
        errors.extend([400, 401, 429]);
    }
    if operation.method != Method::GET {
        errors.push(507);
    }
    if operation.body.is_some() {
        errors.extend([413, 415]);
    }
    errors.extend(&operation.also);
    errors.sort_unstable();
    errors.dedup();
    for status in errors {
        let name = answers::error_name(status);
        all.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
    link(operation, kind, &mut all);
    Json::Object(all)
}

fn answered(answer: Answer, kind: Option<Kind>) -> Json {
    let of_kind = |suffix: &str| kind.map_or_else(|| json!({}), |kind| reference(&format!("{kind}{suffix}")));
    let json_of = |said: &str, schema: Json| json!({ "description": said, "content": { "application/json": { "schema": schema } } });
    let with_etag = |mut told: Json| {
        told["headers"] = json!({ "ETag": { "$ref": "#/components/headers/ETag" } });
        told
    };
    match answer {
        Answer::Json(name) => json_of("As asked for.", reference(name)),
        Answer::Page => json_of("A page of them.", of_kind("List")),
        Answer::Object => with_etag(json_of("The object.", of_kind(""))),
        Answer::Written => with_etag(json_of(
            "The object as it is now; of a dry run, or with `wait`, what the change does.",
            json!({ "anyOf": [of_kind(""), reference("Applied")] }),
        )),
        Answer::Text(media) => {
            let mut content = json!({});
            content[media] = json!({ "schema": { "type": "string" } });
            json!({ "description": "As asked for.", "content": content })
        }
        Answer::Empty => json!({ "description": "It is gone since." }),
    }
}

/// What can be done with an answer, by what is in it.
fn link(operation: &Operation, kind: Option<Kind>, responses: &mut Map<String, Json>) {
    let links = match (operation.id, kind) {
        ("write{}" | "read{}" | "patch{}", Some(kind)) => {
            let to = |verb: &str, with_version: bool| {
                let mut parameters =
                    json!({ "path.namespace": "$request.path.namespace", "path.name": "$request.path.name" });
                if with_version {
                    parameters["header.If-Match"] = "$response.header.ETag".into();
                }
                json!({ "operationId": format!("{verb}{kind}"), "parameters": parameters })
            };
            json!({ "read": to("read", false), "patch": to("patch", true), "delete": to("delete", true) })
        }
        ("apply" | "rollback", _) => json!({ "revision": {
            "operationId": "readRevision", "parameters": { "path.number": "$response.body#/revision" },
        } }),
        ("createToken", _) => json!({ "revoke": {
            "operationId": "revokeToken", "parameters": { "path.id": "$response.body#/id" },
        } }),
        _ => return,
    };
    for status in ["200", "201"] {
        if let Some(response) = responses.get_mut(status) {
            response["links"] = links.clone();
        }
    }
}
