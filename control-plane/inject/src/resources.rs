//! What the containers of ours may use, and what they ask for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::json::{all_containers, member};
use crate::quantity;

/// Requests and limits of a container, by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) requests: BTreeMap<String, String>,
    pub(crate) limits: BTreeMap<String, String>,
}

impl Resources {
    pub(crate) fn of<const R: usize, const L: usize>(
        requests: [(&str, &str); R],
        limits: [(&str, &str); L],
    ) -> Self {
        let owned = |(name, amount): (&str, &str)| (name.to_owned(), amount.to_owned());
        Self { requests: requests.map(owned).into(), limits: limits.map(owned).into() }
    }

    /// The resources of which more is asked for than allowed.
    pub(crate) fn above_limit(&self) -> Vec<String> {
        let above = |(name, request): (&String, &String)| {
            self.limits
                .get(name)
                .is_some_and(|limit| quantity::is_above(request, limit))
                .then(|| name.clone())
        };
        self.requests.iter().filter_map(above).collect()
    }

    /// The same with limits that are what is asked for: a pod of the class Guaranteed stays one.
    pub(crate) fn guaranteed(&self) -> Self {
        let mut limits = self.requests.clone();
        limits.extend(self.limits.clone());
        Self { requests: limits.clone(), limits }
    }

    pub(crate) fn to_json(&self) -> Value {
        match (self.requests.is_empty(), self.limits.is_empty()) {
            (true, true) => json!({}),
            (false, true) => json!({"requests": self.requests}),
            (true, false) => json!({"limits": self.limits}),
            (false, false) => json!({"requests": self.requests, "limits": self.limits}),
        }
    }
}

/// Whether each container of the pod has limits for processor and memory and asks for as much: then nodes evict it last, and
/// a container of ours must not be what changes that.
pub(crate) fn is_guaranteed(spec: &Value) -> bool {
    let holds = |container: &Value| {
        let resources = member(container, "resources");
        let amount = |part: &str, name: &str| {
            resources.and_then(|r| r.get(part)).and_then(|p| p.get(name)).map(as_text)
        };
        ["cpu", "memory"].iter().all(|name| {
            let request = amount("requests", name);
            amount("limits", name)
                .is_some_and(|limit| request.is_none_or(|request| quantity::same(&request, &limit)))
        })
    };
    all_containers(spec).all(holds)
}

/// Amounts may be written as numbers, too.
fn as_text(amount: &Value) -> String {
    amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
}
