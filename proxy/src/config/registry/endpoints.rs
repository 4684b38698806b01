//! The endpoints of services as they are pushed: taken, put in force together, and gone with the addresses by which they were
//! looked up. Those that are found by name: `located`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use outrigger_mesh::{Endpoint, EndpointUid, Hostname, ServiceName};

use super::hosts::HostEntry;
use super::{Registry, State, located};

impl Registry {
    /// Puts endpoints in force that were told together, so that nobody finds only the first of them: it would be taken for all
    /// there are. Answers for each why it is rejected, if it is.
    pub fn set_endpoints(&self, told: Vec<Endpoint>) -> Vec<Result<(), String>> {
        let mut state = self.state();
        let services: BTreeSet<_> = told.iter().map(|endpoint| endpoint.service.clone()).collect();
        let outcomes = told.into_iter().map(|endpoint| self.set_endpoint(&mut state, endpoint)).collect();
        for service in &services {
            publish(&state, service);
        }
        drop(state);
        self.announce();
        outcomes
    }

    /// Takes an endpoint, which is in force once it is published.
    pub(super) fn set_endpoint(&self, state: &mut State, endpoint: Endpoint) -> Result<(), String> {
        self.entry(state, &endpoint.service, false);
        let live = &self.live;
        let Some(entry) = state.services.get_mut(&endpoint.service) else { return Ok(()) };
        if entry.endpoints.len() >= MAX_ENDPOINTS && !entry.endpoints.contains_key(&endpoint.uid) {
            return Err(format!("service {} has more than {MAX_ENDPOINTS} endpoints", endpoint.service));
        }
        let group = &entry.live.endpoint_breakers;
        let view = located::view(live, group, entry.endpoints.get(&endpoint.uid), endpoint, None);
        let (name, now) = (view.endpoint.service.clone(), Arc::clone(&view));
        let before = entry.endpoints.insert(view.endpoint.uid.clone(), view);
        entry.complete = true;
        if let Some(before) = before {
            let gone = before.sockets().filter(|at| !now.is_at(*at));
            self.forget_sockets(state, &name, gone);
        }
        Ok(())
    }

    pub(super) fn remove_endpoint(&self, state: &mut State, service: &ServiceName, uid: &EndpointUid) {
        let Some(entry) = state.services.get_mut(service) else { return };
        let gone = entry.endpoints.remove(uid);
        entry.publish();
        if let Some(gone) = gone {
            gone.live.removed.store(true, Relaxed);
            self.forget_sockets(state, service, gone.sockets());
        }
    }

    pub(super) fn clear_endpoints(&self, state: &mut State, service: &ServiceName) {
        let Some(entry) = state.services.get_mut(service) else { return };
        let gone = std::mem::take(&mut entry.endpoints);
        located::remove(&gone);
        entry.complete = true;
        entry.publish();
        self.forget_sockets(state, service, gone.values().flat_map(|view| view.sockets()));
    }

    /// Addresses of instances that were looked up and are another's by now, perhaps: whoever dials them asks again.
    fn forget_sockets(&self, state: &mut State, of: &ServiceName, gone: impl Iterator<Item = SocketAddr>) {
        let mut forgotten = false;
        for host in gone.map(Hostname::of_socket) {
            if matches!(state.hosts.get(&host), Some(HostEntry::Service { service, .. }) if service == of) {
                state.hosts.remove(&host);
                forgotten = true;
            }
        }
        if forgotten {
            self.names.fetch_add(1, Relaxed);
        }
    }
}

/// Puts the endpoints of a service in force as they were taken.
pub(super) fn publish(state: &State, service: &ServiceName) {
    if let Some(entry) = state.services.get(service) {
        entry.publish();
    }
}

const MAX_ENDPOINTS: usize = 10_000;
