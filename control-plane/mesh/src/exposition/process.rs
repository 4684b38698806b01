//! What the system says of a process, by the names that Prometheus' own clients use.

use std::fmt::Write as _;

use super::MetricKind;
use super::write_family;

/// What the system says of a process. What it does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// CPU time of user and system, in seconds.
    pub cpu_seconds: Option<f64>,
    /// When it began, in seconds since 1970.
    pub start_time_seconds: Option<f64>,
    /// Memory that is there, in bytes.
    pub resident_bytes: Option<u64>,
    /// Memory that is named, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// How many of them there may be.
    pub max_fds: Option<u64>,
}

impl ProcessFigures {
    /// Reads what `/proc` says: `/proc/self/stat`, `/proc/self/status` and `/proc/stat`.
    pub fn of_proc(stat: &str, status: &str, system: &str) -> Self {
        // The name of the program may have blanks and braces in it.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        Self {
            cpu_seconds: ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| (user + system) / TICKS),
            start_time_seconds: booted.zip(ticks(STARTED)).map(|(booted, after)| booted + after / TICKS),
            resident_bytes: kib("VmRSS").map(|n| n * 1024),
            virtual_bytes: kib("VmSize").map(|n| n * 1024),
            threads: kib("Threads"),
            open_fds: None,
            max_fds: None,
        }
    }
}

/// Where the fields are behind the name of the program.
const UTIME: usize = 11;
const STIME: usize = 12;
const STARTED: usize = 19;
/// Ticks of a second in `/proc`: the same for all programs on Linux.
const TICKS: f64 = 100.0;

/// Writes what is known.
pub fn write_process(out: &mut String, figures: &ProcessFigures) {
    let mut one = |name: &str, kind, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            write_family(out, name, kind, help);
            let _never = writeln!(out, "{name} {value}");
        }
    };
    let whole = |n: Option<u64>| n.map(|n| n as f64);
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    one(
        "process_cpu_seconds_total",
        counter,
        "CPU time of user and system, in seconds.",
        figures.cpu_seconds,
    );
    let help = "When the process began, in seconds since 1970.";
    one("process_start_time_seconds", gauge, help, figures.start_time_seconds);
    one("process_resident_memory_bytes", gauge, "Resident memory.", whole(figures.resident_bytes));
    one("process_virtual_memory_bytes", gauge, "Virtual memory.", whole(figures.virtual_bytes));
    one("process_threads", gauge, "Threads of the process.", whole(figures.threads));
    one("process_open_fds", gauge, "Open file descriptors.", whole(figures.open_fds));
    one("process_max_fds", gauge, "How many there may be.", whole(figures.max_fds));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read_and_nonsense_is_left_out() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4 100 0 0 0 150 50 0 0 20 0 3 0 4200 1 2";
        let figures = ProcessFigures::of_proc(
            stat,
            "Name:\tx\nVmSize:\t  8 kB\nVmRSS:\t  4 kB\nThreads:\t3\n",
            "btime 1000\n",
        );
        assert_eq!(figures.cpu_seconds, Some(2.0));
        assert_eq!(figures.start_time_seconds, Some(1042.0));
        assert_eq!((figures.resident_bytes, figures.virtual_bytes), (Some(4096), Some(8192)));
        let mut out = String::new();
        write_process(&mut out, &figures);
        assert!(out.contains("process_cpu_seconds_total 2\n") && !out.contains("process_open_fds"), "{out}");
        assert_eq!(ProcessFigures::of_proc("", ") x", "btime y"), ProcessFigures::default());
    }
}
