//! Where facts come from that nobody writes.

pub mod registration;
