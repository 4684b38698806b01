//! What the system and the runtimes say of this process.

use std::fmt::Write as _;
use std::fs::read_to_string;
use std::sync::{Mutex, PoisonError};

use outrigger_mesh::{MetricKind, ProcessFigures, write_family, write_process};
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::listen::descriptors;

/// The runtimes of this process by name. One writer each, at its start.
#[derive(Debug, Default)]
pub struct Runtimes(Mutex<Vec<(String, RuntimeMetrics)>>);

impl Runtimes {
    /// The runtime of `handle` runs the thread `name`.
    pub fn run(&self, name: String, handle: &Handle) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, handle.metrics()));
    }

    /// How busy each of them is.
    pub fn write(&self, out: &mut String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = |name: &str, kind, help: &str, value: &dyn Fn(&RuntimeMetrics) -> f64| {
            write_family(out, name, kind, help);
            for (worker, metrics) in all.iter() {
                let _never = writeln!(out, "{name}{{worker=\"{worker}\"}} {}", value(metrics));
            }
        };
        let help = "Time in which a worker did something, in seconds.";
        let busy = |m: &RuntimeMetrics| m.worker_total_busy_duration(0).as_secs_f64();
        family("outrigger_worker_busy_seconds_total", MetricKind::Counter, help, &busy);
        let tasks = |m: &RuntimeMetrics| m.num_alive_tasks() as f64;
        family("outrigger_worker_tasks", MetricKind::Gauge, "Tasks of a worker that have not ended.", &tasks);
        let waiting = |m: &RuntimeMetrics| m.global_queue_depth() as f64;
        let help = "Tasks that others woke and a worker has not come to yet.";
        family("outrigger_worker_queue", MetricKind::Gauge, help, &waiting);
    }
}

/// Writes what the system says.
pub fn write(out: &mut String) {
    let read = |path| read_to_string(path).unwrap_or_default();
    let figures =
        ProcessFigures::of_proc(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"));
    let open_fds = descriptors::open().map(|open| open as u64);
    let max_fds = u64::try_from(descriptors::limit()).ok();
    write_process(out, &ProcessFigures { open_fds, max_fds, ..figures });
}
