//! The control plane of the mesh: what people write, proven, stored, compiled and pushed.
//!
//! The way of a change, from top to bottom:
//! `admin` takes it, `spec` reads it, `check` proves it against the `world`, `store` keeps it, `compile` turns what it
//! touches into resources, and `push` sends those to the sidecars that asked for them.

mod addresses;
pub mod admin;
pub mod app;
pub mod audit;
pub mod backup;
pub mod ca;
pub mod check;
mod cluster;
pub mod compile;
pub mod exchange;
pub mod history;
mod policy;
pub mod jwks;
pub mod lint;
mod listen;
pub mod process;
pub mod push;
mod replicas;
pub mod rollout;
mod routes;
pub mod secret;
pub mod settings;
mod shards;
pub mod source;
pub mod spec;
pub mod state;
mod status;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod users;
pub mod webhook;
pub mod world;
