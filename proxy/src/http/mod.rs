//! HTTP as it comes and goes: connections, the one reading of a request, bodies, and what a refusal looks like.

mod answering;
pub mod body;
pub mod canonical;
pub mod connections;
pub mod edges;
pub mod expect;
pub mod fuse;
pub mod glance;
pub mod grpc_status;
pub(crate) mod h1;
mod h2_account;
mod h2_frames;
mod h2_guard;
pub(crate) mod h2_upstream;
pub mod headers;
mod one_by_one;
pub mod patience;
pub mod reply;
pub mod serve;
pub mod strict;
mod tap;
pub mod upgrade;
pub mod websocket;
