//! Requests and their answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::kinds::Resource;
use super::question::Question;
use super::shelf::{Part, Place, Refused, not_found, without};
use super::{Fault, Grant, Inner, discovery, lock, patch, schema, table, watch};

/// What is answered.
pub(super) type Body = BoxBody<Bytes, Ended>;

/// A connection that ends on purpose.
#[derive(Debug)]
pub(crate) struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ended on purpose")
    }
}

impl std::error::Error for Ended {}

/// The answer to a request; an error ends its connection.
pub(super) async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Body>, Ended> {
    let (head, body) = request.into_parts();
    let shown = head.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let question = Question::of(&inner, &head);
    let (verb, plural) = question.as_ref().map_or(("get", ""), |q| (q.verb, q.resource.plural.as_str()));
    match inner.fault(verb, plural) {
        Some(Fault::Cut) => return Err(Ended),
        Some(Fault::Silence) => std::future::pending::<()>().await,
        Some(Fault::Garbage) => return Ok(text(StatusCode::OK, "<html>it works</html>\n".into())),
        Some(Fault::Status(code)) => return Ok(refusal((code, reason(code), "failed on purpose".into()))),
        None => {}
    }
    if !lock(&inner.rules).lets_in(shown) {
        return Ok(refusal((401, "Unauthorized", "Unauthorized".into())));
    }
    let body = Limited::new(body, 8 << 20).collect().await.map_err(|_| Ended)?.to_bytes();
    let Some(mut question) = question else {
        let found = discovery::answer(head.uri.path(), &inner.shelf().resources);
        let missing = (404, "NotFound", "the server could not find the requested resource".into());
        return Ok(found.map_or_else(|| refusal(missing), |found| json_of(StatusCode::OK, &found)));
    };
    question.who = lock(&inner.rules).who(shown).map(str::to_owned);
    if let Err(why) = lock(&inner.grants).judge(&question) {
        return Ok(refusal((403, "Forbidden", why)));
    }
    let (verb, on) = (question.verb, question.on());
    lock(&inner.used).insert((verb.into(), question.resource.group.clone(), on.clone()));
    if lock(&inner.rules).is_forbidden(verb, &on) {
        let told = format!("{on} is forbidden: somebody cannot {verb} resource {on:?}");
        return Ok(refusal((403, "Forbidden", told)));
    }
    Ok(done(&inner, question, &body).unwrap_or_else(refusal))
}

fn done(inner: &Arc<Inner>, question: Question, body: &Bytes) -> Result<Response<Body>, Refused> {
    let sent: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).map_err(|e| (400, "BadRequest", e.to_string()))?
    };
    // It may stand in the options of a deletion, too.
    let dry = question.text("dryRun") == Some("All") || sent["dryRun"][0] == "All";
    let part = if question.sub.as_deref() == Some("status") { Part::Status } else { Part::Whole };
    let place = question.place();
    let result = match question.verb {
        "watch" => return Ok(watched(inner, question)),
        "list" => return list(inner, &question),
        "get" => inner.shelf().get(&place).cloned().ok_or_else(|| not_found(&place)),
        "create" => return created(inner, &question, sent, dry),
        "update" => {
            let mut object = sent;
            judge(&question, &mut object)?;
            inner.shelf().update(&place, object, part, &question.by, dry)
        }
        "patch" => patched(inner, &question, &sent, part, dry),
        "delete" => inner.shelf().delete(&place, &sent, dry),
        _ => {
            let mut shelf = inner.shelf();
            let id = question.resource.id();
            let selected =
                |(place, object): (&Place, &Value)| question.selects(place, object).then(|| place.clone());
            let places: Vec<Place> =
                shelf.of_kind(&id, question.namespace.as_deref()).filter_map(selected).collect();
            for place in &places {
                shelf.delete(place, &Value::Null, dry)?;
            }
            Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
        }
    };
    inner.tell();
    let object = result.map(|object| versioned(&question.resource, object))?;
    let shown = question.table && question.verb == "get";
    let answer = if shown { table::of(&question.resource, &object) } else { object };
    Ok(json_of(StatusCode::OK, &answer))
}

