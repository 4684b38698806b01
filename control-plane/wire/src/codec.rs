//! Resources as bytes.
//!
//! `decode(encode(r)) == r` for every resource, and the bytes are the same whenever and wherever they are made, so that
//! their hash is the resource's version. Decoding is strict: a missing field, an unknown value of an enum or a feature
//! this reader lacks refuses the resource whole.

mod access;
mod breaker;
mod bulkhead;
mod endpoint;
mod field;
mod filter;
mod gateway;
mod inbound;
mod location;
mod policy;
mod report;
mod route;
mod service;
mod settings;
mod token;

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use outrigger_mesh::{Feature, FeatureSet, Resource, ResourceKind, ResourceName, Trust};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::pb;

pub(crate) use endpoint::{endpoint_from_pb, endpoint_to_pb};
pub(crate) use field::{Fault, duration_from_pb, duration_to_pb};
pub(crate) use report::{report_from_pb, report_to_pb};

/// The bytes of a resource. Equal resources have equal bytes.
pub fn encode(resource: &Resource) -> Bytes {
    let features = resource.required_features().iter().map(|f| f.as_str().to_owned()).collect();
    let bytes = match resource {
        Resource::Service(service) => service::to_pb(service, features).encode_to_vec(),
        Resource::Endpoint(endpoint) => endpoint_to_pb(endpoint, features).encode_to_vec(),
        Resource::Inbound(inbound) => inbound::to_pb(inbound, features).encode_to_vec(),
        Resource::Trust(trust) => trust_to_pb(trust, features).encode_to_vec(),
        Resource::Mesh(mesh) => settings::to_pb(mesh, features).encode_to_vec(),
        Resource::Gateway(gateway) => gateway::to_pb(gateway, features).encode_to_vec(),
        Resource::Issuer(issuer) => token::issuer_to_pb(issuer, features).encode_to_vec(),
        Resource::Denylist(list) => token::denylist_to_pb(list, features).encode_to_vec(),
        Resource::ConsumerRoutes(routes) => route::consumer_to_pb(routes, features).encode_to_vec(),
    };
    bytes.into()
}

/// Reads the resource `name` of `kind`, for a reader who knows the features `known`.
pub fn decode(
    kind: ResourceKind,
    name: &str,
    payload: &[u8],
    known: &FeatureSet,
) -> Result<Resource, DecodeError> {
    let fail = |fault: Fault| DecodeError { kind, name: shortened(name), reason: fault.to_string() };
    let resource = read(kind, payload, known).map_err(fail)?;
    let own = resource.name().to_string();
    if own != name {
        return Err(fail(Fault::new(format!("it calls itself {own:?}"))));
    }
    Ok(resource)
}

fn read(kind: ResourceKind, payload: &[u8], known: &FeatureSet) -> Result<Resource, Fault> {
    // First of all: what follows may mean something else to a reader who lacks a feature.
    let needed = pb::Requirements::decode(payload).map_err(|e| garbled(&e))?.required_features;
    check_features(&needed, known)?;
    let resource = match kind {
        ResourceKind::Service => Resource::Service(service::from_pb(parse(payload)?)?),
        ResourceKind::Endpoint => Resource::Endpoint(endpoint_from_pb(parse(payload)?)?),
        ResourceKind::Inbound => Resource::Inbound(inbound::from_pb(parse(payload)?)?),
        ResourceKind::Trust => Resource::Trust(trust_from_pb(parse(payload)?)?),
        ResourceKind::Mesh => Resource::Mesh(settings::from_pb(&parse(payload)?)?),
        ResourceKind::Gateway => Resource::Gateway(gateway::from_pb(parse(payload)?)?),
        ResourceKind::Issuer => Resource::Issuer(token::issuer_from_pb(parse(payload)?)?),
        ResourceKind::Denylist => Resource::Denylist(token::denylist_from_pb(parse(payload)?)?),
        ResourceKind::ConsumerRoutes => Resource::ConsumerRoutes(route::consumer_from_pb(parse(payload)?)?),
    };
    // A writer that forgets to name a feature would lead older readers astray; the newer ones tell on it.
    let silent = resource.required_features().iter().find(|f| !needed.iter().any(|n| n == f.as_str()));
    match silent {
        Some(feature) => Err(Fault::new(format!("it uses the feature \"{feature}\" without naming it"))),
        None => Ok(resource),
    }
}

fn check_features(needed: &[String], known: &FeatureSet) -> Result<(), Fault> {
    let lacking = needed.iter().find(|n| !Feature::parse(n).is_some_and(|f| known.contains(f)));
    match lacking {
        Some(feature) => Err(Fault::new(format!(
            "it needs the feature \"{}\", which this sidecar (version {}) lacks",
            shortened(feature),
            env!("CARGO_PKG_VERSION")
        ))),
        None => Ok(()),
    }
}

fn parse<M: Message + Default>(payload: &[u8]) -> Result<M, Fault> {
    M::decode(payload).map_err(|e| garbled(&e))
}

fn garbled(error: &prost::DecodeError) -> Fault {
    Fault::new(format!("its bytes are not a message: {error}"))
}

/// A name as far as an error text carries it: it may come from an attacker.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

pub(crate) fn trust_to_pb(trust: &Trust, required_features: Vec<String>) -> pb::Trust {
    pb::Trust {
        required_features,
        trust_domain: trust.trust_domain.to_string(),
        roots: trust.roots.iter().map(|r| r.to_vec()).collect(),
    }
}

pub(crate) fn trust_from_pb(trust: pb::Trust) -> Result<Trust, Fault> {
    if trust.roots.is_empty() || trust.roots.iter().any(Vec::is_empty) {
        return Err(Fault::missing("a root"));
    }
    Ok(Trust {
        trust_domain: field::name(&trust.trust_domain)?,
        roots: trust.roots.into_iter().map(Arc::from).collect(),
    })
}

/// A resource that a reader can not obey, with the reason it gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {reason}")]
pub struct DecodeError {
    kind: ResourceKind,
    name: String,
    reason: String,
}

impl DecodeError {
    /// What is wrong, without the resource's kind and name.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The version of a resource: a hash of its bytes, equal across restarts and replicas.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceVersion(Arc<str>);

impl ResourceVersion {
    /// The version of the resource with these bytes: 128 bits of their SHA-256, in hex.
    pub fn of(payload: &[u8]) -> Self {
        let mut text = String::with_capacity(32);
        for byte in &Sha256::digest(payload)[..16] {
            // Writing to a String can not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// A version as it came over the wire; any text, as only its equality means something.
    pub(crate) fn from_wire(text: &str) -> Self {
        Self(text.into())
    }

    /// The version's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A resource encoded once for everybody who reads it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its name.
    pub name: ResourceName,
    /// The hash of its bytes.
    pub version: ResourceVersion,
    /// Its bytes.
    pub payload: Bytes,
}

impl Encoded {
    /// Encodes `resource`.
    pub fn new(resource: &Resource) -> Self {
        let payload = encode(resource);
        Self { name: resource.name(), version: ResourceVersion::of(&payload), payload }
    }
}

#[cfg(test)]
mod tests;
