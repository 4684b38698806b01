//! What is counted of pushes, for Prometheus.
//!
//! How long a change takes to reach everybody is measured change by change: a publication knows how many sidecars owe an
//! answer to it (`Owed`), and is over with the last of them. One that ends owes nothing any more.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use outrigger_mesh::ResourceKind;
use tokio::time::Instant;

/// The counts of a hub.
#[derive(Debug, Default)]
pub(super) struct Figures {
    converged: Times,
    gathered: Times,
    publications: AtomicU64,
    messages: [AtomicU64; KINDS],
    bytes: [AtomicU64; KINDS],
    rejected: [AtomicU64; KINDS],
    dropped: [AtomicU64; Slow::ALL.len()],
}

const KINDS: usize = ResourceKind::ALL.len();

/// How a subscriber was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    /// It does not take what it is sent.
    ReadsNothing,
    /// It takes it, and does not answer.
    AnswersNothing,
    /// Its connection was given up while it owed an answer: it did not answer a ping either, or broke.
    Gone,
}

impl Slow {
    const ALL: [Self; 3] = [Self::ReadsNothing, Self::AnswersNothing, Self::Gone];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ReadsNothing => "reads_nothing",
            Self::AnswersNothing => "answers_nothing",
            Self::Gone => "gone",
        }
    }
}

impl Figures {
    /// A publication, which nobody owes an answer to yet.
    pub(super) fn publication(self: &Arc<Self>, number: u64) -> Publication {
        self.publications.fetch_add(1, Relaxed);
        let left = AtomicUsize::new(1);
        let open = Arc::new(Open { number, begun: Instant::now(), left, figures: self.clone() });
        Publication { own: Owed(open), concerns_somebody: false }
    }

    /// A response of `bytes` was given to a connection.
    pub(super) fn sent(&self, kind: ResourceKind, bytes: usize) {
        self.messages[kind as usize].fetch_add(1, Relaxed);
        self.bytes[kind as usize].fetch_add(bytes as u64, Relaxed);
    }

    /// A sidecar refused so many resources.
    pub(super) fn rejected(&self, kind: ResourceKind, resources: usize) {
        self.rejected[kind as usize].fetch_add(resources as u64, Relaxed);
    }

    /// A change waits so long for others to go with it.
    pub(super) fn gathered(&self, wait: Duration) {
        self.gathered.note(wait);
    }

    /// A subscriber was too slow.
    pub(super) fn dropped(&self, how: Slow) {
        self.dropped[how as usize].fetch_add(1, Relaxed);
    }

    /// All of it as text. The labels are words of ours: their number does not grow.
    pub(super) fn metrics(&self, subscriptions: usize) -> String {
        let mut text = String::new();
        self.converged.text(
            "outrigger_control_push_convergence_seconds",
            "From a change to the answer of the last sidecar that it concerns.",
            &mut text,
        );
        self.gathered.text(
            "outrigger_control_push_debounce_seconds",
            "How long a change waited at a sidecar's stream for others to go with it.",
            &mut text,
        );
        head(
            "outrigger_control_push_changes_total",
            "counter",
            "Changes that were put in force here.",
            &mut text,
        );
        let _ = writeln!(text, "outrigger_control_push_changes_total {}", self.publications.load(Relaxed));
        head(
            "outrigger_control_push_subscriptions",
            "gauge",
            "What the connected sidecars subscribe to.",
            &mut text,
        );
        let _ = writeln!(text, "outrigger_control_push_subscriptions {subscriptions}");
        for (name, help, counts) in [
            ("messages", "Messages to sidecars.", &self.messages),
            ("bytes", "Bytes of messages to sidecars, before TLS.", &self.bytes),
            ("rejected", "Resources that sidecars rejected.", &self.rejected),
        ] {
            let name = format!("outrigger_control_push_{name}_total");
            head(&name, "counter", help, &mut text);
            for kind in ResourceKind::ALL {
                let count = counts[kind as usize].load(Relaxed);
                let _ = writeln!(text, "{name}{{kind=\"{}\"}} {count}", kind.as_str());
            }
        }
        let name = "outrigger_control_push_dropped_total";
        head(name, "counter", "Sidecars that were dropped because they were too slow.", &mut text);
        for how in Slow::ALL {
            let count = self.dropped[how as usize].load(Relaxed);
            let _ = writeln!(text, "{name}{{why=\"{}\"}} {count}", how.as_str());
        }
        text
    }
}

/// A change that is being told to those whom it concerns. It is not over before everybody has been told.
#[derive(Debug)]
pub(super) struct Publication {
    own: Owed,
    concerns_somebody: bool,
}

impl Publication {
    /// Somebody owes an answer to it.
    pub(super) fn owed(&mut self) -> Owed {
        self.concerns_somebody = true;
        self.own.0.left.fetch_add(1, Relaxed);
        Owed(self.own.0.clone())
    }

    /// Which one it is.
    pub(super) fn number(&self) -> u64 {
        self.own.number()
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if !self.concerns_somebody {
            // What reaches nobody takes no time.
            self.own.0.left.fetch_add(1, Relaxed);
        }
    }
}

/// An answer that is owed to a publication. Dropped, it is owed no more.
#[derive(Debug)]
pub(super) struct Owed(Arc<Open>);

impl Owed {
    /// To which publication.
    pub(super) fn number(&self) -> u64 {
        self.0.number
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.0.left.fetch_sub(1, Relaxed) == 1 {
            self.0.figures.converged.note(self.0.begun.elapsed());
        }
    }
}

#[derive(Debug)]
struct Open {
    number: u64,
    begun: Instant,
    left: AtomicUsize,
    figures: Arc<Figures>,
}

/// A histogram of durations.
#[derive(Debug, Default)]
struct Times {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// In milliseconds.
const BOUNDS: [u32; 14] =
    [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000];

impl Times {
    fn note(&self, took: Duration) {
        let bound = BOUNDS.iter().position(|bound| took <= Duration::from_millis(u64::from(*bound)));
        self.counts[bound.unwrap_or(BOUNDS.len())].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn text(&self, name: &str, help: &str, text: &mut String) {
        head(name, "histogram", help, text);
        let mut sum = 0;
        for (bound, count) in BOUNDS.iter().zip(&self.counts) {
            sum += count.load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {sum}", f64::from(*bound) / 1e3);
        }
        sum += self.counts[BOUNDS.len()].load(Relaxed);
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {sum}");
        let _ = writeln!(text, "{name}_sum {}", self.micros.load(Relaxed) as f64 / 1e6);
        let _ = writeln!(text, "{name}_count {sum}");
    }
}

fn head(name: &str, kind: &str, help: &str, text: &mut String) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
