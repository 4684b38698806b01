//! Who calls whom and how it goes: made of what the sidecars report, which `telemetry` keeps for an hour.
//!
//! A service's figures are told to whoever may read its namespace, and so is the traffic on each way to it and from it:
//! the name at the other end goes with that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json as JsonBody;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use outrigger_mesh::{Histogram, Label, ServiceName, SpiffeId, Version};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use super::{Api, ApiError, Caller};
use crate::spec::{self, Kind};
use crate::telemetry::{Flow, Flows, STEP, Stretch, Told, Whose};
use crate::users::permission::{Verb, What};
use crate::world::World;

/// Of what the picture is wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// How far back: `10s` to `1h`; `5m` unless said.
    window: Option<spec::Duration>,
    /// The services of this namespace, with whoever calls them and whom they call.
    namespace: Option<String>,
}

/// Of one service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedOf {
    /// How far back: `10s` to `1h`; `1h` unless said.
    window: Option<spec::Duration>,
}

/// `GET /v1/topology`.
pub(super) async fn all(
    State(api): State<Api>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<JsonBody<Json>, ApiError> {
    let (window, said) = window(wanted.window, "5m")?;
    let (stretch, world) = (api.observed.traffic(window), api.state.world());
    let told = off_the_way(move || {
        let sight = Sight { flows: Flows::of(&stretch, |_| true), seconds: stretch.seconds(), world: &world };
        let is_meant = |namespace: &str| {
            caller.covers(namespace) && wanted.namespace.as_ref().is_none_or(|only| only == namespace)
        };
        json!({
            "window": said,
            "asOf": moment(Duration::ZERO),
            "seconds": sight.seconds,
            "nodes": sight.nodes(is_meant),
            "edges": sight.edges(|from, to| from.is_some_and(is_meant) || is_meant(to)),
        })
    });
    Ok(JsonBody(with_replicas(&api, told.await?)))
}

/// `GET /v1/topology/{namespace}/{name}`.
pub(super) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
    Query(wanted): Query<WantedOf>,
) -> Result<JsonBody<Json>, ApiError> {
    let (window, said) = window(wanted.window, "1h")?;
    let bad = |what: &str| ApiError::new(StatusCode::BAD_REQUEST, what.to_owned());
    let namespace = Label::new(&namespace).map_err(|e| bad(&e.to_string()))?;
    caller.may(Verb::Read, What::Running, Some(&namespace))?;
    let service = ServiceName::new(namespace, Label::new(&name).map_err(|e| bad(&e.to_string()))?);
    let world = api.state.world();
    if world.service(&service).is_none() && world.gateway(&service).is_none() {
        let detail = format!("there is no service {service}; GET /v1/services lists those that are");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    let stretch = api.observed.traffic(window);
    let told = off_the_way(move || of_service(&service, &stretch, &world, &said));
    Ok(JsonBody(with_replicas(&api, told.await?)))
}

fn of_service(service: &ServiceName, stretch: &Stretch, world: &World, window: &str) -> Json {
    let sight = Sight { flows: Flows::of(stretch, |_| true), seconds: stretch.seconds(), world };
    let Told { points, versions, refusals } = Told::of(stretch, service);
    let points = points.iter().map(|(ago, flow)| {
        let mut point = figures(flow, STEP.as_secs_f64());
        point["at"] = moment(*ago).into();
        point
    });
    let versions = versions.iter().map(|(version, flow)| {
        let mut row = figures(flow, sight.seconds);
        row["version"] = version.as_str().into();
        row
    });
    json!({
        "service": named(service),
        "kind": kind(world, service),
        "window": window,
        "asOf": moment(Duration::ZERO),
        "seconds": sight.seconds,
        "step": STEP.as_secs(),
        "now": figures(&sight.flows.to(service), sight.seconds),
        "points": points.collect::<Vec<_>>(),
        "versions": versions.collect::<Vec<_>>(),
        "callers": sight.edges_where(|_, to| to == service),
        "callees": sight.edges_where(|from, _| from == Some(service)),
        "refusals": refusals
            .iter()
            .map(|(reason, count)| json!({ "reason": reason.as_str(), "count": count }))
            .collect::<Vec<_>>(),
    })
}

/// The traffic, and what the names in it are.
struct Sight<'a> {
    flows: Flows,
    seconds: f64,
    world: &'a World,
}

