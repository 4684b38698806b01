//! The sidecar of the mesh. The modules stand in the order in which a request meets them.

pub mod app; // makes every part and holds what stops them
pub mod config; // what the control plane says, as requests read it
pub mod error; // why something failed
pub mod live; // what outlives a change of configuration
pub mod request; // 6 once a request: deadline, retries, budget
pub mod settings; // what the operator says
pub mod telemetry; // what is counted
