//! What a Gateway is told of itself, as the Gateway API words it: whether it is accepted and given to its proxies, and the same of
//! each of its listeners, with the kinds of routes that it takes and how many it has.

use std::collections::BTreeMap;

use outrigger_mesh::{Label, ServiceName};
use serde_json::{Value as Json, json};

use super::statuses::{condition, in_time};
use crate::spec::{Key, Kind};
use crate::status::attached_routes;
use crate::world::World;

/// As many listeners as the Gateway API lets a gateway have.
const MOST_LISTENERS: usize = 64;

/// The status of a gateway with what is `wrong` with it, beside the conditions that others wrote.
pub(super) fn status(world: &World, key: &Key, raw: &Json, wrong: &[String]) -> Json {
    let generation = raw["metadata"]["generation"].as_u64().unwrap_or(1);
    let of_listeners = raw["spec"]["listeners"].as_array().map_or(&[][..], Vec::as_slice);
    let of_listeners = &of_listeners[..of_listeners.len().min(MOST_LISTENERS)];
    let label = Label::new(key.name.as_str()).ok();
    let name = label.map(|label| ServiceName::new(key.namespace.clone(), label));
    let routes = name.map(|name| attached_routes(world, &name)).unwrap_or_default();
    let all: Vec<Listener> =
        (0..of_listeners.len()).map(|at| Listener::of(of_listeners, at, wrong, &routes)).collect();
    let mut conditions = of_gateway(wrong, all.iter().all(|one| one.faults.is_empty()), generation);
    in_time(&mut conditions, raw["status"]["conditions"].as_array());
    let is_own = |other: &&Json| !conditions.iter().any(|own| own["type"] == other["type"]);
    let others = raw["status"]["conditions"].as_array().into_iter().flatten().filter(is_own).cloned();
    let conditions: Vec<Json> = conditions.iter().cloned().chain(others).collect();
    let before = raw["status"]["listeners"].as_array();
    let listeners = all.iter().map(|one| one.status(before, wrong.is_empty(), generation));
    json!({ "conditions": conditions, "listeners": listeners.collect::<Vec<_>>() })
}

fn of_gateway(wrong: &[String], listeners_hold: bool, generation: u64) -> Vec<Json> {
    let at = |pointer: &str| wrong.iter().any(|told| told.contains(pointer));
    let reason = if wrong.is_empty() {
        "Accepted"
    } else if !listeners_hold {
        "ListenersNotValid"
    } else if at("/spec/addresses") {
        "UnsupportedAddress"
    } else if at("/spec/infrastructure") {
        "InvalidParameters"
    } else {
        "Invalid"
    };
    let holds = wrong.is_empty();
    let told = if holds { "it is in force".to_owned() } else { wrong.join("; ") };
    vec![
        condition("Accepted", holds, reason, &told, generation),
        condition(
            "Programmed",
            holds,
            if holds { "Programmed" } else { "Invalid" },
            programmed(holds),
            generation,
        ),
    ]
}

fn programmed(holds: bool) -> &'static str {
    if holds { "its proxies are told of it" } else { "the gateway is not accepted" }
}

/// A listener as it is written, and what is to be said of it.
struct Listener<'a> {
    name: &'a str,
    speaks: Option<&'static [Kind]>,
    routes: usize,
    faults: Vec<Fault>,
}

/// The type of the condition, its reason, and why.
type Fault = (&'static str, &'static str, String);

impl<'a> Listener<'a> {
    fn of(all: &'a [Json], at: usize, wrong: &[String], routes: &BTreeMap<Label, usize>) -> Self {
        let written = &all[at];
        let name = written["name"].as_str().unwrap_or_default();
        let speaks: Option<&[Kind]> = is_spoken(written).then_some(&[Kind::HttpRoute, Kind::GrpcRoute]);
        let mut faults = faults(all, at);
        let is_said = !faults.is_empty();
        let told = wrong.iter().flat_map(|told| told.split("; "));
        faults.extend(
            told.filter_map(|told| reason(told, at, is_said).map(|(of, why)| (of, why, told.to_owned()))),
        );
        let routes = Label::new(name).ok().and_then(|name| routes.get(&name).copied()).unwrap_or_default();
        Self { name, speaks, routes, faults }
    }

