//! The one reading of a request: its host and its path, made once, before routing, policy, telemetry and forwarding.
//!
//! Whatever could be read in two ways by us and by the application is refused here, so
//! that nobody further down has to ask again.

use std::borrow::Cow;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version, header};
use outrigger_mesh::{Host, Reason};

use crate::error::Error;
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
pub fn check(parts: &Parts) -> Result<(), Error> {
    check_within(parts, &Limits::EDGE)
}

/// The same for whoever is held to `limits`.
pub fn check_within(parts: &Parts, limits: &Limits) -> Result<(), Error> {
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
    if parts.version == Version::HTTP_2 { check_fields(parts, limits) } else { Ok(()) }
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

/// Resolves dot segments (RFC 3986, section 5.2.4), joins repeated slashes, decodes what need not be encoded, encodes what
/// must be and writes digits in upper case. Refused is what has two readings: encoded slashes, backslashes and NUL, dots
/// before a `;`, raw or encoded controls, bad escapes, bytes that only a careless reader takes for ASCII (overlong UTF-8),
/// and dot segments that lead above the root.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if is_canonical(path) {
        return Ok(path.into());
    }
    if !path.starts_with('/') {
        return Err("the path does not begin with '/'");
    }
    let decoded = normalize_escapes(path)?;
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded[1..].split('/').peekable();
    let mut slash = false;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let name = segment.split([';']).next().and_then(|s| s.split("%3B").next()).unwrap_or_default();
        match name {
            "." | ".." if name != segment => return Err("the path has dots before a ';'"),
            "." => slash |= last,
            ".." => {
                kept.pop().ok_or("the path leads above the root")?;
                slash |= last;
            }
            "" if segment.is_empty() => slash |= last,
            _ => kept.push(segment),
        }
    }
    let mut canonical = String::with_capacity(decoded.len());
    for segment in &kept {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if slash || kept.is_empty() {
        canonical.push('/');
    }
    Ok(canonical.into())
}

/// Whether a path is surely canonical: one pass without an allocation over what nearly all paths are made of.
fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    let plain = |b: u8| is_unreserved(b) || b"/!$&'()*+,=:@".contains(&b);
    bytes.first() == Some(&b'/')
        && bytes.iter().all(|b| plain(*b))
        && !bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

/// RFC 3986, section 2.3.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

fn normalize_escapes(path: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut bytes = path.bytes();
    let mut before = 0;
    while let Some(byte) = bytes.next() {
        let lead = std::mem::take(&mut before);
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit().ok_or(BAD_ESCAPE)?, digit().ok_or(BAD_ESCAPE)?);
                let decoded = u8::try_from(high * 16 + low).map_err(|_| BAD_ESCAPE)?;
                match decoded {
                    b'/' | b'\\' => return Err("the path has an encoded slash or backslash"),
                    0..=0x1f | 0x7f => return Err("the path has an encoded control character"),
                    0x80..=0xbf
                        if matches!((lead, decoded), (0xc0 | 0xc1, _) | (0xe0, ..0xa0) | (0xf0, ..0x90)) =>
                    {
                        return Err("the path has overlong UTF-8");
                    }
                    b if is_unreserved(b) => out.push(char::from(b)),
                    b => {
                        before = b;
                        escape(b, &mut out);
                    }
                }
            }
            b'\\' => return Err("the path has a backslash"),
            b'#' => return Err("the path has a '#'"),
            0..=0x20 | 0x7f.. => return Err("the path has a character that must be encoded"),
            // Sent as they are by many, and the same as their escapes to every reader.
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => escape(byte, &mut out),
            b => out.push(char::from(b)),
        }
    }
    Ok(out)
}

fn escape(byte: u8, out: &mut String) {
    out.push('%');
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

const BAD_ESCAPE: &str = "the path has a '%' without two hex digits behind it";
const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_is_one_spelling_of_a_path() {
        for (given, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61/%7e", "/a/~"),
            ("/%2e%2e/a", "!"),
            ("/a/%2E%2e/b", "/b"),
            ("/a%3ab%c3%a4", "/a%3Ab%C3%A4"),
            ("/.hidden", "/.hidden"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/..", "!"),
            ("/a/../../b", "!"),
            ("/a%2fb", "!"),
            ("/a%5Cb", "!"),
            ("/a\\b", "!"),
            ("/a%00", "!"),
            ("/a%0d%0a", "!"),
            ("/a%", "!"),
            ("/a%zz", "!"),
            ("/a%+1", "!"),
            ("/..;/b", "!"),
            ("/a/..;x/b", "!"),
            ("/.;/b", "!"),
            ("/a#b", "!"),
            ("/..%3b/", "!"),
            ("/a[1]/{b}|^", "/a%5B1%5D/%7Bb%7D%7C%5E"),
            ("/%5b%7b", "/%5B%7B"),
            ("/%c0%ae%c0%ae/", "!"),
            ("/%e0%80%af", "!"),
            ("/%f0%80%80%af", "!"),
            ("/%e2%82%ac%c3%80", "/%E2%82%AC%C3%80"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("a", "!"),
            ("/ä", "!"),
        ] {
            let got = canonical_path(given);
            assert_eq!(got.as_deref().unwrap_or("!"), expected, "{given}");
        }
    }

    fn parts(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
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

    proptest! {
        #[test]
        fn a_canonical_path_is_canonical_and_has_no_dots(path in "/[a-c./%;2eE5f\\\\{c0aeB3]{0,24}|\\PC{0,24}") {
            if let Ok(once) = canonical_path(&path) {
                let twice = canonical_path(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                let dotted = once.split('/').any(|s| s == "." || s == "..");
                prop_assert!(!dotted && !once.contains("//") && once.starts_with('/'), "{}", once);
            }
        }
    }
}
