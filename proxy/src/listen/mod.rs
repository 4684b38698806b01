//! Sockets: how they are bound, and the loops that accept.

pub mod accept;
pub mod bind;
pub mod callers;
pub mod client_hello;
pub mod descriptors;
pub mod detect;
pub mod intercepted;
pub mod original_dst;
pub mod own_calls;
pub mod way;
