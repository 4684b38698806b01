//! What routes look at in a request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, header};

use crate::identity::SpiffeId;
use crate::policy::HashKey;
use crate::token::Claims;

/// The labels of a workload.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The part of a request that routes look at. The path is the canonical one.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its canonical path, without the query.
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What its token says, if it has one that was verified.
    pub claims: Option<&'a Claims>,
    /// Who sends it.
    pub source: Source<'a>,
}

/// Who sends a request, as far as the one who routes it knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// The workload whose sidecar routes it; at a gateway the gateway's own.
    pub identity: Option<&'a SpiffeId>,
    /// The labels of that instance.
    pub labels: Option<&'a Labels>,
    /// The address it came from, where that tells callers apart: at a gateway.
    pub address: Option<IpAddr>,
}

impl<'a> RequestHead<'a> {
    /// Whether it is a call of gRPC, by its content type.
    pub fn is_grpc(&self) -> bool {
        self.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
        })
    }

    /// The first value of a query parameter, as it stands in the URI.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let pairs =
            self.query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The values of the cookies of this name.
    pub fn cookies(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let all = self.headers.get_all(header::COOKIE).iter();
        let crumbs = all.flat_map(|value| value.as_bytes().split(|b| *b == b';')).map(<[u8]>::trim_ascii);
        crumbs.filter_map(move |crumb| match crumb.iter().position(|b| *b == b'=') {
            Some(at) => (&crumb[..at] == name.as_bytes()).then_some(&crumb[at + 1..]),
            None => (crumb == name.as_bytes()).then_some(&crumb[crumb.len()..]),
        })
    }

    /// What stands at `key` in it; `None` where it has none.
    pub fn key(&self, key: &'a HashKey) -> Option<Cow<'a, [u8]>> {
        match key {
            HashKey::Header(name) => self.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
            HashKey::Cookie(name) => self.cookies(name).next().map(Cow::Borrowed),
            HashKey::Query(name) => self.parameter(name).map(|value| Cow::Borrowed(value.as_bytes())),
            HashKey::Claim(claim) => self.claims?.key(claim).map(|value| match value {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            HashKey::SourceIdentity => self.source.identity.map(|id| Cow::Owned(id.to_string().into_bytes())),
            HashKey::SourceAddress => self.source.address.map(|address| match address.to_canonical() {
                IpAddr::V4(v4) => Cow::Owned(v4.octets().to_vec()),
                IpAddr::V6(v6) => Cow::Owned(v6.octets().to_vec()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is_said_to_stand() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "ada".parse().unwrap());
        headers.append(header::COOKIE, "a=1; sid=bob".parse().unwrap());
        headers.append(header::COOKIE, "sid=later".parse().unwrap());
        let address = Some("192.0.2.1".parse().unwrap());
        let head = RequestHead {
            method: &Method::GET,
            path: "/",
            query: Some("page=2&user=eve"),
            headers: &headers,
            claims: None,
            source: Source { address, ..Source::default() },
        };
        let key = |key: HashKey| head.key(&key).map(|value| String::from_utf8_lossy(&value).into_owned());
        assert_eq!(key(HashKey::Header("x-user".parse().unwrap())).as_deref(), Some("ada"));
        assert_eq!(key(HashKey::Cookie("sid".into())).as_deref(), Some("bob"));
        assert_eq!(key(HashKey::Query("user".into())).as_deref(), Some("eve"));
        assert_eq!(key(HashKey::Query("nobody".into())), None);
        assert_eq!(head.key(&HashKey::SourceAddress).as_deref(), Some(&[192, 0, 2, 1][..]));
        assert_eq!(key(HashKey::SourceIdentity), None);
    }

    #[test]
    fn only_the_content_types_of_grpc_are_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            let (method, source) = (&Method::POST, Source::default());
            let head =
                RequestHead { method, path: "/", query: None, headers: &headers, claims: None, source };
            assert_eq!(head.is_grpc(), expected, "{value}");
        }
    }
}
