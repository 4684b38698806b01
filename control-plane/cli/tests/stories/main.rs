//! Stories over real processes on loopback: a control plane, sidecars, applications played by the testkit.
//! Each module is one subject; `support` has the cast.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod access;
mod backup;
mod bad_start;
mod clocks;
mod cluster;
mod command_line;
mod company;
mod edge;
mod explain;
mod federation;
mod identity;
mod kubernetes;
mod lifecycle;
mod live;
mod namespaces;
mod push;
mod replicas;
mod resilience;
mod rolling;
mod rollout;
mod rotation;
mod routing;
mod shop_users;
mod support;
mod taken_back;
mod terminal;
mod tokens;
mod tracing;
mod users;
mod watching;
