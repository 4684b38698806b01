//! The objects of a stream, and where the pod of each is.

use serde_json::Value;

use crate::text::{Document, Kind, Node};

/// An object that makes pods, or is one.
pub(super) struct Workload<'a> {
    pub(super) document: &'a Document,
    /// The number of the document.
    pub(super) number: usize,
    pub(super) node: &'a Node,
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// The JSON pointer of the pod or its template.
    pub(super) pod: &'static str,
}

impl Workload<'_> {
    /// Its kind and name, for people.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

/// Everything of a stream that concerns us.
pub(super) struct Stream<'a> {
    pub(super) workloads: Vec<Workload<'a>>,
    /// Objects of the kind Namespace.
    pub(super) namespaces: Vec<Value>,
    /// Objects of the kind Service.
    pub(super) services: Vec<Value>,
    /// How many objects are no workloads and stay as they are.
    pub(super) others: usize,
}

impl<'a> Stream<'a> {
    /// Finds it, in lists too.
    pub(super) fn of(documents: &'a [Document]) -> Self {
        let mut stream = Self { workloads: vec![], namespaces: vec![], services: vec![], others: 0 };
        for (number, document) in documents.iter().enumerate() {
            if let Some(root) = &document.root {
                stream.take(document, number, root, 0);
            }
        }
        stream
    }

    fn take(&mut self, document: &'a Document, number: usize, node: &'a Node, depth: usize) {
        let kind = node.get("kind").and_then(text).unwrap_or_default();
        if let (true, Some(Kind::List { items, .. })) = (
            depth < 8 && kind.ends_with("List") || kind == "List",
            node.get("items").map(|items| &items.kind),
        ) {
            for item in items {
                self.take(document, number, item, depth + 1);
            }
            return;
        }
        let api = node.get("apiVersion").and_then(text).unwrap_or_default();
        match (&*api, &*kind) {
            ("v1", "Namespace") => self.namespaces.push(node.value()),
            ("v1", "Service") => self.services.push(node.value()),
            _ => {}
        }
        let Some(pod) = pod_of(&api, &kind) else {
            self.others += 1;
            return;
        };
        let meta = |key: &str| node.get("metadata").and_then(|meta| meta.get(key)).and_then(text);
        let name = meta("name").or_else(|| meta("generateName").map(|name| name + "*")).unwrap_or_default();
        self.workloads.push(Workload {
            document,
            number,
            node,
            kind,
            namespace: meta("namespace"),
            name,
            pod,
        });
    }
}

/// Where the pod of a kind is.
fn pod_of(api: &str, kind: &str) -> Option<&'static str> {
    let group = api.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(""),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("", "ReplicationController")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

fn text(node: &Node) -> Option<String> {
    match node.value() {
        Value::String(text) => Some(text),
        _ => None,
    }
}
