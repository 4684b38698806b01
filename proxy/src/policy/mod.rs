//! What protects an instance at its own sidecar: who may ask what, bulkheads of its callers, rate limits.

pub mod access;
pub mod callers;
pub mod protection;
pub mod rate_limit;
