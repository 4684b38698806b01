//! What everybody may ask of a sidecar, in plaintext and from anywhere: the kubelet whether it and its application are well,
//! Prometheus for metrics. Nothing here changes anything, and nothing of configuration or identity is shown.
//!
//! [`table`] is which questions to the application there are, [`ask`] puts them, [`serve`] answers, [`wait`] waits for the
//! answer that all is well.

mod ask;
mod serve;
mod table;
pub mod wait;

pub use serve::{Health, HealthState, bind, serve};
pub use table::{Metrics, Probes};
