//! Many objects as one transaction and one revision.

use std::time::Duration;

use axum::Json as JsonBody;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::objects::{Dangling, summary};
use super::{Acknowledged, Api, ApiError, Caller};
use crate::spec::{self, Code, Key, Problem};
use crate::state::{How, Write};
use crate::store::Expect;

/// How the change is to be made.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Options {
    /// Check and tell, change nothing.
    #[serde(default)]
    dry_run: bool,
    /// `allow`: routes may refer to what is not there, or not granted.
    dangling: Option<Dangling>,
    /// `applied`: answer when every connected sidecar has acknowledged the change.
    wait: Option<String>,
    /// How long to wait for that, `10s` unless said, `10m` at most.
    timeout: Option<spec::Duration>,
}

pub(super) async fn apply(
    State(api): State<Api>,
    caller: Caller,
    Query(options): Query<Options>,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
    if options.wait.as_deref().is_some_and(|wait| wait != "applied") {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "wait is only understood as wait=applied"));
    }
    let documents = spec::read_items(&body).map_err(|problems| ApiError::refused(&problems))?;
    let writes: Vec<Write> = documents
        .into_iter()
        .map(|document| {
            // An object that carries the version its writer saw is held to it; any other replaces what is there.
            let expect = match document.object.metadata.resource_version.as_deref() {
                None => Expect::Anything,
                Some(seen) => Expect::Version(seen.parse().map_err(|_| not_a_version(&document))?),
            };
            Ok(Write::Put { document, expect })
        })
        .collect::<Result<_, ApiError>>()?;
    caller.may_write(&writes)?;
    let keys: Vec<Key> = writes.iter().map(|write| write.key().clone()).collect();
    let how = How { dry_run: options.dry_run, dangling: options.dangling.is_some() };
    let applied = api.state.apply_as(writes, &caller.author, how).await;
    let applied = applied.map_err(|e| ApiError::from(e).of(&keys))?;
    let mut answer = summary(&applied);
    if options.wait.is_some() && !options.dry_run {
        let timeout = options.timeout.map_or(WAIT, spec::Duration::get).min(MAX_WAIT);
        let acknowledged = api.observed.acknowledged(applied.revision, timeout).await;
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("wait".into(), told(&acknowledged));
        }
    }
    Ok(JsonBody(answer))
}

fn not_a_version(document: &spec::Document) -> ApiError {
    let message = "resourceVersion is not one this API gave; leave it out to replace what is there";
    let problem = Problem::error("/metadata/resourceVersion", Code::BadValue, message);
    ApiError::refused(&[document.located(problem)])
}

fn told(acknowledged: &Acknowledged) -> Json {
    let missing = acknowledged.missing.iter();
    json!({
        "acknowledged": acknowledged.acknowledged,
        "proxies": acknowledged.proxies,
        "missing": missing.map(|(proxy, reason)| json!({ "proxy": proxy, "reason": reason })).collect::<Vec<_>>(),
    })
}

const WAIT: Duration = Duration::from_secs(10);
const MAX_WAIT: Duration = Duration::from_secs(600);
