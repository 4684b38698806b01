//! Token buckets, counted by the generic cell rate algorithm (ITU-T I.371): of a bucket only the moment is kept at which
//! it will be full again. That is one number, exact over all workers, and a change of the limit needs no new bucket.
//!
//! Why this is not a library: docs/decisions/0011-rate-limits.md.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use outrigger_mesh::{RateKey, RateLimit, Reason, RequestHead};

use crate::error::Error;

/// One rate limit with its buckets.
#[derive(Debug)]
pub struct Limit {
    rule: RateLimit,
    quota: Quota,
    buckets: Arc<Buckets>,
}

/// What a request is counted under.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Its head.
    pub head: RequestHead<'a>,
    /// Who sent it.
    pub caller: Key,
    /// When.
    pub now: Nanos,
}

impl Limit {
    /// The limit that `rule` is, with buckets that may have been filled under an older one.
    pub fn new(rule: RateLimit, buckets: Arc<Buckets>, now: Nanos) -> Self {
        let quota = Quota::new(&rule);
        buckets.rescale(quota, now);
        Self { rule, quota, buckets }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.rule.name
    }

    /// Its buckets.
    pub fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    fn counts(&self, head: &RequestHead<'_>) -> bool {
        self.rule.matches.is_empty() || self.rule.matches.iter().any(|m| m.holds(head))
    }

    fn key(&self, asking: &Asking<'_>) -> Option<Key> {
        match &self.rule.key {
            RateKey::Service => None,
            RateKey::Caller => Some(asking.caller),
            // The requests without it share one.
            RateKey::Header(name) => {
                Some(Key::of(asking.head.headers.get(name).map_or(&[], HeaderValue::as_bytes)))
            }
            RateKey::Claim(claim) => {
                let value = asking.head.claims.and_then(|claims| claims.key(claim));
                Some(Key::of(value.as_deref().unwrap_or_default().as_bytes()))
            }
        }
    }

    fn take(&self, asking: &Asking<'_>) -> Result<(), Nanos> {
        let taken = self.buckets.take(self.key(asking), self.quota, asking.now);
        let counter = if taken.is_ok() { &self.buckets.allowed } else { &self.buckets.refused };
        counter.fetch_add(1, Relaxed);
        taken
    }

    fn refund(&self, asking: &Asking<'_>) {
        self.buckets.refund(self.key(asking), self.quota);
        self.buckets.allowed.fetch_sub(1, Relaxed);
    }

    fn refusal(&self, wait: Nanos) -> Error {
        let RateLimit { name, requests, per, key, .. } = &self.rule;
        let each = match key {
            RateKey::Service => String::new(),
            RateKey::Caller => " of each caller".into(),
            RateKey::Header(header) => format!(" for each value of {header}"),
            RateKey::Claim(claim) => format!(" for each {claim}"),
        };
        let why = format!("rate limit {name}: {requests} requests in {per:?}{each}");
        let mut error = Error::refused(Reason::RateLimited, why);
        let wait = Duration::from_nanos(wait.0);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let told = error.told_mut();
        told.retry_after = Some(wait);
        // A window that is no whole number of seconds can not be written.
        let window = if per.subsec_nanos() == 0 { format!(";w={}", per.as_secs()) } else { String::new() };
        for (field, value) in [
            (RATELIMIT_POLICY, format!("\"{name}\";q={requests}{window}")),
            (RATELIMIT, format!("\"{name}\";r=0;t={seconds}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                told.fields.push((field, value));
            }
        }
        error
    }
}

/// Counts a request under every limit that it meets. Refused by one, it has cost nothing under the others.
pub fn check(limits: &[Limit], asking: &Asking<'_>) -> Result<(), Error> {
    for (at, limit) in limits.iter().enumerate() {
        if !limit.counts(&asking.head) {
            continue;
        }
        if let Err(wait) = limit.take(asking) {
            let before = limits[..at].iter().filter(|l| l.counts(&asking.head));
            before.for_each(|limit| limit.refund(asking));
            return Err(limit.refusal(wait));
        }
    }
    Ok(())
}

/// How fast a bucket fills and how much is in a full one, both as time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    each: u64,
    whole: u64,
}

impl Quota {
    fn new(rule: &RateLimit) -> Self {
        let nanos = u64::try_from(rule.per.as_nanos()).unwrap_or(u64::MAX);
        let each = (nanos / u64::from(rule.requests.max(1))).max(1);
        Self { each, whole: each.saturating_mul(u64::from(rule.burst.max(1))) }
    }

    /// Takes one from a bucket that would be full at `full_at`. The new moment, or how long to wait.
    fn take(self, full_at: u64, now: Nanos) -> Result<u64, Nanos> {
        let then = full_at.max(now.0).saturating_add(self.each);
        match (then - now.0).checked_sub(self.whole) {
            None | Some(0) => Ok(then),
            Some(wait) => Err(Nanos(wait)),
        }
    }
}

/// The buckets of one limit. They outlive what is pushed.
#[derive(Debug, Default)]
pub struct Buckets {
    /// What a token is worth in them; 0 before the first.
    each: AtomicU64,
    whole: AtomicU64,
    keyed: [Mutex<HashMap<Key, u64>>; SHARDS],
    allowed: AtomicU64,
    refused: AtomicU64,
}

