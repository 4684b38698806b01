//! Every sidecar gets what it asked for, and what became of it is known.
//!
//! A change goes into the `catalog`, encoded once. The `hub` marks it at the sessions that asked for it, and at no
//! other; each session (`sessions`) waits a moment for more (`pace`), takes what was marked and sends what differs.
//! `server` accepts the connections; over `pages` sidecars are asked what
//! they have and do, and which requests pass there (`talk`). The protocol itself is a state machine of `outrigger-wire`; which changes there are
//! is the matter of `compile`.

mod catalog;
mod denied;
mod elsewhere;
mod figures;
mod fleet;
mod foresee;
mod hub;
mod obeyed;
mod pace;
mod pages;
pub mod server;
mod sessions;
mod status;
mod talk;

#[cfg(test)]
mod tests;

pub use foresee::Affected;
pub use hub::Hub;
pub(crate) use hub::NOT_ANSWERED;
pub use pages::{NoPage, TapLines};
pub use status::{ProxyStatus, RejectedResource};
