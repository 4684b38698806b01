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
    pub mtls: MtlsMode,
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
