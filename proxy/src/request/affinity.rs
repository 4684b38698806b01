//! What a request is known by: the key that a consistent choice is made by, and the place where its caller was before.
//!
//! A place that callers keep for us is sealed with the service's key: nobody can choose an endpoint, or ask whether one
//! is there. It is taken out of the request, so that no application sees it. How the choice is made with all this is
//! elsewhere: `request/choose.rs`, `attempt/balance`.

use http::header::{self, HeaderMap, HeaderValue};
use outrigger_certs::Seal;
use outrigger_mesh::{
    Algorithm, EndpointUid, HashKey, ServiceName, SpiffeId, Sticky, StickyBy, StickyTo, TrafficPolicy,
    Version,
};

use crate::attempt::balance;
use crate::config::routes::{Asks, RoutePlan};
use crate::config::snapshot::{EndpointView, ServiceSnapshot};
use crate::live::Live;
use crate::request::dispatch::Arrived;

/// What a request is known by.
#[derive(Debug, Default)]
pub struct Affinity {
    /// The hash of its key, where the service chooses by one and the request has it.
    pub key: Option<u64>,
    /// Where it was before, if that is known and proven.
    pub place: Option<Named>,
    /// Whether it named a place that we never gave out.
    pub forged: bool,
    /// Whether it came over TLS from somebody who gets cookies.
    secure: bool,
}

/// A place where a caller stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// An endpoint.
    Endpoint(EndpointUid),
    /// A subset.
    Subset(Version),
}

impl Affinity {
    /// Nothing is known of it.
    pub const NONE: Self = Self { key: None, place: None, forged: false, secure: false };

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
        let opened = given.iter().find_map(|value| open(value, seal, service));
        self.forged = opened.is_none();
        self.place = opened.filter(|place| match sticky.to {
            StickyTo::Endpoint => matches!(place, Named::Endpoint(_)),
            StickyTo::Subset => matches!(place, Named::Subset(_)),
        });
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
            (StickyTo::Endpoint, _) => format!("e.{}", view.endpoint.uid),
            (StickyTo::Subset, Some(version)) => format!("s.{}", version.as_str()),
            (StickyTo::Subset, None) => return,
        };
        let sealed = format!("{place}.{}", seal.of(sealed_text(&snapshot.service.name, &place).as_bytes()));
        match &sticky.by {
            StickyBy::Header(name) => {
                if let Ok(value) = HeaderValue::from_str(&sealed) {
                    headers.insert(name, value);
                }
            }
            StickyBy::Cookie { .. } if stayed => {}
            StickyBy::Cookie { name, ttl } => {
                let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs().max(1))).unwrap_or_default();
                let secure = if self.secure { "; Secure" } else { "" };
                let cookie = format!("{name}={sealed}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
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

/// The place that `value` names, if it was sealed for this service.
fn open(value: &[u8], seal: &Seal, service: &ServiceName) -> Option<Named> {
    if value.len() > LONGEST {
        return None;
    }
    let (place, proof) = std::str::from_utf8(value).ok()?.rsplit_once('.')?;
    if !seal.holds(sealed_text(service, place).as_bytes(), proof) {
        return None;
    }
    match place.split_once('.')? {
        ("e", uid) => EndpointUid::new(uid).ok().map(Named::Endpoint),
        ("s", version) => Version::new(version).ok().map(Named::Subset),
        _ => None,
    }
}

/// What is sealed: a place of one service is none of another that has the same key.
fn sealed_text(service: &ServiceName, place: &str) -> String {
    format!("{service}|{place}")
}

/// A kind, a name of 63 characters at most, and a proof of 43.
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        "shop/cart".parse().unwrap()
    }

    fn sealed(place: &str) -> String {
        format!("{place}.{}", Seal::new(&[7; 32]).of(sealed_text(&service(), place).as_bytes()))
    }

    #[test]
    fn only_a_place_that_was_sealed_for_the_service_is_opened() {
        let seal = Seal::new(&[7; 32]);
        let opened = |text: &str| open(text.as_bytes(), &seal, &service());
        assert_eq!(opened(&sealed("e.cart-1")), Some(Named::Endpoint("cart-1".parse().unwrap())));
        assert_eq!(opened(&sealed("s.v1.2")), Some(Named::Subset(Version::new("v1.2").unwrap())));
        let proof = sealed("e.cart-1").rsplit_once('.').unwrap().1.to_owned();
        for forged in
            ["", "e.cart-1", &format!("e.cart-2.{proof}"), &format!("s.cart-1.{proof}"), &"a.".repeat(200)]
        {
            assert_eq!(opened(forged), None, "{forged}");
        }
        let other: ServiceName = "shop/orders".parse().unwrap();
        assert_eq!(open(sealed("e.cart-1").as_bytes(), &seal, &other), None);
    }

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
