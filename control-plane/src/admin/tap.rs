//! Live requests: the sidecars concerned are asked for them, and what they tell goes on as server-sent events.
//!
//! Who looks at what is in the audit log before the first is told. Everything has a bound: taps at once, of all and of one
//! asker, sidecars that are asked, requests a second and in all, and how long it goes on. What was left out is told. A tap
//! ends with its connection, and the sidecars hear of that.

mod events;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outrigger_mesh::{BadTap, ServiceName, SpiffeId, TapFilter, TapSide};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::{Api, ApiError, Caller};
use crate::audit::AuditEntry;
use crate::store::{CommitError, Transaction};
use crate::users::permission::{Verb, What};
use crate::world::World;
use events::{Events, Told};

/// What is looked at: `from` or `to` at least.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Requests of this service or gateway, `namespace/name`: its own sidecars tell of them.
    from: Option<String>,
    /// Requests to this service, `namespace/name`. Without `from` its sidecars tell of them.
    to: Option<String>,
    /// Of this path, in which `*` stands for anything.
    path: Option<String>,
    /// Answered so: `503`, `5xx`, several with commas between.
    status: Option<String>,
    /// Of this method.
    method: Option<String>,
    /// Refused or failed for this reason; `any` for whatever it is.
    reason: Option<String>,
    /// So many, 1 to 10000; 1000 unless said.
    limit: Option<String>,
    /// For so long, `1s` to `4m`; `60s` unless said.
    r#for: Option<String>,
}

/// `GET /v1/tap`.
pub(super) async fn tap(
    State(api): State<Api>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let mut filter = filter(&wanted).map_err(|e| bad(e.to_string()))?;
    let from: Option<ServiceName> = wanted
        .from
        .as_deref()
        .map(str::parse::<ServiceName>)
        .transpose()
        .map_err(|e| bad(format!("from: {e}")))?;
    let teller = match (&from, &filter.to) {
        (Some(from), _) => from.clone(),
        (None, Some(to)) => to.clone(),
        (None, None) => {
            return Err(bad("say whose requests: from=namespace/name, to=namespace/name, or both".into()));
        }
    };
    caller.may(Verb::Read, What::Requests, Some(teller.namespace()))?;
    filter.side = Some(if from.is_some() { TapSide::Caller } else { TapSide::Service });
    let (lasts, limit) = (filter.lasts.unwrap_or(LASTS), filter.limit.unwrap_or(LIMIT));
    (filter.lasts, filter.limit) = (Some(lasts), Some(limit));
    let tellers = tellers(&api, &teller)?;
    let place = api.taps.place(&caller.author.who)?;
    note(&api, caller, &teller, &filter).await?;

    let (page, left_out) = (filter.page(), tellers.len().saturating_sub(MOST_SIDECARS));
    let (mut told, mut silent) = (Vec::new(), Vec::new());
    for (identity, node) in tellers.into_iter().take(MOST_SIDECARS) {
        match api.observed.tap(&identity, &node, page.clone()) {
            Ok(lines) => told.push(Told { node, identity: identity.to_string(), lines }),
            Err(why) => {
                silent.push(json!({ "node": node, "identity": identity.to_string(), "failure": why }));
            }
        }
    }
    let names = told.iter().map(|one| json!({ "node": one.node, "identity": one.identity }));
    let mut hello = json!({
        "sidecars": names.collect::<Vec<_>>(), "silent": silent, "leftOut": left_out,
        "seconds": lasts.as_secs(), "limit": limit,
    });
    if let Some(replicas) = api.state.store().replicas() {
        hello["replicas"] = json!({ "count": replicas.count(), "told": 1 });
    }
    let events = Events::new(&hello, told, Instant::now() + lasts, limit, place);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(events.stream())).into_response())
}

