//! `Gateway`, exactly as the Gateway API (v1) writes it: the listeners of a proxy at the edge of the mesh.
//!
//! What the Gateway API has and the mesh can not do yet is named here and refused; nothing is ignored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::rules;
use super::schema::{Field, Shape};

/// The class of the gateways of the mesh.
pub(crate) const GATEWAY_CLASS: &str = "outrigger";

/// What a person writes of a gateway. The proxy that serves it runs as the service account of its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gateway {
    /// Always `outrigger`: a cluster may have gateways of others.
    pub gateway_class_name: String,
    /// Its listeners.
    pub listeners: Vec<Listener>,
}

/// One port and host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Its name, unique in the gateway.
    pub name: String,
    /// The host names it is for: one, or all below one. None: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The port.
    pub port: u16,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// The certificates, for HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<AllowedRoutes>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the written words")]
pub enum ListenerProtocol {
    Http,
    Https,
}

/// The certificates of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// `Terminate`: TLS ends at the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The certificates, by the names of their files at the gateway; the first is shown to who names no host.
    pub certificate_refs: Vec<CertificateRef>,
}

/// A certificate by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRef {
    /// The group of its kind, as the Gateway API writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind: Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
}

/// Which routes may attach themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AllowedRoutes {
    /// Those of which namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
}

/// The namespaces whose routes may attach themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteNamespaces {
    /// Which.
    pub from: From,
}

/// Whose routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum From {
    /// The gateway's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("gatewayClassName", &Shape::Word(&[GATEWAY_CLASS])),
    Field::required("listeners", &Shape::List(&LISTENER, 64)),
    Field::new(
        "addresses",
        &Shape::Later("a gateway listens where its proxy is told to; addresses are not supported yet"),
    ),
    Field::new("infrastructure", &Shape::Later("infrastructure of a gateway is not supported yet")),
]);

const LISTENER: Shape = Shape::Object(&[
    Field::required("name", &forms::LABEL),
    Field::new("hostname", &rules::HOST_PATTERN),
    Field::required("port", &Shape::Integer(1, 65_535)),
    Field::required("protocol", &Shape::WordSoFar(&["HTTP", "HTTPS"], &["TLS", "TCP", "UDP"])),
    Field::new("tls", &TLS),
    Field::new("allowedRoutes", &ALLOWED),
]);

const TLS: Shape = Shape::Object(&[
    Field::new("mode", &Shape::WordSoFar(&["Terminate"], &["Passthrough"])),
    Field::required("certificateRefs", &Shape::List(&CERTIFICATE, 64)),
    Field::new("options", &Shape::Later("options of TLS are not supported yet")),
]);

const CERTIFICATE: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&[""])),
    Field::new("kind", &Shape::Word(&["Secret"])),
    Field::required("name", &forms::LABEL),
    Field::new("namespace", &Shape::Later("a certificate of another namespace is not supported")),
]);

const ALLOWED: Shape = Shape::Object(&[
    Field::new(
        "namespaces",
        &Shape::Object(&[
            Field::required("from", &Shape::WordSoFar(&["Same", "All"], &["Selector"])),
            Field::new("selector", &Shape::Later("a selector of namespaces is not supported yet")),
        ]),
    ),
    Field::new("kinds", &Shape::Later("kinds of routes are not supported yet; HTTPRoutes attach themselves")),
]);
