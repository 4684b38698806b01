//! HTTP as it comes and goes: connections, the one reading of a request, bodies, and what a refusal looks like.

pub mod body;
pub mod canonical;
pub mod connections;
pub(crate) mod h1;
pub mod headers;
pub mod reply;
pub mod serve;
pub mod strict;
