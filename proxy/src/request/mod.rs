//! Once a request, around all its attempts. The order is in [`stack`].

pub mod affinity;
pub mod alarms;
pub mod budget;
pub mod bulkhead;
pub mod choose;
pub mod counted;
pub mod deadline;
pub mod decided;
pub mod dispatch;
pub mod handle;
pub mod places;
pub mod fallback;
pub mod retry;
pub mod service_breaker;
pub mod session;
pub mod stack;
pub mod told;
pub mod trace_context;
