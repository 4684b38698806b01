//! Configuration as requests read it.
//!
//! [`registry`] takes one change after the other and answers lookups; [`snapshot`] is what a request reads of one
//! service. Where changes come from (control plane, file, disk copy) is the business of `source`, `link`, `disk` and
//! `plan`.

pub mod registry;
pub mod snapshot;