impl Sight<'_> {
    /// Every service and gateway in namespaces that are meant, those without traffic included, and who else calls them.
    fn nodes(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Json> {
        let mut sums: BTreeMap<&ServiceName, Flow> = BTreeMap::new();
        for ((to, _), flow) in &self.flows.edges {
            sums.entry(to).or_default().merge(flow);
        }
        let services = self.world.services().map(|entry| entry.checked.name());
        let names: BTreeSet<_> =
            services.chain(self.world.gateways().map(|entry| entry.checked.name())).collect();
        let meant = names.iter().filter(|name| is_meant(name.namespace().as_str()));
        let mut nodes: Vec<Json> = meant
            .map(|name| {
                let mut node = figures(sums.get(*name).unwrap_or(&Flow::default()), self.seconds);
                node["versions"] =
                    self.flows.versions.get(*name).into_iter().flatten().map(Version::as_str).collect();
                with(node, &named(name), kind(self.world, name))
            })
            .collect();
        nodes.extend(self.other_callers(is_meant));
        nodes
    }

    /// Callers that serve nothing themselves, and whoever proves nothing.
    fn other_callers(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Json> {
        let mut others = BTreeSet::new();
        for (to, from) in self.flows.edges.keys() {
            let is_near = is_meant(to.namespace().as_str());
            match from {
                Whose::Known(id) if self.service_of(id).is_none() => {
                    let (namespace, name) = (id.namespace().as_str(), id.service_account().as_str());
                    if is_meant(namespace) {
                        others.insert((namespace, name, "workload"));
                    }
                }
                Whose::Nobody if is_near => {
                    others.insert(("", UNAUTHENTICATED, UNAUTHENTICATED));
                }
                Whose::Known(_) | Whose::Nobody | Whose::Others => {}
            }
        }
        let node = |(namespace, name, kind)| {
            let mut node = figures(&Flow::default(), self.seconds);
            node["versions"] = json!([]);
            with(node, &json!({ "namespace": namespace, "name": name }), kind)
        };
        others.into_iter().map(node).collect()
    }

    fn edges(&self, is_meant: impl Fn(Option<&str>, &str) -> bool) -> Vec<Json> {
        self.told(|from, to| {
            let namespace = match from {
                Whose::Known(id) => Some(id.namespace().as_str()),
                Whose::Nobody | Whose::Others => None,
            };
            is_meant(namespace, to.namespace().as_str())
        })
    }

    fn edges_where(&self, is_meant: impl Fn(Option<&ServiceName>, &ServiceName) -> bool) -> Vec<Json> {
        self.told(|from, to| {
            let service = match from {
                Whose::Known(id) => self.service_of(id),
                Whose::Nobody | Whose::Others => None,
            };
            is_meant(service.as_ref(), to)
        })
    }

    fn told(&self, is_meant: impl Fn(&Whose, &ServiceName) -> bool) -> Vec<Json> {
        let edges = self.flows.edges.iter().filter(|((to, from), _)| is_meant(from, to));
        let told = edges.map(|((to, from), flow)| {
            let mut edge = figures(flow, self.seconds);
            edge["from"] = self.caller(from);
            edge["to"] = named(to);
            edge
        });
        told.collect()
    }

    fn caller(&self, from: &Whose) -> Json {
        match from {
            Whose::Nobody => json!({ "identity": UNAUTHENTICATED }),
            Whose::Others => json!({ "identity": "other" }),
            Whose::Known(id) => {
                let mut told = json!({ "identity": id.to_string() });
                if let Some(service) = self.service_of(id) {
                    told["namespace"] = service.namespace().as_str().into();
                    told["name"] = service.name().as_str().into();
                }
                told
            }
        }
    }

    /// The service or the gateway that an identity serves; of several the first by name.
    fn service_of(&self, id: &SpiffeId) -> Option<ServiceName> {
        if let Some(entry) = self.world.served_by(id).next() {
            return Some(entry.checked.name().clone());
        }
        let name = ServiceName::new(id.namespace().clone(), id.service_account().clone());
        self.world.gateway(&name).is_some().then_some(name)
    }
}

/// How a service is called in answers.
fn named(service: &ServiceName) -> Json {
    json!({ "namespace": service.namespace().as_str(), "name": service.name().as_str() })
}

fn kind(world: &World, service: &ServiceName) -> &'static str {
    match world.service(service) {
        Some(entry) if entry.object.kind() == Kind::EgressService => "outside",
        Some(_) => "service",
        None => "gateway",
    }
}

fn with(mut node: Json, name: &Json, kind: &str) -> Json {
    node["namespace"] = name["namespace"].clone();
    node["name"] = name["name"].clone();
    node["kind"] = kind.into();
    node
}

fn figures(flow: &Flow, seconds: f64) -> Json {
    json!({
        "rps": flow.requests as f64 / seconds,
        "success": flow.success_share(),
        "p50Ms": millis(&flow.latency, 0.5),
        "p99Ms": millis(&flow.latency, 0.99),
        "refused": flow.refused,
    })
}

fn millis(latency: &Histogram, q: f64) -> Option<f64> {
    latency.quantile(q).map(|d| d.as_secs_f64() * 1_000.0)
}

/// How long it is, and how it is written.
fn window(asked: Option<spec::Duration>, unless: &str) -> Result<(Duration, String), ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let asked = asked.map_or_else(|| spec::Duration::parse(unless), Ok).map_err(bad)?;
    if (STEP..=LONGEST).contains(&asked.get()) {
        return Ok((asked.get(), asked.to_string()));
    }
    Err(bad("window: 10s to 1h; an hour is what is kept".to_owned()))
}

/// Where several control planes share a store, each has what its own sidecars say.
fn with_replicas(api: &Api, mut told: Json) -> Json {
    if let Some(replicas) = api.state.store().replicas() {
        told["replicas"] = json!({ "count": replicas.count(), "told": 1 });
    }
    told
}

/// An hour of thousands of services takes a moment to add up.
async fn off_the_way(work: impl FnOnce() -> Json + Send + 'static) -> Result<Json, ApiError> {
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "it could not be added up");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn moment(ago: Duration) -> String {
    super::tokens::moment(OffsetDateTime::now_utc() - ago)
}

const UNAUTHENTICATED: &str = "unauthenticated";
const LONGEST: Duration = Duration::from_secs(3600);
