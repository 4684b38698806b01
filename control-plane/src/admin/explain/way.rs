//! The way of a described request beyond its route: what is done to it, and where it would go with which share.
//!
//! By the decisions that sidecars make: a partition, a key, the division of a service, a split. What only a sidecar
//! knows (breakers, health, load) is not told here; which endpoints there are is.

use outrigger_mesh::{
    Abort, Backend, Division, EndpointState, Filters, HeaderChanges, Location, Part, PathChange, PortNumber,
    RequestHead, Route, ServiceName, Split, Version, key_hash,
};
use serde_json::{Map, Value as Json, json};

use super::super::Caller;
use crate::world::World;

/// What is looked at, and by whom.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) world: &'a World,
    pub(super) asker: &'a Caller,
}

impl Sight<'_> {
    /// Whether what a service has is any of the asker's business.
    fn covers(self, service: &ServiceName) -> bool {
        self.asker.covers(service.namespace().as_str())
    }

    /// Whether a backend takes its share. One that is refused does; of one that the asker may not see nothing is told.
    fn takes(self, backend: &Backend) -> bool {
        let ready = |version| ready(&backend.service, version, self.world) > 0;
        if backend.unresolved.is_some() || !self.covers(&backend.service) {
            return true;
        }
        let Some(service) = super::compiled(self.world, &backend.service) else { return true };
        if service.location != Location::Mesh {
            // Its endpoints are names, which each sidecar looks up by itself.
            return true;
        }
        match (&backend.version, &service.division) {
            (None, Some(division)) => ready(Some(&division.stable)) || ready(Some(&division.candidate)),
            (version, _) => ready(version.as_ref()),
        }
    }
}

/// Where a request along `route` would go: every backend with its share of requests like this one.
pub(super) fn backends(route: &Route, head: &RequestHead<'_>, sight: Sight<'_>) -> Vec<Json> {
    let takes: Vec<bool> = route.backends.iter().map(|backend| sight.takes(backend)).collect();
    // Where nobody takes anything the shares are what is refused.
    let nobody = !route.backends.iter().zip(&takes).any(|(b, takes)| *takes && b.weight > 0);
    let open = |at: usize| nobody || takes[at];
    let weights = route.backends.iter().enumerate().map(|(at, b)| if open(at) { b.weight } else { 0 });
    let split = Split::new(weights);
    let decided = decided(route, &split, head);
    let share = |at: usize, backend: &Backend| match decided {
        Some((of, _)) => f64::from(u8::from(of == at)) * 100.0,
        None if split.total() == 0 || !open(at) => 0.0,
        None => f64::from(backend.weight) * 100.0 / split.total() as f64,
    };
    let told = |(at, backend): (usize, &Backend)| {
        let mut told = json!({
            "service": backend.service.to_string(),
            "version": backend.version.as_ref().map(Version::as_str),
            "port": backend.port.map(PortNumber::get),
            "weight": backend.weight,
            "percent": rounded(share(at, backend)),
        });
        if let Some(why) = backend.unresolved {
            told["unresolved"] = why.as_str().into();
        }
        let changes = [changes("request", &backend.request), changes("response", &backend.response)].concat();
        if !changes.is_empty() {
            told["filters"] = changes.into();
        }
        if sight.covers(&backend.service) {
            told["to"] = reached(&backend.service, backend.version.as_ref(), head, sight.world).into();
        } else {
            told["unknown"] = "what its namespace has is not told to you".into();
        }
        told
    };
    route.backends.iter().enumerate().map(told).collect()
}

