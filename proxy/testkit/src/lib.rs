//! What the tests of the mesh stand on: origins with faults, a control plane without a store, small clients.
//!
//! Everything listens on 127.0.0.1 at a port the system chose, is bounded, and ends when its value is dropped. Helpers
//! panic with a clear text where a test could not go on anyway.
//!
//! Deliberately elsewhere: the proxy and the real control plane. This crate imports neither, so both can test with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails the test")]

pub mod built;
mod calls_on;
mod client;
mod collector;
mod dns_client;
mod dns_server;
mod etcd;
mod island;
pub mod kubectl;
pub mod kubernetes;
pub mod linear;
mod origin;
mod outside;
mod plan_server;
mod raw;
pub mod real;
mod relay;
pub mod resources;
mod task;
pub mod upgrade;
mod workload_api;

pub use calls_on::{CallsOn, Onward, Trace, trace_of};
pub use client::{Client, Reply, RequestBody, request};
pub use collector::{Collector, Decoded, Taken, Treats};
pub use dns_client::{DnsAnswer, DnsClient, dns_question};
pub use dns_server::{DnsServer, Mood, Transport as DnsTransport};
pub use etcd::Etcd;
pub use island::Island;
pub use kubernetes::KubernetesApi;
pub use origin::{Behaviour, BodyOf, Origin, Reset, Seen};
pub use outside::{Hello, OutsideAuthority, OutsideServer};
pub use plan_server::{PlanProxy, PlanResource, PlanServer, SigningCounts};
pub use raw::{RawBackend, RawClient};
pub use relay::Relay;
pub use task::{Owned, eventually};
pub use workload_api::{WorkloadApiServer, issue_svid};
