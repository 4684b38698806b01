//! Rollouts: one version of a service takes the place of another, by steps or at once, and goes back by itself when it
//! does worse.
//!
//! `plan` is what was written, proven. `machine` decides what comes next, from facts it is handed and nothing else;
//! `gates` judges the figures of both versions. `figures` adds up what sidecars report, `keeper` is the one task that
//! looks, decides and writes. How far each has come is a record of its own in the store, beside the configuration: a
//! rollback of the configuration does not bring it back. So are the figures that its gates go by (`keeping`).
//!
//! What divides the traffic is deliberately elsewhere: a step is one field of the `Service` that `compile` makes.

mod division; // how it divides the traffic now
mod eyes; // what can be seen at this moment
mod figures; // what sidecars report of both versions
mod gates; // a verdict from two windows of traffic
mod keeper; // the one task that looks, decides and writes
mod keeping; // what was counted, to the store and back
mod kept; // what was counted, in the form that outlives the process
mod machine; // what comes next
mod metrics; // where each is, for Prometheus
mod plan; // what was written, proven
mod progress; // how far it has come, as it is kept
mod sight; // what callers find of a version's endpoints

pub(crate) use division::division;
pub use eyes::Sidecars;
pub use figures::Counted;
pub use gates::{Figures, Gate, GateResult, Judged, Passes, Traffic, Verdict, judge};
pub use keeper::{Keeper, NotDone, Rollouts, open};
pub use machine::{Acknowledgements, Change, Facts, Refused, Verb, follow, next, order, taken_away};
pub use plan::{Gates, Plan, Step, WHOLE};
pub use progress::{Past, Phase, Progress, Run, is_of_figures, store_key};

#[cfg(test)]
mod keeper_tests;
#[cfg(test)]
mod tests;