/// By what the backend is settled for this very request, where it is not by chance.
pub(super) fn settled_by(route: &Route, head: &RequestHead<'_>) -> Option<&'static str> {
    decided(route, &Split::new(route.backends.iter().map(|b| b.weight)), head).map(|(_, by)| by)
}

/// The backends that may get this very request, by their places.
pub(super) fn possible(route: &Route, head: &RequestHead<'_>) -> Vec<usize> {
    if route.filters.redirect.is_some() || route.filters.direct.is_some() {
        return vec![];
    }
    let of_partition = route.choice.partition.as_ref().and_then(|p| p.backend(&head.key(&p.key)?));
    match of_partition {
        Some(at) => vec![at],
        None => (0..route.backends.len()).filter(|at| route.backends[*at].weight > 0).collect(),
    }
}

fn decided(route: &Route, split: &Split, head: &RequestHead<'_>) -> Option<(usize, &'static str)> {
    let choice = &route.choice;
    let of_partition = || choice.partition.as_ref().and_then(|p| p.backend(&head.key(&p.key)?));
    let of_key = || {
        let key = key_hash(&head.key(choice.by.as_ref()?)?);
        split.pick_by_key(key, |at| route.backends[at].draws_by(), |_| true)
    };
    of_partition().map(|at| (at, "partition")).or_else(|| of_key().map(|at| (at, "key")))
}

/// The versions of a service that a request sent to it can meet, with its endpoints.
pub(super) fn reached(
    service: &ServiceName,
    version: Option<&Version>,
    head: &RequestHead<'_>,
    world: &World,
) -> Vec<Json> {
    if let Some(version) = version {
        return vec![subset(service, Some(version), 100.0, world)];
    }
    let Some(division) = super::compiled(world, service).and_then(|s| s.division) else {
        return vec![subset(service, None, 100.0, world)];
    };
    // A side without anybody takes nothing from the other.
    let meets = |part: Part| {
        let empty = |part| ready(service, Some(division.version(part)), world) == 0;
        if empty(part) && !empty(part.other()) { part.other() } else { part }
    };
    let by_preview = division.preview.iter().any(|m| m.holds(head));
    let by_key = division.by.as_ref().is_some_and(|by| head.key(by).is_some());
    if by_preview || by_key {
        let part = division.part(head, 0);
        let mut told = subset(service, Some(division.version(meets(part))), 100.0, world);
        if meets(part) == part {
            told["because"] = if by_preview { "preview" } else { "key" }.into();
        }
        return vec![told];
    }
    let candidate = f64::from(division.share) * 100.0 / f64::from(Division::WHOLE);
    let parts = [(Part::Stable, 100.0 - candidate), (Part::Candidate, candidate)];
    let of = |part: Part| parts.iter().filter(|(p, _)| meets(*p) == part).map(|(_, percent)| percent).sum();
    let met = [Part::Stable, Part::Candidate].map(|part| (part, of(part)));
    let met = met.into_iter().filter(|(_, percent): &(Part, f64)| *percent > 0.0);
    met.map(|(part, percent)| subset(service, Some(division.version(part)), percent, world)).collect()
}

/// How many endpoints of a version, or of all, take requests.
fn ready(service: &ServiceName, version: Option<&Version>, world: &World) -> usize {
    let of_it = world.instances(service).map(|i| &i.checked.endpoint);
    let of_it = of_it.filter(|e| version.is_none() || e.version.as_ref() == version);
    of_it.filter(|e| e.state == EndpointState::Ready).count()
}

fn subset(service: &ServiceName, version: Option<&Version>, percent: f64, world: &World) -> Json {
    let of_it = world.instances(service).map(|i| &i.checked.endpoint);
    let of_it = of_it.filter(|e| version.is_none() || e.version.as_ref() == version);
    let (mut endpoints, mut draining) = (vec![], 0);
    for endpoint in of_it {
        match endpoint.state {
            EndpointState::Ready => endpoints.push(endpoint.uid.to_string()),
            EndpointState::Draining => draining += 1,
        }
    }
    let ready = endpoints.len();
    endpoints.sort();
    endpoints.truncate(MOST_ENDPOINTS);
    json!({
        "version": version.map(Version::as_str), "percent": rounded(percent),
        "ready": ready, "draining": draining, "endpoints": endpoints,
    })
}

/// What is done to a request along `route`, in the order in which it is done.
pub(super) fn filters(route: &Route) -> Vec<String> {
    let Filters {
        rate_limits,
        max_body,
        cors,
        faults,
        redirect,
        direct,
        request,
        rewrite,
        mirrors,
        response,
    } = &route.filters;
    let mut told = vec![];
    told.extend(
        rate_limits.iter().map(|l| format!("at most {} requests in {:?}: {}", l.requests, l.per, l.name)),
    );
    told.extend(max_body.map(|bytes| format!("a body of at most {bytes} bytes")));
    told.extend(cors.as_ref().map(|c| format!("CORS for {}", c.origins.join(", "))));
    for fault in faults {
        let mut parts = vec![];
        parts.extend(fault.delay.map(|delay| format!("a delay of {delay:?}")));
        parts.extend(fault.abort.map(|abort| match abort {
            Abort::Http(status) => format!("status {status}"),
            Abort::Grpc(status) => format!("gRPC status {status}"),
            Abort::Reset => "a reset".to_owned(),
        }));
        let (of, out_of) = (fault.share.of, fault.share.out_of);
        let some = if fault.matches.is_empty() { "" } else { " of those that match" };
        told.push(format!("fault: {} for {of} of {out_of}{some}", parts.join(", then ")));
    }
    told.extend(redirect.as_ref().map(|r| {
        let to = [
            r.https.map(|https| if https { "https" } else { "http" }.to_owned()),
            r.host.as_ref().map(|host| format!("host {host}")),
            r.port.map(|port| format!("port {port}")),
            r.path.as_ref().map(path),
        ];
        format!("redirect {} to {}", r.status, to.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }));
    told.extend(direct.as_ref().map(|d| format!("answered with {} here", d.status)));
    told.extend(changes("request", request));
    told.extend(rewrite.as_ref().map(|r| {
        let to = [r.host.as_ref().map(|host| format!("host {host}")), r.path.as_ref().map(path)];
        format!("rewrite to {}", to.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }));
    told.extend(mirrors.iter().map(|m| {
        let version = m.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
        format!("{} of {} copied to {}{version}", m.share.of, m.share.out_of, m.service)
    }));
    told.extend(changes("response", response));
    told
}

fn path(change: &PathChange) -> String {
    match change {
        PathChange::Full(path) => format!("path {path}"),
        PathChange::Prefix(path) => format!("path prefix {path}"),
    }
}

/// Names only: a value may be a key of somebody's.
fn changes(of: &str, changes: &HeaderChanges) -> Vec<String> {
    let HeaderChanges { remove, set, add } = changes;
    let removed = remove.iter().map(|name| format!("{of} header {name} removed"));
    let set = set.iter().map(|(name, _)| format!("{of} header {name} set"));
    let added = add.iter().map(|(name, _)| format!("{of} header {name} added"));
    removed.chain(set).chain(added).collect()
}

/// What holds for the request in time and attempts, as far as it is not the default.
pub(super) fn policy(route: Option<&Route>, policy: &outrigger_mesh::TrafficPolicy) -> Json {
    let timeouts = route.map_or_else(|| policy.timeouts.clone(), |r| r.timeouts.or(&policy.timeouts));
    let retry = route.and_then(|r| r.retry.as_ref()).unwrap_or(&policy.retry);
    let mut told = Map::new();
    let request = timeouts.request.unwrap_or(outrigger_mesh::Timeouts::REQUEST);
    told.insert("timeout".into(), format!("{request:?}").into());
    if let Some(per_try) = timeouts.per_try {
        told.insert("perTry".into(), format!("{per_try:?}").into());
    }
    told.insert("retries".into(), retry.retries.into());
    if let Some(share) = route.and_then(|r| r.policy.traced).or(policy.traced) {
        told.insert("traced".into(), share.to_string().into());
    }
    Json::Object(told)
}

/// To a hundredth.
fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

/// So many endpoints are named.
const MOST_ENDPOINTS: usize = 20;
