//! What requests at the edge read: by port, by host name, by route. Immutable; swapped whole.
//!
//! The Gateway API's order: the listener whose host name says most exactly what is meant, then the routes for the most
//! exact of their host names, then the precedence of matches within them. Nothing falls through to a less exact one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_certs::{PublicAcceptor, PublicCertificate};
use outrigger_mesh::{
    Gateway, HostPattern, Hostname, Label, Listener, ListenerKind, PortNumber, RequestHead, Route,
    RouteIndex, RouteName, ServiceName,
};

use crate::config::routes::{Asks, RoutePlan, Taken};
use crate::filter::RouteLimits;
use crate::live::LiveService;
use crate::request::bulkhead::Bulkhead;

/// What is served.
#[derive(Clone, Debug, Default)]
pub struct Table {
    ports: HashMap<PortNumber, Arc<PortTable>>,
    /// Where each port is open, or why it is not.
    pub open: BTreeMap<PortNumber, Result<SocketAddr, String>>,
}

impl Table {
    /// Arranges `gateway`. A listener whose certificates can not be had serves nobody, and the reasons come back.
    pub fn new(
        gateway: &Gateway,
        mut certificate: impl FnMut(&Label) -> Result<PublicCertificate, String>,
        mut resolve: impl FnMut(&ServiceName) -> Arc<LiveService>,
        buckets: &RouteLimits,
    ) -> (Self, Vec<String>) {
        let (mut ports, mut faults) = (HashMap::new(), Vec::new());
        for number in gateway.listeners.iter().map(|l| l.port) {
            if ports.contains_key(&number) {
                continue;
            }
            let here: Vec<&Listener> = gateway.listeners.iter().filter(|l| l.port == number).collect();
            let before = faults.len();
            let tls = acceptor(&here, &mut certificate, &mut faults);
            let wrong = faults[before..].to_vec();
            let mut listeners: Vec<_> =
                here.iter().map(|l| ListenerTable::new(l, &mut resolve, buckets)).collect();
            listeners.sort_by_key(|l| Reverse(l.hostname.as_ref().map(HostPattern::specificity)));
            let routes = here.iter().flat_map(|l| &l.routes);
            let asks = routes.map(|r| Asks::of_route(&r.route)).fold(Asks::default(), Asks::and);
            ports.insert(number, Arc::new(PortTable { tls, wrong, listeners, asks }));
        }
        (Self { ports, open: BTreeMap::new() }, faults)
    }

    /// The same, with where its ports are open.
    #[must_use]
    pub fn opened(self, open: BTreeMap<PortNumber, Result<SocketAddr, String>>) -> Self {
        Self { open, ..self }
    }

    /// What is served at a port.
    pub fn port(&self, number: PortNumber) -> Option<&Arc<PortTable>> {
        self.ports.get(&number)
    }

    /// The bulkheads of routes, by their names.
    pub fn bulkheads(&self) -> impl Iterator<Item = (&RouteName, &Arc<Bulkhead>)> {
        let listeners = self.ports.values().flat_map(|port| &port.listeners);
        let routes = listeners.flat_map(|l| &l.hosts).flat_map(|host| &host.routes);
        routes.filter_map(|route| Some((route.plan.name.as_ref()?, route.plan.bulkhead.as_ref()?)))
    }

    /// The ports that something is served at.
    pub fn numbers(&self) -> impl Iterator<Item = PortNumber> + '_ {
        self.ports.keys().copied()
    }
}

/// What is served at one port.
#[derive(Debug)]
pub struct PortTable {
    /// `None` in plaintext. A port of HTTPS without any certificate accepts nobody.
    pub tls: Option<Result<PublicAcceptor, String>>,
    /// What is wrong with certificates of its listeners.
    pub wrong: Vec<String>,
    listeners: Vec<ListenerTable>,
    /// What its routes ask for beyond the head of a request.
    pub asks: Asks,
}

