//! What people ask of pushes: what a change would mean to whom, and what a sidecar has been told.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_mesh::{ResourceName, Selector};
use outrigger_wire::session::Catalog;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::Hub;
use super::catalog::Prepared;
use super::hub::Concern;
use crate::compile::ResourceChange;

/// A sidecar that a change would reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Affected {
    /// Its name, one for every process.
    pub node: String,
    /// Its proven identity.
    pub identity: String,
    /// What it would be sent or told to forget: `kind name`.
    pub resources: Vec<String>,
}

impl Hub {
    /// The connected sidecars that would be sent something if these changes were published, in the order of their names.
    pub fn foresee(&self, changes: Vec<ResourceChange>) -> Vec<Affected> {
        let prepared: Vec<Prepared> = changes.into_iter().map(Prepared::new).collect();
        let difference = self.read().foresee(&prepared);
        let mut all = BTreeMap::<(String, String), BTreeSet<String>>::new();
        self.concerned(&difference, |proxy, concern| {
            let what = match concern {
                Concern::Name(name) => told(name),
                Concern::Host(host) => format!("host {host}"),
            };
            let (identity, node) = proxy.node();
            all.entry((identity.to_string(), node)).or_default().insert(what);
        });
        let affected = all.into_iter().map(|((identity, node), resources)| {
            let resources = resources.into_iter().collect();
            Affected { node, identity, resources }
        });
        affected.collect()
    }

    /// What the sidecars of this name have subscribed to, and the versions that are in force for them. A name is one for
    /// every process of an identity; of several identities that chose the same name each is told.
    pub fn told_to(&self, node: &str) -> Vec<Json> {
        let now = self.read().position();
        let proxies = self.all_sessions().into_iter().filter(|proxy| proxy.node().1 == node);
        let told = proxies.map(|proxy| {
            let mut selectors = self.selectors_of(proxy.id());
            selectors.sort_by_key(ToString::to_string);
            let resources: BTreeMap<String, Json> = selectors.iter().flat_map(|s| self.meant(s)).collect();
            json!({
                "proxy": proxy.status(now).to_json(),
                "subscriptions": selectors.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "resources": resources.into_values().collect::<Vec<_>>(),
            })
        });
        told.collect()
    }

    /// The resources that a selector means now.
    fn meant(&self, selector: &Selector) -> Vec<(String, Json)> {
        let catalog = self.read();
        let found = match selector {
            Selector::Named(name) => catalog.get(name).into_iter().collect(),
            Selector::EndpointsOf(service) => catalog.endpoints_of(service),
            Selector::All(kind) => catalog.all(*kind),
            Selector::Host(host) => {
                let service = catalog.host(host).map(ResourceName::Service);
                service.and_then(|name| catalog.get(&name)).into_iter().collect()
            }
        };
        let each = found.into_iter().map(|encoded| {
            let name = &encoded.name;
            let told = json!({
                "kind": name.kind().as_str(), "name": name.to_string(), "version": encoded.version.to_string(),
                "bytes": encoded.payload.len(),
            });
            (format!("{} {name}", name.kind().as_str()), told)
        });
        each.collect()
    }
}

fn told(name: &ResourceName) -> String {
    format!("{} {name}", name.kind().as_str())
}
