//! Reading and writing one object, and listing many.

use axum::Json as JsonBody;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outrigger_mesh::Label;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::rollouts::told;
use super::writes::WriteOptions;
use super::{Api, ApiError, Caller, etag};
use crate::spec::{self, Code, Key, Kind, ObjectName, Problem};
use crate::state::Write;
use crate::store::Expect;
use crate::users::permission::{Verb, What};
use crate::world::AnyEntry;

/// An object as it is answered: as it was written, with its version and its status: by
/// whom an instance was registered, the virtual addresses of a service, and those of its cluster.
pub(super) fn to_json(entry: &AnyEntry) -> Json {
    let mut object = entry.object().to_json();
    if let Some(metadata) = object.get_mut("metadata").and_then(Json::as_object_mut) {
        metadata.insert("resourceVersion".into(), entry.changed().to_string().into());
    }
    let status = match (entry.registered_by(), entry.address()) {
        _ if entry.has_expired().is_some() => Some(json!({ "expired": entry.has_expired() })),
        (Some(by), _) => Some(json!({ "registeredBy": by.to_string() })),
        (None, Some(address)) => Some(match entry.cluster_addresses() {
            [] => json!({ "addresses": address.both() }),
            cluster => json!({ "addresses": address.both(), "clusterAddresses": cluster }),
        }),
        (None, None) => None,
    };
    if let (Some(status), Some(object)) = (status, object.as_object_mut()) {
        object.insert("status".into(), status);
    }
    object
}

pub(super) async fn list_all(
    State(api): State<Api>,
    caller: Caller,
    Path(collection): Path<String>,
    Query(selector): Query<Selector>,
) -> Result<JsonBody<Json>, ApiError> {
    listed(&api, &caller, kind(&collection)?, None, &selector).await
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path((collection, namespace)): Path<(String, String)>,
    Query(selector): Query<Selector>,
) -> Result<JsonBody<Json>, ApiError> {
    listed(&api, &caller, kind(&collection)?, Some(&label(&namespace)?), &selector).await
}

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Selector {
    /// `key=value` pairs joined by commas, all of which an object's labels must have.
    #[serde(rename = "labelSelector")]
    labels: Option<String>,
    /// At most so many; 1,000 unless asked, 10,000 at most.
    limit: Option<usize>,
    /// Where the last page ended.
    #[serde(rename = "continue")]
    after: Option<String>,
    /// Everything that anybody had been told is written when it was asked for, at whichever replica.
    #[serde(default)]
    consistent: bool,
}

/// How fresh an answer is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Fresh {
    /// It has everything that anybody had been told is written when it was asked for, at whichever replica. Without it,
    /// what another replica wrote a moment ago may be missing.
    #[serde(default)]
    consistent: bool,
}

impl Fresh {
    async fn wait(self, api: &Api) -> Result<(), ApiError> {
        if self.consistent {
            api.state.catch_up().await?;
        }
        Ok(())
    }
}

async fn listed(
    api: &Api,
    caller: &Caller,
    kind: Kind,
    namespace: Option<&Label>,
    selector: &Selector,
) -> Result<JsonBody<Json>, ApiError> {
    caller.may(Verb::Read, What::Object(kind), namespace)?;
    Fresh { consistent: selector.consistent }.wait(api).await?;
    let wanted = labels(selector.labels.as_deref().unwrap_or_default())?;
    let limit = selector.limit.unwrap_or(1_000).clamp(1, 10_000);
    let after = selector.after.as_deref().unwrap_or_default();
    let world = api.state.world();
    let mut matching = world.objects(kind, namespace).into_iter().filter(|entry| {
        let metadata = &entry.object().metadata;
        if !caller.covers(metadata.namespace.as_str()) {
            return false;
        }
        let labelled = wanted.iter().all(|(k, v)| metadata.labels.get(*k).is_some_and(|have| have == v));
        labelled && (after.is_empty() || place(entry).as_str() > after)
    });
    let page: Vec<AnyEntry> = matching.by_ref().take(limit).collect();
    let more = matching.next().is_some();
    let mut body = json!({
        "revision": world.revision(),
        "generation": world.generation(),
        "items": page.iter().map(|entry| told(api, entry)).collect::<Vec<_>>(),
    });
    if let (true, Some(last), Some(fields)) = (more, page.last(), body.as_object_mut()) {
        fields.insert("continue".into(), place(last).into());
    }
    Ok(JsonBody(body))
}

fn place(entry: &AnyEntry) -> String {
    let key = entry.object().key();
    format!("{}/{}", key.namespace, key.name)
}

fn labels(selector: &str) -> Result<Vec<(&str, &str)>, ApiError> {
    let pairs = selector.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('='))
        .collect::<Option<_>>()
        .ok_or_else(|| ApiError::new(StatusCode::BAD_REQUEST, "write labelSelector as key=value,key=value"))
}

