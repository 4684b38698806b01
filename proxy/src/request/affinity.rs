//! What a request is known by: the key that a consistent choice is made by, and the place where its caller was before.
//!
//! A place that callers keep for us is sealed (`session`). It is taken out of the request, so that no application sees it.
//! How the choice is made with all this is elsewhere: `request/choose.rs`, `attempt/balance`.

use http::header::{self, HeaderMap, HeaderValue};
use outrigger_certs::Seal;
use outrigger_mesh::{
    Algorithm, HashKey, ServiceName, SessionEnd, SpiffeId, Sticky, StickyBy, StickyTo, TrafficPolicy,
};

use crate::attempt::balance;
use crate::config::routes::{Asks, RoutePlan};
use crate::config::snapshot::{EndpointView, ServiceSnapshot};
use crate::live::Live;
use crate::request::dispatch::Arrived;
use crate::request::session::{self, Times};

pub use crate::request::session::Named;

/// What a request is known by.
#[derive(Debug, Default)]
pub struct Affinity {
    /// The hash of its key, where the service chooses by one and the request has it.
    pub key: Option<u64>,
    /// Where it was before, if that is known and proven.
    pub place: Option<Named>,
    /// Whether it named a place that we never gave out.
    pub forged: bool,
    /// The times of the session that it belongs to, where that has an end.
    times: Option<Times>,
    /// Whether it came over TLS from somebody who gets cookies.
    secure: bool,
}

impl Affinity {
    /// Nothing is known of it.
    pub const NONE: Self = Self { key: None, place: None, forged: false, times: None, secure: false };

    /// What a request is known by. Takes out of its headers what names a place.
    pub fn of(plan: &RoutePlan, snapshot: &ServiceSnapshot, arrived: &mut Arrived, live: &Live) -> Self {
        let key = match &snapshot.service.policy.balance.algorithm {
            Algorithm::Maglev(by) => {
                arrived.learn(live, Asks::of_key(by));
                arrived.head(live).key(by).map(|key| balance::hash(&key))
            }
            Algorithm::PeakEwma | Algorithm::RoundRobin | Algorithm::LeastRequest | Algorithm::Random => None,
        };
        let mut affinity = Self { key, secure: arrived.tls, ..Self::NONE };
        if let Some((sticky, seal)) = stays_by(plan, snapshot) {
            affinity.read(sticky, seal, &snapshot.service.name, &mut arrived.parts.headers);
        }
        affinity
    }

    /// The same of a connection of `caller` whose bytes nobody looks into.
    pub fn of_connection(policy: &TrafficPolicy, caller: Option<&SpiffeId>) -> Self {
        let by_caller = policy.balance.algorithm == Algorithm::Maglev(HashKey::SourceIdentity);
        let key = caller.filter(|_| by_caller).map(|id| balance::hash(id.to_string().as_bytes()));
        Self { key, ..Self::NONE }
    }

    fn read(&mut self, sticky: &Sticky, seal: &Seal, service: &ServiceName, headers: &mut HeaderMap) {
        let given = match &sticky.by {
            StickyBy::Header(name) => headers.remove(name).map(|value| vec![value.as_bytes().to_vec()]),
            StickyBy::Cookie { name, .. } => take_cookie(name, headers),
        };
        let Some(given) = given else { return };
        let opened = given.iter().find_map(|value| session::open(value, seal, service));
        self.forged = opened.is_none();
        let of_this = |place: &Named| match sticky.to {
            StickyTo::Endpoint => matches!(place, Named::Endpoint(_)),
            StickyTo::Subset => matches!(place, Named::Subset(_)),
        };
        let Some((place, times)) = opened.filter(|(place, _)| of_this(place)) else { return };
        // One that was given out before there was an end has none to go by, and begins anew.
        let holds = |times: Times| times.holds(&sticky.end, session::now());
        if sticky.end == SessionEnd::default() || times.is_some_and(holds) {
            (self.place, self.times) = (Some(place), times);
        }
    }