impl Buckets {
    fn take(&self, key: Option<Key>, quota: Quota, now: Nanos) -> Result<(), Nanos> {
        let Some(key) = key else {
            let mut full_at = self.whole.load(Relaxed);
            loop {
                let then = quota.take(full_at, now)?;
                match self.whole.compare_exchange_weak(full_at, then, Relaxed, Relaxed) {
                    Ok(_) => return Ok(()),
                    Err(newer) => full_at = newer,
                }
            }
        };
        let mut shard = self.shard(key);
        if let Some(full_at) = shard.get_mut(&key) {
            *full_at = quota.take(*full_at, now)?;
            return Ok(());
        }
        if shard.len() >= KEYS / SHARDS {
            // The least used: the one that is full first. If it is full already, forgetting it changes nothing.
            let least = shard.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| *key);
            least.map(|key| shard.remove(&key));
        }
        shard.insert(key, quota.take(0, now)?);
        Ok(())
    }

    /// What was taken stays taken, in tokens: it is worth more time or less from now on.
    fn rescale(&self, quota: Quota, now: Nanos) {
        let old = self.each.swap(quota.each, Relaxed);
        if old == 0 || old == quota.each {
            return;
        }
        let rescaled = |full_at: u64| {
            let missing =
                u128::from(full_at.saturating_sub(now.0)) * u128::from(quota.each) / u128::from(old);
            now.0.saturating_add(u64::try_from(missing).unwrap_or(u64::MAX))
        };
        let _always = self.whole.fetch_update(Relaxed, Relaxed, |full_at| Some(rescaled(full_at)));
        for shard in &self.keyed {
            lock(shard).values_mut().for_each(|full_at| *full_at = rescaled(*full_at));
        }
    }

    fn refund(&self, key: Option<Key>, quota: Quota) {
        match key {
            None => {
                let back = |full_at: u64| Some(full_at.saturating_sub(quota.each));
                let _always = self.whole.fetch_update(Relaxed, Relaxed, back);
            }
            Some(key) => {
                if let Some(full_at) = self.shard(key).get_mut(&key) {
                    *full_at = full_at.saturating_sub(quota.each);
                }
            }
        }
    }

    /// How many requests it let through, and how many not.
    pub fn counts(&self) -> (u64, u64) {
        (self.allowed.load(Relaxed), self.refused.load(Relaxed))
    }

    /// How many keys have a bucket of their own.
    pub fn keys(&self) -> usize {
        self.keyed.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, u64>> {
        #[allow(clippy::cast_possible_truncation, reason = "any of its bits will do")]
        lock(&self.keyed[key.0 as usize % SHARDS])
    }
}

/// Held for one look, and by few at a time.
fn lock(shard: &Mutex<HashMap<Key, u64>>) -> MutexGuard<'_, HashMap<Key, u64>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has a bucket of its own: a hash under a secret of this process, so that no API key is kept and nobody can find
/// another with the same bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64, u64);

impl Key {
    /// The key of a text.
    pub fn of(text: &[u8]) -> Self {
        static SECRETS: OnceLock<(RandomState, RandomState)> = OnceLock::new();
        let (one, two) = SECRETS.get_or_init(Default::default);
        Self(one.hash_one(text), two.hash_one(text))
    }
}

/// Nanoseconds since the process began to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The moment `now` on the process's clock.
    pub fn at(now: Instant) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = START.get_or_init(|| now);
        Self(u64::try_from(now.saturating_duration_since(*start).as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The metrics of limits, named by service and limit.
pub fn write<'a>(all: impl Iterator<Item = (&'a str, &'a str, &'a Buckets)> + Clone, out: &mut String) {
    let help = "Requests under a rate limit, by what became of them.";
    let _ = writeln!(out, "# HELP outrigger_rate_limit_requests_total {help}");
    let _ = writeln!(out, "# TYPE outrigger_rate_limit_requests_total counter");
    for (service, limit, buckets) in all.clone() {
        let (allowed, refused) = buckets.counts();
        for (outcome, count) in [("allowed", allowed), ("refused", refused)] {
            let labels = format!("service=\"{service}\",limit=\"{limit}\",outcome=\"{outcome}\"");
            let _ = writeln!(out, "outrigger_rate_limit_requests_total{{{labels}}} {count}");
        }
    }
    let help = "Keys with a bucket of their own.";
    let _ = writeln!(out, "# HELP outrigger_rate_limit_keys {help}\n# TYPE outrigger_rate_limit_keys gauge");
    for (service, limit, buckets) in all {
        let labels = format!("service=\"{service}\",limit=\"{limit}\"");
        let _ = writeln!(out, "outrigger_rate_limit_keys{{{labels}}} {}", buckets.keys());
    }
}

