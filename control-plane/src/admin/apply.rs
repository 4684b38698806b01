//! Many objects as one transaction and one revision.

use axum::Json as JsonBody;
use axum::extract::{Query, State};
use serde_json::Value as Json;

use super::writes::WriteOptions;
use super::{Api, ApiError, Caller};
use crate::spec::{self, Code, Key, Problem};
use crate::state::Write;
use crate::store::Expect;

pub(super) async fn apply(
    State(api): State<Api>,
    caller: Caller,
    Query(options): Query<WriteOptions>,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
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
    let applied = api.state.apply_as(writes, &caller.author, options.how()).await;
    let applied = applied.map_err(|e| ApiError::from(e).of(&keys))?;
    Ok(JsonBody(options.answer(&api, &caller, applied).await))
}

fn not_a_version(document: &spec::Document) -> ApiError {
    let message = "resourceVersion is not one this API gave; leave it out to replace what is there";
    let problem = Problem::error("/metadata/resourceVersion", Code::BadValue, message);
    ApiError::refused(&[document.located(problem)])
}
