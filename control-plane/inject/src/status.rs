//! The annotation that tells what was added to a pod, so that it can be told from the pod's own, brought up to date, and
//! taken away.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::text;
use crate::{INIT_CONTAINER, PROXY_CONTAINER, STATUS_ANNOTATION};

/// What was added to a pod, and what stood in its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The version of the mesh that did it.
    pub version: String,
    /// Initial containers that were added.
    pub init_containers: Vec<String>,
    /// Containers that were added.
    pub containers: Vec<String>,
    /// Volumes that were added.
    pub volumes: Vec<String>,
    /// Secrets for pulling images that were added.
    pub image_pull_secrets: Vec<String>,
    /// Labels that were set, with what was there before, or null.
    pub labels: Map<String, Value>,
    /// Annotations that were set, with what was there before, or null.
    pub annotations: Map<String, Value>,
    /// What the probes of the pod's own containers asked, by container and field.
    pub probes: Map<String, Value>,
    /// Pointers of lists and objects that were not there before.
    pub made: Vec<String>,
}

impl Status {
    /// Reads it from a pod. `None` if there is none, or one that can not be read.
    pub fn of(pod: &Value) -> Option<Self> {
        let written = pod.get("metadata")?.get("annotations").and_then(|all| text(all, STATUS_ANNOTATION))?;
        if written.len() > MOST {
            return None;
        }
        let status: Self = serde_json::from_str(written).ok()?;
        let ours = |name: &String| name == INIT_CONTAINER || name == PROXY_CONTAINER;
        let mut containers = status.init_containers.iter().chain(&status.containers);
        // Whoever writes it himself takes nothing away that was not ours.
        let only_ours =
            containers.all(ours) && status.volumes.iter().all(|name| name.starts_with("outrigger-"));
        only_ours.then_some(status)
    }

    pub(crate) fn adds(&self, container: &str) -> bool {
        self.init_containers.iter().chain(&self.containers).any(|name| name == container)
    }
}

const MOST: usize = 256 * 1024;
