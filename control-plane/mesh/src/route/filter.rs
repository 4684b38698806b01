//! What a route does to a request on its way, other than choosing where it goes.
//!
//! The types say what is asked for. The proxy does it, in the order in which the fields stand here: limits, CORS, faults,
//! then an answer of its own (redirect, direct response) or the changes to the request, mirrors, and last the changes
//! to the response.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::matching::RouteMatch;
use crate::name::{Hostname, PortNumber, ServiceName, Version};
use crate::policy::RateLimit;

/// The filters of one rule. Those of the Gateway API's HTTPRoute (v1) and our own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// How many requests of one kind the caller's sidecar lets through.
    pub rate_limits: Vec<RateLimit>,
    /// The longest body of a request, in bytes. None: the service's own bound.
    pub max_body: Option<u64>,
    /// Which origins of browsers may ask.
    pub cors: Option<Cors>,
    /// Faults that are put in on purpose. The first that holds and is drawn happens.
    pub faults: Vec<Fault>,
    /// The answer is to ask elsewhere.
    pub redirect: Option<Redirect>,
    /// The answer is this.
    pub direct: Option<DirectResponse>,
    /// Changes to the request's headers, before any backend's own.
    pub request: HeaderChanges,
    /// The request asks for something else there than here.
    pub rewrite: Option<Rewrite>,
    /// Who gets a copy, whose answer nobody waits for.
    pub mirrors: Vec<Mirror>,
    /// Changes to the response's headers, after any backend's own.
    pub response: HeaderChanges,
}

impl Filters {
    /// The most mirrors of a rule.
    pub const MAX_MIRRORS: usize = 8;
    /// The most faults of a rule.
    pub const MAX_FAULTS: usize = 16;

    /// Whether there is none at all, which the most routes have.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.redirect.is_some() && (self.rewrite.is_some() || self.direct.is_some()) {
            return Err("a redirect goes neither with a rewrite nor with a direct response".into());
        }
        if self.mirrors.len() > Self::MAX_MIRRORS || self.faults.len() > Self::MAX_FAULTS {
            return Err("it has too many mirrors or faults".into());
        }
        if let Some(status) =
            self.redirect.as_ref().map(|r| r.status).filter(|s| !Redirect::STATUSES.contains(s))
        {
            return Err(format!("{status} is no status of a redirect"));
        }
        if self.direct.as_ref().is_some_and(|d| !(200..=599).contains(&d.status)) {
            return Err("a direct response has a status from 200 to 599".into());
        }
        let paths = self.redirect.iter().filter_map(|r| r.path.as_ref());
        let paths = paths.chain(self.rewrite.iter().filter_map(|r| r.path.as_ref()));
        for PathChange::Full(path) | PathChange::Prefix(path) in paths {
            if !path.is_empty() && !path.starts_with('/') {
                return Err(format!("the path {path:?} does not begin with '/'"));
            }
        }
        self.mirrors.iter().try_for_each(|m| m.share.check())?;
        self.rate_limits.iter().try_for_each(|limit| limit.check().map_err(|e| e.to_string()))?;
        self.faults.iter().try_for_each(Fault::check)
    }
}

/// Changes to headers, in this order: removed, set, added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Taken away.
    pub remove: Vec<HeaderName>,
    /// In place of whatever was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside whatever is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// A part of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// How many.
    pub of: u32,
    /// Of how many; never 0.
    pub out_of: u32,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self { of: 1, out_of: 1 };

    /// Whether a request with the random number `chance` is part of it.
    pub fn takes(self, chance: u64) -> bool {
        let scaled = (u128::from(chance) * u128::from(self.out_of)) >> 64;
        scaled < u128::from(self.of)
    }

    fn check(self) -> Result<(), String> {
        if self.out_of == 0 || self.of > self.out_of {
            return Err(format!("{}/{} is no part of all requests", self.of, self.out_of));
        }
        Ok(())
    }
}

/// Which origins of browsers may ask (Fetch standard, CORS protocol; HTTPCORSFilter of the Gateway API).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may: `https://shop.example`, `https://*.shop.example`, `*`.
    pub origins: Vec<Arc<str>>,
    /// Whether cookies and the like may go along.
    pub credentials: bool,
    /// Methods that may be used; `*` is every one.
    pub methods: Vec<Arc<str>>,
    /// Headers that a request may have; `*` is every one.
    pub headers: Vec<Arc<str>>,
    /// Headers of the response that scripts may see; `*` is every one.
    pub expose: Vec<Arc<str>>,
    /// How long a browser believes it, in seconds. Default 5.
    pub max_age: u32,
}

/// A fault that is put in on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// How many of the requests.
    pub share: Fraction,
    /// Which requests; none: every one.
    pub matches: Vec<RouteMatch>,
    /// How long they wait first.
    pub delay: Option<Duration>,
    /// What they get then instead of an answer.
    pub abort: Option<Abort>,
}

impl Fault {
    /// The longest delay.
    pub const LONGEST: Duration = Duration::from_secs(300);

    fn check(&self) -> Result<(), String> {
        self.share.check()?;
        if self.delay.is_none() && self.abort.is_none() {
            return Err("a fault neither delays nor aborts".into());
        }
        if self.delay.is_some_and(|delay| delay > Self::LONGEST) {
            return Err(format!("a fault delays for at most {:?}", Self::LONGEST));
        }
        match self.abort {
            Some(Abort::Http(status)) if !(200..=599).contains(&status) => {
                Err(format!("a fault aborts with a status from 200 to 599, not {status}"))
            }
            Some(Abort::Grpc(status)) if status > 16 => Err(format!("{status} is no status of gRPC")),
            _ => self.matches.iter().try_for_each(RouteMatch::check),
        }
    }
}