fn watched(inner: &Arc<Inner>, question: Question) -> Response<Body> {
    let after = question.text("resourceVersion").unwrap_or_default();
    let forgotten = inner.shelf().forgotten;
    // Nothing said, or 0: from what there is. Everything is told as new then.
    let after = if ["", "0"].contains(&after) { forgotten } else { after.parse().unwrap_or(0) };
    if after < forgotten {
        return json_of(StatusCode::GONE, &watch::gone());
    }
    let body = watch::body(Arc::clone(inner), question, after);
    let answer = Response::builder().header(header::CONTENT_TYPE, "application/json");
    answer.body(body).expect("a response")
}

fn created(inner: &Inner, question: &Question, sent: Value, dry: bool) -> Result<Response<Body>, Refused> {
    let (mut object, mut place) = (sent, question.place());
    let status = match question.resource.kind.as_str() {
        "TokenReview" => Some(lock(&inner.rules).whose(&object)),
        "SubjectAccessReview" => Some(lock(&inner.rules).may(&object)),
        "SelfSubjectAccessReview" => Some(self_review(inner, question, &object)),
        "ServiceAccount" if question.sub.as_deref() == Some("token") => {
            Some(lock(&inner.rules).issue(&place.1, &place.2, &object))
        }
        _ => None,
    };
    if let Some(status) = status {
        object["status"] = status;
        return Ok(json_of(StatusCode::CREATED, &object));
    }
    let (name, prefix) = (object["metadata"]["name"].as_str(), object["metadata"]["generateName"].as_str());
    place.2 = match (name, prefix) {
        (Some(name), _) => name.to_owned(),
        (None, Some(prefix)) => format!("{prefix}{:05}", inner.shelf().count()),
        (None, None) => return Err((422, "Invalid", "metadata.name: Required value".into())),
    };
    object["metadata"]["name"] = place.2.clone().into();
    if question.resource.namespaced {
        object["metadata"]["namespace"] = place.1.clone().into();
    }
    judge(question, &mut object)?;
    let made = inner.shelf().create(place, object, &question.by, dry)?;
    inner.tell();
    Ok(json_of(StatusCode::CREATED, &versioned(&question.resource, made)))
}

/// Whether whoever asks may do something: who has roles, what they say; anybody else everything.
fn self_review(inner: &Inner, question: &Question, review: &Value) -> Value {
    let asked = &review["spec"]["resourceAttributes"];
    let of = |field: &str| asked[field].as_str().unwrap_or_default();
    let sub = if of("subresource").is_empty() { String::new() } else { format!("/{}", of("subresource")) };
    let on = format!("{}{sub}", of("resource"));
    let is = |grant: &Grant| {
        let here = grant.namespace.as_deref().is_none_or(|namespace| namespace == of("namespace"));
        let named = grant.name.as_deref().is_none_or(|name| name == of("name"));
        here && named && grant.verb == of("verb") && grant.group == of("group") && grant.resource == on
    };
    let allowed = question.who.as_deref().is_none_or(|user| lock(&inner.grants).allows(user, is));
    json!({ "allowed": allowed })
}

fn patched(
    inner: &Inner,
    question: &Question,
    sent: &Value,
    part: Part,
    dry: bool,
) -> Result<Value, Refused> {
    let place = question.place();
    let mut shelf = inner.shelf();
    let Some(mut object) = shelf.get(&place).cloned() else {
        if !question.patch.starts_with("application/apply-patch") {
            return Err(not_found(&place));
        }
        let mut object = sent.clone();
        judge(question, &mut object)?;
        return shelf.create(place, object, &question.by, dry);
    };
    // A patch counts for what is there, unless it says for what.
    without(&mut object["metadata"], "resourceVersion");
    if question.patch.starts_with("application/json-patch") {
        patch::json(&mut object, sent).map_err(|why| (422, "Invalid", why))?;
    } else {
        patch::merge(&mut object, sent);
    }
    judge(question, &mut object)?;
    shelf.update(&place, object, part, &question.by, dry)
}

