//! What the registry knows, for those who look.

use std::fmt::Write as _;

use outrigger_mesh::{Hostname, MtlsMode, MtlsModes, PortNumber, Protocol, ServiceName, SpiffeId, Version};
use serde_json::{Value, json};

use super::{HostEntry, Registry, ServiceEntry};
use crate::admin::policies;
use crate::attempt::endpoint_breaker;
use crate::breaker::Phase;
use crate::config::snapshot::EndpointView;
use crate::live::Millis;
use crate::request::places;

impl Registry {
    /// Everything known, for `/config_dump`.
    pub fn dump(&self) -> Value {
        let state = self.state();
        let mut services: Vec<_> = state.services.iter().collect();
        services.sort_by_key(|(name, _)| (*name).clone());
        let services: Vec<Value> = services.iter().map(|(name, entry)| dump_service(name, entry)).collect();
        let mut hosts: Vec<_> =
            state.hosts.iter().map(|(host, entry)| (host.clone(), describe(entry))).collect();
        hosts.sort();
        let hosts: serde_json::Map<_, _> =
            hosts.into_iter().map(|(h, e)| (h.to_string(), e.into())).collect();
        let inbound = self.inbound.load().as_deref().map(|i| {
            let services = i.services.iter().map(|s| {
                let ports: Vec<Value> = s.ports.iter().map(|(n, p)| dump_port(*n, *p, &s.mtls)).collect();
                json!({"name": s.name.to_string(), "mtls": mode(s.mtls.of_service()), "ports": ports})
            });
            json!({"identity": i.identity.to_string(), "services": services.collect::<Vec<_>>()})
        });
        let discovery = format!("{:?}", self.discovery()).to_lowercase();
        json!({"discovery": discovery, "hosts": hosts, "services": services, "inbound": inbound})
    }

    /// Every endpoint with what is known of it, for `/clusters`.
    pub fn clusters(&self) -> Value {
        let (state, now) = (self.state(), Millis::now());
        let mut services: Vec<_> = state.services.iter().collect();
        services.sort_by_key(|(name, _)| (*name).clone());
        let of = |entry: &ServiceEntry| -> Vec<Value> {
            entry.in_force().0.values().map(|view| dump_endpoint(view, now)).collect()
        };
        services
            .into_iter()
            .map(|(name, entry)| {
                let lookup = entry.located.as_ref().map(|located| located.lookup.dump());
                let ports = self.live.ports.of_service(name);
                let bulkhead = places::dump(&entry.live.bulkheads.service);
                let retries = entry.live.retries_left(now);
                json!({
                    "service": name.to_string(), "bulkhead": bulkhead, "retryBudgetLeft": retries,
                    "endpoints": of(entry), "lookup": lookup, "ports": ports, "breakers": entry.live.breakers.dump(now),
                })
            })
            .collect()
    }

    /// Every breaker over a service, its routes and its versions; of those over single endpoints the ones that are not
    /// closed, since an endpoint is a matter of `clusters`.
    pub fn breakers(&self) -> Value {
        let (state, now) = (self.state(), Millis::now());
        let mut services: Vec<_> = state.services.iter().collect();
        services.sort_by_key(|(name, _)| (*name).clone());
        let out = |entry: &ServiceEntry| -> Vec<Value> {
            let views = entry.in_force();
            let out = views.0.values().filter(|view| view.live.breaker.phase() != Phase::Closed);
            out.map(|view| {
                let mut told = endpoint_breaker::dump(&view.live.breaker, now);
                told["uid"] = view.endpoint.uid.as_str().into();
                told["version"] = view.endpoint.version.as_ref().map(Version::as_str).into();
                told
            })
            .collect()
        };
        let told = services.into_iter().map(|(name, entry)| {
            let mut told = entry.live.breakers.dump(now);
            told["name"] = name.to_string().into();
            told["endpoints"] = out(entry).into();
            told
        });
        told.collect()
    }