    /// Tells the caller where it was, for the next time. `stayed`: it was where it had named.
    pub fn tell(
        &self,
        plan: &RoutePlan,
        snapshot: &ServiceSnapshot,
        view: &EndpointView,
        stayed: bool,
        headers: &mut HeaderMap,
    ) {
        let Some((sticky, seal)) = stays_by(plan, snapshot) else { return };
        let place = match (sticky.to, &view.endpoint.version) {
            (StickyTo::Endpoint, _) => Named::Endpoint(view.endpoint.uid.clone()),
            (StickyTo::Subset, Some(version)) => Named::Subset(version.clone()),
            (StickyTo::Subset, None) => return,
        };
        let (end, now) = (&sticky.end, session::now());
        let has_end = *end != SessionEnd::default();
        let times = has_end.then(|| Times::going_on(self.times.filter(|_| stayed), now));
        let sealed = || session::sealed(&place, times, seal, &snapshot.service.name);
        match &sticky.by {
            StickyBy::Header(name) => {
                if let Ok(value) = HeaderValue::from_str(&sealed()) {
                    headers.insert(name, value);
                }
            }
            // A cookie that is there says it all, but when it was used last.
            StickyBy::Cookie { .. } if stayed && end.idle.is_none() => {}
            StickyBy::Cookie { name, ttl } => {
                let age = ttl.map(|ttl| times.and_then(|times| times.left(end, now)).unwrap_or(ttl));
                let age = age.map(|age| format!("; Max-Age={}", age.as_secs().max(1))).unwrap_or_default();
                let secure = if self.secure { "; Secure" } else { "" };
                let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax{age}{secure}", sealed());
                if let Ok(value) = HeaderValue::from_str(&cookie) {
                    headers.append(header::SET_COOKIE, value);
                }
            }
        }
    }
}

/// By what callers stay where they were: what the route says goes before what its service says.
fn stays_by<'a>(plan: &'a RoutePlan, snapshot: &'a ServiceSnapshot) -> Option<(&'a Sticky, &'a Seal)> {
    let of_route = plan.chosen.as_ref().and_then(|chosen| chosen.session.as_ref());
    match of_route {
        Some((sticky, seal)) => Some((sticky, seal)),
        None => snapshot.service.policy.balance.sticky.as_ref().zip(snapshot.seal.as_ref()),
    }
}

/// Name and value of each cookie, in all headers that have some.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(header::COOKIE).iter().flat_map(|value| crumbs(value.as_bytes()))
}

fn crumbs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|b| *b == b';').map(|crumb| {
        let crumb = crumb.trim_ascii();
        match crumb.iter().position(|b| *b == b'=') {
            Some(at) => (&crumb[..at], &crumb[at + 1..]),
            None => (crumb, &crumb[crumb.len()..]),
        }
    })
}

/// Takes every cookie of this name out of `headers`. `None` when there is none.
fn take_cookie(name: &str, headers: &mut HeaderMap) -> Option<Vec<Vec<u8>>> {
    let ours = |n: &[u8]| n == name.as_bytes();
    if !cookies(headers).any(|(n, _)| ours(n)) {
        return None;
    }
    let given = cookies(headers).filter(|(n, _)| ours(n)).map(|(_, value)| value.to_vec()).collect();
    let rest: Vec<HeaderValue> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| {
            let kept = value
                .as_bytes()
                .split(|b| *b == b';')
                .map(<[u8]>::trim_ascii)
                .filter(|crumb| !crumb.is_empty() && !crumbs(crumb).any(|(n, _)| ours(n)));
            let kept = kept.collect::<Vec<_>>().join(&b"; "[..]);
            if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept).ok() }
        })
        .collect();
    headers.remove(header::COOKIE);
    for value in rest {
        headers.append(header::COOKIE, value);
    }
    Some(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cookie_is_taken_out_and_the_others_stay_as_they_were() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; place=x.y; b=\"2\""));
        headers.append(header::COOKIE, HeaderValue::from_static("place=z"));
        assert_eq!(take_cookie("place", &mut headers).unwrap(), [b"x.y".to_vec(), b"z".to_vec()]);
        let left: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(left, ["a=1; b=\"2\""]);
        assert_eq!(take_cookie("place", &mut headers), None);
        assert_eq!(cookies(&headers).next(), Some((&b"a"[..], &b"1"[..])));
    }
}
