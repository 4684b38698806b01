//! Everything that is counted beside traffic.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use outrigger_mesh::{Hop, Reason};

use super::header;
use crate::http::edges::Cut;
use crate::telemetry::by_reason::ByReason;

/// Everything that is counted beside traffic.
#[derive(Debug, Default)]
pub struct Counters {
    refusals: ByReason<[AtomicU64; 2]>,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Retries that the budget did not allow.
    pub retries_over_budget: AtomicU64,
    /// Connections that were passed on to places outside the mesh.
    pub passed_on: AtomicU64,
    /// Connections made to endpoints and to the application.
    pub connects: AtomicU64,
    /// Connections that could not be made.
    pub connect_failures: AtomicU64,
    /// Handshakes of mesh peers that succeeded at the inbound port.
    pub handshakes: AtomicU64,
    /// Connections refused at the inbound port: plaintext where TLS is required, foreign or no certificate.
    pub handshakes_refused: AtomicU64,
    /// Plaintext connections accepted at the inbound port.
    pub plaintext_accepted: AtomicU64,
    /// Open connections of callers in the mesh.
    pub inbound_connections: AtomicU64,
    /// Open connections of the application.
    pub outbound_connections: AtomicU64,
    cuts: [AtomicU64; Cut::ALL.len()],
    /// Streams that were given up since nobody took their answer.
    pub stalled_streams: AtomicU64,
    /// Times that accepting had to pause because the system was out of descriptors or memory.
    pub accept_pauses: AtomicU64,
    /// Times that the inbound side reached its limit of connections.
    pub inbound_limited: AtomicU64,
    /// Times that the outbound side did.
    pub outbound_limited: AtomicU64,
}

impl Counters {
    /// Counts a refusal.
    pub fn refused(&self, reason: Reason, hop: Hop) {
        let hop = usize::from(hop == Hop::Server);
        self.refusals[reason as usize][hop].fetch_add(1, Relaxed);
    }

    /// How often `reason` was given by this process at `hop`.
    pub fn refusals(&self, reason: Reason, hop: Hop) -> u64 {
        self.refusals[reason as usize][usize::from(hop == Hop::Server)].load(Relaxed)
    }

    /// Counts a connection of a caller that ended before its time.
    pub fn cut(&self, why: Cut) {
        self.cuts[why as usize].fetch_add(1, Relaxed);
    }

    /// How many connections ended before their time because of `why`.
    pub fn cuts(&self, why: Cut) -> u64 {
        self.cuts[why as usize].load(Relaxed)
    }

    pub(super) fn write(&self, out: &mut String) {
        let single = [
            ("outrigger_retries_total", "Attempts after the first.", &self.retries),
            ("outrigger_retries_over_budget_total", "Retries the budget refused.", &self.retries_over_budget),
            ("outrigger_connects_total", "Connections made upstream.", &self.connects),
            (
                "outrigger_passed_on_total",
                "Connections passed on to places outside the mesh.",
                &self.passed_on,
            ),
            (
                "outrigger_connect_failures_total",
                "Connections that could not be made.",
                &self.connect_failures,
            ),
            ("outrigger_handshakes_total", "Handshakes of mesh peers.", &self.handshakes),
            ("outrigger_handshakes_refused_total", "Inbound connections refused.", &self.handshakes_refused),
            (
                "outrigger_plaintext_accepted_total",
                "Plaintext connections inbound.",
                &self.plaintext_accepted,
            ),
            (
                "outrigger_stalled_streams_total",
                "Streams given up because nobody took their answer.",
                &self.stalled_streams,
            ),
            ("outrigger_accept_pauses_total", "Pauses of accepting.", &self.accept_pauses),
        ];
        for (name, help, counter) in single {
            header(out, name, "counter", help);
            let _ = writeln!(out, "{name} {}", counter.load(Relaxed));
        }
        header(out, "outrigger_connections", "gauge", "Open connections.");
        for (side, gauge) in
            [("inbound", &self.inbound_connections), ("outbound", &self.outbound_connections)]
        {
            let _ = writeln!(out, "outrigger_connections{{side=\"{side}\"}} {}", gauge.load(Relaxed));
        }
        let help = "Times that a side reached its limit of connections.";
        header(out, "outrigger_connections_limited_total", "counter", help);
        for (side, count) in [("inbound", &self.inbound_limited), ("outbound", &self.outbound_limited)] {
            let name = "outrigger_connections_limited_total";
            let _ = writeln!(out, "{name}{{side=\"{side}\"}} {}", count.load(Relaxed));
        }
        header(out, "outrigger_connections_cut_total", "counter", "Connections cut before their time.");
        for why in Cut::ALL {
            let count = self.cuts(why);
            if count > 0 {
                let reason = why.as_str();
                let _ = writeln!(out, "outrigger_connections_cut_total{{reason=\"{reason}\"}} {count}");
            }
        }
        header(out, "outrigger_refusals_total", "counter", "Requests this proxy refused, by reason.");
        for reason in Reason::ALL {
            for hop in [Hop::Client, Hop::Server] {
                let count = self.refusals(reason, hop);
                if count > 0 {
                    let hop = hop.as_str();
                    let _ = writeln!(
                        out,
                        "outrigger_refusals_total{{reason=\"{reason}\",hop=\"{hop}\"}} {count}"
                    );
                }
            }
        }
    }
}