/// Whether an object is as its kind wants it. What is unknown is dropped, or refused where that is asked for.
fn judge(question: &Question, object: &mut Value) -> Result<(), Refused> {
    let resource = &question.resource;
    if object["kind"] != resource.kind.as_str() {
        let told = format!("the object provided is no {}: {}", resource.kind, object["kind"]);
        return Err((400, "BadRequest", told));
    }
    let mut found = schema::Found::default();
    if let Some(of_kind) = &resource.schema {
        schema::fit(of_kind, object, "", &mut found);
    }
    if question.text("fieldValidation") == Some("Strict") && !found.unknown.is_empty() {
        return Err((400, "BadRequest", format!("strict decoding error: {}", found.unknown.join(", "))));
    }
    let mut wrong = found.wrong;
    if resource.plural == "customresourcedefinitions" {
        wrong.extend(faults_of(object));
    }
    if wrong.is_empty() { Ok(()) } else { Err((422, "Invalid", wrong.join(", "))) }
}

/// Why an API server would refuse a CustomResourceDefinition: where its schemas are not structural.
pub fn faults_of(definition: &Value) -> Vec<String> {
    let mut wrong = vec![];
    let versions = definition["spec"]["versions"].as_array();
    for (i, version) in versions.into_iter().flatten().enumerate() {
        let of_version = &version["schema"]["openAPIV3Schema"];
        schema::faults(of_version, &format!("spec.versions[{i}].schema.openAPIV3Schema"), &mut wrong);
    }
    wrong
}

fn list(inner: &Inner, question: &Question) -> Result<Response<Body>, Refused> {
    let shelf = inner.shelf();
    let (from, count) = match question.text("continue").filter(|c| !c.is_empty()) {
        None => (None, shelf.count()),
        Some(text) => {
            let parts: Vec<&str> = text.splitn(3, '|').collect();
            let [count, namespace, name] = parts.as_slice() else {
                return Err((400, "BadRequest", "continue key is not valid".into()));
            };
            let count: u64 = count.parse().unwrap_or(0);
            if count < shelf.forgotten {
                return Err((410, "Expired", "The provided continue parameter is too old".into()));
            }
            (Some(((*namespace).to_owned(), (*name).to_owned())), count)
        }
    };
    let limit = question.number("limit").filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    let limit = limit.unwrap_or(usize::MAX);
    let id = question.resource.id();
    let rest: Vec<(&Place, &Value)> = shelf
        .of_kind(&id, None)
        .filter(|(place, object)| question.selects(place, object))
        .filter(|(place, _)| from.as_ref().is_none_or(|from| (&place.1, &place.2) > (&from.0, &from.1)))
        .collect();
    let mut metadata = json!({ "resourceVersion": count.to_string() });
    if rest.len() > limit {
        let (last, _) = rest[limit - 1];
        metadata["continue"] = format!("{count}|{}|{}", last.1, last.2).into();
        metadata["remainingItemCount"] = (rest.len() - limit).into();
    }
    let item = |(_, object): &(&Place, &Value)| versioned(&question.resource, (*object).clone());
    let items: Vec<Value> = rest.iter().take(limit).map(item).collect();
    let (version, kind) = (question.resource.api_version(), format!("{}List", question.resource.kind));
    let list = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "items": items });
    let list = if question.table { table::of(&question.resource, &list) } else { list };
    Ok(json_of(StatusCode::OK, &list))
}

/// In the version that was asked for.
fn versioned(resource: &Resource, mut object: Value) -> Value {
    if object["kind"] == resource.kind.as_str() {
        object["apiVersion"] = resource.api_version().into();
    }
    object
}

fn refusal((code, reason, message): Refused) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code,
    });
    json_of(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &status)
}

fn reason(code: u16) -> &'static str {
    match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    }
}

fn json_of(status: StatusCode, value: &Value) -> Response<Body> {
    text(status, value.to_string())
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    answer.body(body).expect("a response")
}
