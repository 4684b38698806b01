//! Quantiles, and what the system knows of a process.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value as Json, json};

/// Another process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// The CPU time it has used so far, in seconds.
    pub(crate) fn cpu(self) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.pid));
        // The sum over its threads; where the kernel does not count nanoseconds there, in ticks.
        let mut all = 0.0;
        if text.is_ok() {
            for task in fs::read_dir(format!("/proc/{}/task", self.pid))?.flatten() {
                let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                all += stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9;
            }
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields = stat.rsplit_once(')').context("a line of /proc")?.1;
        let ticks =
            |i: usize| fields.split(' ').nth(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or_default();
        // Threads that have ended are counted here alone.
        Ok(all.max((ticks(12) + ticks(13)) / 100.0))
    }

    /// Its memory now and at its most, in MB.
    pub(crate) fn memory(self) -> anyhow::Result<Json> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
        };
        Ok(json!({ "now": of("VmRSS:"), "peak": of("VmHWM:") }))
    }
}

/// Half of them, 99 of 100 and the greatest, in milliseconds.
pub(crate) fn spread(mut all: Vec<Duration>) -> Json {
    all.sort_unstable();
    let at = |share: f64| {
        let last = all.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a list's length")]
        let index = ((all.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
        all.get(index).map(|d| d.as_secs_f64() * 1e3)
    };
    json!({ "count": all.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0) })
}

pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
