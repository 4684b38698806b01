//! `MeshDefaults`: what holds for the mesh as a whole. There is one, called `mesh` in the namespace `outrigger`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_policy::{self, MeshAccess};
use super::forms;
use super::policy::{self, PolicySettings};
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of the mesh; what is left out has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshDefaults {
    /// What becomes of calls to places outside the mesh. None: they pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_mode: Option<OutboundMode>,
    /// The addresses of instances, such as the range of a cluster's pods, beside the virtual ones: what lies in them
    /// and is not known is refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub address_ranges: Vec<String>,
    /// The endings of the mesh's names, beside `mesh` and `svc.cluster.local`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suffixes: Vec<String>,
    /// Host names outside their own namespace that services may have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostname_grants: Vec<HostnameGrant>,
    /// Other trust domains whose workloads are believed, by their own roots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_domains: Vec<TrustedDomain>,
    /// What holds for the traffic of every service that says nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<PolicySettings>,
    /// Who may ask what where no policy says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<MeshAccess>,
}

/// An operator lets the services of a namespace have these host names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostnameGrant {
    /// The namespace.
    pub namespace: String,
    /// Host names; `*.example.com` means every name below example.com.
    pub hostnames: Vec<String>,
}

/// Another trust domain, and who vouches for its identities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrustedDomain {
    /// The domain.
    pub trust_domain: String,
    /// Its roots, PEM, one after the other.
    pub roots: String,
}

/// What becomes of calls to places outside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum OutboundMode {
    AllowAny,
    RegistryOnly,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("outboundMode", &Shape::Word(&["allowAny", "registryOnly"])),
    Field::new("addressRanges", &Shape::List(&rules::RANGE, 64)),
    Field::new("suffixes", &Shape::List(&forms::HOSTNAME, 16)),
    Field::new("hostnameGrants", &Shape::List(&GRANT, 256)),
    Field::new("trustedDomains", &Shape::List(&TRUSTED, 64)),
    Field::new("trafficPolicy", &policy::SHAPE),
    Field::new("access", &access_policy::MESH),
]);

const TRUSTED: Shape = Shape::Object(&[
    Field::required("trustDomain", &Shape::Text(access_policy::trust_domain)),
    Field::required("roots", &rules::PEM),
]);

const GRANT: Shape = Shape::Object(&[
    Field::required("namespace", &forms::LABEL),
    Field::required("hostnames", &Shape::List(&rules::HOST_PATTERN, 64)),
]);
