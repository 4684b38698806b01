//! What is counted for each port of a service: what its connections turned out to speak, and the opaque ones.
//!
//! A handle is looked up once a connection. Their number is bounded: beyond it a connection is counted by whoever holds
//! the handle, and told to nobody.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use outrigger_mesh::{Reason, ServiceName, Side};
use serde_json::{Value, json};

use crate::tcp::relay::{End, Flow, Outcome, Party};
use crate::telemetry::by_reason::ByReason;

/// How it is known what a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its own word")]
pub enum Decision {
    /// The port says so.
    Declared,
    /// The port is known for protocols in which the server speaks first.
    KnownPort,
    Http1,
    Http2,
    Tls,
    Opaque,
    /// Nothing came that could have told.
    Timeout,
}

impl Decision {
    const ALL: [Self; 7] =
        [Self::Declared, Self::KnownPort, Self::Http1, Self::Http2, Self::Tls, Self::Opaque, Self::Timeout];

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::KnownPort => "known_port",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
            Self::Timeout => "timeout",
        }
    }
}

/// How an opaque connection ended, seen from the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides ended it.
    Finished,
    /// The caller broke off.
    ByCaller,
    /// Whoever was called broke off.
    ByCalled,
    /// Nobody said anything for too long.
    Idle,
    /// This sidecar ended, or the connection's time here was over.
    Cut,
}

impl Ended {
    const ALL: [Self; 5] = [Self::Finished, Self::ByCaller, Self::ByCalled, Self::Idle, Self::Cut];

    /// What became of a relay whose first side is the caller.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome.end {
            End::Finished => Self::Finished,
            End::Aborted(Party::A, _) => Self::ByCaller,
            End::Aborted(Party::B, _) => Self::ByCalled,
            End::Idle => Self::Idle,
            End::Late => Self::Cut,
        }
    }

    /// Its word in metrics and in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ByCaller => "aborted_by_caller",
            Self::ByCalled => "aborted_by_called",
            Self::Idle => "idle",
            Self::Cut => "cut",
        }
    }
}

/// What is counted for one port of a service on one side.
#[derive(Debug, Default)]
pub struct PortStats {
    decisions: [AtomicU64; Decision::ALL.len()],
    /// Bytes of opaque connections; from the caller is from `a`.
    pub flow: Flow,
    opened: AtomicU64,
    open: AtomicU64,
    ended: [AtomicU64; Ended::ALL.len()],
    refused: ByReason<AtomicU64>,
}

impl PortStats {
    /// A connection's protocol is known.
    pub fn decided(&self, decision: Decision) {
        self.decisions[decision as usize].fetch_add(1, Relaxed);
    }

    /// An opaque connection was refused.
    pub fn refused(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// An opaque connection stands, for as long as the value lives.
    pub fn opened(self: &Arc<Self>) -> Opened {
        self.opened.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Opened { stats: Arc::clone(self), ended: Ended::Cut }
    }

    /// How often `decision` was made.
    pub fn decisions(&self, decision: Decision) -> u64 {
        self.decisions[decision as usize].load(Relaxed)
    }

    /// How many opaque connections ended so.
    pub fn ended(&self, ended: Ended) -> u64 {
        self.ended[ended as usize].load(Relaxed)
    }

    /// How many opaque connections were refused for `reason`.
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Relaxed)
    }

    /// How many opaque connections are open.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    fn dump(&self) -> Value {
        let decided = Decision::ALL.iter().filter(|d| self.decisions(**d) > 0);
        let decided: serde_json::Map<_, _> =
            decided.map(|d| (d.as_str().to_owned(), self.decisions(*d).into())).collect();
        json!({"decided": decided, "opaque": {"opened": self.opened.load(Relaxed), "open": self.open()}})
    }
}

/// An open opaque connection. Dropped without another word it was cut.
#[derive(Debug)]
pub struct Opened {
    stats: Arc<PortStats>,
    ended: Ended,
}

impl Opened {
    /// How it ended.
    pub fn end(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Relaxed);
        self.stats.ended[self.ended as usize].fetch_add(1, Relaxed);
    }
}

/// The counts of every port.
#[derive(Debug, Default)]
pub struct PortTable {
    entries: RwLock<BTreeMap<Key, Arc<PortStats>>>,
}

type Key = (ServiceName, u16, Side);

