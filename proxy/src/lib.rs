//! The sidecar of the mesh. The modules stand in the order in which a request meets them.

pub mod settings; // what the operator says
pub mod app; // makes every part and holds what stops them
pub mod admin; // what operators ask
pub mod health; // what everybody may ask
pub mod identity; // who this workload is
pub mod registration; // telling the control plane that it is here
pub mod beside; // the sidecar beside this process, asked over its socket
pub mod log_level; // what the sidecar beside us logs
pub mod ready; // whether the sidecar beside us serves, for health checks
pub mod drain; // how it ends without a failed request
pub mod config; // what the control plane says, as requests read it
pub mod dns; // names: services found by them
pub mod live; // what outlives a change of configuration
mod quick; // a hash for small maps
pub mod error; // why something failed

pub mod data_path; // ports and worker threads
pub mod worker; // one thread: its connections, and what it shares
pub mod leave;
pub mod listen; // 1 a connection is accepted
pub mod outbound; // 2 application -> mesh: the whole way on one page
pub mod filter;
pub mod gateway; // 2 outside -> mesh: in gateway mode
pub mod inbound; // 2 mesh -> application: the whole way on one page
pub mod tcp; // 2 connections whose bytes nobody looks into
pub mod http; // 3 the one reading of a request, bodies, refusals
pub mod overload;
pub mod policy;
pub mod token; // tokens of users: read, proven, remembered
pub mod belief;
pub mod breaker; // when something is left alone for a while, as a value
pub mod request; // 4 once a request: deadline, retries, budget
pub mod attempt; // 5 once an attempt: endpoint, connection, sending

pub mod telemetry; // what is counted
