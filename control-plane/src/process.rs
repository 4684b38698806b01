//! What the system says of this process, and how busy it is. What it logs, and its panics: `outrigger-process`.

use std::fmt::Write as _;
use std::fs::{read_dir, read_to_string};

use outrigger_mesh::{MetricKind, ProcessFigures, write_family, write_process};
use outrigger_process::panics;
use tokio::runtime::Handle;

/// What is known of this process, as text for Prometheus. To be called in its runtime.
pub fn metrics() -> String {
    let mut out = String::new();
    let build = "outrigger_control_build_info";
    let help = "Always 1; the version of the program is a label.";
    write_family(&mut out, build, MetricKind::Gauge, help);
    let _never = writeln!(out, "{build}{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    let name = "outrigger_panics_total";
    write_family(&mut out, name, MetricKind::Counter, "Panics of the program, which it survived.");
    let _never = writeln!(out, "{name} {}", panics::count());
    let read = |path| read_to_string(path).unwrap_or_default();
    let figures =
        ProcessFigures::of_proc(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"));
    let open_fds = read_dir("/proc/self/fd").ok().map(|open| open.count() as u64);
    write_process(&mut out, &ProcessFigures { open_fds, max_fds: max_fds(), ..figures });
    runtime(&mut out);
    out
}

/// How busy the runtime is, where there is one.
fn runtime(out: &mut String) {
    let Ok(handle) = Handle::try_current() else { return };
    let metrics = handle.metrics();
    let name = "outrigger_worker_busy_seconds_total";
    write_family(out, name, MetricKind::Counter, "Time in which a worker did something, in seconds.");
    for worker in 0..metrics.num_workers() {
        let busy = metrics.worker_total_busy_duration(worker).as_secs_f64();
        let _never = writeln!(out, "{name}{{worker=\"worker-{worker}\"}} {busy}");
    }
    let name = "outrigger_worker_tasks";
    write_family(out, name, MetricKind::Gauge, "Tasks of a worker that have not ended.");
    let _never = writeln!(out, "{name}{{worker=\"all\"}} {}", metrics.num_alive_tasks());
    let name = "outrigger_worker_queue";
    let help = "Tasks that others woke and a worker has not come to yet.";
    write_family(out, name, MetricKind::Gauge, help);
    let _never = writeln!(out, "{name}{{worker=\"all\"}} {}", metrics.global_queue_depth());
}

/// How many descriptors there may be, as the system writes it: `Max open files   1024   4096   files`.
fn max_fds() -> Option<u64> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
