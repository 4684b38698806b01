//! What both programs are alike in as processes, whatever they do.
//!
//! Deliberately elsewhere: what the system says of a process, and the text of metrics (`outrigger-mesh`, `exposition`). This
//! crate imports nothing of ours.

pub mod level; // what is logged, for how long
pub mod log; // where it goes, in which form
pub mod panics; // faults of the program
