//! The OpenAPI 3.1 document of this API, made of what the code itself uses.
//!
//! `operations` has an entry for each line of [`routes::ROUTES`] and is the one place to add one; `paths` writes them out,
//! each collection with operations of its own; `schemas` are the kinds of objects, from the tables that judge them, and the
//! types that bodies and queries are read into; `answers` is what is told. The same for every installation, so it is a file
//! beside the pages as well: docs/openapi.json, which a test keeps equal.

mod answers;
mod examples;
mod operations;
mod paths;
mod schemas;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use self::schemas::Schemas;

/// `GET /openapi.json`. It tells nothing of this mesh, so nobody has to say who he is.
pub(super) async fn serve() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], text.as_str()).into_response()
}

/// The document.
fn document() -> Json {
    let mut schemas = Schemas::new();
    let operations = operations::all(&mut schemas);
    let tags: Vec<Json> = paths::tags(&operations).into_iter().map(|name| json!({ "name": name })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrigger admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The control plane that served this document." }],
        "security": [{ "token": [] }, { "certificate": [] }],
        "tags": tags,
        "paths": paths::all(&operations),
        "components": {
            "schemas": schemas.into_json(),
            "responses": answers::errors(),
            "headers": answers::headers(),
            "parameters": paths::parameters(),
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "A token of this API: `outrigger token create`.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate that was given a role with --admin-client.",
                },
            },
        },
    })
}

const ABOUT: &str = "What people write of a mesh, what runs in it, and who may what. Started with nothing the API listens on \
loopback and takes everybody there; elsewhere it takes a token or a client certificate. Every error is a problem document \
(RFC 9457). Bodies are JSON, unknown fields and query parameters are mistakes; a field that is null is one that is not there. \
A head that is not HTTP or too large is answered by the connection itself, with 400 or 431 and no body. See docs/api.md.";
