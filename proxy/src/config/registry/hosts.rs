//! The names by which services are found: which lead somewhere, which are asked for, and that there are not too many.

use outrigger_mesh::{Hostname, ServiceName};

use super::{ServiceEntry, State, Want};
use crate::live::Millis;

#[derive(Debug)]
pub(super) enum HostEntry {
    /// Asked for, not answered yet.
    Asked,
    /// Leads to a service.
    Service { service: ServiceName, asked: bool },
    /// Nobody, as of this moment.
    Unknown(Millis),
}

/// The service one of whose instances `host` means. Only where everything is known: else the control plane is asked.
pub(super) fn service_of_instance(state: &State, host: &Hostname) -> Option<ServiceName> {
    let at = host.socket()?;
    let has = |entry: &ServiceEntry| entry.endpoints.values().any(|view| view.is_at(at));
    state.services.iter().filter(|(_, entry)| has(entry)).map(|(name, _)| name).min().cloned()
}

/// Forgets the host names of a service but those in `kept`.
pub(super) fn drop_hosts_of(state: &mut State, name: &ServiceName, kept: &[Hostname]) {
    state.hosts.retain(|host, entry| match entry {
        HostEntry::Service { service, .. } => service != name || kept.contains(host),
        HostEntry::Asked | HostEntry::Unknown(_) => true,
    });
}

/// Names that lead nowhere go first; names that are being asked for next.
pub(super) fn make_room_for_host(state: &mut State) {
    if state.hosts.len() < MAX_HOSTS {
        return;
    }
    state.hosts.retain(|_, entry| !matches!(entry, HostEntry::Unknown(_)));
    if state.hosts.len() >= MAX_HOSTS {
        state.hosts.retain(|_, entry| !matches!(entry, HostEntry::Asked));
        state.wants.retain(|want| !matches!(want, Want::Host(_)));
    }
}

/// So long a name that leads nowhere is remembered.
pub(super) const UNKNOWN_MS: u64 = 1_000;
pub(super) const MAX_HOSTS: usize = 4_096;
