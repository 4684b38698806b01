//! What is counted of choices, by service.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use outrigger_mesh::ServiceName;

/// What is counted of the choices for one service.
#[derive(Debug, Default)]
pub struct Counts {
    /// Attempts for which all endpoints were chosen from, since too few were well.
    pub panic: AtomicU64,
    /// Attempts that left the own zone.
    pub spilled: AtomicU64,
    /// Requests that went where they were before.
    pub kept: AtomicU64,
    /// Requests whose place is gone or shut, and that got another.
    pub moved: AtomicU64,
    /// Requests that named a place which we never gave them.
    pub forged: AtomicU64,
    /// Health checks that were answered as they should be.
    pub passed: AtomicU64,
    /// Health checks that were not.
    pub failed: AtomicU64,
    /// Endpoints that health checks keep out.
    pub unwell: AtomicU64,
    panicking: AtomicBool,
}

impl Counts {
    /// Notes whether a choice was made in panic. True when that has begun or ended with it.
    pub fn chosen(&self, panic: bool, spilled: bool) -> bool {
        if panic {
            self.panic.fetch_add(1, Relaxed);
        }
        if spilled {
            self.spilled.fetch_add(1, Relaxed);
        }
        // Read first: written by every request, it would travel between the workers.
        self.panicking.load(Relaxed) != panic && self.panicking.swap(panic, Relaxed) != panic
    }
}

/// The counts of all services. A service that is gone takes its counts with it.
#[derive(Debug, Default)]
pub struct Table(Mutex<BTreeMap<ServiceName, Weak<Counts>>>);

impl Table {
    /// Counts for `service`, told by [`Table::write`] for as long as they are held.
    pub fn counts(&self, service: &ServiceName) -> Arc<Counts> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.get(service).and_then(Weak::upgrade) {
            return known;
        }
        table.retain(|_, counts| counts.strong_count() > 0);
        let counts = Arc::new(Counts::default());
        table.insert(service.clone(), Arc::downgrade(&counts));
        counts
    }

    /// The metrics as text for Prometheus. What never happened is left out.
    pub fn write(&self, out: &mut String) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<(&ServiceName, Arc<Counts>)> =
            table.iter().filter_map(|(name, counts)| Some((name, counts.upgrade()?))).collect();
        for Family { name, kind, help, series } in FAMILIES {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (service, counts) in &all {
                for (label, of) in *series {
                    let count = of(counts).load(Relaxed);
                    if count > 0 {
                        let _ = writeln!(out, "{name}{{service=\"{service}\"{label}}} {count}");
                    }
                }
            }
        }
    }
}

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// Further labels, and the count.
    series: &'static [(&'static str, Of)],
}

type Of = fn(&Counts) -> &AtomicU64;

const FAMILIES: &[Family] = &[
    Family {
        name: "outrigger_balance_panic_total",
        kind: "counter",
        help: "Attempts for which all endpoints were chosen from, since too few were well.",
        series: &[("", |c| &c.panic)],
    },
    Family {
        name: "outrigger_balance_spilled_total",
        kind: "counter",
        help: "Attempts that left the own zone.",
        series: &[("", |c| &c.spilled)],
    },
    Family {
        name: "outrigger_balance_sticky_total",
        kind: "counter",
        help: "Requests that named where they were before, by what came of it.",
        series: &[
            (",outcome=\"kept\"", |c| &c.kept),
            (",outcome=\"moved\"", |c| &c.moved),
            (",outcome=\"forged\"", |c| &c.forged),
        ],
    },
    Family {
        name: "outrigger_health_checks_total",
        kind: "counter",
        help: "Health checks, by outcome.",
        series: &[(",outcome=\"passed\"", |c| &c.passed), (",outcome=\"failed\"", |c| &c.failed)],
    },
    Family {
        name: "outrigger_health_unwell",
        kind: "gauge",
        help: "Endpoints that health checks keep out.",
        series: &[("", |c| &c.unwell)],
    },
];
