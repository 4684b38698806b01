//! The OpenAPI document against a real control plane: what others' programs make of it (schemathesis, a generated client), and
//! whether a lie in it is found.
//!
//! `OUTRIGGER_SOAK=1` runs the long form: at least 50 examples an operation.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;
mod fuzz;
mod generated;
mod plane;
