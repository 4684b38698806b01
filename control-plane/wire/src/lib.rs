//! What sidecars and control plane say to each other.
//!
//! - [`codec`]: a resource as bytes and back; every form it can not obey is refused with a reason.
//! - [`bundle`]: many resources as one file, checked by its own hash.
//! - [`session`]: incremental xDS of both sides as state machines without I/O or clock.
//! - [`rpc`]: the gRPC client and server that carry them, over connections that the caller makes.
//! - [`workload_api`]: the SPIFFE Workload API, which is somebody else's protocol for identities.
//! - [`etcd`]: the calls of etcd that the control plane's shared store makes (docs/decisions/0016-etcd-without-a-library.md).
//!
//! Protobuf, gRPC and the discovery messages of Envoy end here: nothing public names them. Deliberately elsewhere: TLS
//! (`outrigger-certs` makes the connections), what is pushed to whom (the control plane's hub), and when a sidecar
//! reconnects (its link).

pub mod bundle;
pub mod codec;
pub mod etcd;
pub mod rpc;
pub mod session;
pub mod workload_api;

mod channel;
mod pb;

#[cfg(test)]
mod arbitrary;

pub use bundle::{Bundle, BundleError};
pub use codec::{DecodeError, Encoded, ResourceVersion, decode, encode};
