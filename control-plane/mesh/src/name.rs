//! Names of services, versions and hosts, valid by construction.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

/// A name that breaks the rules of its kind. The text says which rule and what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {what}: {rule}")]
pub struct InvalidName {
    what: &'static str,
    given: String,
    rule: &'static str,
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        // An attacker may send a long name: an error text stays short.
        let given = given.chars().take(80).collect();
        Self { what, given, rule }
    }
}

/// A DNS label (RFC 1123, section 2.1): 1 to 63 of `a-z`, `0-9` and `-`, no `-` at either end.
///
/// Names of services, namespaces and service accounts are labels.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// Proves `text` to be a label.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        check_label(text).map_err(|rule| InvalidName::new("a name", text, rule))?;
        Ok(Self(text.into()))
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("only a-z, 0-9 and '-' are allowed");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("it must not begin or end with '-'");
    }
    Ok(())
}

/// The full name of a service: namespace and name. Written `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    namespace: Label,
    name: Label,
}

impl ServiceName {
    /// The service `name` of `namespace`.
    pub fn new(namespace: Label, name: Label) -> Self {
        Self { namespace, name }
    }

    /// The namespace that owns the service.
    pub fn namespace(&self) -> &Label {
        &self.namespace
    }

    /// The service's own name.
    pub fn name(&self) -> &Label {
        &self.name
    }
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| InvalidName::new("a service", text, "write it as namespace/name"))?;
        Ok(Self::new(Label::new(namespace)?, Label::new(name)?))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A version label of endpoints, which names a subset: 1 to 63 of letters, digits, `-`, `_` and `.`, beginning and
/// ending with a letter or digit (the rule of Kubernetes label values, without the empty one).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(Arc<str>);

impl Version {
    /// Proves `text` to be a version.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let bad = |rule| Err(InvalidName::new("a version", text, rule));
        if text.is_empty() || text.len() > 63 {
            return bad("it must have 1 to 63 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return bad("only letters, digits, '-', '_' and '.' are allowed");
        }
        let ends = [text.as_bytes()[0], text.as_bytes()[text.len() - 1]];
        if !ends.iter().all(u8::is_ascii_alphanumeric) {
            return bad("it must begin and end with a letter or digit");
        }
        Ok(Self(text.into()))
    }

    /// The version's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A host name by which applications call a service: DNS labels joined by dots, at most 253 characters, lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Proves `text` to be a host name. Upper case is folded (RFC 4343) and one trailing dot is dropped.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let bad = |rule| InvalidName::new("a host name", text, rule);
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        if trimmed.is_empty() || trimmed.len() > 253 {
            return Err(bad("it must have 1 to 253 characters"));
        }
        let folded = trimmed.to_ascii_lowercase();
        for label in folded.split('.') {
            check_label(label).map_err(bad)?;
        }
        if folded.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(bad("the last label must not be a number, else it reads as an address"));
        }
        Ok(Self(folded.into()))
    }

    /// The name completed for a caller of `namespace`: a name of one label gets the namespace appended, so that a
    /// lookup does not depend on who asks.
    #[must_use]
    pub fn complete(&self, namespace: &Label) -> Self {
        if self.0.contains('.') { self.clone() } else { Self(format!("{}.{namespace}", self.0).into()) }
    }

    /// The name by which the service at a virtual address is looked up: the address in reverse, as DNS writes it
    /// (RFC 1035, section 3.5; RFC 3596, section 2.5). Addresses and host names are thus looked up in one way.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        let mut text = String::with_capacity(80);
        match address {
            IpAddr::V4(v4) => {
                for octet in v4.octets().iter().rev() {
                    let _never = write!(text, "{octet}.");
                }
                text.push_str("in-addr.arpa");
            }
            IpAddr::V6(v6) => {
                for octet in v6.octets().iter().rev() {
                    let _never = write!(text, "{:x}.{:x}.", octet & 15, octet >> 4);
                }
                text.push_str("ip6.arpa");
            }
        }
        Self(text.into())
    }

    /// The name by which the service is looked up of which one instance has this address, its application listening
    /// at this port.
    #[must_use]
    pub fn of_socket(address: SocketAddr) -> Self {
        // Canonical: an address of IPv4 in the clothes of IPv6 is the same place.
        Self(format!("p{}.{}", address.port(), Self::of_address(address.ip().to_canonical())).into())
    }

    /// What [`Hostname::of_socket`] was made of, where it was.
    pub fn socket(&self) -> Option<SocketAddr> {
        let (port, reversed) = self.0.strip_prefix('p')?.split_once('.')?;
        let port = port.parse().ok()?;
        let ip: IpAddr = if let Some(octets) = reversed.strip_suffix(".in-addr.arpa") {
            let mut ip = [0u8; 4];
            let mut parts = octets.split('.');
            for octet in ip.iter_mut().rev() {
                *octet = parts.next()?.parse().ok()?;
            }
            parts.next().is_none().then_some(ip.into())?
        } else {
            let mut ip = [0u8; 16];
            let mut digits = reversed.strip_suffix(".ip6.arpa")?.split('.');
            for octet in ip.iter_mut().rev() {
                let mut digit = || u8::from_str_radix(digits.next()?, 16).ok().filter(|d| *d < 16);
                *octet = digit()? | (digit()? << 4);
            }
            digits.next().is_none().then_some(ip.into())?
        };
        let socket = SocketAddr::new(ip, port);
        // There is one spelling of each.
        (Self::of_socket(socket) == *self).then_some(socket)
    }

    /// The host name's text, in lower case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a request names in Host or `:authority`: a host name and, where it was written, a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// The name, as the caller wrote it, folded.
    pub name: Hostname,
    /// The port, where the caller wrote one.
    pub port: Option<PortNumber>,
}

