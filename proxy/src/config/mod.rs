//! Configuration as requests read it, and where it comes from.
//!
//! [`registry`] takes one change after the other and answers lookups; [`snapshot`] is what a request reads of one
//! service, [`routes`] its routes. Changes come from the control plane over [`link`], at the start also from the copy that [`disk`] keeps, or
//! from a file alone ([`plan`]); [`outside`] is what servers outside the mesh have to prove; [`source`] puts these together, [`dial`] makes the connections, [`status`] tells how
//! it is going.

pub mod backoff;
pub mod dial;
pub mod disk;
pub mod link;
pub mod outside;
pub mod plan;
pub mod registry;
pub mod routes;
pub mod snapshot;
pub mod source;
pub mod status;
