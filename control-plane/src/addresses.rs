//! Virtual addresses: every service has one of IPv4 and its twin of IPv6, for applications that know no Host.
//!
//! An address is found by hashing the service's name, and by probing on where another has it already; once found it is
//! kept with the service in the store, so that it stays whatever else comes and goes
//! (docs/decisions/0008-virtual-addresses.md).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outrigger_mesh::{MeshSettings, ServiceName};
use sha2::{Digest, Sha256};

/// Which of the virtual addresses a service has. The first and the last are nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualAddress(u16);

impl VirtualAddress {
    /// How many there are.
    pub const COUNT: usize = 65_534;

    /// The one that `ip` is, if it is one.
    pub fn of(ip: Ipv4Addr) -> Option<Self> {
        let inside = MeshSettings::VIRTUAL_V4.contains(ip.into());
        let [_, _, high, low] = ip.octets();
        let index = u16::from_be_bytes([high, low]);
        (inside && index != 0 && index != u16::MAX).then_some(Self(index))
    }

    /// As an address of IPv4.
    pub fn v4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(240, 0, high, low)
    }

    /// As an address of IPv6.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd6f, 0x7574, 0x7269, 0, 0, 0, 0, self.0)
    }

    /// Both.
    pub fn both(self) -> Vec<IpAddr> {
        vec![self.v4().into(), self.v6().into()]
    }

    /// The first that `is_free`, looking from where the name of `service` points. `None` when all are taken.
    pub fn find(service: &ServiceName, is_free: impl Fn(Self) -> bool) -> Option<Self> {
        let hash = Sha256::digest(service.to_string().as_bytes());
        let start = usize::from(u16::from_be_bytes([hash[0], hash[1]]));
        let at = |i: usize| u16::try_from((start + i) % Self::COUNT + 1).ok().map(Self);
        (0..Self::COUNT).filter_map(at).find(|address| is_free(*address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_and_its_twin_is_in_the_other_range() {
        for index in [1, 255, 256, 65_534] {
            let address = VirtualAddress(index);
            assert_eq!(VirtualAddress::of(address.v4()), Some(address));
            assert!(MeshSettings::VIRTUAL_V6.contains(address.v6().into()));
        }
        for nobodys in ["240.0.0.0", "240.0.255.255", "240.1.0.1", "10.0.0.1"] {
            assert_eq!(VirtualAddress::of(nobodys.parse().unwrap()), None, "{nobodys}");
        }
    }

    #[test]
    fn all_addresses_are_found_before_there_is_none() {
        let name: ServiceName = "shop/cart".parse().unwrap();
        let first = VirtualAddress::find(&name, |_| true).unwrap();
        assert_eq!(VirtualAddress::find(&name, |_| true), Some(first), "the same name, the same place");
        assert_ne!(VirtualAddress::find(&name, |a| a != first), Some(first));
        for last in [1, 65_534] {
            assert_eq!(VirtualAddress::find(&name, |a| a.0 == last), Some(VirtualAddress(last)));
        }
        assert_eq!(VirtualAddress::find(&name, |_| false), None);
    }
}
