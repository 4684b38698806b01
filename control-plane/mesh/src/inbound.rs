//! What protects one workload.

use crate::http_rules::HttpRules;
use crate::identity::SpiffeId;
use crate::name::{PortNumber, ServiceName};
use crate::policy::{Access, Longest, Protection};
use crate::service::{Between, Protocol};
use crate::token::TokenRules;

/// The rules of a workload's inbound side. Private: it is sent only to the workload it protects.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// The workload.
    pub identity: SpiffeId,
    /// The services it may serve, in order of their names.
    pub services: Vec<InboundService>,
}

impl Inbound {
    /// The rules of one service, if the workload may serve it.
    pub fn service(&self, name: &ServiceName) -> Option<&InboundService> {
        self.services.iter().find(|s| &s.name == name)
    }
}

/// The inbound rules of one service at the workload.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundService {
    /// The service.
    pub name: ServiceName,
    /// Who must prove what to reach it.
    pub mtls: MtlsModes,
    /// The service's ports with what the application speaks there, in the order declared; never empty.
    pub ports: Vec<(PortNumber, Protocol)>,
    /// What callers may ask of HTTP.
    pub http: HttpRules,
    /// What sidecars speak to this one: header case is kept only where this says HTTP/1.1.
    pub between: Between,
    /// What protects the instance.
    pub protection: Protection,
    /// What it wants of its callers' tokens. None: nobody looks at tokens.
    pub tokens: Option<TokenRules>,
    /// How long its callers may take at most.
    pub longest: Longest,
    /// Who may ask what.
    pub access: Access,
}

/// Whether a caller must prove its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// Mutual TLS or nothing. The default.
    #[default]
    Strict,
    /// While migrating: plaintext is accepted too, counted, and unauthenticated in every policy.
    Permissive,
    /// Plaintext only.
    Off,
}

/// The modes of a service: one, and others for some of its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MtlsModes {
    service: MtlsMode,
    /// In order, and different from the service's: what says the same is not there.
    ports: Vec<(PortNumber, MtlsMode)>,
}

impl MtlsModes {
    /// That of the service, and those of ports, which win over it.
    pub fn new(service: MtlsMode, ports: impl IntoIterator<Item = (PortNumber, MtlsMode)>) -> Self {
        let mut ports: Vec<_> = ports.into_iter().filter(|(_, mode)| *mode != service).collect();
        ports.sort_by_key(|(port, _)| *port);
        ports.dedup_by_key(|(port, _)| *port);
        Self { service, ports }
    }

    /// The mode of a port.
    pub fn at(&self, port: PortNumber) -> MtlsMode {
        self.ports.iter().find(|(number, _)| *number == port).map_or(self.service, |(_, mode)| *mode)
    }

    /// The mode of the ports that have none of their own.
    pub fn of_service(&self) -> MtlsMode {
        self.service
    }

    /// The ports with another mode than the service's, in order.
    pub fn ports(&self) -> &[(PortNumber, MtlsMode)] {
        &self.ports
    }

    /// Whether some port has this mode.
    pub fn any(&self, mode: MtlsMode) -> bool {
        self.service == mode || self.ports.iter().any(|(_, other)| *other == mode)
    }
}

impl From<MtlsMode> for MtlsModes {
    fn from(service: MtlsMode) -> Self {
        Self { service, ports: vec![] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_mode_wins_over_its_services_and_what_says_the_same_is_not_kept() {
        let [a, b] = [80, 81].map(|n| PortNumber::new(n).unwrap());
        let modes = MtlsModes::new(MtlsMode::Permissive, [(b, MtlsMode::Permissive), (a, MtlsMode::Strict)]);
        assert_eq!((modes.at(a), modes.at(b)), (MtlsMode::Strict, MtlsMode::Permissive));
        assert_eq!(modes.ports(), [(a, MtlsMode::Strict)]);
        assert!(modes.any(MtlsMode::Strict) && modes.any(MtlsMode::Permissive) && !modes.any(MtlsMode::Off));
    }
}
