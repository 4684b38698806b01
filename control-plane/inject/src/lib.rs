//! What makes a pod a member of the mesh: whether it becomes one, and what is added to it.
//!
//! Pure: a pod goes in as the raw object that somebody wrote, a decision with a JSON patch comes out. The webhook of the control
//! plane and `outrigger inject` both ask here. No I/O, no clock, no typed Kubernetes objects: what a newer Kubernetes
//! knows and we do not stays as it is.
//!
//! The way of a pod: `shape` proves what is touched, `decision` says whether, `options` reads annotations, `strip` takes
//! away what an earlier injection added, `build` adds what belongs there, and `difference` tells the two apart as steps of a
//! patch. As it always begins at the pod without us, a second call comes to the same end.
//!
//! The way of a file: `text` reads it into values that know their bytes and edits those, `manifest` makes members of the workloads of
//! a stream of Kubernetes objects, `compose` of the services of a Compose file; both take back byte for byte what they did.
//!
//! What the sidecar does with its settings is the sidecar's (docs/interception.md), and who calls is the caller's: there is
//! no AdmissionReview here.

mod annotations;
mod build;
pub mod compose;
mod containers;
mod decision;
mod difference;
mod env;
mod json;
pub mod manifest;
mod names;
mod namespace;
mod operation;
mod options;
mod overlay;
mod ports;
mod probes;
mod problem;
mod prometheus;
mod quantity;
mod resources;
mod service;
mod settings;
mod shape;
mod status;
mod strip;
mod telemetry;
mod text;
mod values;
mod volumes;
mod warnings;

pub use decision::{Decision, Injection, Skip, SkipReason, Warning, asked, decide};
pub use names::{
    ANNOTATION_PREFIX, INIT_CONTAINER, INJECT_LABEL, INJECTED_LABEL, INJECTED_OUTBOUND, INJECTED_WHOLE,
    PROXY_CONTAINER, STATUS_ANNOTATION, SYSTEM_NAMESPACES,
};
pub use namespace::{NamespaceFacts, ServiceFacts, ServicePort, ServiceTarget};
pub use operation::Operation;
pub use options::ANNOTATIONS;
pub use problem::Problem;
pub use settings::{KubernetesVersion, Settings};
pub use status::Status;
pub use strip::removal;
pub use text::Scalar;
