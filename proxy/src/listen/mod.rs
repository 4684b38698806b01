//! Sockets: how they are bound, and the loops that accept.

pub mod accept;
pub mod bind;
pub mod descriptors;
pub mod intercepted;
pub mod original_dst;
pub mod own_calls;
