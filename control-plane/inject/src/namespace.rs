//! What is known of the namespace in which a pod is made.

use std::collections::BTreeMap;

/// Labels and annotations of a pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its labels: `outrigger.dev/inject` decides for pods that say nothing themselves.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: its pods have those of ours that they do not set themselves.
    pub annotations: BTreeMap<String, String>,
}
