//! SPIFFE identities of workloads.
//!
//! The rules are those of the SPIFFE-ID standard, narrowed to the one path form the mesh issues:
//! `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. Identities are compared as parsed values; there is
//! no prefix or pattern over their text anywhere.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{InvalidName, Label};

/// A SPIFFE trust domain: 1 to 255 of `a-z`, `0-9`, `-`, `_` and `.` (SPIFFE-ID, section 2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Proves `text` to be a trust domain.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let bad = |rule| Err(InvalidName::new("a trust domain", text, rule));
        if text.is_empty() || text.len() > 255 {
            return bad("it must have 1 to 255 characters");
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !text.bytes().all(allowed) {
            return bad("only a-z, 0-9, '-', '_' and '.' are allowed");
        }
        Ok(Self(text.into()))
    }

    /// The trust domain's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The identity of a workload: a service account of a namespace in a trust domain.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Label,
    service_account: Label,
}

impl SpiffeId {
    /// The identity of `service_account` in `namespace`.
    pub fn new(trust_domain: TrustDomain, namespace: Label, service_account: Label) -> Self {
        Self { trust_domain, namespace, service_account }
    }

    /// The trust domain that vouches for the identity.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace of the service account.
    pub fn namespace(&self) -> &Label {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &Label {
        &self.service_account
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidName;

    /// Parses the one canonical spelling. Percent-encoding, a query, a fragment, a port, user information, empty or
    /// additional path segments and upper case are all refused, so that one identity has one text.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const FORM: &str = "write it as spiffe://<trust domain>/ns/<namespace>/sa/<service account>";
        let bad = || InvalidName::new("a workload identity", text, FORM);
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut segments = rest.split('/');
        let mut next = || segments.next().ok_or_else(bad);
        let trust_domain = TrustDomain::new(next()?)?;
        if next()? != "ns" {
            return Err(bad());
        }
        let namespace = Label::new(next()?)?;
        if next()? != "sa" {
            return Err(bad());
        }
        let service_account = Label::new(next()?)?;
        if segments.next().is_some() {
            return Err(bad());
        }
        Ok(Self { trust_domain, namespace, service_account })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_identity() {
        let good = "spiffe://mesh.local/ns/shop/sa/cart";
        assert_eq!(good.parse::<SpiffeId>().unwrap().to_string(), good);
        for bad in [
            "",
            "spiffe://",
            "SPIFFE://mesh.local/ns/shop/sa/cart",
            "https://mesh.local/ns/shop/sa/cart",
            "spiffe://mesh.local/ns/shop/sa/cart/",
            "spiffe://mesh.local/ns/shop/sa/cart/x",
            "spiffe://mesh.local//ns/shop/sa/cart",
            "spiffe://mesh.local/ns/shop/sa/",
            "spiffe://mesh.local/ns/shop/sa/ca%72t",
            "spiffe://mesh.local/ns/shop/sa/cart?x=1",
            "spiffe://mesh.local/ns/shop/sa/cart#x",
            "spiffe://mesh.local:443/ns/shop/sa/cart",
            "spiffe://user@mesh.local/ns/shop/sa/cart",
            "spiffe://Mesh.local/ns/shop/sa/cart",
            "spiffe://mesh.local/ns/../sa/cart",
            "spiffe://mesh.local/ns/shop/sa/cart\0",
            " spiffe://mesh.local/ns/shop/sa/cart",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_as_it_was(text in "\\PC{0,80}|spiffe://[a-z.]{1,9}/ns/[a-z0-9-]{1,9}/sa/[a-z0-9-]{1,9}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