fn filter(wanted: &Wanted) -> Result<TapFilter, BadTap> {
    let mut filter = TapFilter::default();
    for (field, text) in [
        ("to", &wanted.to),
        ("path", &wanted.path),
        ("status", &wanted.status),
        ("method", &wanted.method),
        ("reason", &wanted.reason),
        ("limit", &wanted.limit),
        ("for", &wanted.r#for),
    ] {
        if let Some(text) = text {
            filter.set(field, text)?;
        }
    }
    Ok(filter)
}

/// The sidecars that see what passes at a service, or at a gateway: identity and node.
fn tellers(api: &Api, service: &ServiceName) -> Result<Vec<(SpiffeId, String)>, ApiError> {
    let none = |why: String| ApiError::new(StatusCode::NOT_FOUND, why);
    let world = api.state.world();
    let identities = identities(&world, service).ok_or_else(|| {
        none(format!("there is no service {service}; GET /v1/services lists those that are"))
    })?;
    if identities.is_empty() {
        let why = format!("{service} is outside the mesh and has no sidecar: say who calls it, with from");
        return Err(none(why));
    }
    let of_it = |proxy: &Json| {
        let id: SpiffeId = proxy["identity"].as_str()?.parse().ok()?;
        let beside = proxy["service"].as_str();
        let meant = identities.contains(&id) && beside.is_none_or(|beside| beside == service.to_string());
        meant.then(|| (id, proxy["node"].as_str().unwrap_or_default().to_owned()))
    };
    let tellers: Vec<_> = api.observed.proxies().iter().filter_map(of_it).collect();
    if tellers.is_empty() {
        let elsewhere = api.state.store().replicas().map(|replicas| replicas.count()).filter(|n| *n > 1);
        let elsewhere = elsewhere.map_or_else(String::new, |n| {
            format!("; it may be connected to another of the {n} control planes: ask those too")
        });
        return Err(none(format!("no sidecar of {service} is connected to this control plane{elsewhere}")));
    }
    Ok(tellers)
}

fn identities(world: &World, service: &ServiceName) -> Option<BTreeSet<SpiffeId>> {
    if let Some(entry) = world.service(service) {
        return Some(entry.checked.service().identities.iter().cloned().collect());
    }
    world.gateway(service)?;
    let domain = world.trust_domain().clone();
    Some(BTreeSet::from([SpiffeId::new(domain, service.namespace().clone(), service.name().clone())]))
}

/// Writes down who looks at what.
async fn note(api: &Api, caller: Caller, teller: &ServiceName, filter: &TapFilter) -> Result<(), ApiError> {
    let fields: Vec<_> = filter.fields().iter().map(|(field, text)| format!("{field}={text}")).collect();
    let author = caller.author;
    let object = format!("live requests at {teller}: {}", fields.join(" "));
    let audit = vec![AuditEntry::new(&author, "tap", object)];
    match api.state.store().commit(Transaction { author, writes: vec![], audit }).await {
        Err(CommitError::Store(e)) => Err(e.into()),
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
    }
}

/// The taps that are open at this control plane, by who looks.
#[derive(Debug, Default)]
pub struct Taps(Mutex<HashMap<String, usize>>);

/// One of the places there are; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    taps: Arc<Taps>,
    who: String,
}

impl Taps {
    pub(super) fn place(self: &Arc<Self>, who: &str) -> Result<Place, ApiError> {
        let full = |why: String| Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, why));
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= MOST_TAPS {
            return full(format!("{MOST_TAPS} taps are open here already: try again when one has ended"));
        }
        let own = open.entry(who.to_owned()).or_default();
        if *own >= MOST_OF_ONE {
            return full(format!("you have {MOST_OF_ONE} taps open already: end one of them"));
        }
        *own += 1;
        Ok(Place { taps: Arc::clone(self), who: who.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.taps.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.who);
            }
        }
    }
}

/// Taps at once,
const MOST_TAPS: usize = 16;
/// and of one asker.
const MOST_OF_ONE: usize = 4;
/// Sidecars that one tap asks.
const MOST_SIDECARS: usize = 64;
/// How long a tap goes on, unless somebody says so,
const LASTS: Duration = Duration::from_secs(60);
/// and how many requests it tells.
const LIMIT: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asker_has_some_of_the_places_and_all_have_so_many() {
        let taps = Arc::<Taps>::default();
        let own: Vec<_> = (0..MOST_OF_ONE).map(|_| taps.place("ada").unwrap()).collect();
        assert!(taps.place("ada").is_err());
        let others: Vec<_> = (MOST_OF_ONE..MOST_TAPS).map(|n| taps.place(&n.to_string()).unwrap()).collect();
        assert!(taps.place("last").is_err());
        drop(own);
        let last = taps.place("last").unwrap();
        drop((others, last));
        assert!(taps.0.lock().unwrap().is_empty());
    }
}
