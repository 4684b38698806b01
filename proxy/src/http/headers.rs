//! The mesh's own headers, and what is taken out of a message at each hop.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Why a proxy refused.
pub const REASON: HeaderName = HeaderName::from_static("x-outrigger-reason");
/// Which proxy of the request's way refused.
pub const HOP: HeaderName = HeaderName::from_static("x-outrigger-hop");
/// Present where the application certainly never saw the request.
pub const UNPROCESSED: HeaderName = HeaderName::from_static("x-outrigger-unprocessed");
/// Which bulkhead was full.
pub const BULKHEAD: HeaderName = HeaderName::from_static("x-outrigger-bulkhead");
/// The number of the attempt, from 1. Whoever receives a higher one does not retry again.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-outrigger-attempt");
/// What is left of the caller's deadline, in milliseconds.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-outrigger-deadline-ms");
/// Between sidecars: the method of the request that an extended CONNECT stands for, where it is not GET.
pub const METHOD: HeaderName = HeaderName::from_static("x-outrigger-method");
/// Between sidecars: the status of an answer to an extended CONNECT that is a success and yet no switch.
pub const STATUS: HeaderName = HeaderName::from_static("x-outrigger-status");
/// Between sidecars: present where a request belongs to no trace, and none that is kept is to begin with it.
pub const UNTRACED: HeaderName = HeaderName::from_static("x-outrigger-untraced");
/// Present in the copy of a request, whose answer nobody waits for.
pub const MIRROR: HeaderName = HeaderName::from_static("x-outrigger-mirror");
/// By which a caller says that doing a request twice is the same as once.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// A gRPC caller's own deadline.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Who called, for the application: set by the server's proxy.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

const OURS: &str = "x-outrigger-";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// It belongs to an upgrade to h2c, which is never made.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes the headers that are for one connection only (RFC 9110, section 7.6.1): the fixed ones and those that
/// Connection names. `te: trailers` stays, since gRPC asks for it. Framing is written anew by whoever sends the message.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Looking at each name once costs less than asking for each of ours, which most messages do not have.
    let mut found = ThisHop::default();
    for (name, value) in &*headers {
        found.see(name, value);
    }
    if found.connection {
        remove_named_by_connection(headers);
    }
    if found.others {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, header::TRANSFER_ENCODING, header::UPGRADE]
        {
            headers.remove(name);
        }
    }
    if found.zeros {
        write_length(headers);
    }
    if found.te {
        write_te(headers);
    }
}

/// What of a message's headers is for this hop.
#[derive(Default)]
struct ThisHop {
    connection: bool,
    te: bool,
    /// A length with zeros before it.
    zeros: bool,
    others: bool,
}

impl ThisHop {
    fn see(&mut self, name: &HeaderName, value: &HeaderValue) {
        match name.as_str() {
            "connection" => self.connection = true,
            "te" => self.te = true,
            "content-length" => self.zeros |= has_zeros_before_it(value),
            "keep-alive" | "proxy-connection" | "http2-settings" | "transfer-encoding" | "upgrade" => {
                self.others = true;
            }
            _ => {}
        }
    }
}

