//! What is counted and logged, and how it reaches Prometheus and the reports to the control plane.

pub mod access_log; // lines of requests
pub mod by_reason; // something for each reason of a refusal
pub mod metrics;
pub mod observe; // what is known of each request, for whoever takes it
pub mod otlp; // how spans and lines reach a collector
pub mod ports;
pub mod process; // what the system and the runtimes say
pub mod refusals; // what was refused, for the reports
pub mod reports; // what the control plane is told
pub mod start; // begins what the operator wants to be told
pub mod tap; // live requests for whoever looks
pub mod trace; // which requests are traced