pub(super) async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(path): Path<(String, String, String)>,
    Query(fresh): Query<Fresh>,
) -> Result<Response, ApiError> {
    let key = key(&path)?;
    caller.may_read(&key)?;
    fresh.wait(&api).await?;
    let entry = api.state.world().object(&key).ok_or_else(|| absent(&key))?;
    Ok(with_etag(StatusCode::OK, entry.changed(), told(&api, &entry)))
}

pub(super) async fn write(
    State(api): State<Api>,
    caller: Caller,
    Path(path): Path<(String, String, String)>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, ApiError> {
    let key = key(&path)?;
    let expect = etag::expectation(&headers)?;
    put(&api, &caller, &key, &options, expect, &body).await
}

/// Changes the fields that are named and leaves the others (JSON merge patch, RFC 7396): `null` takes a field away, a list
/// is replaced whole.
pub(super) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    Path(path): Path<(String, String, String)>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, ApiError> {
    let key = key(&path)?;
    let expect = etag::expectation(&headers)?;
    let wanted: Json = serde_json::from_str(&body)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("not a merge patch in JSON: {e}")))?;
    caller.may(Verb::Change, What::Object(key.kind), Some(&key.namespace))?;
    let entry = api.state.world().object(&key).ok_or_else(|| absent(&key))?;
    // Whatever was expected of it, this is the one that is patched.
    let expect = if expect == Expect::Present { Expect::Version(entry.changed()) } else { expect };
    let mut object = entry.object().to_json();
    merge(&mut object, wanted);
    put(&api, &caller, &key, &options, expect, &object.to_string()).await
}

/// RFC 7396, section 2.
fn merge(target: &mut Json, patch: Json) {
    let Json::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        match value {
            Json::Null => drop(fields.shift_remove(&name)),
            value => merge(fields.entry(name).or_insert(Json::Null), value),
        }
    }
}

async fn put(
    api: &Api,
    caller: &Caller,
    key: &Key,
    options: &WriteOptions,
    expect: Expect,
    body: &str,
) -> Result<Response, ApiError> {
    let document = spec::read_one(body).map_err(|problems| ApiError::refused(&problems).of([key]))?;
    if document.object.key() != *key {
        let message = format!("the path names {key}, the body {}", document.object.key());
        let problem = Problem::error("/metadata", Code::Contradiction, message);
        return Err(ApiError::refused(&[document.located(problem)]).of([key]));
    }
    let writes = vec![Write::Put { document, expect }];
    caller.may_write(&writes)?;
    let applied = api.state.apply_as(writes, &caller.author, options.how()).await;
    let applied = applied.map_err(|e| ApiError::from(e).of([key]))?;
    let created = applied.changes.iter().any(|change| change.action == "created");
    let status = if created && !options.dry_run { StatusCode::CREATED } else { StatusCode::OK };
    match api.state.world().object(key) {
        Some(entry) if !options.dry_run && !options.waits() => {
            Ok(with_etag(status, entry.changed(), told(api, &entry)))
        }
        Some(entry) if !options.dry_run => {
            let answer = options.answer(api, caller, applied).await;
            Ok(with_etag(status, entry.changed(), answer))
        }
        _ => Ok((status, JsonBody(options.answer(api, caller, applied).await)).into_response()),
    }
}

pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(path): Path<(String, String, String)>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
) -> Result<JsonBody<Json>, ApiError> {
    let key = key(&path)?;
    let expect = etag::expectation(&headers)?;
    let there = api.state.world().object(&key).is_some();
    let writes = vec![Write::Delete { key: key.clone(), expect }];
    caller.may_write(&writes)?;
    if !there {
        return Err(absent(&key));
    }
    let applied = api.state.apply_as(writes, &caller.author, options.how()).await;
    let applied = applied.map_err(|e| ApiError::from(e).of([&key]))?;
    Ok(JsonBody(options.answer(&api, &caller, applied).await))
}

fn with_etag(status: StatusCode, changed: u64, body: Json) -> Response {
    (status, [(header::ETAG, etag::of(changed))], JsonBody(body)).into_response()
}

fn absent(key: &Key) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("{key} does not exist"))
}

fn kind(collection: &str) -> Result<Kind, ApiError> {
    Kind::of_collection(collection).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.into_iter().map(Kind::collection).collect();
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("there are no such things; there are {}", known.join(", ")),
        )
    })
}

fn label(text: &str) -> Result<Label, ApiError> {
    Label::new(text).map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.to_string()))
}

fn key((collection, namespace, name): &(String, String, String)) -> Result<Key, ApiError> {
    let name = ObjectName::new(name).map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e))?;
    Ok(Key { kind: kind(collection)?, namespace: label(namespace)?, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 7396, appendix A.
    #[test]
    fn a_merge_patch_is_merged_as_the_rfc_shows() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), Json::Null, Json::Null),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut target = target;
            merge(&mut target, patch);
            assert_eq!(target, merged);
        }
    }
}
