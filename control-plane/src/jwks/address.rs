//! Which addresses may be asked for keys: a URL that somebody writes must not become a way to places that only the control
//! plane can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why `ip` may not be asked, if so. `allow_private` opens private networks and loopback; what is never the place of an
/// issuer, above all the metadata service of a cloud, it does not.
pub(super) fn refused(ip: IpAddr, allow_private: bool) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => refused_v4(v4, allow_private),
        IpAddr::V6(v6) => {
            embedded(v6).map_or_else(|| refused_v6(v6, allow_private), |v4| refused_v4(v4, allow_private))
        }
    }
}

fn refused_v4(ip: Ipv4Addr, allow_private: bool) -> Option<&'static str> {
    let [a, b, ..] = ip.octets();
    if is_metadata(ip) {
        return Some("link-local and metadata addresses are never asked");
    }
    if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || a == 0 || a >= 224 {
        return Some("it is the address of no server");
    }
    // Shared (RFC 6598), benchmarking (RFC 2544), protocol assignments (RFC 6890).
    let shared = (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18)
        || (a == 192 && b == 0 && ip.octets()[2] == 0);
    let private = ip.is_private() || ip.is_loopback() || shared;
    (private && !allow_private).then_some("it is a private address, and allowPrivate is not set")
}

fn is_metadata(ip: Ipv4Addr) -> bool {
    ip.is_link_local() || METADATA_V4.contains(&ip)
}

fn refused_v6(ip: Ipv6Addr, allow_private: bool) -> Option<&'static str> {
    if ip.is_unicast_link_local() || METADATA_V6.contains(&ip) {
        return Some("link-local and metadata addresses are never asked");
    }
    // Teredo, whose addresses lead through somebody else's relay to one of IPv4.
    let teredo = matches!(ip.segments(), [0x2001, 0, ..]);
    if ip.is_unspecified() || ip.is_multicast() || teredo {
        return Some("it is the address of no server");
    }
    // Translated within a site (RFC 8215): to what, only the site knows.
    let translated = matches!(ip.segments(), [0x64, 0xff9b, 1, ..]);
    let private =
        ip.is_loopback() || ip.is_unique_local() || ip.segments()[0] & 0xffc0 == 0xfec0 || translated;
    (private && !allow_private).then_some("it is a private address, and allowPrivate is not set")
}

/// The address of IPv4 that one of IPv6 leads to: NAT64 (RFC 6052, and RFC 8215 as it is mostly used), 6to4, and the old
/// compatible form.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(v4(high, low)),
        // A public address would still be one of the site's choice; see below.
        [0x64, 0xff9b, 1, .., high, low] if is_metadata(v4(high, low)) => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
    }
}

/// Beside 169.254.169.254, which is link-local.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_addresses_are_refused_in_every_spelling() {
        for (ip, open, with_private) in [
            ("93.184.216.34", true, true),
            ("2606:2800::1", true, true),
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("10.0.0.1", false, true),
            ("192.168.1.1", false, true),
            ("172.16.0.1", false, true),
            ("100.64.0.1", false, true),
            ("fd12::1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("64:ff9b::10.0.0.1", false, true),
            ("2002:0a00:0001::1", false, true),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("fe80::1", false, false),
            ("fd00:ec2::254", false, false),
            ("fd20:ce::254", false, false),
            ("fd00:c1::a9fe:a9fe", false, false),
            ("192.0.0.192", false, false),
            ("64:ff9b:1::a9fe:a9fe", false, false),
            ("64:ff9b:1::10.0.0.1", false, true),
            ("2001:0:0a00:1::1", false, false),
            ("100.100.100.200", false, false),
            ("168.63.129.16", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(refused(ip, false).is_none(), open, "{ip}");
            assert_eq!(refused(ip, true).is_none(), with_private, "{ip} with allowPrivate");
        }
    }
}