/// What a request gets instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// This status. A call of gRPC gets the status of gRPC that it stands for.
    Http(u16),
    /// This status of gRPC; another request gets the status of HTTP that it stands for.
    Grpc(u8),
    /// Its connection or stream is reset.
    Reset,
}

/// The answer is to ask elsewhere (HTTPRequestRedirectFilter).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Whether by TLS. None: as it came.
    pub https: Option<bool>,
    /// The host to ask. None: the one asked.
    pub host: Option<Hostname>,
    /// The path to ask for. None: the one asked for.
    pub path: Option<PathChange>,
    /// The port. None: that of the scheme, where one is given, else the one asked.
    pub port: Option<PortNumber>,
    /// One of [`Redirect::STATUSES`]. Default 302.
    pub status: u16,
}

impl Redirect {
    /// What a redirect may say.
    pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
}

/// The request asks for something else there than here (HTTPURLRewriteFilter).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Its Host.
    pub host: Option<Hostname>,
    /// Its path.
    pub path: Option<PathChange>,
}

/// A change to a path (HTTPPathModifier). The query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path becomes this.
    Full(Arc<str>),
    /// The prefix by which the route was matched becomes this. Where it was not matched by a prefix nothing changes.
    Prefix(Arc<str>),
}

impl PathChange {
    /// What becomes of `path`, which was matched by the prefix `matched`.
    pub fn of(&self, path: &str, matched: Option<&str>) -> String {
        match self {
            Self::Full(full) if full.is_empty() => "/".into(),
            Self::Full(full) => full.to_string(),
            Self::Prefix(new) => {
                let Some(matched) = matched else { return path.to_owned() };
                let matched = matched.strip_suffix('/').unwrap_or(matched);
                let Some(rest) = path.strip_prefix(matched) else { return path.to_owned() };
                let rest = rest.strip_prefix('/').unwrap_or(rest);
                match (new.strip_suffix('/').unwrap_or(new), rest) {
                    // A slash at the end of what stands instead stays where nothing follows.
                    (bare, "") if new.ends_with('/') || bare.is_empty() => format!("{bare}/"),
                    (bare, "") if path.ends_with('/') && !matched.is_empty() => format!("{bare}/"),
                    (bare, "") => bare.to_owned(),
                    (bare, rest) => format!("{bare}/{rest}"),
                }
            }
        }
    }
}

/// Who gets a copy of requests, whose answer nobody waits for (HTTPRequestMirrorFilter).
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The service.
    pub service: ServiceName,
    /// The subset of it; none: all its endpoints.
    pub version: Option<Version>,
    /// Its port; none: the one its caller meant.
    pub port: Option<PortNumber>,
    /// How many of the requests.
    pub share: Fraction,
}

/// The answer of a route that asks nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Its status, 200 to 599.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Arc<[u8]>,
}

impl DirectResponse {
    /// The longest body, in bytes.
    pub const LONGEST: usize = 64 * 1024;
}

impl Cors {
    /// How long a browser believes it unless said otherwise, in seconds.
    pub const MAX_AGE: u32 = 5;

    /// Whether `origin` may ask.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|own| origin_holds(own, origin))
    }

    /// Whether `method` may be used.
    pub fn allows_method(&self, method: &Method) -> bool {
        self.methods.iter().any(|own| &**own == "*" || &**own == method.as_str())
    }
}

/// A wildcard stands for one or more leading labels of the host, as in HTTPCORSFilter.
fn origin_holds(own: &str, origin: &str) -> bool {
    if own == "*" || own.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some((scheme, host)) = own.split_once("://") else { return false };
    let Some(tail) = host.strip_prefix('*') else { return false };
    let Some((its_scheme, its_host)) = origin.split_once("://") else { return false };
    let ends = its_host.len() > tail.len()
        && its_host.is_char_boundary(its_host.len() - tail.len())
        && its_host[its_host.len() - tail.len()..].eq_ignore_ascii_case(tail);
    scheme.eq_ignore_ascii_case(its_scheme) && ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_as_the_table_of_the_gateway_api_says() {
        // HTTPPathModifier.replacePrefixMatch: request path, prefix match, replacement, path there.
        for (path, matched, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/a/b", "/", "/x", "/x/a/b"),
        ] {
            let change = PathChange::Prefix(new.into());
            assert_eq!(change.of(path, Some(matched)), expected, "{path} {matched} -> {new}");
        }
        assert_eq!(PathChange::Prefix("/x".into()).of("/a", None), "/a");
        assert_eq!(PathChange::Full("/x".into()).of("/a/b", Some("/a")), "/x");
    }

    #[test]
    fn origins_are_compared_with_their_wildcards() {
        let cors = |own: &str| Cors { origins: vec![own.into()], ..Cors::default() };
        for (own, origin, expected) in [
            ("https://shop.example", "https://shop.example", true),
            ("https://shop.example", "http://shop.example", false),
            ("https://shop.example", "https://shop.example:8443", false),
            ("https://*.shop.example", "https://a.shop.example", true),
            ("https://*.shop.example", "https://a.b.shop.example", true),
            ("https://*.shop.example", "https://shop.example", false),
            ("https://*.shop.example", "https://evilshop.example", false),
            ("*", "null", true),
        ] {
            assert_eq!(cors(own).allows(origin), expected, "{own} {origin}");
        }
    }

    #[test]
    fn a_fraction_takes_its_part() {
        let third = Fraction { of: 1, out_of: 3 };
        let step = u64::MAX / 9_000;
        let taken = (0..9_000_u64).filter(|i| third.takes(i * step + step / 2)).count();
        assert_eq!(taken, 3_000);
        assert!(Fraction::ALL.takes(u64::MAX));
        assert!(!Fraction { of: 0, out_of: 100 }.takes(0));
    }
}
