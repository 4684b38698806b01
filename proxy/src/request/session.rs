//! The place of a caller as the caller keeps it for us: sealed with the service's key, so that nobody can choose an
//! endpoint or ask whether one is there, and with its times where a session has an end.
//!
//! Nobody keeps account of sessions: whoever opens what was sealed sees when it began and when it was used last, by the
//! clock of the sidecar that sealed it. Where it is written and who reads it is elsewhere: `affinity`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_certs::Seal;
use outrigger_mesh::{EndpointUid, ServiceName, SessionEnd, Version};

/// A place where a caller stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// An endpoint.
    Endpoint(EndpointUid),
    /// A subset.
    Subset(Version),
}

/// When a session began and was used last, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    began: u64,
    used: u64,
}

impl Times {
    /// One that begins at `now`, or goes on.
    pub fn going_on(before: Option<Self>, now: u64) -> Self {
        Self { began: before.map_or(now, |before| before.began), used: now }
    }

    /// Whether it is not over.
    pub fn holds(self, end: &SessionEnd, now: u64) -> bool {
        let within =
            |limit: Option<Duration>, since: u64| limit.is_none_or(|limit| passed(since, now) <= limit);
        within(end.absolute, self.began) && within(end.idle, self.used)
    }

    /// What is left of it, if nobody uses it again.
    pub fn left(self, end: &SessionEnd, now: u64) -> Option<Duration> {
        let left = end.absolute.map(|whole| whole.saturating_sub(passed(self.began, now)));
        left.into_iter().chain(end.idle).min()
    }
}

/// Another sidecar's clock may be ahead.
fn passed(since: u64, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(since))
}

/// The moment, as sessions are counted by.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the caller is given to keep.
pub fn sealed(place: &Named, times: Option<Times>, seal: &Seal, service: &ServiceName) -> String {
    let place = match place {
        Named::Endpoint(uid) => format!("e.{uid}"),
        Named::Subset(version) => format!("s.{}", version.as_str()),
    };
    let times = times.map(|times| format!("@{:x}-{:x}", times.began, times.used)).unwrap_or_default();
    let text = place + &times;
    format!("{text}.{}", seal.of(in_its_service(service, &text).as_bytes()))
}

/// The place that `value` names, and its times, if it was sealed for this service.
pub fn open(value: &[u8], seal: &Seal, service: &ServiceName) -> Option<(Named, Option<Times>)> {
    if value.len() > LONGEST {
        return None;
    }
    let (text, proof) = std::str::from_utf8(value).ok()?.rsplit_once('.')?;
    if !seal.holds(in_its_service(service, text).as_bytes(), proof) {
        return None;
    }
    let (place, times) = match text.split_once('@') {
        None => (text, None),
        Some((place, times)) => {
            let (began, used) = times.split_once('-')?;
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            (place, Some(Times { began: number(began)?, used: number(used)? }))
        }
    };
    let named = match place.split_once('.')? {
        ("e", uid) => EndpointUid::new(uid).ok().map(Named::Endpoint),
        ("s", version) => Version::new(version).ok().map(Named::Subset),
        _ => None,
    };
    Some((named?, times))
}

/// What is sealed: a place of one service is none of another that has the same key.
fn in_its_service(service: &ServiceName, place: &str) -> String {
    format!("{service}|{place}")
}

/// A kind, a name of 63 characters at most, two times of 16, and a proof of 43, with what stands between them.
const LONGEST: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        "shop/cart".parse().unwrap()
    }

    fn seal() -> Seal {
        Seal::new(&[7; 32])
    }

    fn endpoint(uid: &str) -> Named {
        Named::Endpoint(uid.parse().unwrap())
    }

    #[test]
    fn only_what_was_sealed_for_the_service_is_opened() {
        let opened = |text: &str| open(text.as_bytes(), &seal(), &service());
        let subset = Named::Subset(Version::new("v1.2").unwrap());
        let times = Some(Times { began: u64::MAX, used: 7 });
        for (place, times) in [(endpoint("cart-1"), None), (subset, None), (endpoint(&"a".repeat(63)), times)]
        {
            let text = sealed(&place, times, &seal(), &service());
            assert_eq!(opened(&text), Some((place, times)), "{text}");
            let other: ServiceName = "shop/orders".parse().unwrap();
            assert_eq!(open(text.as_bytes(), &seal(), &other), None);
        }
        let text = sealed(&endpoint("cart-1"), Times { began: 1, used: 2 }.into(), &seal(), &service());
        let proof = text.rsplit_once('.').unwrap().1.to_owned();
        assert!(text.starts_with("e.cart-1@1-2."), "{text}");
        for forged in [
            "",
            "e.cart-1",
            &format!("e.cart-2@1-2.{proof}"),
            &format!("e.cart-1@1-3.{proof}"),
            &format!("e.cart-1.{proof}"),
            &format!("s.cart-1@1-2.{proof}"),
            &"a.".repeat(200),
        ] {
            assert_eq!(opened(forged), None, "{forged}");
        }
    }

    #[test]
    fn a_session_is_over_when_its_time_is_or_nobody_has_used_it_for_long() {
        let ms = Duration::from_millis;
        let both = SessionEnd { absolute: Some(ms(100)), idle: Some(ms(30)) };
        let first = Times::going_on(None, 1_000);
        let (never, idle) = (SessionEnd::default(), SessionEnd { absolute: None, ..both });
        for (now, holds) in [(1_000, true), (1_030, true), (1_031, false), (900, true)] {
            assert_eq!((first.holds(&both, now), first.holds(&idle, now)), (holds, holds), "{now}");
            assert!(first.holds(&never, now + 1_000_000));
        }
        let used = Times::going_on(Some(first), 1_090);
        assert!(used.holds(&both, 1_100) && !used.holds(&both, 1_101) && used.holds(&idle, 1_101));
        assert_eq!((used.left(&both, 1_090), first.left(&both, 1_000)), (Some(ms(10)), Some(ms(30))));
        assert_eq!((used.left(&both, 2_000), used.left(&never, 2_000)), (Some(ms(0)), None));
    }
}