impl PortTable {
    /// The listener that is meant by a host name: its number stands for it at this port.
    pub fn listener(&self, host: &Hostname) -> Option<usize> {
        let meant = |l: &ListenerTable| l.hostname.as_ref().is_none_or(|pattern| pattern.matches(host));
        self.listeners.iter().position(meant)
    }

    /// The route of a request to `host` at a listener, and the prefix by which it was matched, where it asks for that.
    pub fn route(
        &self,
        listener: usize,
        host: &Hostname,
        head: &RequestHead<'_>,
    ) -> Option<(&Arc<EdgeRoute>, Taken)> {
        let hosts = &self.listeners.get(listener)?.hosts;
        let meant = |of: &&HostTable| of.pattern.as_ref().is_none_or(|pattern| pattern.matches(host));
        let of = hosts.iter().find(meant)?;
        let hit = of.index.hit(head)?;
        let route = &of.routes[hit.route];
        let prefix = if route.plan.asks_for_prefix { of.index.prefix_of(hit).map(Box::from) } else { None };
        Some((route, Taken { plan: Arc::clone(&route.plan), prefix }))
    }
}

#[derive(Debug)]
struct ListenerTable {
    hostname: Option<HostPattern>,
    hosts: Vec<HostTable>,
}

#[derive(Debug)]
struct HostTable {
    pattern: Option<HostPattern>,
    index: RouteIndex,
    routes: Vec<Arc<EdgeRoute>>,
}

/// A route at the edge.
#[derive(Debug)]
pub struct EdgeRoute {
    /// The service whose policies hold: the first of the backends that there is. `None` when there is none, and requests
    /// are refused.
    pub service: Option<Arc<LiveService>>,
    /// Where requests go and what holds for them.
    pub plan: Arc<RoutePlan>,
    /// Nothing was told yet of its service when this was made, and so nothing of what holds for its requests.
    pub is_provisional: bool,
}

impl ListenerTable {
    fn new(
        listener: &Listener,
        resolve: &mut impl FnMut(&ServiceName) -> Arc<LiveService>,
        buckets: &RouteLimits,
    ) -> Self {
        let mut by_host: BTreeMap<Option<HostPattern>, Vec<Route>> = BTreeMap::new();
        for attached in &listener.routes {
            let patterns: Vec<Option<HostPattern>> = if attached.hostnames.is_empty() {
                vec![listener.hostname.clone()]
            } else {
                attached.hostnames.iter().cloned().map(Some).collect()
            };
            for pattern in patterns {
                by_host.entry(pattern).or_default().push(attached.route.clone());
            }
        }
        let mut hosts: Vec<HostTable> = by_host
            .into_iter()
            .map(|(pattern, routes)| HostTable {
                pattern,
                index: RouteIndex::new(&routes),
                routes: routes
                    .iter()
                    .map(|route| Arc::new(EdgeRoute::new(route, resolve, buckets)))
                    .collect(),
            })
            .collect();
        hosts.sort_by_key(|h| Reverse(h.pattern.as_ref().map(HostPattern::specificity)));
        Self { hostname: listener.hostname.clone(), hosts }
    }
}

impl EdgeRoute {
    fn new(
        route: &Route,
        resolve: &mut impl FnMut(&ServiceName) -> Arc<LiveService>,
        buckets: &RouteLimits,
    ) -> Self {
        let first = route.backends.iter().find(|backend| backend.unresolved.is_none());
        let service = first.map(|backend| resolve(&backend.service));
        let policy = service.as_ref().and_then(|s| s.snapshot.load_full()).map(|s| s.service.policy.clone());
        let is_provisional = service.is_some() && policy.is_none();
        let mut plan = RoutePlan::at_edge(route, &policy.unwrap_or_default(), &mut *resolve);
        if let Some(service) = &service {
            // They outlive this table: the next one finds them there.
            plan.bulkhead = service.bulkheads.at_edge(route);
            plan.breaker = service.breakers.at_edge(route, &mut *resolve);
        }
        plan.keep_buckets(buckets);
        Self { service, plan: Arc::new(plan), is_provisional }
    }
}

