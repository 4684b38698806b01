//! What is counted, and how it reaches Prometheus and the reports to the control plane.

pub mod metrics;
