//! The one reading of a request: its host and its path, made once, before routing, policy, telemetry and forwarding.
//!
//! Whatever could be read in two ways by us and by the application is refused here, so
//! that nobody further down has to ask again.

use std::borrow::Cow;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version, header};
use outrigger_mesh::{Host, Reason, canonical_path};

use crate::error::Error;
use crate::http::glance::Glance;
use crate::http::strict::Limits;

/// Longer paths with queries are refused with 414.
pub const MAX_URI: usize = 16 * 1024;
const MAX_HOST: usize = 260;

/// Whom a request names. HTTP/1.1 needs exactly one Host; the authority of an absolute target (RFC 9112, section 3.2.2) or
/// of `:authority` takes its place.
pub fn authority(parts: &Parts) -> Result<&str, Error> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("the request has more than one Host"));
    }
    let host = match first {
        None => None,
        // Also where it is overruled: another reader may not know that (RFC 9112, section 3.2).
        Some(host) => {
            Some(host.to_str().ok().filter(|h| is_host(h)).ok_or_else(|| bad("the Host is not valid"))?)
        }
    };
    let Some(authority) = parts.uri.authority() else {
        return host.ok_or_else(|| bad("the request has no Host"));
    };
    let authority = authority.as_str();
    // In HTTP/2 both may be there, and must agree (RFC 9113, section 8.3.1).
    let differs = host.is_some_and(|h| !h.eq_ignore_ascii_case(authority));
    if parts.version == Version::HTTP_2 && differs {
        return Err(bad(":authority and Host differ"));
    }
    if is_host(authority) { Ok(authority) } else { Err(bad("the target's authority is not a host")) }
}

/// The host of the mesh that `authority` names.
pub fn mesh_host(authority: &str) -> Result<Host, Error> {
    authority.parse().map_err(|_| bad("the Host is not a host name of the mesh"))
}

/// A host and perhaps a port: no user, no list, nothing encoded (RFC 3986, section 3.2.2, narrowed to what resolves).
fn is_host(text: &str) -> bool {
    is_plain_name(text) || is_any_host(text)
}

/// A name without a port, in one look: what nearly all of them are.
fn is_plain_name(text: &str) -> bool {
    let mut before = b'.';
    let labels = text.bytes().all(|b| {
        let good = b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || (b == b'.' && before != b'.');
        before = b;
        good
    });
    labels && before != b'.' && text.len() <= MAX_HOST
}

fn is_any_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let digits = |p: &str| (1..=5).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit());
    let port_ok = port.is_none_or(|p| digits(p) && p.parse::<u16>().is_ok_and(|p| p > 0));
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let name_ok = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.strip_suffix('.').unwrap_or(name).split('.').all(is_label),
    };
    port_ok && name_ok && text.len() <= MAX_HOST
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// The canonical path of a request with its query: what is matched is also what is sent on.
pub fn target(parts: &Parts) -> Result<PathAndQuery, Error> {
    if parts.method == Method::CONNECT {
        return Err(bad("CONNECT is not offered"));
    }
    if let Some(scheme) = parts.uri.scheme_str()
        && !matches!(scheme, "http" | "https")
    {
        return Err(bad("the target's scheme is neither http nor https"));
    }
    let Some(given) = parts.uri.path_and_query() else {
        return Ok(PathAndQuery::from_static("/"));
    };
    if given.as_str().len() > MAX_URI {
        return Err(uri_too_long());
    }
    if given.query().is_some_and(|q| !q.is_ascii()) {
        return Err(bad("the query has a character that must be encoded"));
    }
    if given.path() == "*" {
        let asked = parts.method == Method::OPTIONS;
        return if asked { Ok(given.clone()) } else { Err(bad("* is for OPTIONS only")) };
    }
    match canonical_path(given.path()).map_err(bad)? {
        Cow::Borrowed(_) => Ok(given.clone()),
        Cow::Owned(mut path) => {
            if let Some(query) = given.query() {
                path.push('?');
                path.push_str(query);
            }
            // The next hop counts what is sent on.
            if path.len() > MAX_URI {
                return Err(uri_too_long());
            }
            PathAndQuery::try_from(path).map_err(|_| bad("the path can not be written canonically"))
        }
    }
}

/// Refuses what no path or host has to do with: framing with two readings, expectations that nobody meets. On HTTP/1 the
/// guard below ([`crate::http::strict`]) has judged the framing already; this is for whoever comes another way.
pub fn check(parts: &Parts, seen: Glance) -> Result<(), Error> {
    check_within(parts, seen, &Limits::EDGE)
}

