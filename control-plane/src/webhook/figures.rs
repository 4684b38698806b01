//! What is counted of the webhook.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use outrigger_inject::SkipReason;

/// Counts since the start.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) injected: AtomicU64,
    pub(super) unchanged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Bodies that are no reviews.
    pub(super) bad: AtomicU64,
    pub(super) events_dropped: AtomicU64,
    pub(super) in_step: AtomicBool,
    skipped: BTreeMap<SkipReason, AtomicU64>,
}

impl Default for Figures {
    fn default() -> Self {
        let [injected, unchanged, refused, failed, bad, events_dropped] = Default::default();
        let skipped = SkipReason::ALL.map(|reason| (reason, AtomicU64::new(0))).into();
        let in_step = AtomicBool::new(false);
        Self { injected, unchanged, refused, failed, bad, events_dropped, in_step, skipped }
    }
}

impl Figures {
    pub(super) fn skipped(&self, reason: SkipReason) {
        if let Some(count) = self.skipped.get(&reason) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn metrics(&self) -> String {
        let mut text = String::from(
            "# HELP outrigger_control_injections_total Pods that were asked about, by what came of it.\n\
             # TYPE outrigger_control_injections_total counter\n",
        );
        let outcomes = [
            ("injected", &self.injected),
            ("unchanged", &self.unchanged),
            ("refused", &self.refused),
            ("failed", &self.failed),
            ("bad_request", &self.bad),
        ];
        for (outcome, count) in outcomes {
            let count = count.load(Relaxed);
            let _ = writeln!(text, "outrigger_control_injections_total{{outcome=\"{outcome}\"}} {count}");
        }
        text.push_str(
            "# HELP outrigger_control_injections_skipped_total Pods that stayed as they were, by reason.\n\
             # TYPE outrigger_control_injections_skipped_total counter\n",
        );
        for (reason, count) in &self.skipped {
            let (reason, count) = (reason.code(), count.load(Relaxed));
            let _ =
                writeln!(text, "outrigger_control_injections_skipped_total{{reason=\"{reason}\"}} {count}");
        }
        let (dropped, in_step) = (self.events_dropped.load(Relaxed), u8::from(self.in_step.load(Relaxed)));
        let _ = writeln!(
            text,
            "# HELP outrigger_control_injection_events_dropped_total Events that were not written.\n\
             # TYPE outrigger_control_injection_events_dropped_total counter\n\
             outrigger_control_injection_events_dropped_total {dropped}\n\
             # HELP outrigger_control_webhook_bundle_in_step Whether the API server believes the webhook's certificate.\n\
             # TYPE outrigger_control_webhook_bundle_in_step gauge\n\
             outrigger_control_webhook_bundle_in_step {in_step}"
        );
        text
    }
}
