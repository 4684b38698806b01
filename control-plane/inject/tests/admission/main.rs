//! Pods as a real API server sent them, and what becomes of them: the second call, bad annotations, odd pods, and thousands of
//! mutations. `fixtures/` holds AdmissionReviews that were recorded with a trial webhook: `NAME.0.json` is the first call,
//! `NAME.1.json` the second, after other plugins had their turn.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod annotations;
mod check;
mod fixtures;
mod members;
mod mutated;
mod probes;
mod removal;
mod skips;
mod support;
