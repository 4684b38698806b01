//! What is counted and logged, and how it reaches Prometheus and the reports to the control plane.

pub mod access_log; // lines of requests
pub mod by_reason; // something for each reason of a refusal
pub mod log;
pub mod metrics;
pub mod ports;
pub mod reports; // what the control plane is told
