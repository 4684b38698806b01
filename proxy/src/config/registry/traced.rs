//! The largest share of requests that anything pushed has traced. Whether a request is traced may be known only with its
//! route; what is of no share at all is not even looked at.

use outrigger_mesh::{Gateway, TraceShare};

use super::{Registry, State};

/// The largest share of what is pushed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traced {
    of_all: Option<TraceShare>,
    of_gateway: Option<TraceShare>,
}

impl Registry {
    /// A service has this largest share, in place of the one before.
    pub(super) fn traced(&self, state: &mut State, before: Option<TraceShare>, now: Option<TraceShare>) {
        let largest = state.traced.of_all;
        if now >= largest {
            state.traced.of_all = now;
        } else if before == largest {
            // It was the largest: only now it has to be looked for.
            let services = state.services.values().map(|entry| entry.live.snapshot.load());
            let shares = services.map(|snapshot| snapshot.as_ref().and_then(|snapshot| snapshot.traced));
            state.traced.of_all = shares.chain([state.traced.of_gateway]).max().flatten();
        }
        if state.traced.of_all != largest {
            self.live.observe.pushed(state.traced.of_all);
        }
    }

    /// The gateway is this one, or there is none.
    pub(super) fn traced_at_gateway(&self, state: &mut State, gateway: Option<&Gateway>) {
        let listeners = gateway.iter().flat_map(|gateway| &gateway.listeners);
        let routes = listeners.flat_map(|listener| &listener.routes);
        let now = routes.map(|attached| attached.route.policy.traced).max().flatten();
        let before = std::mem::replace(&mut state.traced.of_gateway, now);
        self.traced(state, before, now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outrigger_mesh::{Resource, ResourceName, Service, TrafficPolicy};
    use outrigger_testkit::resources;

    use super::*;
    use crate::config::registry::Change;
    use crate::live::Live;

    #[test]
    fn the_largest_share_of_all_services_is_known_and_goes_when_it_does() {
        let registry = Registry::new("shop".parse().unwrap(), Arc::new(Live::new(10)));
        let traced = |name: &str, millionths| {
            let policy =
                TrafficPolicy { traced: TraceShare::of_millionths(millionths), ..TrafficPolicy::default() };
            let service = Service { policy, ..resources::service(name) };
            registry.apply(Change::Set(Resource::Service(service))).unwrap();
        };
        let largest = || registry.state().traced.of_all.map(TraceShare::millionths);
        assert_eq!(largest(), None);
        for (name, millionths, expected) in [
            ("shop/a", 10, 10),
            ("shop/b", 500, 500),
            ("shop/a", 20, 500),
            ("shop/b", 5, 20),
            ("shop/b", 20, 20),
            ("shop/a", 0, 20),
        ] {
            traced(name, millionths);
            assert_eq!(largest(), Some(expected), "{name} {millionths}");
        }
        registry.apply(Change::Remove(ResourceName::Service("shop/b".parse().unwrap()))).unwrap();
        assert_eq!(largest(), Some(0));
        registry.apply(Change::Remove(ResourceName::Service("shop/a".parse().unwrap()))).unwrap();
        assert_eq!(largest(), None);
    }
}