/// Leaves of TE what says that trailers are welcome, which gRPC asks for.
fn write_te(headers: &mut HeaderMap) {
    let Some(te) = headers.get(header::TE) else { return };
    let trailers = te.as_bytes().eq_ignore_ascii_case(b"trailers");
    if !trailers || headers.get_all(header::TE).iter().count() > 1 {
        let asked = headers.get_all(header::TE).iter().any(|v| {
            v.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")))
        });
        headers.remove(header::TE);
        if asked {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

fn has_zeros_before_it(length: &HeaderValue) -> bool {
    matches!(length.as_bytes(), [b'0', _, ..])
}

/// Writes a length as we write numbers: it was read as one already, but perhaps with zeros before it.
fn write_length(headers: &mut HeaderMap) {
    let length = headers.get(header::CONTENT_LENGTH).filter(|v| has_zeros_before_it(v));
    let length = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    // What nearly all that have one say, without the work of reading it as a list.
    if headers.get_all(header::CONNECTION).iter().all(|v| v == "keep-alive") {
        headers.remove(header::CONNECTION);
        headers.remove(KEEP_ALIVE);
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // What carries meaning for the whole way can not be taken out by naming it.
        .filter(|name: &HeaderName| {
            *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::TE
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
}

/// Removes from an answer of another sidecar what was meant for this one.
pub fn remove_meant_for_us(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with(OURS)) {
        headers.remove(UNPROCESSED);
        headers.remove(ATTEMPT);
    }
}

/// Removes every header that only the mesh may set, in a message from outside or from an application. Spellings with
/// underscores go too: some servers read `x_outrigger_reason` as the same name.
pub fn remove_ours(headers: &mut HeaderMap) {
    // Nearly no message has one; looking costs a comparison a header.
    while let Some(name) = headers.keys().find(|name| is_ours(name.as_str())).cloned() {
        headers.remove(name);
    }
}

fn is_ours(name: &str) -> bool {
    let alike = |wanted: &str| {
        name.len() >= wanted.len()
            && name.bytes().zip(wanted.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    matches!(name.as_bytes(), [b'x', b'-' | b'_', ..])
        && (alike(OURS) || (name.len() == CLIENT_CERT.as_str().len() && alike(CLIENT_CERT.as_str())))
}

/// Removes from a trailer section what means nothing there or more than it may (RFC 9110, section 6.5.1): framing, routing,
/// credentials, what says how to read a body that is over, and what only the mesh may set.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    for name in NEVER_LATE {
        trailers.remove(name);
    }
    remove_ours(trailers);
}

/// HTTP/2 may send a cookie in several headers; HTTP/1.1 wants one (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().count() < 2 {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).filter(|c| !c.is_empty()).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Whether a message is gRPC, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| {
        v.as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
    })
}

const NEVER_LATE: [HeaderName; 22] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VARY,
    header::WWW_AUTHENTICATE,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_for_one_connection_ends_there() {
        let mut headers = map(&[
            ("connection", "close, X-Mine, host"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("host", "cart"),
            ("x-kept", "1"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["host", "te", "x-kept"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn what_connection_names_goes_even_where_it_is_named_like_an_option() {
        for option in ["close", "keep-alive", "Keep-Alive, close", "x-mine"] {
            let mut headers = map(&[("connection", option), ("host", "cart")]);
            for name in option.split(", ") {
                headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
            }
            remove_hop_by_hop(&mut headers);
            assert_eq!(names(&headers), ["host"], "{option}");
        }
    }

    #[test]
    fn nobody_outside_speaks_for_the_mesh() {
        let mut headers = map(&[
            ("x-outrigger-reason", "1"),
            ("x-outrigger-new", "1"),
            ("x_outrigger_attempt", "1"),
            ("x-forwarded-client-cert", "1"),
            ("x_forwarded-client_cert", "1"),
            ("x-forwarded-for", "1"),
            ("x-outrigger", "1"),
            ("xx-outrigger-a", "1"),
        ]);
        remove_ours(&mut headers);
        assert_eq!(names(&headers), ["x-forwarded-for", "x-outrigger", "xx-outrigger-a"]);
    }

    #[test]
    fn a_trailer_can_neither_route_nor_authenticate() {
        let mut trailers =
            map(&[("grpc-status", "0"), ("authorization", "x"), ("host", "x"), ("x-outrigger-reason", "x")]);
        clean_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status"]);
    }

    #[test]
    fn cookie_crumbs_become_one_cookie() {
        let mut headers = map(&[("cookie", "a=1"), ("x", "y")]);
        headers.append("cookie", "".parse().unwrap());
        headers.append("cookie", "b=2".parse().unwrap());
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpcx", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_grpc(&map(&[("content-type", value)])), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn from_hop_to_hop_nothing_appears_and_nothing_of_a_connection_or_of_ours_stays(
            given in proptest::collection::vec(
                ("connection|keep-alive|upgrade|te|transfer-encoding|proxy-connection|http2-settings|cookie|host\
                  |x-[a-c]|x[-_]outrigger[-_][a-c]|x[-_]forwarded[-_]client[-_]cert",
                 "(x-[a-c]|te|host|close|trailers|a=1|b)(, ?(x-[a-c]|cookie|upgrade))?"),
                0..12,
            ),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &given {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let before = headers.clone();
            let named = before.get_all("connection").iter().flat_map(|v| v.to_str().unwrap().split(','));
            let named: Vec<&str> = named.map(str::trim).filter(|n| !["host", "te"].contains(n)).collect();
            remove_hop_by_hop(&mut headers);
            remove_ours(&mut headers);
            join_cookies(&mut headers);
            let hop = ["connection", "keep-alive", "upgrade", "transfer-encoding", "proxy-connection", "http2-settings"];
            for (name, value) in &headers {
                let name = name.as_str();
                prop_assert!(!hop.contains(&name) && !named.contains(&name), "{name}");
                let plain = name.replace('_', "-");
                prop_assert!(!plain.starts_with(OURS) && plain != CLIENT_CERT.as_str(), "{name}");
                prop_assert!(name != "te" || value == "trailers");
                prop_assert!(name == "te" || name == "cookie" || before.get_all(name).iter().any(|v| v == value));
                prop_assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
            }
            prop_assert!(headers.get_all("cookie").iter().count() <= 1);
            let once = headers.clone();
            remove_hop_by_hop(&mut headers);
            remove_ours(&mut headers);
            prop_assert_eq!(once, headers, "the next hop finds nothing more to remove");
        }
    }
}
