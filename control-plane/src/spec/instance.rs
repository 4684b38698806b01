//! `Instance`: one endpoint of a service. Usually its own sidecar registers it; where there is none, a person writes it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::rules;
use super::schema::{Field, Shape};

/// What a person or a sidecar says of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    /// The service of the same namespace that it is an instance of.
    pub service: String,
    /// Where it is reached.
    pub address: IpAddr,
    /// Where each port of the service is reached there. None: the service's ports as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<InstancePort>,
    /// The subset it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its share relative to the others. None: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// How it is reached. None: through its sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Whether it takes new requests. None: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InstanceState>,
}

/// A port of the service at this instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstancePort {
    /// The service's port.
    pub port: u16,
    /// The port where the instance listens for it. None: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<u16>,
    /// The port of the application itself, where a sidecar listens before it. None: the same as `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u16>,
}

/// How an instance is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Transport {
    Mesh,
    Plaintext,
}

/// Whether an instance takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum InstanceState {
    Ready,
    Draining,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("service", &forms::LABEL),
    Field::required("address", &Shape::Text(rules::ip)),
    Field::new("ports", &Shape::List(&PORT, 64)),
    Field::new("version", &forms::VERSION),
    Field::new("zone", &forms::VERSION),
    Field::new("weight", &Shape::Integer(1, 65_535)),
    Field::new("transport", &Shape::Word(&["mesh", "plaintext"])),
    Field::new("state", &Shape::Word(&["ready", "draining"])),
]);

const PORT: Shape = Shape::Object(&[
    Field::required("port", &Shape::Integer(1, 65_535)),
    Field::new("listen", &Shape::Integer(1, 65_535)),
    Field::new("target", &Shape::Integer(1, 65_535)),
]);