    fn status(&self, before: Option<&Vec<Json>>, gateway_holds: bool, generation: u64) -> Json {
        let of = |kind: &str| self.faults.iter().find(|(of, ..)| *of == kind);
        let conflicted = of("Conflicted");
        let not = of("Accepted").or(conflicted);
        let one = |kind, fault: Option<&Fault>, reason, told| match fault {
            Some((_, reason, why)) => condition(kind, false, reason, why, generation),
            None => condition(kind, true, reason, told, generation),
        };
        let is_programmed = gateway_holds && self.faults.is_empty();
        let mut conditions = vec![
            one("Accepted", not, "Accepted", "it is in force with its gateway"),
            one("ResolvedRefs", of("ResolvedRefs"), "ResolvedRefs", "everything that it refers to can be"),
            match conflicted {
                Some((_, reason, why)) => condition("Conflicted", true, reason, why, generation),
                None => condition(
                    "Conflicted",
                    false,
                    "NoConflicts",
                    "no other listener is in its way",
                    generation,
                ),
            },
            condition(
                "Programmed",
                is_programmed,
                if is_programmed { "Programmed" } else { "Invalid" },
                programmed(is_programmed),
                generation,
            ),
        ];
        let known = before.into_iter().flatten().find(|b| b["name"] == self.name);
        in_time(&mut conditions, known.and_then(|known| known["conditions"].as_array()));
        let kind = |kind: &Kind| json!({ "group": "gateway.networking.k8s.io", "kind": kind.as_str() });
        let kinds: Vec<Json> = self.kinds().iter().map(kind).collect();
        json!({
            "name": self.name, "supportedKinds": kinds, "attachedRoutes": self.routes, "conditions": conditions,
        })
    }

    /// The kinds of routes that it takes: none where it is told to take kinds by name, which is refused.
    fn kinds(&self) -> &'static [Kind] {
        let named = self.faults.iter().any(|(_, reason, _)| *reason == "InvalidRouteKinds");
        self.speaks.filter(|_| !named).unwrap_or_default()
    }
}

fn is_spoken(listener: &Json) -> bool {
    matches!(listener["protocol"].as_str(), Some("HTTP" | "HTTPS"))
}

/// What is wrong with one listener of all, as it is written.
fn faults(all: &[Json], at: usize) -> Vec<Fault> {
    let mut faults = vec![];
    if !is_spoken(&all[at]) {
        let told = format!("{} is not supported: HTTP and HTTPS are", all[at]["protocol"]);
        faults.push(("Accepted", "UnsupportedProtocol", told));
    }
    let mut others = all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other);
    if let Some((reason, why)) = others.find_map(|other| conflict(&all[at], other)) {
        faults.push(("Conflicted", reason, why));
    }
    faults
}

/// The type of a condition of one listener and its reason, for a mistake that was told with its place. None where it is another's,
/// or is said more exactly already.
fn reason(told: &str, at: usize, is_said: bool) -> Option<(&'static str, &'static str)> {
    let (_, field) = told.split_once(&format!("(at /spec/listeners/{at}"))?;
    match field {
        // A number after the one that is meant: another listener.
        other if other.starts_with(|c: char| c.is_ascii_digit()) => None,
        kinds if kinds.starts_with("/allowedRoutes/kinds") => Some(("ResolvedRefs", "InvalidRouteKinds")),
        tls if tls.starts_with("/tls/certificateRefs") => Some(("ResolvedRefs", "InvalidCertificateRef")),
        _ => (!is_said).then_some(("Accepted", "Invalid")),
    }
}

/// Why two listeners of a gateway can not both be.
fn conflict(one: &Json, other: &Json) -> Option<(&'static str, String)> {
    if one["port"] != other["port"] {
        return None;
    }
    let name = other["name"].as_str().unwrap_or_default();
    if one["protocol"] != other["protocol"] {
        let why = format!(
            "the listener {name} speaks {} at this port",
            other["protocol"].as_str().unwrap_or_default()
        );
        return Some(("ProtocolConflict", why));
    }
    let same = one["hostname"].as_str().unwrap_or_default() == other["hostname"].as_str().unwrap_or_default();
    same.then(|| ("HostnameConflict", format!("the listener {name} has this port and host name")))
}
