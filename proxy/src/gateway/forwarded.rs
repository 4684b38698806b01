//! What a request from outside may not say of itself, and what the gateway says instead.
//!
//! Whoever is outside can write any header. Those by which proxies tell the next one where a request came from are
//! believed only from proxies that the operator named; the mesh's own are believed from nobody.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use outrigger_mesh::IpRange;

use crate::http::headers;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Where a request came from, as the connection shows it.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The port of the gateway.
    pub port: u16,
}

/// Takes out what only the mesh may say, and writes where the request came from. What a trusted proxy wrote stays, with
/// that proxy added to the end of `x-forwarded-for`; what anybody else wrote goes. `host` is what the client named.
pub fn rewrite(headers: &mut HeaderMap, from: From, host: &str, trusted: &[IpRange]) {
    headers::remove_ours(headers);
    // Nobody's spelling with underscores passes: some servers read it as the same name.
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_') && is_alias(name.as_str()))
        .cloned()
        .collect();
    for name in aliases {
        headers.remove(name);
    }
    let peer = from.peer.to_canonical();
    let believed = trusted.iter().any(|range| range.contains(peer));
    if !believed {
        for name in [FOR, PROTO, HOST, PORT, REAL_IP, PREFIX, header::FORWARDED] {
            headers.remove(name);
        }
    }
    append(headers, peer);
    // A trusted proxy knows better than we what the client spoke.
    let scheme = if from.tls { "https" } else { "http" };
    headers.entry(PROTO).or_insert(HeaderValue::from_static(scheme));
    headers.entry(PORT).or_insert(HeaderValue::from(from.port));
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.entry(HOST).or_insert(host);
    }
}

/// All values become one list, so that nobody reads the first of several.
fn append(headers: &mut HeaderMap, peer: IpAddr) {
    let mut all: Vec<&[u8]> = headers.get_all(FOR).iter().map(HeaderValue::as_bytes).collect();
    let last = peer.to_string();
    all.push(last.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
        headers.insert(FOR, list);
    }
}

fn is_alias(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    dashed.starts_with("x-forwarded-") || matches!(dashed.as_str(), "x-real-ip" | "x-outrigger")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    const OUTSIDE: From =
        From { peer: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), tls: true, port: 443 };

    #[test]
    fn what_a_stranger_says_of_where_it_comes_from_is_not_passed_on() {
        let mut headers = map(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "gopher"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-real-ip", "10.0.0.4"),
            ("forwarded", "for=10.0.0.5"),
            ("x-outrigger-deadline-ms", "1"),
            ("x-forwarded-client-cert", "URI=spiffe://mesh.local/ns/a/sa/b"),
            ("x-forwarded-prefix", "/admin"),
        ]);
        rewrite(&mut headers, OUTSIDE, "shop.example", &[]);
        let mut left: Vec<_> = headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "x-forwarded-for=203.0.113.9",
                "x-forwarded-host=shop.example",
                "x-forwarded-port=443",
                "x-forwarded-proto=https"
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added() {
        let mut headers = map(&[
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "198.51.100.8"),
            ("x-forwarded-proto", "http"),
            ("x-outrigger-reason", "forged"),
        ]);
        rewrite(&mut headers, OUTSIDE, "shop.example", &["203.0.113.0/24".parse().unwrap()]);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.7, 198.51.100.8, 203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert!(!headers.contains_key("x-outrigger-reason"));
    }
}