    /// How many retries each service has left, for Prometheus.
    pub fn write_budgets(&self, out: &mut String) {
        let (state, now) = (self.state(), Millis::now());
        out.push_str(
            "# HELP outrigger_retry_budget_left Retries that the budget of a service would grant now.\n\
             # TYPE outrigger_retry_budget_left gauge\n",
        );
        let mut all: Vec<_> =
            state.services.iter().filter_map(|(name, e)| Some((name, e.live.retries_left(now)?))).collect();
        all.sort();
        for (name, left) in all {
            let _ = writeln!(out, "outrigger_retry_budget_left{{service=\"{name}\"}} {left}");
        }
    }

    /// The policies in force, for `/policies`: of what `own` calls, and of what it serves.
    pub fn policies(&self, own: Option<&SpiffeId>) -> Value {
        let state = self.state();
        let mut services: Vec<_> = state.services.iter().collect();
        services.sort_by_key(|(name, _)| (*name).clone());
        let known = services.into_iter().filter_map(|(_, entry)| {
            let snapshot = entry.live.snapshot.load();
            snapshot.as_ref().map(|snapshot| policies::of_service(&snapshot.service, own))
        });
        let inbound = self.inbound.load();
        let served = inbound.as_deref().map(policies::of_inbound).unwrap_or_default();
        known.chain(served).collect()
    }
}

fn describe(entry: &HostEntry) -> String {
    match entry {
        HostEntry::Asked => "asked for".into(),
        HostEntry::Service { service, .. } => service.to_string(),
        HostEntry::Unknown(_) => "unknown".into(),
    }
}

fn dump_service(name: &ServiceName, entry: &ServiceEntry) -> Value {
    let snapshot = entry.live.snapshot.load();
    let Some(snapshot) = &*snapshot else {
        return json!({"name": name.to_string(), "state": if entry.absent { "absent" } else { "asked for" }});
    };
    let service = &snapshot.service;
    let routes: Vec<Value> = service
        .routes
        .iter()
        .map(|r| {
            let backends = r.backends.iter().map(|b| {
                json!({"service": b.service.to_string(), "version": b.version.as_ref().map(Version::as_str), "weight": b.weight})
            });
            json!({"name": r.name.as_str(), "matches": r.matches.len(), "backends": backends.collect::<Vec<_>>()})
        })
        .collect();
    json!({
        "name": name.to_string(),
        "hostnames": service.hostnames.iter().map(Hostname::as_str).collect::<Vec<_>>(),
        "ports": service.ports.iter().map(|p| dump_port(p.number, p.protocol, &service.mtls)).collect::<Vec<_>>(),
        "identities": service.identities.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "mtls": mode(service.mtls.of_service()),
        "between": format!("{:?}", service.between).to_lowercase(),
        "routes": routes,
        "endpoints": entry.in_force().0.len(),
    })
}

/// A port, with its TLS mode where that is its own.
fn dump_port(number: PortNumber, protocol: Protocol, mtls: &MtlsModes) -> Value {
    let mut port = json!({"port": number.get(), "protocol": protocol.as_str()});
    if mtls.at(number) != mtls.of_service() {
        port["mtls"] = mode(mtls.at(number)).into();
    }
    port
}

fn mode(mode: MtlsMode) -> String {
    format!("{mode:?}").to_lowercase()
}

fn dump_endpoint(view: &EndpointView, now: Millis) -> Value {
    let (e, load) = (&view.endpoint, &view.live.load);
    json!({
        "uid": e.uid.as_str(),
        "addresses": e.ports.iter().map(|p| format!("{}:{}", e.ip, p.listen)).collect::<Vec<_>>(),
        "version": e.version.as_ref().map(Version::as_str),
        "zone": e.zone.as_deref(),
        "weight": e.weight.get(),
        "transport": format!("{:?}", e.transport).to_lowercase(),
        "bulkhead": places::dump(&view.live.bulkhead),
        "state": format!("{:?}", e.state).to_lowercase(),
        "inFlight": load.in_flight(),
        "latencyMicros": load.latency_micros(now),
        "health": view.live.health.known().as_str(),
        "breaker": endpoint_breaker::dump(&view.live.breaker, now),
    })
}
