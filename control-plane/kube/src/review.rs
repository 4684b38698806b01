//! Whose a token is, and what somebody may: the cluster's own answers (TokenReview, SubjectAccessReview).

use serde_json::{Value, json};

use crate::api::{ApiServer, CallError, Collection};

const TOKENS: Collection =
    Collection { group: "authentication.k8s.io", version: "v1", plural: "tokenreviews", kind: "TokenReview" };
const ACCESS: Collection = Collection {
    group: "authorization.k8s.io",
    version: "v1",
    plural: "subjectaccessreviews",
    kind: "SubjectAccessReview",
};

/// Somebody whom the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// His name.
    pub name: String,
    /// His id, where names can be given again.
    pub uid: String,
    /// His groups.
    pub groups: Vec<String>,
    /// What else the one who vouches for him says.
    pub extra: Value,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act<'a> {
    /// The verb.
    pub verb: &'a str,
    /// The group of the resource.
    pub group: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// Its name.
    pub name: &'a str,
    /// In which namespace; empty: in all.
    pub namespace: &'a str,
}

/// Whose a token is that is for `audience`, or for the API server itself where none is said; `None`: nobody's, or for
/// somebody else.
pub async fn whose(api: &ApiServer, token: &str, audience: Option<&str>) -> Result<Option<User>, CallError> {
    let mut spec = json!({ "token": token });
    if let Some(audience) = audience {
        spec["audiences"] = json!([audience]);
    }
    let question =
        json!({ "apiVersion": TOKENS.api_version(), "kind": TOKENS.kind, "metadata": {}, "spec": spec });
    let answer = api.question(&TOKENS, &question).await?;
    if answer["kind"] != TOKENS.kind {
        return Err(api.garbage("it answers with no TokenReview"));
    }
    let status = &answer["status"];
    // A server that does not look at audiences names none.
    let is_for_us = audience.is_none_or(|audience| {
        status["audiences"].as_array().is_some_and(|all| all.iter().any(|a| a == audience))
    });
    let user = &status["user"];
    let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
    if status["authenticated"] != true || !is_for_us || text("username").is_empty() {
        return Ok(None);
    }
    let groups = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Some(User {
        name: text("username"),
        uid: text("uid"),
        groups: groups.map(str::to_owned).collect(),
        extra: user.get("extra").cloned().unwrap_or_default(),
    }))
}

/// Whether somebody may do something. Whatever is no clear yes is a no.
pub async fn may(api: &ApiServer, user: &User, act: Act<'_>) -> Result<bool, CallError> {
    let Act { verb, group, resource, name, namespace } = act;
    let asked = json!({
        "verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace,
    });
    let mut spec = json!({ "user": user.name, "groups": user.groups, "resourceAttributes": asked });
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if user.extra.is_object() {
        spec["extra"] = user.extra.clone();
    }
    let question =
        json!({ "apiVersion": ACCESS.api_version(), "kind": ACCESS.kind, "metadata": {}, "spec": spec });
    let answer = api.question(&ACCESS, &question).await?;
    Ok(answer["status"]["allowed"] == true && answer["status"]["denied"] != true)
}