fn acceptor(
    listeners: &[&Listener],
    certificate: &mut impl FnMut(&Label) -> Result<PublicCertificate, String>,
    faults: &mut Vec<String>,
) -> Option<Result<PublicAcceptor, String>> {
    let mut all = Vec::new();
    let mut secured = false;
    for listener in listeners {
        let ListenerKind::Https { certificates } = &listener.kind else { continue };
        secured = true;
        let mut found = Vec::new();
        for name in certificates {
            match certificate(name) {
                Ok(certificate) => found.push(certificate),
                Err(why) => faults.push(format!("listener {}: {why}", listener.name)),
            }
        }
        all.push((listener.hostname.clone(), found));
    }
    secured.then(|| {
        if all.iter().all(|(_, found)| found.is_empty()) {
            return Err("it has no certificate that can be used".to_owned());
        }
        PublicAcceptor::new(all).map_err(|e| e.to_string())
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use outrigger_mesh::{Backend, GatewayRoute, PathMatch, RouteMatch, RouteName, Source};

    use super::*;
    use crate::live::Live;

    fn route(name: &str, path: &str, hosts: &[&str]) -> GatewayRoute {
        let matches =
            vec![RouteMatch { path: Some(PathMatch::Prefix(path.into())), ..RouteMatch::default() }];
        let backends = vec![Backend::to("shop/cart".parse().unwrap())];
        let route = Route { matches, backends, ..Route::new(RouteName::new(name).unwrap()) };
        GatewayRoute { hostnames: hosts.iter().map(|h| h.parse().unwrap()).collect(), route }
    }

    fn listener(name: &str, hostname: Option<&str>, routes: Vec<GatewayRoute>) -> Listener {
        Listener {
            name: Label::new(name).unwrap(),
            port: PortNumber::HTTP,
            hostname: hostname.map(|h| h.parse().unwrap()),
            kind: ListenerKind::Http,
            routes,
        }
    }

    fn table(listeners: Vec<Listener>) -> Arc<PortTable> {
        let gateway = Gateway { name: "shop/edge".parse().unwrap(), listeners }.checked().unwrap();
        let live = Live::default();
        let resolve =
            |name: &ServiceName| Arc::new(LiveService::new(name.clone(), live.client_traffic(name, None)));
        let (table, faults) = Table::new(&gateway, |_| Err("none".into()), resolve, &RouteLimits::default());
        assert!(faults.is_empty());
        Arc::clone(table.port(PortNumber::HTTP).unwrap())
    }

    fn found(table: &PortTable, host: &str, path: &str) -> Option<String> {
        let host = Hostname::new(host).unwrap();
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            path,
            query: None,
            headers: &headers,
            claims: None,
            source: Source::default(),
        };
        let (route, _) = table.route(table.listener(&host)?, &host, &head)?;
        route.plan.name.as_ref().map(ToString::to_string)
    }

    #[test]
    fn the_most_exact_listener_and_host_name_decide_and_nothing_falls_through() {
        let table = table(vec![
            listener("any", None, vec![route("any", "/", &[])]),
            listener(
                "shop",
                Some("*.shop.example"),
                vec![
                    route("wild", "/", &[]),
                    route("exact", "/api", &["a.shop.example"]),
                    route("deeper", "/", &["*.b.shop.example"]),
                ],
            ),
        ]);
        for (host, path, expected) in [
            ("other.example", "/x", Some("any")),
            ("shop.example", "/x", Some("any")),
            ("c.shop.example", "/x", Some("wild")),
            ("a.shop.example", "/api/1", Some("exact")),
            ("a.shop.example", "/x", None),
            ("x.b.shop.example", "/x", Some("deeper")),
        ] {
            assert_eq!(found(&table, host, path).as_deref(), expected, "{host}{path}");
        }
    }
}
