//! What is asked of which objects.

use http::request::Parts;
use http::{HeaderName, Method, header};
use serde_json::Value;

use super::Inner;
use super::kinds::Resource;
use super::shelf::Place;

/// A request about objects.
pub(super) struct Question {
    pub(super) resource: Resource,
    /// Of all namespaces, where none is said.
    pub(super) namespace: Option<String>,
    name: Option<String>,
    pub(super) sub: Option<String>,
    query: Vec<(String, String)>,
    pub(super) verb: &'static str,
    /// The sort of patch.
    pub(super) patch: String,
    /// The manager of the fields that it writes.
    pub(super) by: String,
    /// Whether a table is asked for, as `kubectl get` does.
    pub(super) table: bool,
    /// Who asks, where somebody showed a token.
    pub(super) who: Option<String>,
}

impl Question {
    /// What a path of objects means; `None` for any other path.
    pub(super) fn of(inner: &Inner, head: &Parts) -> Option<Self> {
        let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
        let (group, version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] => {
                (Some(*namespace), [&[*plural][..], rest].concat())
            }
            rest => (None, rest.to_vec()),
        };
        let plural = *rest.first()?;
        let shelf = inner.shelf();
        let of = |r: &&Resource| r.group == group && r.version == version && r.plural == plural;
        let resource = shelf.resources.iter().find(of)?.clone();
        let name = rest.get(1).map(|name| (*name).to_owned());
        let query: Vec<(String, String)> = head.uri.query().map(pairs).unwrap_or_default();
        let watches = query.iter().any(|(n, v)| n == "watch" && (v == "true" || v == "1"));
        let verb = match (&head.method, &name) {
            (&Method::GET, Some(_)) => "get",
            (&Method::GET, None) if watches => "watch",
            (&Method::GET, None) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, Some(_)) => "delete",
            _ => "deletecollection",
        };
        let header = |name: HeaderName| {
            head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let manager = query.iter().find(|(n, _)| n == "fieldManager").map(|(_, v)| v.clone());
        let agent = header(header::USER_AGENT);
        let by = manager.unwrap_or_else(|| agent.split('/').next().unwrap_or_default().to_owned());
        let namespace = namespace.filter(|_| resource.namespaced).map(str::to_owned);
        let sub = rest.get(2).map(|sub| (*sub).to_owned());
        let patch = header(header::CONTENT_TYPE);
        let table = header(header::ACCEPT).starts_with("application/json;as=Table");
        Some(Self { resource, namespace, name, sub, query, verb, patch, by, table, who: None })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self.text(name), Some("true" | "1"))
    }

    /// The plural, with the subresource.
    pub(super) fn on(&self) -> String {
        let sub = self.sub.as_ref().map_or(String::new(), |sub| format!("/{sub}"));
        format!("{}{sub}", self.resource.plural)
    }

    /// The name of the object, where one is meant.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn place(&self) -> Place {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        (self.resource.id(), of(&self.namespace), of(&self.name))
    }

    /// Whether an object is among those that are meant.
    pub(super) fn selects(&self, place: &Place, object: &Value) -> bool {
        let parts = |name: &str| -> Vec<String> {
            let text = self.text(name).unwrap_or_default();
            text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect()
        };
        let label = |key: &str| object["metadata"]["labels"].get(key.trim()).and_then(Value::as_str);
        let labelled = parts("labelSelector").iter().all(|part| {
            if let Some((key, value)) = part.split_once("!=") {
                label(key) != Some(value)
            } else if let Some((key, value)) = part.split_once('=') {
                label(key) == Some(value.trim_start_matches('='))
            } else if let Some(key) = part.strip_prefix('!') {
                label(key).is_none()
            } else {
                label(part).is_some()
            }
        });
        let named = parts("fieldSelector").iter().all(|part| match part.split_once('=') {
            Some(("metadata.name", name)) => name == place.2,
            Some(("metadata.namespace", namespace)) => namespace == place.1,
            _ => true,
        });
        let within = self.namespace.as_ref().is_none_or(|namespace| *namespace == place.1);
        within && labelled && named
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| pair.split_once('=').map(|(n, v)| (decoded(n), decoded(v)));
    query.split('&').filter_map(pair).collect()
}

fn decoded(text: &str) -> String {
    let (bytes, mut out, mut i) = (text.as_bytes(), vec![], 0);
    while let Some(&byte) = bytes.get(i) {
        let hex = text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
