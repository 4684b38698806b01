//! The answers of the shop that are not what was asked for: JSON with one line for people, and
//! the dependency at fault where there is one.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::{CallError, Service};

/// An answer that refuses.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    body: Value,
}

impl Refusal {
    /// The request can not be served as it is.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": error.into() }) }
    }

    /// The catalogue has no such item.
    pub fn unknown_item(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no item {id:?}"))
    }

    /// A service this one needs did not answer as it should: 502 with its name.
    pub fn dependency(service: Service, reason: &str) -> Self {
        let error = format!("{service} failed");
        let body = json!({ "error": error, "dependency": service.name(), "reason": reason });
        Self { status: StatusCode::BAD_GATEWAY, body }
    }

    /// Adds what else is known.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.body[name] = value;
        self
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::dependency(error.service, &error.fault.to_string())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
