//! Generated from `proto/outrigger/v1`.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]

tonic::include_proto!("outrigger.v1");
