//! Where facts come from that nobody writes.

pub mod registration;
pub(crate) mod shrink;
