//! Incremental xDS as two state machines without I/O and without a clock.
//!
//! A [`ClientSession`] knows what a sidecar wants and holds; a [`ServerSession`] knows what one sidecar was sent and
//! what it has acknowledged. Each takes the other's messages and says what to send next; who carries them is not their
//! matter. At most one response of a kind is under way; a resource that is refused costs only itself.

mod client;
mod interest;
mod server;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use outrigger_mesh::{Hostname, ResourceKind, ResourceName, ServiceName};

pub use client::{ClientSession, Delta, Removed, Ticket};
pub use server::{Changed, ClientEvent, Limits, MayRead, ProtocolError, ServerSession};

use crate::codec::Encoded;

/// What a client says about one kind of resources: subscriptions, and the answer to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaRequest {
    /// The kind it is about.
    pub kind: ResourceKind,
    /// Selectors that are new. Those in both lists are given up first and then new.
    pub subscribe: Vec<String>,
    /// Selectors that are given up.
    pub unsubscribe: Vec<String>,
    /// In the first request of a kind: what the client holds from before, name to version.
    pub known: BTreeMap<String, String>,
    /// The response that this answers; empty when it answers none.
    pub nonce: String,
    /// In an answer: what of the response was refused. Everything else of it is in force.
    pub rejected: Vec<Rejected>,
}

/// What a server says about one kind of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaResponse {
    /// The kind it is about.
    pub kind: ResourceKind,
    /// The revision of the world it brings the client to.
    pub revision: u64,
    /// What the answer names.
    pub nonce: String,
    /// Resources that are new or changed.
    pub resources: Vec<Carried>,
    /// Names that are gone, and selectors that select nothing.
    pub removed: Vec<String>,
}

/// One resource in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its bytes. `None`: the client holds this version, and only the aliases are news.
    pub payload: Option<Bytes>,
    /// Host names among the client's selectors that mean this resource.
    pub aliases: Vec<String>,
}

/// A resource that a client refused, and why. Its last good version stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The resource's name.
    pub name: String,
    /// The version that was refused.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// Where a server session finds what it sends. Its answers to one session belong together as long as the session works.
pub trait Catalog {
    /// A resource by its name.
    fn get(&self, name: &ResourceName) -> Option<Encoded>;
    /// Every endpoint of a service.
    fn endpoints_of(&self, service: &ServiceName) -> Vec<Encoded>;
    /// Every resource of a kind.
    fn all(&self, kind: ResourceKind) -> Vec<Encoded>;
    /// The service that answers to a host name.
    fn host(&self, host: &Hostname) -> Option<ServiceName>;
    /// The revision of what is here.
    fn revision(&self) -> u64;
}

/// The type URL of a kind.
pub(crate) fn type_url(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Trust => "type.outrigger.dev/outrigger.v1.Trust",
        ResourceKind::Mesh => "type.outrigger.dev/outrigger.v1.Mesh",
        ResourceKind::Issuer => "type.outrigger.dev/outrigger.v1.Issuer",
        ResourceKind::Denylist => "type.outrigger.dev/outrigger.v1.Denylist",
        ResourceKind::Gateway => "type.outrigger.dev/outrigger.v1.Gateway",
        ResourceKind::Inbound => "type.outrigger.dev/outrigger.v1.Inbound",
        ResourceKind::ConsumerRoutes => "type.outrigger.dev/outrigger.v1.ConsumerRoutes",
        ResourceKind::Service => "type.outrigger.dev/outrigger.v1.Service",
        ResourceKind::Endpoint => "type.outrigger.dev/outrigger.v1.Endpoint",
    }
}

/// The kind of a type URL.
pub(crate) fn kind_of_type_url(url: &str) -> Option<ResourceKind> {
    ResourceKind::ALL.into_iter().find(|kind| type_url(*kind) == url)
}