/// The same for whoever is held to `limits`.
pub fn check_within(parts: &Parts, seen: Glance, limits: &Limits) -> Result<(), Error> {
    if seen.saw(Glance::BODY) {
        check_framing(parts)?;
    }
    if parts.version == Version::HTTP_2 { check_fields(parts, limits) } else { Ok(()) }
}

fn check_framing(parts: &Parts) -> Result<(), Error> {
    if parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(bad("the request has more than one Content-Length"));
    }
    let coded = parts.headers.get(header::TRANSFER_ENCODING);
    if coded.is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(bad("the request has a Transfer-Encoding other than chunked"));
    }
    if coded.is_some() && parts.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(bad("the request has both Content-Length and Transfer-Encoding"));
    }
    let met = |v: &http::HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !parts.headers.get_all(header::EXPECT).iter().all(met) {
        let why = "the request expects something other than 100-continue";
        return Err(Error::downstream(Reason::ExpectationFailed, why));
    }
    Ok(())
}

/// What the guard does below HTTP/1, and h2 leaves to us: the size of the list, and the number of headers, crumbs of cookies
/// apart, whose size counts; and blanks around a value, which HTTP/1 would take off (RFC 9113, section 8.2.1).
fn check_fields(parts: &Parts, limits: &Limits) -> Result<(), Error> {
    let headers = &parts.headers;
    // HTTP/1 counts Host, which here is none of them.
    let most = limits.fields - 1;
    if headers.len() > most && headers.len() - headers.get_all(header::COOKIE).iter().count() > most {
        return Err(Error::downstream(Reason::HeaderTooLarge, "the request has too many headers"));
    }
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let mut size = pseudo_size(parts);
    for (name, value) in headers {
        let bytes = value.as_bytes();
        size += LINE + name.as_str().len() + bytes.len();
        if blank(bytes.first()) || blank(bytes.last()) {
            return Err(bad("a header's value has blanks around it"));
        }
    }
    if size > limits.head {
        return Err(Error::downstream(Reason::HeaderTooLarge, "the request's header list is too long"));
    }
    Ok(())
}

/// What the pseudo headers take of the header list.
fn pseudo_size(parts: &Parts) -> usize {
    let uri = &parts.uri;
    let line = |name: &str, value: Option<&str>| value.map_or(0, |value| LINE + name.len() + value.len());
    line(":method", Some(parts.method.as_str()))
        + line(":scheme", uri.scheme_str())
        + line(":authority", uri.authority().map(http::uri::Authority::as_str))
        + line(":path", uri.path_and_query().map(PathAndQuery::as_str))
}

/// What a line of a header list counts for beside its name and value (RFC 9113, section 6.5.2).
const LINE: usize = 32;

fn uri_too_long() -> Error {
    Error::downstream(Reason::UriTooLong, "the target is longer than 16 KiB")
}

fn bad(why: &'static str) -> Error {
    Error::downstream(Reason::BadRequest, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    proptest! {
        #[test]
        fn what_is_a_plain_name_is_a_host(text in "[a-cA-C0-9._:@-]{0,12}(\\.[a-c]{0,2})?") {
            prop_assert!(!is_plain_name(&text) || is_any_host(&text), "{text}");
            prop_assert!(!is_any_host(&text) || text.contains(':') || text.ends_with('.') || is_plain_name(&text), "{text}");
        }
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        for (uri, host, expected) in
            [("/", "Cart:80", "Cart:80"), ("/", "[::1]:80", "[::1]:80"), ("http://cart/x", "other", "cart")]
        {
            assert_eq!(authority(&parts(uri, &[host])).unwrap(), expected);
        }
        assert!(mesh_host("127.0.0.1:80").is_err());
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &[""]),
            ("/", &["cart", "cart"]),
            ("/", &["cart,prices"]),
            ("/", &["cart prices"]),
            ("/", &["me@cart"]),
            ("/", &["cart:"]),
            ("/", &["cart/x"]),
            ("/", &["c%61rt"]),
            ("/", &["cart:0"]),
            ("/", &["cart:65536"]),
            ("/", &["cart..shop"]),
            ("/", &[".cart"]),
            ("http://me@cart/", &[]),
        ] {
            let parts = parts(uri, hosts);
            assert_eq!(authority(&parts).unwrap_err().reason, Reason::BadRequest, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn the_query_stays_as_it_is() {
        assert_eq!(target(&parts("/a/../b?x=../%2f", &[])).unwrap().as_str(), "/b?x=../%2f");
        assert!(target(&parts("ftp://cart/", &[])).is_err());
        assert!(target(&parts("*", &[])).is_err());
    }
}
