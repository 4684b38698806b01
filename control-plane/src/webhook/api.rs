//! What the webhook asks of a cluster, by paths of its API server.

use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_kube::api::{ApiServer, CallError};
use serde_json::Value as Json;
use tokio::time::timeout;

/// A cluster, or what plays one.
pub(super) trait Cluster: Send + Sync + 'static {
    /// The object at `path`; `None` if there is none.
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Json>, String>>;

    /// Makes an object.
    fn create<'a>(&'a self, path: &'a str, object: &'a Json) -> BoxFuture<'a, Result<(), String>>;

    /// Changes an object by a JSON patch.
    fn patch<'a>(&'a self, path: &'a str, patch: &'a Json) -> BoxFuture<'a, Result<(), String>>;
}

/// As long as one request may take: the API server waits for our own answer meanwhile.
const WHOLE: Duration = Duration::from_secs(4);

async fn within<T>(asked: impl Future<Output = Result<T, CallError>>) -> Result<T, String> {
    match timeout(WHOLE, asked).await {
        Ok(told) => told.map_err(|e| e.to_string()),
        Err(_late) => Err(format!("the API server took longer than {WHOLE:?}")),
    }
}

impl Cluster for ApiServer {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Json>, String>> {
        Box::pin(within(self.get_at(path)))
    }

    fn create<'a>(&'a self, path: &'a str, object: &'a Json) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(within(self.create_at(path, object)))
    }

    fn patch<'a>(&'a self, path: &'a str, patch: &'a Json) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(within(self.patch_at(path, patch)))
    }
}
