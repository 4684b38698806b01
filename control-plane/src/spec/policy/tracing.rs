//! Which requests are traced.

use std::fmt;

use outrigger_mesh::TraceShare;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::forms;
use crate::spec::schema::{Field, Shape};
use crate::spec::written::as_text;

/// Which requests are traced. It holds where a trace begins: at the sidecar of whoever calls, or at a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tracing {
    /// How much of what begins a trace is kept, in percent. None: what the sidecar was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

/// A share: `1%`, `0.05%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(TraceShare);

impl Sample {
    /// Reads a percentage.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }

    /// The share.
    pub fn get(self) -> TraceShare {
        self.0
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_text!(Sample);

pub(super) const SHAPE: Shape = Shape::Object(&[Field::new("sample", &forms::SHARE)]);
