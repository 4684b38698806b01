//! The API server: where it is, and what can be asked of it.
//!
//! Every answer is bounded in size and, but for watches, in time. Its certificate is proven by the roots of a file, and the
//! token that we show is read from a file too; both are looked at again now and then, since Kubernetes replaces them. No token is
//! ever in an error or in the log.

mod at;
mod body;
mod connect;
mod error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::core::Request as Ask;
use kube::core::params::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use connect::Way;
pub use error::{CallError, CallErrorKind};

/// Where the API server is, and how we prove ourselves to it.
#[derive(Clone, Debug)]
pub struct Address {
    /// Its URL, `https://HOST` or `https://HOST:PORT`.
    pub url: String,
    /// Our own token, which the kubelet replaces now and then.
    pub token: PathBuf,
    /// Who vouches for the API server, PEM.
    pub roots: PathBuf,
}

/// The API server. Clones share its connections.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    way: Arc<Way>,
}

/// A kind of objects at the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Collection {
    /// Its group; empty: the core.
    pub group: &'static str,
    /// The version in which objects are read and written.
    pub version: &'static str,
    /// The word in paths.
    pub plural: &'static str,
    /// The word in objects.
    pub kind: &'static str,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects, with their version and kind.
    pub items: Vec<Value>,
    /// As of which count the list is.
    pub version: String,
    /// What to ask on with; `None` at the end.
    pub next: Option<String>,
}

/// How a write is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// It is to be made.
    Really,
    /// It is to be judged, and not made.
    DryRun,
}

/// As long as anything but a watch may take.
const WITHIN: Duration = Duration::from_secs(15);
/// Whose writes these are, in `metadata.managedFields`.
pub const MANAGER: &str = "outrigger-control";

impl ApiServer {
    /// Proves the address; an error names what is wrong with which file or URL. Nothing is asked yet. The connections are of
    /// the runtime that this is called in.
    pub fn new(address: &Address) -> Result<Self, CallError> {
        let way = Arc::new(Way::new(address)?);
        let client = Client::new(connect::service(Arc::clone(&way)), "default");
        Ok(Self { client, way })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        self.way.url()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// One object; `None` where there is none.
    pub async fn get(
        &self,
        of: &Collection,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, CallError> {
        match self.call(of.ask(Some(namespace)).get(name, &GetParams::default())).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.kind() == CallErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// At most `limit` objects of all namespaces or one; on from `next` of the page before.
    pub async fn list(
        &self,
        of: &Collection,
        namespace: Option<&str>,
        labels: Option<&str>,
        limit: u32,
        next: Option<String>,
    ) -> Result<Page, CallError> {
        let params = ListParams {
            label_selector: labels.map(str::to_owned),
            limit: Some(limit),
            continue_token: next,
            ..ListParams::default()
        };
        let mut list: Value = self.call(of.ask(namespace).list(&params)).await?;
        let text = |pointer: &str| list.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (version, next) = (text("/metadata/resourceVersion"), text("/metadata/continue"));
        let (Some(version), Some(Value::Array(mut items))) =
            (version, list.get_mut("items").map(Value::take))
        else {
            return Err(self.way.garbage("it is no list"));
        };
        for item in &mut items {
            // In lists objects are without it.
            item["apiVersion"] = of.api_version().into();
            item["kind"] = of.kind.into();
        }
        Ok(Page { items, version, next: next.filter(|next| !next.is_empty()) })
    }

    /// Makes an object.
    pub async fn create(&self, of: &Collection, object: &Value, meant: Meant) -> Result<Value, CallError> {
        let (namespace, _) = place(object);
        self.call(of.ask(Some(namespace)).create(&post(meant), bytes(object))).await
    }

    /// Replaces an object by another version of it: it names the one that it was made of
    /// (`metadata.resourceVersion`), and is refused as a conflict where that is no longer the latest.
    pub async fn replace(&self, of: &Collection, object: &Value, meant: Meant) -> Result<Value, CallError> {
        let (namespace, name) = place(object);
        self.call(of.ask(Some(namespace)).replace(name, &post(meant), bytes(object))).await
    }

    /// Merges `status` into the status of an object.
    pub async fn merge_status(
        &self,
        of: &Collection,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<Value, CallError> {
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        self.call(of.ask(Some(namespace)).patch_subresource("status", name, &params, &patch)).await
    }

    /// Takes an object away that is still of this version. One that is not there is no error.
    pub async fn delete(
        &self,
        of: &Collection,
        namespace: &str,
        name: &str,
        version: Option<&str>,
        meant: Meant,
    ) -> Result<(), CallError> {
        let mut params = DeleteParams { dry_run: meant == Meant::DryRun, ..DeleteParams::default() };
        params.preconditions =
            version.map(|version| Preconditions { resource_version: Some(version.into()), uid: None });
        match self.call::<Value>(of.ask(Some(namespace)).delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == CallErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Asks a question that is asked by creating it: a review.
    pub(crate) async fn question(&self, of: &Collection, question: &Value) -> Result<Value, CallError> {
        self.call(of.ask(None).create(&PostParams::default(), bytes(question))).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, CallError> {
        let request = request.map_err(|_| self.way.garbage("the request can not be made"))?;
        match timeout(WITHIN, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|e| self.way.fault(e)),
            Err(_) => Err(self.way.silent(WITHIN)),
        }
    }

    /// What went wrong, told with the address.
    pub(crate) fn fault(&self, e: kube::Error) -> CallError {
        self.way.fault(e)
    }

    pub(crate) fn garbage(&self, why: &str) -> CallError {
        self.way.garbage(why)
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Collection {
    /// `v1`, or `GROUP/VERSION`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// A request for objects of a namespace, or of all.
    pub(crate) fn ask(&self, namespace: Option<&str>) -> Ask {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let within =
            namespace.filter(|n| !n.is_empty()).map_or(String::new(), |n| format!("/namespaces/{n}"));
        Ask::new(format!("{root}/{}{within}/{}", self.api_version(), self.plural))
    }
}

impl std::fmt::Display for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() {
            f.write_str(self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

/// The namespace and name that an object says it has.
pub fn place(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

fn post(meant: Meant) -> PostParams {
    PostParams { dry_run: meant == Meant::DryRun, field_manager: Some(MANAGER.into()) }
}

fn bytes(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}
