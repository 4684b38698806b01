//! The control plane of the mesh: what people write, proven, stored, compiled and pushed.
//!
//! The way of a change, from top to bottom:
//! `admin` takes it, `spec` reads it, `check` proves it against the `world`, `store` keeps it, `compile` turns what it
//! touches into resources, and `push` sends those to the sidecars that asked for them.

pub mod audit;
pub mod check;
pub mod compile;
mod shards;
pub mod spec;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod world;
