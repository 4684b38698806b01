//! What the sidecars themselves say, asked at this moment: pages of one, and the breakers of all.
//!
//! Each sidecar counts for itself, so a breaker is open at some and closed at others: what is told is where.

use std::collections::BTreeMap;

use axum::Json as JsonBody;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use futures_util::StreamExt;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::facts::namespace_of_identity;
use super::{Api, ApiError, Caller};

/// The pages that a sidecar has.
pub const PAGES: [&str; 6] = ["breakers", "certs", "config", "endpoints", "policies", "routes"];

/// `GET /v1/proxies/{node}/{page}`: a page of the sidecars of this name, from themselves.
pub(super) async fn page(
    State(api): State<Api>,
    caller: Caller,
    Path((node, page)): Path<(String, String)>,
) -> Result<JsonBody<Json>, ApiError> {
    let Some(page) = PAGES.into_iter().find(|known| *known == page) else {
        let detail = format!("sidecars have no page {page:?}; there are {}", PAGES.join(", "));
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    };
    let mut proxies = covered(&api, &caller);
    proxies.retain(|(_, its)| *its == node);
    if proxies.is_empty() {
        let detail =
            format!("no sidecar called {node:?} is connected here; GET /v1/proxies lists those that are");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    let told = ask(&api, proxies, page).await;
    // A name is one for every process of an identity, so that there is one answer most of the time.
    if let [Told { why: Some(why), .. }] = told.as_slice() {
        return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("the sidecar {node}: {why}")));
    }
    let items = told.into_iter().map(|told| match told.page {
        Some(answer) => json!({ "identity": told.identity, "node": told.node, page: answer }),
        None => json!({ "identity": told.identity, "node": told.node, "failure": told.why }),
    });
    Ok(JsonBody(json!({ "items": items.collect::<Vec<_>>() })))
}

/// Of which service the breakers are wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// `namespace/name`.
    service: Option<String>,
}

/// `GET /v1/breakers`: every breaker over a service, its routes and versions, and where it is open; of those over single
/// endpoints the ones that are open somewhere.
pub(super) async fn breakers(
    State(api): State<Api>,
    caller: Caller,
    Query(which): Query<Which>,
) -> JsonBody<Json> {
    let told = ask(&api, covered(&api, &caller), "breakers").await;
    let mut all = BTreeMap::<Scope, Breaker>::new();
    let mut silent = Vec::new();
    let proxies = told.len();
    for told in told {
        match &told.page {
            Some(page) => note(&mut all, &told, page),
            None => silent.push(json!({ "identity": told.identity, "node": told.node, "failure": told.why })),
        }
    }
    let wanted = |scope: &Scope| which.service.as_ref().is_none_or(|service| *service == scope.service);
    let items =
        all.into_iter().filter(|(scope, _)| wanted(scope)).map(|(scope, breaker)| breaker.told(&scope));
    JsonBody(json!({ "items": items.collect::<Vec<_>>(), "proxies": proxies, "silent": silent }))
}

/// The sidecars that a caller may look at: identity and node.
fn covered(api: &Api, caller: &Caller) -> Vec<(String, String)> {
    let mut proxies = api.observed.proxies();
    proxies.retain(|proxy| caller.covers(namespace_of_identity(proxy)));
    let text = |proxy: &Json, field: &str| proxy[field].as_str().unwrap_or_default().to_owned();
    proxies.iter().map(|proxy| (text(proxy, "identity"), text(proxy, "node"))).collect()
}

/// What one sidecar said.
struct Told {
    identity: String,
    node: String,
    page: Option<Json>,
    why: Option<String>,
}

async fn ask(api: &Api, proxies: Vec<(String, String)>, page: &'static str) -> Vec<Told> {
    let asked = proxies.into_iter().map(|(identity, node)| async move {
        match api.observed.page(&identity, &node, page).await {
            Ok(page) => Told { identity, node, page: Some(page), why: None },
            Err(why) => Told { identity, node, page: None, why: Some(why) },
        }
    });
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

/// Which breaker.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    service: String,
    over: &'static str,
    name: Option<String>,
}

/// A breaker, as all sidecars say.
#[derive(Debug, Default)]
struct Breaker {
    states: BTreeMap<String, usize>,
    mode: Option<Json>,
    said: Option<Json>,
    not_closed: Vec<Json>,
}

/// Takes note of what a sidecar says of its breakers.
fn note(all: &mut BTreeMap<Scope, Breaker>, told: &Told, page: &Json) {
    for service in page.as_array().into_iter().flatten() {
        let Some(name) = service["name"].as_str() else { continue };
        let of = |over, part: Option<&str>| Scope {
            service: name.to_owned(),
            over,
            name: part.map(str::to_owned),
        };
        let mut each = vec![(of("service", None), &service["service"])];
        for (over, field) in [("route", "routes"), ("version", "versions")] {
            let named = service[field].as_object().into_iter().flatten();
            each.extend(named.map(|(name, one)| (of(over, Some(name.as_str())), one)));
        }
        for one in service["endpoints"].as_array().into_iter().flatten() {
            each.push((of("endpoint", one["uid"].as_str()), one));
        }
        for (scope, one) in each {
            all.entry(scope).or_default().add(told, one);
        }
    }
}

impl Breaker {
    fn add(&mut self, told: &Told, one: &Json) {
        let state = one["state"].as_str().unwrap_or("unknown");
        *self.states.entry(state.to_owned()).or_default() += 1;
        self.mode = self.mode.take().or_else(|| one.get("mode").cloned());
        self.said = self.said.take().or_else(|| one.get("override").filter(|said| !said.is_null()).cloned());
        if state != "closed" && self.not_closed.len() < MOST_TOLD {
            let mut at = one.clone();
            at["identity"] = told.identity.as_str().into();
            at["node"] = told.node.as_str().into();
            self.not_closed.push(at);
        }
    }

    fn told(self, scope: &Scope) -> Json {
        json!({
            "service": scope.service, "over": scope.over, "name": scope.name, "mode": self.mode,
            "override": self.said, "states": self.states, "at": self.not_closed,
        })
    }
}

/// Sidecars that are asked at a time.
const AT_ONCE: usize = 64;
/// Of the sidecars at which a breaker is not closed so many are told.
const MOST_TOLD: usize = 100;
