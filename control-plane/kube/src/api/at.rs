//! What is asked by a path: lists of one namespace, what is in none, what the server says of itself.

use http::{Method, Request, header};
use serde_json::Value;

use super::{ApiServer, CallError, CallErrorKind};

impl ApiServer {
    /// What is at a path; `None` where there is nothing.
    pub async fn get_at(&self, path: &str) -> Result<Option<Value>, CallError> {
        match self.at(Method::GET, path, "", vec![]).await {
            Ok(told) => Ok(Some(told)),
            Err(e) if e.kind() == CallErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes an object in the collection at a path.
    pub async fn create_at(&self, path: &str, object: &Value) -> Result<(), CallError> {
        let body = object.to_string().into_bytes();
        self.at(Method::POST, path, "application/json", body).await.map(drop)
    }

    /// Changes the object at a path by the steps of a JSON patch, all of them or none.
    pub async fn patch_at(&self, path: &str, steps: &Value) -> Result<(), CallError> {
        let body = steps.to_string().into_bytes();
        self.at(Method::PATCH, path, "application/json-patch+json", body).await.map(drop)
    }

    async fn at(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Value, CallError> {
        let request = Request::builder().method(method).uri(path);
        let request = if kind.is_empty() { request } else { request.header(header::CONTENT_TYPE, kind) };
        let request = request.body(body).map_err(kube::core::request::Error::BuildRequest);
        self.call(request).await
    }
}
