//! What Services, EndpointSlices and Pods mean to the mesh: services and their instances. Pure.
//!
//! Every Service of a cluster is a service of the mesh without being written, and its ready endpoints are its instances.
//! What comes out is what a person would have written (`MeshService`, `Instance`) as JSON; what a MeshService of the same
//! name says wins over what its Service means.

mod facts;
mod instance;
mod service;
#[cfg(test)]
mod tests;

pub use facts::{Facts, Touched};
pub use instance::{PodFacts, Slice, instances};
pub use service::{Behind, added, derive, is_meant, misread};

use crate::api::Collection;

/// The prefix of our labels and annotations.
pub const PREFIX: &str = "outrigger.dev/";

/// Services of the core.
pub const SERVICES: Collection = Collection { group: "", version: "v1", plural: "services", kind: "Service" };
/// Pods.
pub const PODS: Collection = Collection { group: "", version: "v1", plural: "pods", kind: "Pod" };
/// Namespaces.
pub const NAMESPACES: Collection =
    Collection { group: "", version: "v1", plural: "namespaces", kind: "Namespace" };
/// EndpointSlices.
pub const SLICES: Collection =
    Collection { group: "discovery.k8s.io", version: "v1", plural: "endpointslices", kind: "EndpointSlice" };

/// What the mesh is made of, beside objects of its own.
pub const SOURCES: [Collection; 4] = [NAMESPACES, SERVICES, PODS, SLICES];
