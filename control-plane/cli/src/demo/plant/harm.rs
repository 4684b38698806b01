//! Harm done to instances, and made good again: for `outrigger demo --chaos`. All of it to real processes, by their id;
//! the applications know nothing of it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Instance, Plant, wait_listening};
use crate::failure::Failure;

impl Plant {
    /// Kills an application (SIGKILL) and leaves its sidecar: every call to it fails at once.
    pub(in crate::demo) async fn crash(&mut self, index: usize) {
        self.instances[index].application.kill().await;
    }

    /// Starts an application again beside its sidecar, where it was.
    pub(in crate::demo) async fn revive(&mut self, index: usize) -> Result<(), Failure> {
        let Instance { name, part, port, settings, .. } = &self.instances[index];
        let at = super::Place { name, port: *port, outbound: settings.outbound, data: &settings.data };
        let mut application = self.launch(*part, &at)?.start()?;
        wait_listening(&mut application, *port).await?;
        self.instances[index].application = application;
        Ok(())
    }

    /// Stops an application where it stands (SIGSTOP): the kernel still takes connections, and nothing is answered.
    pub(in crate::demo) fn freeze(&self, index: usize) {
        self.instances[index].application.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(in crate::demo) fn thaw(&self, index: usize) {
        self.instances[index].application.signal(Signal::CONT);
    }

    /// Makes an application slow: it stands still most of the time and runs in between. It runs when this ends, and also
    /// when this is given up.
    pub(in crate::demo) async fn slow(&self, index: usize, lasts: Duration) {
        let _thawed = Thawed(&self.instances[index]);
        let began = Instant::now();
        while began.elapsed() < lasts {
            self.freeze(index);
            tokio::time::sleep(STANDS).await;
            self.thaw(index);
            tokio::time::sleep(RUNS).await;
        }
    }

    /// The next number that no instance of this kind has.
    pub(in crate::demo) fn next_number(&self, label: &str) -> usize {
        let number = |i: &Instance| i.name.strip_prefix(label)?.strip_prefix('-')?.parse::<usize>().ok();
        let highest = self.instances.iter().filter_map(number).max().unwrap_or(0);
        (highest + 1).max(FIRST_NEW)
    }
}

/// Lets an application go on when dropped.
struct Thawed<'a>(&'a Instance);

impl Drop for Thawed<'_> {
    fn drop(&mut self) {
        self.0.application.signal(Signal::CONT);
    }
}

const STANDS: Duration = Duration::from_millis(120);
const RUNS: Duration = Duration::from_millis(15);
/// Two of each were there from the beginning.
const FIRST_NEW: usize = 3;