impl FromStr for Host {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.rsplit_once(':') {
            None => Ok(Self { name: Hostname::new(text)?, port: None }),
            Some((name, port)) => {
                let port = port
                    .bytes()
                    .all(|b| b.is_ascii_digit())
                    .then(|| port.parse().ok().and_then(PortNumber::new))
                    .flatten()
                    .ok_or_else(|| InvalidName::new("a host", text, "its port must be 1 to 65535"))?;
                Ok(Self { name: Hostname::new(name)?, port: Some(port) })
            }
        }
    }
}

/// A TCP port, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortNumber(NonZeroU16);

impl PortNumber {
    /// The port of plain HTTP, which a service has that declares none.
    pub const HTTP: Self = match NonZeroU16::new(80) {
        Some(n) => Self(n),
        None => unreachable!(),
    };

    /// `None` for 0, which asks the system for a port and names none.
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

macro_rules! text_traits {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }
    )*};
}
text_traits!(Label, Version, Hostname);

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "cart", "a-b", "0", &"x".repeat(63)] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a/b", &"x".repeat(64)] {
            assert!(Label::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_fold_case_and_lose_a_trailing_dot() {
        assert_eq!(Hostname::new("Cart.Shop.Mesh.").unwrap().as_str(), "cart.shop.mesh");
        for bad in ["", ".", "a..b", "127.0.0.1", "a b", "a\0", "[::1]"] {
            assert!(Hostname::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_looked_up_by_its_reverse_name() {
        let name = |text: &str| Hostname::of_address(text.parse().unwrap());
        assert_eq!(name("240.0.1.2").as_str(), "2.1.0.240.in-addr.arpa");
        assert!(name("fd00::1").as_str().starts_with("1.0.0.0.0."));
        assert!(name("fd00::1").as_str().ends_with(".0.0.d.f.ip6.arpa"));
        for text in ["240.0.1.2", "fd00::1"] {
            assert_eq!(Hostname::new(name(text).as_str()).unwrap(), name(text), "a host name like any other");
        }
        let socket = Hostname::of_socket("10.0.0.7:8080".parse().unwrap());
        assert_eq!(socket.as_str(), "p8080.7.0.0.10.in-addr.arpa");
        assert_eq!(socket, Hostname::of_socket("[::ffff:10.0.0.7]:8080".parse().unwrap()));
        for text in ["10.0.0.7:8080", "[fd00::1:2]:1"] {
            let socket: SocketAddr = text.parse().unwrap();
            assert_eq!(Hostname::of_socket(socket).socket(), Some(socket));
        }
        for other in ["cart.shop", "p80.7.0.0.in-addr.arpa", "p080.7.0.0.10.in-addr.arpa", "p80.1.2.ip6.arpa"]
        {
            assert_eq!(Hostname::new(other).unwrap().socket(), None, "{other}");
        }
    }

    #[test]
    fn a_short_name_is_completed_and_a_long_one_is_not() {
        let shop = Label::new("shop").unwrap();
        assert_eq!(Hostname::new("cart").unwrap().complete(&shop).as_str(), "cart.shop");
        assert_eq!(Hostname::new("cart.other").unwrap().complete(&shop).as_str(), "cart.other");
    }

    #[test]
    fn a_host_may_name_a_port() {
        let host: Host = "cart:8080".parse().unwrap();
        assert_eq!((host.name.as_str(), host.port.map(PortNumber::get)), ("cart", Some(8080)));
        for bad in ["cart:", "cart:0", "cart:+1", "cart:65536", "cart:1:2", ":80"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_text_stays_short() {
        let text = Label::new(&"X".repeat(100_000)).unwrap_err().to_string();
        assert!(text.len() < 200, "{}", text.len());
    }

    proptest! {
        #[test]
        fn the_name_of_an_instance_says_its_address(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), port in any::<u16>()) {
            for ip in [IpAddr::from(v4), IpAddr::from(v6).to_canonical()] {
                let at = SocketAddr::new(ip, port);
                prop_assert_eq!(Hostname::of_socket(at).socket(), Some(at));
                prop_assert_eq!(Hostname::of_address(ip).socket(), None);
            }
        }

        #[test]
        fn no_other_name_is_that_of_an_instance(name in "p?[0-9]{0,3}(\\.[0-9a-f]{1,2}){0,6}(\\.in-addr|\\.ip6)?(\\.arpa)?") {
            if let Ok(host) = Hostname::new(&name) && let Some(at) = host.socket() {
                prop_assert_eq!(Hostname::of_socket(at), host);
            }
        }
    }
}
