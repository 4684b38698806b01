//! Where the endpoints of a service come from, and services outside the mesh.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::inbound::{MtlsMode, MtlsModes};
use crate::name::{Hostname, PortNumber};

/// Where the endpoints of a service come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Location {
    /// They are pushed, one by one.
    #[default]
    Mesh,
    /// Each sidecar looks the names up itself. Such endpoints have no sidecar.
    Dns {
        /// The names and addresses, in the order written; never empty.
        targets: Vec<DnsTarget>,
        /// TLS that the sidecar adds on behalf of the application; `None` for plaintext.
        tls: Option<Origination>,
        /// Whether the service is outside the mesh (egress), as opposed to an unmeshed part of it.
        outside: bool,
    },
}

impl Location {
    /// How many targets may be listed.
    pub const MAX_TARGETS: usize = 64;

    /// Whether the service is outside the mesh.
    pub fn is_outside(&self) -> bool {
        matches!(self, Self::Dns { outside: true, .. })
    }

    pub(crate) fn check(&self, mtls: &MtlsModes) -> Result<(), String> {
        let Self::Dns { targets, .. } = self else { return Ok(()) };
        if targets.is_empty() || targets.len() > Self::MAX_TARGETS {
            return Err(format!("it has {} DNS targets, not 1 to {}", targets.len(), Self::MAX_TARGETS));
        }
        if mtls.any(MtlsMode::Strict) {
            return Err("endpoints found by DNS have no sidecar, so mtls can not be strict".into());
        }
        Ok(())
    }
}

/// One thing to look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnsTarget {
    /// The addresses of a name (A and AAAA), reached at `port`, or at the service's own port where it is `None`.
    Host {
        /// The name, complete.
        name: Hostname,
        /// The port.
        port: Option<PortNumber>,
    },
    /// The hosts, ports and weights of an SRV record (RFC 2782).
    Srv(SrvName),
    /// An address that needs no looking up.
    Address {
        /// The address.
        ip: IpAddr,
        /// The port.
        port: Option<PortNumber>,
    },
}

/// The name of an SRV record: `_service._proto.name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SrvName(Arc<str>);

impl SrvName {
    /// Proves `text` to be such a name. Case is folded.
    pub fn new(text: &str) -> Result<Self, String> {
        let bad = || format!("{:?} is not an SRV name: write it as _service._tcp.name", short(text));
        let folded = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let mut parts = folded.splitn(3, '.');
        for _ in 0..2 {
            let label = parts.next().and_then(|p| p.strip_prefix('_')).ok_or_else(bad)?;
            crate::name::Label::new(label).map_err(|_| bad())?;
        }
        Hostname::new(parts.next().ok_or_else(bad)?).map_err(|_| bad())?;
        if folded.len() > 253 {
            return Err(bad());
        }
        Ok(Self(folded.into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for SrvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SrvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// TLS towards a server outside the mesh: one way, the server being proven by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origination {
    /// The name to ask for (SNI) and to find in the certificate. `None`: the host that was looked up.
    pub server_name: Option<Hostname>,
    /// Who vouches for the server.
    pub roots: OutsideRoots,
}

/// Who vouches for a server outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutsideRoots {
    /// Those that the system trusts.
    #[default]
    System,
    /// These only, DER; never empty.
    Only(Vec<Arc<[u8]>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_srv_name_has_a_service_and_a_protocol() {
        assert_eq!(SrvName::new("_HTTP._tcp.Shop.example.").unwrap().as_str(), "_http._tcp.shop.example");
        for bad in ["", "shop.example", "_http.shop.example", "_http._tcp", "_http._tcp.", "__._tcp.a.b"] {
            assert!(SrvName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_has_no_sidecar_can_not_want_mutual_tls() {
        let target = DnsTarget::Address { ip: [192, 0, 2, 1].into(), port: None };
        let dns = Location::Dns { targets: vec![target], tls: None, outside: true };
        assert!(dns.check(&MtlsMode::Off.into()).is_ok() && dns.check(&MtlsMode::Strict.into()).is_err());
    }
}
