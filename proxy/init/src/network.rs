//! Networks by prefix, of either family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The two families of addresses. Rules are made and kept apart by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A network: every bit after the prefix is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` bits that holds `address`. `None` where the prefix is too long for the family.
    pub fn holding(address: IpAddr, prefix: u8) -> Option<Self> {
        let family = Family::of(address);
        if prefix > family.bits() {
            return None;
        }
        let address = match address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(a.to_bits() & mask).into()
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(a.to_bits() & mask).into()
            }
        };
        Some(Self { address, prefix })
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// Whether every address of the family is in it.
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::holding(address, self.prefix).is_some_and(|n| n == *self)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = String;

    /// Takes `10.0.0.0/8`, `fd00::/8`, and an address for a network of one. Bits after the prefix are a mistake: who
    /// writes 10.1.2.3/8 may mean either.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is not a network"))?;
        let bits = Family::of(address).bits();
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|p| *p <= bits)
                .ok_or_else(|| format!("{text:?} is not a network: the prefix is 0 to {bits}"))?,
            Some(_) => return Err(format!("{text:?} is not a network: the prefix is a number")),
        };
        match Self::holding(address, prefix) {
            Some(network) if network.address == address => Ok(network),
            Some(network) => Err(format!("{text:?} has bits after its prefix: {network} or {address}?")),
            None => Err(format!("{text:?} is not a network")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_they_are_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "fd00::/8", "::/0", "2001:db8::1/128"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<Network>().unwrap().to_string(), "192.0.2.1/32");
    }

    #[test]
    fn what_is_not_a_network_is_told() {
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "a/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let told = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert!(told.contains("10.0.0.0/8 or 10.1.2.3"), "{told}");
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        assert!(network.contains("10.255.0.1".parse().unwrap()));
        assert!(!network.contains("11.0.0.1".parse().unwrap()));
        assert!(!network.contains("::1".parse().unwrap()));
        assert!("::/0".parse::<Network>().unwrap().contains("::1".parse().unwrap()));
    }
}
