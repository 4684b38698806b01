//! Generated from `proto/outrigger/v1`, [`workload`] from the SPIFFE Workload API, which has no package, and [`etcd`].
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]

tonic::include_proto!("outrigger.v1");

pub mod workload {
    tonic::include_proto!("_");
}

pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
