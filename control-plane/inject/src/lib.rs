//! What makes a pod a member of the mesh: whether it becomes one, and what is added to it.
//!
//! Pure: a pod goes in as the raw object that somebody wrote, a decision with a JSON patch comes out. The webhook of the control
//! plane and `outrigger inject` both ask here. No I/O, no clock, no typed Kubernetes objects: what a newer Kubernetes
//! knows and we do not stays as it is.

mod decision;
mod namespace;
mod operation;
mod problem;
mod settings;

pub use decision::{Decision, Injection, Skip, SkipReason, Warning, decide};
pub use namespace::NamespaceFacts;
pub use operation::Operation;
pub use problem::Problem;
pub use settings::Settings;
