//! Who obeys the present version of a service, sidecar by sidecar.
//!
//! Only for services that somebody asks for: a session notes with each answer what it obeys of those, by the hash of its
//! content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use outrigger_mesh::{ResourceName, ServiceName};
use outrigger_wire::session::{Catalog, ServerSession};

use super::hub::Hub;
use super::sessions::Proxy;
use crate::rollout::{Acknowledgements, Sidecars};

/// The services that are asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    names: RwLock<Arc<Names>>,
}

/// The names, and how often they were changed.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: BTreeSet<ServiceName>,
    edition: u64,
}

impl Asked {
    pub(super) fn names(&self) -> Arc<Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// False when they are as they were.
    fn set(&self, all: BTreeSet<ServiceName>) -> bool {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.all == all {
            return false;
        }
        *names = Arc::new(Names { all, edition: names.edition + 1 });
        true
    }
}

/// What one sidecar obeys of them.
#[derive(Debug, Default)]
pub(super) struct Obeyed {
    /// Of which names; none before it has come in.
    edition: Option<u64>,
    /// The services that it has asked for, each with the version that it obeys.
    versions: BTreeMap<ServiceName, Option<String>>,
}

impl Obeyed {
    /// What a session has come to.
    pub(super) fn noted(names: &Names, session: &ServerSession) -> Self {
        let of = |service: &ServiceName| {
            let name = ResourceName::Service(service.clone());
            let version = session.obeyed(&name).map(ToString::to_string);
            session.wants(&name).then_some((service.clone(), version))
        };
        Self { edition: Some(names.edition), versions: names.all.iter().filter_map(of).collect() }
    }

    /// Whether it obeys `version` of a service; `None` when it has not asked for it. What was noted of older names says
    /// nothing yet.
    fn of(&self, service: &ServiceName, version: &str, edition: u64) -> Option<bool> {
        if self.edition != Some(edition) {
            return Some(false);
        }
        Some(self.versions.get(service)?.as_deref() == Some(version))
    }
}

impl Proxy {
    fn obeys(&self, service: &ServiceName, version: &str, edition: u64) -> Option<Result<(), String>> {
        self.with_obeyed(|obeyed, rejected| {
            if obeyed.of(service, version, edition)? {
                return Some(Ok(()));
            }
            let name = service.to_string();
            let refused = rejected.iter().find(|r| r.name == name && r.version == version);
            Some(Err(
                refused.map_or_else(|| "has not answered".into(), |r| format!("rejected it: {}", r.reason))
            ))
        })
    }
}

impl Sidecars for Hub {
    fn ask_for(&self, services: BTreeSet<ServiceName>) {
        if self.asked().set(services) {
            self.all_sessions().iter().for_each(|proxy| proxy.look_again());
        }
    }

    fn acknowledged(&self, service: &ServiceName) -> Acknowledgements {
        let version = self.read().get(&ResourceName::Service(service.clone())).map(|e| e.version.to_string());
        let Some(version) = version else { return Acknowledgements::default() };
        let edition = self.asked().names().edition;
        let mut told = Acknowledgements { settled: true, ..Acknowledgements::default() };
        for proxy in self.all_sessions() {
            let Some(obeys) = proxy.obeys(service, &version, edition) else { continue };
            told.holders += 1;
            if let Err(why) = obeys {
                told.missing.push((proxy.node().1, why));
            }
        }
        told.missing.sort();
        told
    }
}
