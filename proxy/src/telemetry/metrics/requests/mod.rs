//! Requests by who asked whom for what and what came of it, with how long they took.
//!
//! Names and units are those of the semantic conventions of OpenTelemetry (docs/decisions/0021-names-of-metrics.md). The
//! way from a request to its counts is found once and kept: by the route for what the application sends, by the connection
//! for what comes from the mesh. From there on a request touches atomics alone.
//!
//! Every number of labels is bounded. Where there is no room for another, what comes is counted as `other`, so that sums
//! stay right.

mod timed;
mod buckets;
mod exemplar;
mod method;
mod outcome;
mod routes;
mod series;
mod table;
mod write;

pub use outcome::{Ended, Outcome};
pub use series::{Series, Took};
pub use table::{OfRoute, Parties, RequestTable};
pub use timed::{Timed, Timing};
