//! Errors of the API, all in one form (RFC 9457).

use std::fmt;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};

use crate::spec::{Key, Problem};
use crate::state::{ApplyError, TokenError};
use crate::store::{StoreError, StoreErrorKind};
use crate::users::book::NotMade;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Told>);

#[derive(Debug)]
struct Told {
    status: StatusCode,
    detail: String,
    more: Map<String, Json>,
    etag: Option<HeaderValue>,
    forbidden: Option<ForbiddenAbout>,
    invalid: Option<Invalid>,
}

/// What a role may not: put beside a response, for the audit log.
#[derive(Clone, Debug)]
pub(super) struct ForbiddenAbout(pub(super) String);

/// What was written and does not hold: put beside a response, for the audit log. Names that were proven and codes, nothing
/// of what was written: that may be a secret at the wrong place.
#[derive(Clone, Debug)]
pub(super) struct Invalid {
    about: Option<String>,
    codes: String,
    problems: usize,
}

impl Invalid {
    fn new(problems: &[Problem]) -> Self {
        let mut codes: Vec<Json> = Vec::new();
        for code in problems.iter().map(|problem| json!(problem.code)) {
            if codes.len() < MOST_CODES && !codes.contains(&code) {
                codes.push(code);
            }
        }
        let codes: Vec<&str> = codes.iter().filter_map(Json::as_str).collect();
        Self { about: None, codes: codes.join(", "), problems: problems.len() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = self.about.as_deref().unwrap_or("what can not be read");
        write!(f, "not valid: {about}: {} (problems: {})", self.codes, self.problems)
    }
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Told { status, detail, more: Map::new(), etag: None, forbidden: None, invalid: None }))
    }

    /// What was written is refused, with everything that is wrong with it.
    pub(crate) fn refused(problems: &[Problem]) -> Self {
        let detail = match problems {
            [one] => one.to_string(),
            many => format!("{} problems, nothing was changed", many.len()),
        };
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with("problems", json!(problems));
        error.0.invalid = Some(Invalid::new(problems));
        error
    }

    /// What was written, where that is known.
    #[must_use]
    pub(super) fn of<'a>(mut self, keys: impl IntoIterator<Item = &'a Key>) -> Self {
        if let Some(invalid) = &mut self.0.invalid {
            let mut keys = keys.into_iter();
            let first = keys.next().map(Key::path);
            let more = keys.count();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            invalid.about = first.map(|first| first + &more);
        }
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, field: &str, value: Json) -> Self {
        self.0.more.insert(field.into(), value);
        self
    }

    /// It is refused for want of a role, which the audit log hears of.
    #[must_use]
    pub(crate) fn forbidden(mut self, about: &str) -> Self {
        self.0.forbidden = Some(ForbiddenAbout(about.into()));
        self
    }

    #[must_use]
    pub(crate) fn etag(mut self, etag: HeaderValue) -> Self {
        self.0.etag = Some(etag);
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        tracing::error!(error = %e, "the store failed");
        let status = match e.kind() {
            StoreErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            StoreErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            StoreErrorKind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, e.to_string())
    }
}

impl From<TokenError> for ApiError {
    fn from(e: TokenError) -> Self {
        match e {
            TokenError::Store(e) => e.into(),
            TokenError::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, e.to_string()),
            TokenError::Made(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        }
    }
}

impl From<NotMade> for ApiError {
    fn from(e: NotMade) -> Self {
        match e {
            NotMade::Store(e) => e.into(),
            NotMade::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, e.to_string()),
            NotMade::Made(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(e: ApplyError) -> Self {
        match e {
            ApplyError::Refused(problems) => Self::refused(&problems),
            ApplyError::Store(e) => e.into(),
            ApplyError::Moved { revision } => {
                let detail =
                    format!("the configuration has changed meanwhile, to revision {revision}; ask again");
                Self::new(StatusCode::CONFLICT, detail)
            }
            ApplyError::Precondition { key, current } => {
                let detail = match &current {
                    Some(_) => format!("{key} is not as it was read; this is what it is now"),
                    None => format!("{key} does not exist"),
                };
                let error = Self::new(StatusCode::PRECONDITION_FAILED, detail);
                match current {
                    None => error,
                    Some(entry) => error
                        .with("current", super::objects::to_json(&entry))
                        .etag(super::etag::of(entry.changed())),
                }
            }
        }
    }
}

impl ApiError {
    /// The document itself.
    pub(crate) fn to_json(&self) -> Json {
        let Told { status, detail, more, .. } = &*self.0;
        let mut body = more.clone();
        body.insert("type".into(), "about:blank".into());
        body.insert("title".into(), status.canonical_reason().unwrap_or("error").into());
        body.insert("status".into(), status.as_u16().into());
        body.insert("detail".into(), detail.as_str().into());
        Json::Object(body)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let text = self.to_json().to_string();
        let Told { status, etag, forbidden, invalid, .. } = *self.0;
        let mut response = (status, text).into_response();
        if let Some(about) = forbidden {
            response.extensions_mut().insert(about);
        }
        if let Some(invalid) = invalid {
            response.extensions_mut().insert(invalid);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

/// What a library refused in words of its own (a query, a body that is too large), in the one form of errors.
pub(super) async fn one_form(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !(status.is_client_error() || status.is_server_error()) || kind == Some(b"application/problem+json") {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), MAX_DETAIL).await.unwrap_or_default();
    ApiError::new(status, String::from_utf8_lossy(&text).trim()).into_response()
}

/// As many as tell what sort of mistake it is.
const MOST_CODES: usize = 4;
/// More than any library says of a request.
const MAX_DETAIL: usize = 4096;

pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    let detail = format!(
        "there is nothing at {}; the kinds are under /v1/services, /v1/instances and /v1/httproutes",
        uri.path()
    );
    ApiError::new(StatusCode::NOT_FOUND, detail)
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
