//! `EgressService`: hosts outside the mesh that may be called, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::rules;
use super::schema::{Field, Shape};
use super::service::{PORT, RETRY, Retry, ServicePort, ServiceTimeouts, TARGETS, TIMEOUTS, Target};

/// What a person writes of hosts outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressService {
    /// The names by which applications call it.
    pub hosts: Vec<String>,
    /// Its ports; the first is meant where a caller names none.
    pub ports: Vec<ServicePort>,
    /// What to look up instead of the hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// What the sidecar does about TLS. None: it passes on what the application sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<EgressTls>,
    /// What becomes of the mesh's tokens on calls to it. None: they are stripped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<EgressTokens>,
    /// How long things may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ServiceTimeouts>,
    /// What is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whom to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What the sidecar does about TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressTls {
    /// Whether it adds TLS.
    pub mode: EgressTlsMode,
    /// The name to find in the certificate. None: the host that was looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Who vouches for it, as certificates in PEM. None: those that the sidecar's system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
}

/// Whether the sidecar adds TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressTlsMode {
    /// It does: the application speaks plaintext to its sidecar.
    Originate,
    /// It passes on what the application sends.
    None,
}

/// What becomes of the mesh's tokens on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EgressTokens {
    /// They do not leave.
    Strip,
    /// What the application sends goes out as it is.
    Keep,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("hosts", &Shape::List(&forms::HOSTNAME, 64)),
    Field::required("ports", &Shape::List(&PORT, 64)),
    Field::new("targets", &TARGETS),
    Field::new("tls", &TLS),
    Field::new("tokens", &Shape::Word(&["strip", "keep"])),
    Field::new("timeouts", &TIMEOUTS),
    Field::new("retry", &RETRY),
    Field::new("owner", &forms::WORDS),
    Field::new("description", &forms::WORDS),
]);

const TLS: Shape = Shape::Object(&[
    Field::required("mode", &Shape::Word(&["originate", "none"])),
    Field::new("serverName", &forms::HOSTNAME),
    Field::new("caBundle", &rules::PEM),
]);
