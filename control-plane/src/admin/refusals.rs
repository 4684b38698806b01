//! Tries that were refused: counted all, written down some, and slowed down where they are many.
//!
//! Whoever guesses must neither fill the disk nor push what matters out of the audit log, which keeps a bounded number of
//! lines; so lines are spent from a budget of their own, and each tells how many were left out before it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};

/// The tries of all addresses.
#[derive(Debug)]
pub(super) struct Refusals {
    tries: Mutex<Tries>,
    unauthenticated: AtomicU64,
    throttled: AtomicU64,
    forbidden: AtomicU64,
    invalid: AtomicU64,
}

#[derive(Debug)]
struct Tries {
    addresses: HashMap<IpAddr, Bucket>,
    /// Of whoever is known, by his name; of all who are not, and of those who are too many, together.
    lines: HashMap<String, Lines>,
    others: Lines,
}

/// The lines that somebody's refusals may fill.
#[derive(Debug)]
struct Lines {
    bucket: Bucket,
    left_out: u64,
}

/// What becomes of a failed authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered with what is wrong.
    Tell,
    /// There were too many from there: told to come back.
    ComeBack,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Self {
        let others = Lines::new(now);
        Self {
            tries: Mutex::new(Tries { addresses: HashMap::new(), lines: HashMap::new(), others }),
            unauthenticated: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            forbidden: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
        }
    }

    /// Somebody at `from` did not prove who he is. Proof is always taken, however many tries failed before it: nobody
    /// guesses 256 random bits, and a limit on all would let one neighbour lock out the others.
    pub(super) fn unauthenticated(&self, from: IpAddr, now: Instant) -> Verdict {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.take(network(from), now) {
            self.unauthenticated.fetch_add(1, Relaxed);
            return Verdict::Tell;
        }
        self.throttled.fetch_add(1, Relaxed);
        Verdict::ComeBack
    }

    /// Somebody known asked for what his role may not.
    pub(super) fn forbidden(&self) {
        self.forbidden.fetch_add(1, Relaxed);
    }

    /// Somebody known wrote what does not hold.
    pub(super) fn invalid(&self) {
        self.invalid.fetch_add(1, Relaxed);
    }

    /// Whether a refusal is written down: then with how many were left out since the last. Whoever is `known` has lines
    /// of his own, so that those who only knock do not hide what he tries.
    pub(super) fn line(&self, known: Option<&str>, now: Instant) -> Option<u64> {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = tries.lines_of(known, now);
        if lines.bucket.take(LINES, now) {
            return Some(std::mem::take(&mut lines.left_out));
        }
        lines.left_out += 1;
        None
    }

    /// As text for Prometheus.
    pub(super) fn metrics(&self) -> String {
        let name = "outrigger_control_admin_refused_total";
        let mut text =
            format!("# HELP {name} Requests to the admin API that were refused.\n# TYPE {name} counter\n");
        for (reason, count) in [
            ("unauthenticated", &self.unauthenticated),
            ("throttled", &self.throttled),
            ("forbidden", &self.forbidden),
            ("invalid", &self.invalid),
        ] {
            let _ = writeln!(text, "{name}{{reason=\"{reason}\"}} {}", count.load(Relaxed));
        }
        text
    }
}

impl Tries {
    fn lines_of(&mut self, known: Option<&str>, now: Instant) -> &mut Lines {
        let Some(known) = known else { return &mut self.others };
        if self.lines.len() >= MAX_KNOWN && !self.lines.contains_key(known) {
            self.lines.retain(|_, lines| lines.left_out > 0 || !lines.bucket.is_full(LINES, now));
            if self.lines.len() >= MAX_KNOWN {
                return &mut self.others;
            }
        }
        self.lines.entry(known.to_owned()).or_insert_with(|| Lines::new(now))
    }

    fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&from) {
            self.addresses.retain(|_, bucket| !bucket.is_full(FAILURES, now));
            if self.addresses.len() >= MAX_ADDRESSES {
                // So many are guessing that one more can not be told from them.
                return false;
            }
        }
        self.addresses.entry(from).or_insert_with(|| Bucket::full(FAILURES, now)).take(FAILURES, now)
    }
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self { bucket: Bucket::full(LINES, now), left_out: 0 }
    }
}

/// Whoever has one IPv6 address has its whole network.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Failed tries of one address: so many at once, then one in six seconds.
const FAILURES: Rate = Rate { most: 10.0, one_in: Duration::from_secs(6) };
/// Lines about refusals of one: at one a minute of either sort they take a month to fill the audit log.
const LINES: Rate = Rate { most: 20.0, one_in: Duration::from_secs(60) };
const MAX_ADDRESSES: usize = 4_096;
const MAX_KNOWN: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tries_from_one_address_are_slowed_down_and_others_are_not() {
        let now = Instant::now();
        let refusals = Refusals::new(now);
        let tries = |from: &str, at| {
            (0..100).filter(|_| refusals.unauthenticated(from.parse().unwrap(), at) == Verdict::Tell).count()
        };
        assert_eq!(tries("10.0.0.1", now), 10);
        assert_eq!(tries("::ffff:10.0.0.1", now), 0, "the same address, written otherwise");
        assert_eq!(tries("10.0.0.2", now), 10);
        assert_eq!(tries("fd00::1", now), 10);
        assert_eq!(tries("fd00::2", now), 0, "the same network");
        assert_eq!(tries("10.0.0.1", now + Duration::from_secs(60)), 10);
        assert!(refusals.metrics().contains("reason=\"unauthenticated\"} 40\n"), "{}", refusals.metrics());
    }

    #[test]
    fn a_flood_from_everywhere_neither_grows_nor_fills_the_audit_log() {
        let now = Instant::now();
        let refusals = Refusals::new(now);
        let mut lines = 0;
        for n in 0..20_000_u32 {
            refusals.unauthenticated(IpAddr::from(n.to_be_bytes()), now);
            lines += u64::from(refusals.line(None, now).is_some());
        }
        assert_eq!(lines, 20);
        let known = (0..100).filter(|_| refusals.line(Some("token ci (01)"), now).is_some()).count();
        assert_eq!(known, 20, "whoever is known is written down in spite of them");
        for n in 0..20_000 {
            refusals.line(Some(&format!("token {n}")), now);
        }
        assert_eq!(refusals.tries.lock().unwrap().lines.len(), MAX_KNOWN);
        assert_eq!(refusals.tries.lock().unwrap().addresses.len(), MAX_ADDRESSES);
        assert_eq!(
            refusals.line(Some("token ci (01)"), now + Duration::from_secs(60)),
            Some(80),
            "none is passed over in silence"
        );
        let later = now + Duration::from_secs(61);
        assert_eq!(refusals.unauthenticated("192.0.2.1".parse().unwrap(), later), Verdict::Tell);
    }
}
