//! What the operator sets for all pods.

use serde_json::Value;

use crate::Problem;

/// What the operator sets for all pods, proven.
#[derive(Clone, Debug, Default)]
pub struct Settings {}

impl Settings {
    /// Reads them from a JSON object; what is left out keeps its default. All mistakes are told at once.
    pub fn from_json(_written: &Value) -> Result<Self, Vec<Problem>> {
        Ok(Self::default())
    }
}
