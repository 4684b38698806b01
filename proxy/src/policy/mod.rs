//! What protects an instance at its own sidecar: bulkheads of its callers, rate limits.

pub mod callers;
pub mod protection;
pub mod rate_limit;
