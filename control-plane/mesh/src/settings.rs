//! What holds for the mesh as a whole and every sidecar has to know.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::identity::TrustDomain;
use crate::name::{Hostname, InvalidName};

/// The settings of the mesh. One per trust domain; every sidecar subscribes to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeshSettings {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The addresses that belong to the mesh: virtual ones and, where it is known, those of its instances. One of
    /// them that can not be looked up is refused, never passed through.
    pub ranges: Vec<IpRange>,
    /// The endings of the mesh's own names, such as `mesh`. A name below one of them is never looked up outside.
    pub suffixes: Vec<Hostname>,
    /// What becomes of calls to places outside the mesh.
    pub outbound_mode: OutboundMode,
}

impl MeshSettings {
    /// The range of virtual addresses of IPv4, `240.0.0.0/16`: reserved, so that it meets nobody's network.
    pub const VIRTUAL_V4: IpRange = IpRange { address: IpAddr::V4(Ipv4Addr::new(240, 0, 0, 0)), prefix: 16 };
    /// The range of virtual addresses of IPv6, `fd6f:7574:7269::/112` (RFC 4193): one for each of IPv4.
    pub const VIRTUAL_V6: IpRange =
        IpRange { address: IpAddr::V6(Ipv6Addr::new(0xfd6f, 0x7574, 0x7269, 0, 0, 0, 0, 0)), prefix: 112 };

    /// What holds unless somebody says otherwise.
    pub fn new(trust_domain: TrustDomain) -> Self {
        let suffixes = ["mesh", "svc.cluster.local"];
        Self {
            trust_domain,
            ranges: vec![Self::VIRTUAL_V4, Self::VIRTUAL_V6],
            suffixes: suffixes.iter().filter_map(|s| Hostname::new(s).ok()).collect(),
            outbound_mode: OutboundMode::default(),
        }
    }

    /// Whether an address belongs to the mesh.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ranges.iter().any(|r| r.contains(address))
    }

    /// Whether a name belongs to the mesh.
    pub fn owns(&self, name: &Hostname) -> bool {
        let below = |suffix: &Hostname| {
            name.as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.suffixes.iter().any(below)
    }
}

/// What becomes of calls to places outside the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutboundMode {
    /// They pass as they are. The default: a mesh that is put in does not break what worked.
    #[default]
    AllowAny,
    /// Only what is registered is reached, the rest is refused.
    RegistryOnly,
}

/// A range of addresses: `240.0.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpRange {
    address: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// The range of `prefix` bits. The bits behind them must be 0, else the text says more than it means.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, InvalidName> {
        let bad = |rule| Err(InvalidName::new("a range of addresses", &format!("{address}/{prefix}"), rule));
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return bad("the prefix is at most 32 for IPv4 and 128 for IPv6");
        }
        let range = Self { address, prefix };
        if number(address) & !range.mask() != 0 {
            return bad("the bits behind the prefix must be 0");
        }
        Ok(range)
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The bits that its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && number(address) & self.mask() == number(self.address)
    }

    fn mask(self) -> u128 {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        let all = u128::MAX >> (128 - bits);
        let behind = u32::from(bits - u8::min(self.prefix, bits));
        all & u128::MAX.checked_shl(behind).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl FromStr for IpRange {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bad = || InvalidName::new("a range of addresses", text, "write it as 10.0.0.0/8 or fd00::/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let digits = |p: &str| p.bytes().all(|b| b.is_ascii_digit()).then(|| p.parse().ok()).flatten();
        let prefix = prefix.map_or(Some(whole), digits).ok_or_else(bad)?;
        Self::new(address, prefix)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_shares_its_prefix() {
        for (range, inside, outside) in [
            ("240.0.0.0/16", "240.0.255.1", "240.1.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::/0", "ffff::", "1.2.3.4"),
        ] {
            let range: IpRange = range.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{range} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{range} {outside}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "fd00::/129", "10.0.0.0/", "10.0.0.0/+8", "x/8"] {
            assert!(bad.parse::<IpRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_virtual_ranges_are_sound_and_of_one_size() {
        for range in [MeshSettings::VIRTUAL_V4, MeshSettings::VIRTUAL_V6] {
            assert_eq!(IpRange::new(range.address(), range.prefix()), Ok(range));
        }
        let settings = MeshSettings::new(TrustDomain::new("mesh.local").unwrap());
        assert!(settings.contains("240.0.1.1".parse().unwrap()));
        assert!(settings.contains("::ffff:240.0.1.1".parse().unwrap()));
        assert!(settings.owns(&Hostname::new("cart.shop.mesh").unwrap()));
        assert!(!settings.owns(&Hostname::new("cart.shopmesh").unwrap()));
    }
}