/// How many keys of one limit are remembered.
const KEYS: usize = 16_384;
const SHARDS: usize = 16;
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;

    fn rule(key: RateKey, requests: u32, per: Duration, burst: u32) -> RateLimit {
        RateLimit { name: "r".into(), matches: vec![], key, requests, per, burst }
    }

    fn limit(key: RateKey, requests: u32, per_secs: u64, burst: u32) -> Limit {
        Limit::new(rule(key, requests, Duration::from_secs(per_secs), burst), Arc::default(), Nanos(0))
    }

    fn ask(limits: &[Limit], headers: &HeaderMap, caller: &str, at: Duration) -> Result<(), Error> {
        let head = RequestHead {
            method: &Method::GET,
            path: "/",
            query: None,
            headers,
            claims: None,
            source: outrigger_mesh::Source::default(),
        };
        let now = Nanos(u64::try_from(at.as_nanos()).unwrap());
        check(limits, &Asking { head, caller: Key::of(caller.as_bytes()), now })
    }

    #[test]
    fn the_wait_that_is_told_is_exact() {
        let limits = [limit(RateKey::Service, 2, 3, 2)];
        let none = HeaderMap::new();
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis(1));
        assert!(ask(&limits, &none, "a", second).is_ok() && ask(&limits, &none, "b", second).is_ok());
        let mut refused = ask(&limits, &none, "c", second).unwrap_err();
        assert_eq!(refused.told_mut().retry_after, Some(Duration::from_millis(1_500)));
        let fields: Vec<_> = refused.told_mut().fields.iter().map(|(n, v)| format!("{n}: {v:?}")).collect();
        assert_eq!(fields, [r#"ratelimit-policy: "\"r\";q=2;w=3""#, r#"ratelimit: "\"r\";r=0;t=2""#]);
        assert!(ask(&limits, &none, "c", second + ms * 1_499).is_err());
        assert!(ask(&limits, &none, "c", second + ms * 1_500).is_ok());
        assert!(ask(&limits, &none, "c", second + ms * 1_500).is_err());
    }

    #[test]
    fn each_key_has_its_own_bucket_and_a_refusal_costs_nothing_elsewhere() {
        let key = HeaderName::from_static("x-api-key");
        let limits = [limit(RateKey::Service, 3, 60, 3), limit(RateKey::Header(key.clone()), 1, 60, 1)];
        let with =
            |value: &'static str| HeaderMap::from_iter([(key.clone(), HeaderValue::from_static(value))]);
        let now = Duration::from_secs(1);
        assert!(ask(&limits, &with("one"), "a", now).is_ok());
        for _ in 0..10 {
            assert!(ask(&limits, &with("one"), "a", now).is_err());
        }
        assert!(ask(&limits, &with("two"), "a", now).is_ok());
        assert!(ask(&limits, &HeaderMap::new(), "a", now).is_ok());
        assert!(ask(&limits, &with("three"), "a", now).is_err(), "the whole is used up now");
        assert_eq!(limits[1].buckets.keys(), 3);
    }

    #[test]
    fn the_least_used_key_is_forgotten_and_the_most_used_is_not() {
        let limits = [limit(RateKey::Caller, 10, 60, 10)];
        let none = HeaderMap::new();
        for _ in 0..10 {
            assert!(ask(&limits, &none, "noisy", Duration::from_secs(1)).is_ok());
        }
        for i in 0..3 * KEYS {
            assert!(ask(&limits, &none, &format!("caller {i}"), Duration::from_secs(2)).is_ok());
        }
        assert!(limits[0].buckets.keys() <= KEYS);
        assert!(ask(&limits, &none, "noisy", Duration::from_secs(2)).is_err());
    }

    #[test]
    fn a_changed_limit_keeps_what_was_taken() {
        let limits = [limit(RateKey::Service, 10, 10, 10)];
        let none = HeaderMap::new();
        for _ in 0..10 {
            assert!(ask(&limits, &none, "a", Duration::ZERO).is_ok());
        }
        let rule = rule(RateKey::Service, 30, Duration::from_secs(10), 15);
        let limits = [Limit::new(rule, Arc::clone(&limits[0].buckets), Nanos(0))];
        let allowed = (0..20).filter(|_| ask(&limits, &none, "a", Duration::ZERO).is_ok()).count();
        assert_eq!(allowed, 5);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_has_flowed_in_since(
            requests in 1_u32..50, per_ms in 1_u64..5_000, burst in 1_u32..50,
            gaps in proptest::collection::vec(0_u64..200, 1..200),
        ) {
            let rule = rule(RateKey::Service, requests, Duration::from_millis(per_ms), burst);
            let limits = [Limit::new(rule, Arc::default(), Nanos(0))];
            let (mut at, mut allowed) = (Duration::ZERO, 0_u64);
            for gap in gaps {
                at += Duration::from_millis(gap);
                match ask(&limits, &HeaderMap::new(), "a", at) {
                    Ok(()) => allowed += 1,
                    Err(mut error) => {
                        let wait = error.told_mut().retry_after.unwrap();
                        prop_assert!(wait > Duration::ZERO && wait <= Duration::from_millis(per_ms));
                    }
                }
                let flowed = at.as_nanos() * u128::from(requests) / u128::from(per_ms * 1_000_000);
                prop_assert!(u128::from(allowed) <= u128::from(burst) + flowed + 1);
            }
        }
    }
}