impl PortTable {
    /// The counts of `port` of `service` on `side`.
    pub fn handle(&self, side: Side, service: &ServiceName, port: u16) -> Arc<PortStats> {
        let key = (service.clone(), port, side);
        if let Some(found) = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(found);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            return Arc::default();
        }
        Arc::clone(entries.entry(key).or_default())
    }

    /// What the ports of `service` turned out to speak, for `/clusters`.
    pub fn of_service(&self, service: &ServiceName) -> Value {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let own = entries.iter().filter(|((name, _, _), _)| name == service);
        let ports: Vec<Value> = own
            .map(|((_, port, side), stats)| {
                let mut told = stats.dump();
                told["port"] = (*port).into();
                told["side"] = word(*side).into();
                told
            })
            .collect();
        ports.into()
    }

    /// Everything as text for Prometheus.
    pub fn write(&self, out: &mut String) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<(String, &PortStats)> = entries
            .iter()
            .map(|((service, port, side), stats)| {
                let side = word(*side);
                (format!("side=\"{side}\",service=\"{service}\",port=\"{port}\""), &**stats)
            })
            .collect();
        let mut family =
            |name: &str, kind: &str, help: &str, each: &dyn Fn(&PortStats) -> Vec<(String, u64)>| {
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
                for (labels, stats) in &all {
                    for (more, count) in each(stats) {
                        let _ = writeln!(out, "{name}{{{labels}{more}}} {count}");
                    }
                }
            };
        let non_zero = |label: &'static str, word: &'static str, count: u64| {
            (count > 0).then(|| (format!(",{label}=\"{word}\""), count))
        };
        family(
            "outrigger_detected_total",
            "counter",
            "Connections, by how their protocol was known.",
            &|s| {
                Decision::ALL
                    .iter()
                    .filter_map(|d| non_zero("decision", d.as_str(), s.decisions(*d)))
                    .collect()
            },
        );
        family("outrigger_opaque_opened_total", "counter", "Opaque connections that stood.", &|s| {
            vec![(String::new(), s.opened.load(Relaxed))]
        });
        family("outrigger_opaque_connections", "gauge", "Opaque connections that are open.", &|s| {
            vec![(String::new(), s.open())]
        });
        family(
            "outrigger_opaque_bytes_total",
            "counter",
            "Bytes of opaque connections, by whose they are.",
            &|s| {
                let (there, back) = (s.flow.a_to_b.load(Relaxed), s.flow.b_to_a.load(Relaxed));
                vec![(",of=\"caller\"".into(), there), (",of=\"called\"".into(), back)]
            },
        );
        family("outrigger_opaque_ended_total", "counter", "Opaque connections that ended, by how.", &|s| {
            Ended::ALL.iter().filter_map(|e| non_zero("how", e.as_str(), s.ended(*e))).collect()
        });
        family("outrigger_opaque_refused_total", "counter", "Opaque connections refused, by reason.", &|s| {
            Reason::ALL.iter().filter_map(|r| non_zero("reason", r.as_str(), s.refusals(*r))).collect()
        });
    }
}

fn word(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

const MAX_ENTRIES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_and_a_connection_that_just_goes_away_was_cut() {
        let table = PortTable::default();
        let stats = table.handle(Side::Client, &"shop/db".parse().unwrap(), 5432);
        stats.decided(Decision::KnownPort);
        stats.refused(Reason::NoEndpoint);
        let open = stats.opened();
        stats.opened().end(Ended::Finished);
        assert_eq!(stats.open(), 1);
        drop(open);
        let mut text = String::new();
        table.write(&mut text);
        for line in [
            "outrigger_detected_total{side=\"client\",service=\"shop/db\",port=\"5432\",decision=\"known_port\"} 1",
            "outrigger_opaque_connections{side=\"client\",service=\"shop/db\",port=\"5432\"} 0",
            "outrigger_opaque_ended_total{side=\"client\",service=\"shop/db\",port=\"5432\",how=\"cut\"} 1",
            "outrigger_opaque_refused_total{side=\"client\",service=\"shop/db\",port=\"5432\",reason=\"no_endpoint\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(table.of_service(&"shop/db".parse().unwrap())[0]["decided"]["known_port"], 1);
    }

    #[test]
    fn ports_are_bounded() {
        let table = PortTable::default();
        for port in 0..=u16::try_from(MAX_ENTRIES).unwrap() {
            table.handle(Side::Client, &"shop/db".parse().unwrap(), port);
        }
        assert_eq!(table.entries.read().unwrap().len(), MAX_ENTRIES);
    }
}
