//! The routes that the own namespace has made for services of others. Where there are any they stand in place of those of
//! the service itself; until it is known whether there are, such a service is not ready: no request takes the other's
//! routes only because they came first.
//!
//! That wait has no end after which the service's own routes would hold. What callers say may lead away from the service,
//! to a stand-in for it or to nobody; a request that reaches the service itself because an answer was slow may do there
//! what its namespace has ruled out, and nobody would be told. So each request waits as long as for any name that is
//! looked up, and is then refused as `discovery_unavailable`. Who has served already is not touched: a sidecar that comes
//! back while the control plane is away has both from its disk.

use std::sync::Arc;

use outrigger_mesh::{ConsumerRoutes, Service, ServiceName, bounded_routes};

use super::{Registry, State};
use crate::config::outside::Outside;

/// What is known of the own namespace's routes for a service.
#[derive(Clone, Debug, Default)]
pub(super) enum Consumer {
    /// Nobody asked: what the service says holds.
    #[default]
    NotAsked,
    /// Asked for, and not answered.
    Awaited,
    /// Answered.
    Told(Option<Box<ConsumerRoutes>>),
}

impl Consumer {
    /// The service as it is with them; `None` while they are awaited.
    pub(super) fn over(&self, service: Service) -> Option<Service> {
        match self {
            Self::Awaited => None,
            Self::NotAsked | Self::Told(None) => Some(service),
            Self::Told(Some(own)) => {
                let (routes, tcp_routes) = (own.routes.clone(), own.tcp_routes.clone());
                Some(Service { routes, tcp_routes, ..service })
            }
        }
    }
}

impl Registry {
    /// They were asked for. A service that serves already, from an earlier life, goes on.
    pub(super) fn await_consumer(&self, state: &mut State, name: &ServiceName) {
        self.entry(state, name, false);
        let Some(entry) = state.services.get_mut(name) else { return };
        if entry.pushed.is_none() && matches!(entry.consumer, Consumer::NotAsked) {
            entry.consumer = Consumer::Awaited;
        }
    }

    /// They are these, or there are none. They are judged by themselves, whether the service is there yet or not: what they
    /// say never costs the service.
    pub(super) fn set_consumer(
        &self,
        state: &mut State,
        name: &ServiceName,
        routes: Option<ConsumerRoutes>,
        outside: Option<Arc<Outside>>,
    ) -> Result<(), String> {
        if let Some(own) = &routes {
            bounded_routes(&own.routes, &own.tcp_routes)
                .map_err(|e| format!("routes of {} for {name}: {e}", own.namespace))?;
            self.entry(state, name, false);
        }
        let Some(entry) = state.services.get_mut(name) else { return Ok(()) };
        let before = std::mem::replace(&mut entry.consumer, Consumer::Told(routes.map(Box::new)));
        let Some(pushed) = entry.pushed.clone() else { return Ok(()) };
        let outcome = self.set_service(state, *pushed, outside);
        if outcome.is_err()
            && let Some(entry) = state.services.get_mut(name)
        {
            entry.consumer = before;
        }
        outcome
    }

    /// What a service outside the mesh has to prove, by what was pushed of it.
    pub(super) fn outside_of(&self, name: &ServiceName) -> Result<Option<Arc<Outside>>, String> {
        let pushed = self.state().services.get(name).and_then(|entry| entry.pushed.clone());
        pushed.as_deref().map_or(Ok(None), Outside::of)
    }
}
