//! `metadata`, as Kubernetes writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use outrigger_mesh::{EndpointUid, Label};
use serde_json::{Map, Value as Json};

use super::forms;
use super::rules;
use super::schema::{Field, Shape};

/// Who an object is and what is noted about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its namespace; `default` where none is written.
    pub namespace: Label,
    /// Its name.
    pub name: ObjectName,
    /// Notes to select by.
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools.
    pub annotations: BTreeMap<String, String>,
    /// On the way in: the state of the object that the writer saw. On the way out: its present one.
    pub resource_version: Option<String>,
}

/// The name of an object: DNS labels joined by dots.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// Proves `text` to be a name; the error says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, String> {
        rules::object_name(text).map(|()| Self(text.into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Label> for ObjectName {
    fn from(label: &Label) -> Self {
        Self(label.as_str().into())
    }
}

impl From<&EndpointUid> for ObjectName {
    fn from(uid: &EndpointUid) -> Self {
        Self(uid.as_str().into())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Metadata {
    /// Metadata with nothing but names.
    pub fn new(namespace: Label, name: ObjectName) -> Self {
        Self {
            namespace,
            name,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            resource_version: None,
        }
    }

    /// Reads what has passed the table below.
    pub(super) fn from_json(json: &Json) -> Result<Self, String> {
        let text = |field: &str| json.get(field).and_then(Json::as_str);
        let notes = |field: &str| {
            json.get(field)
                .and_then(Json::as_object)
                .into_iter()
                .flatten()
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect()
        };
        Ok(Self {
            namespace: Label::new(text("namespace").unwrap_or("default")).map_err(|e| e.to_string())?,
            name: ObjectName::new(text("name").unwrap_or_default())?,
            labels: notes("labels"),
            annotations: notes("annotations"),
            resource_version: text("resourceVersion").map(str::to_owned),
        })
    }

    pub(super) fn to_json(&self) -> Json {
        let mut json = Map::new();
        json.insert("name".into(), self.name.as_str().into());
        json.insert("namespace".into(), self.namespace.as_str().into());
        for (field, notes) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !notes.is_empty() {
                let notes = notes.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
                json.insert(field.into(), Json::Object(notes));
            }
        }
        if let Some(version) = &self.resource_version {
            json.insert("resourceVersion".into(), version.clone().into());
        }
        Json::Object(json)
    }
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("name", &forms::OBJECT_NAME),
    Field::new("namespace", &forms::LABEL),
    Field::new("labels", &Shape::Labels),
    Field::new("annotations", &Shape::Labels),
    Field::new("resourceVersion", &forms::WORDS),
    // Set by a server; a person who edits what `get` gave sends them back.
    Field::new("uid", &Shape::Anything),
    Field::new("generation", &Shape::Anything),
    Field::new("creationTimestamp", &Shape::Anything),
    Field::new("managedFields", &Shape::Anything),
    Field::new("selfLink", &Shape::Anything),
    Field::new("generateName", &Shape::Later("generated names are not supported; write a name")),
    Field::new("finalizers", &Shape::Later("finalizers are not supported")),
    Field::new("ownerReferences", &Shape::Later("owner references are not supported")),
]);
