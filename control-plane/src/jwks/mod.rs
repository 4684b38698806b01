//! The keys of issuers: sets of keys are read here, and fetched from where they are published, once for the mesh.
//!
//! Good keys are never replaced by a failed fetch or by an answer without a usable key; that there were never any is a
//! state of its own, which sidecars are told. What was fetched is kept in the store beside the mesh's secret, so that a
//! control plane that starts does not begin by taking keys away.

mod address; // which places may be asked
mod fetch; // one fetch, with its bounds
mod keeper; // when to fetch, and what to remember
mod parse; // a set of keys, as text
mod source; // where keys are published

pub use keeper::{Keeper, Status};
pub use parse::{keys as read_keys, to_json};
pub use source::{Place, Source};

pub(crate) use keeper::{keep, kept as kept_keys};

#[cfg(test)]
mod tests;
