//! What somebody says of a rollout, and where it is.

use axum::Json as JsonBody;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrigger_mesh::Label;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use super::objects::to_json;
use super::{Api, ApiError, Caller};
use crate::rollout::{NotDone, Verb as Order};
use crate::spec::{Key, Kind, ObjectName};
use crate::status;
use crate::users::permission::{Verb, What};
use crate::world::AnyEntry;

/// What is to be done, and to which step.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// The step at which whoever asks saw it, from 1: at any other one nothing is done.
    step: Option<usize>,
    /// To promote: to the last step.
    #[serde(default)]
    full: bool,
}

/// An object as it is answered; of a rollout, with where it is, and of a route, with what has become of it.
pub(super) fn told(api: &Api, entry: &AnyEntry) -> Json {
    let mut object = to_json(entry);
    if let (AnyEntry::Rollout(entry), Some(rollouts)) = (entry, &api.rollouts)
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert("status".into(), rollouts.status(entry));
    }
    if let (AnyEntry::Route(entry), Some(fields)) = (entry, object.as_object_mut()) {
        fields.insert("status".into(), status::of_route(&api.state.world(), entry));
    }
    object
}

/// `POST /v1/rollouts/{namespace}/{name}/{verb}`.
pub(super) async fn order(
    State(api): State<Api>,
    caller: Caller,
    Path((namespace, name, verb)): Path<(String, String, String)>,
    body: String,
) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let namespace = Label::new(&namespace).map_err(|e| bad(e.to_string()))?;
    let name = ObjectName::new(&name).map_err(bad)?;
    caller.may(Verb::Change, What::Object(Kind::Rollout), Some(&namespace))?;
    let wanted: Wanted = if body.trim().is_empty() {
        Wanted::default()
    } else {
        serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?
    };
    let verb = match verb.as_str() {
        "promote" => Order::Promote { full: wanted.full },
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "abort" => Order::Abort,
        other => {
            let detail =
                format!("{other:?} is nothing that can be done; promote, pause, resume and abort are");
            return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
        }
    };
    if wanted.full && !matches!(verb, Order::Promote { .. }) {
        return Err(bad("full is said with promote only".into()));
    }
    let step = wanted.step.map(|step| step.checked_sub(1).ok_or_else(|| bad("steps count from 1".into())));
    let rollouts = api.rollouts.as_ref().ok_or_else(|| bad("nothing drives rollouts here".into()))?;
    let key = Key { kind: Kind::Rollout, namespace, name };
    match rollouts.order(key.clone(), verb, step.transpose()?, caller.author).await {
        Ok(()) => match api.state.world().object(&key) {
            Some(entry) => Ok(JsonBody(told(&api, &entry)).into_response()),
            None => Ok(StatusCode::NO_CONTENT.into_response()),
        },
        Err(NotDone::Absent) => Err(ApiError::new(StatusCode::NOT_FOUND, format!("{key} does not exist"))),
        Err(NotDone::Refused(why)) => Err(ApiError::new(StatusCode::CONFLICT, why)),
        Err(NotDone::Store(e)) => Err(e.into()),
    }
}
