//! The world from the store.

use std::net::IpAddr;
use std::sync::Arc;

use outrigger_mesh::{ServiceName, SpiffeId, TrustDomain};
use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::stand_in::stand_in;
use crate::addresses::VirtualAddress;
use crate::audit::Author;
use crate::check::{Checked, check_stored};
use crate::compile::Touched;
use crate::jwks::kept_keys;
use crate::rollout::{Progress, is_of_figures};
use crate::secret::MeshSecret;
use crate::spec::{Key, Kind, Object, Time};
use crate::status::{self, Since};
use crate::store::{Record, Space, Store, StoreError, Transaction};
use crate::world::{Entry, World};

/// What was loaded.
pub(super) struct Loaded {
    pub(super) world: World,
    /// The count of the steps of rollouts that are in it.
    pub(super) rollouts: u64,
}

/// Everything that is kept and holds. What does not, because another version wrote it or somebody did past the admin API, is
/// told in the log, and stays in the store. In its place is what was in force `before`, or what keeps shut (`stand_in`).
pub(super) async fn world(
    store: &dyn Store,
    trust_domain: TrustDomain,
    before: Option<&World>,
) -> Result<Loaded, StoreError> {
    let secret = MeshSecret::of(store).await?;
    let config = store.list(Space::Config, "").await?;
    let mut world = World::new(trust_domain, secret);
    world.revision = config.position;
    world.remember_keys(kept_keys(store).await?);
    put_in_order(&mut world, before, &config.records);
    instances(&mut world, store).await?;
    let rollouts = store.list(Space::Rollouts, "").await?;
    for (key, record) in &rollouts.records {
        set_progress(&mut world, key, Some(record));
    }
    since(&mut world, store).await?;
    Ok(Loaded { world, rollouts: rollouts.position })
}

/// Kinds come in the order in which one may refer to another.
fn put_in_order(world: &mut World, before: Option<&World>, records: &[(String, Record)]) {
    for kind in Kind::ALL {
        let prefix = format!("{}/", kind.collection());
        let mut wrong = vec![];
        for (key, record) in records.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            match put(world, record.clone()) {
                Ok(()) => {}
                // What stands for it must not be in the way of one that holds.
                Err(why) if kind == Kind::TokenPolicy => wrong.push((key, record, why)),
                Err(why) => stand_in(world, before, key, record, why),
            }
        }
        for (key, record, why) in wrong {
            stand_in(world, before, key, record, why);
        }
    }
}

/// The instances, of which there may be very many: while some are read others are judged, and never are all of them in
/// memory in their written form.
async fn instances(world: &mut World, store: &dyn Store) -> Result<(), StoreError> {
    let (portions, mut read) = mpsc::channel::<Vec<(String, Record)>>(PORTIONS);
    let judge = async {
        while let Some(portion) = read.recv().await {
            for (key, record) in portion {
                if let Err(why) = put(world, record) {
                    tracing::error!(object = key, why, "left out: it is kept, but does not hold");
                }
            }
        }
    };
    let (generation, ()) = tokio::join!(store.scan(Space::Instances, portions), judge);
    world.generation = generation?;
    Ok(())
}

/// How many portions may wait.
const PORTIONS: usize = 2;

/// Since when routes are as their status says. What is not known, or is not so any more, begins now.
async fn since(world: &mut World, store: &dyn Store) -> Result<(), StoreError> {
    for (path, record) in store.list(Space::Status, "").await?.records {
        let key = Key::from_path(&path).filter(|key| world.route(key).is_some());
        if let (Some(key), Ok(since)) = (key, serde_json::from_value::<Since>(record.value)) {
            world.set_since(&key, Some(Arc::new(since)));
        }
    }
    let writes = status::note_read(world, Time::now());
    if !writes.is_empty() {
        let author = Author::system("routes were read");
        if let Err(e) = store.commit(Transaction { author, writes, audit: vec![] }).await {
            tracing::warn!(error = %e, "since when routes are as they are is not kept");
        }
    }
    Ok(())
}

/// Puts how far a rollout has come in `world`; of which service it is.
pub(super) fn set_progress(world: &mut World, key: &str, record: Option<&Record>) -> Option<ServiceName> {
    if is_of_figures(key) {
        return None;
    }
    let service = key.parse::<ServiceName>();
    let progress = record.map(|record| serde_json::from_value::<Progress>(record.value.clone())).transpose();
    match (service, progress) {
        (Ok(service), Ok(progress)) if world.service(&service).is_some() || progress.is_none() => {
            world.rollouts.set(&service, progress.map(Arc::new));
            return Some(service);
        }
        (Ok(_), Ok(_)) => {}
        (_, Err(why)) => {
            tracing::error!(rollout = key, %why, "left out: how far it has come can not be read");
        }
        (Err(why), _) => tracing::error!(rollout = key, %why, "left out: it is of no service"),
    }
    None
}

/// Puts a record that is kept in `world`, if it holds.
pub(super) fn put(world: &mut World, record: Record) -> Result<(), String> {
    let Record { created, changed, value } = record;
    let kept = address(&value);
    let registered_by = registered_by(&value)?;
    let in_cluster = cluster_addresses(&value);
    let object = Object::from_json(value)?;
    let (checked, _) = check_stored(&object, world).map_err(|problems| {
        let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
        all.join("; ")
    })?;
    match checked {
        Checked::Service(mut checked) => {
            let name = checked.name().clone();
            let kept = kept.or(checked.address());
            let is_free = |a| world.at_address(a).is_none();
            // One that has none was stored by a version before there were addresses: it gets the same at every start,
            // until it is written again.
            let address = kept.filter(|a| is_free(*a)).or_else(|| VirtualAddress::find(&name, is_free));
            checked.at(address.ok_or("every virtual address is taken")?);
            checked.in_cluster(in_cluster);
            world.put_service(Entry { object, created, changed, checked });
        }
        Checked::Defaults(checked) => {
            world.put_defaults(Some(Entry { object, created, changed, checked }));
        }
        Checked::Gateway(checked) => world.put_gateway(Entry { object, created, changed, checked }),
        Checked::Route(checked) => world.put_route(Entry { object, created, changed, checked }),
        Checked::Filter(checked) => world.put_filter(Entry { object, created, changed, checked }),
        Checked::Grant(checked) => world.put_grant(Entry { object, created, changed, checked }),
        Checked::Policy(checked) => world.put_policy(Entry { object, created, changed, checked }),
        Checked::Override(checked) => world.put_override(Entry { object, created, changed, checked }),
        Checked::Access(checked) => world.put_access(Entry { object, created, changed, checked }),
        Checked::Tokens(checked) => world.put_token_policy(Entry { object, created, changed, checked }),
        Checked::Denylist(checked) => world.put_denylist(Entry { object, created, changed, checked }),
        Checked::Rollout(checked) => world.rollouts.put(Entry { object, created, changed, checked }),
        Checked::Instance(mut checked) => {
            checked.registered_by = registered_by;
            world.put_instance(Entry { object, created, changed, checked });
        }
    }
    Ok(())
}

fn registered_by(value: &Json) -> Result<Option<SpiffeId>, String> {
    let text = value.pointer("/status/registeredBy").and_then(Json::as_str);
    text.map(|t| t.parse().map_err(|e: outrigger_mesh::InvalidName| e.to_string())).transpose()
}

fn address(value: &Json) -> Option<VirtualAddress> {
    VirtualAddress::of(value.pointer("/status/address")?.as_str()?.parse().ok()?)
}

/// What the cluster calls a service by: of each family the first. Nothing that is written has a status of its own, so nobody can
/// claim one.
fn cluster_addresses(value: &Json) -> Vec<IpAddr> {
    let told = value.pointer("/status/clusterAddresses").and_then(Json::as_array);
    let all: Vec<IpAddr> = told.into_iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    let first = |is: fn(&IpAddr) -> bool| all.iter().copied().find(is);
    first(IpAddr::is_ipv4).into_iter().chain(first(IpAddr::is_ipv6)).collect()
}

/// Everything in either world, for when it is not known what differs.
pub(super) fn all_of(old: &Arc<World>, new: &World) -> Touched {
    let mut touched = Touched { defaults: true, ..Touched::default() };
    for world in [&**old, new] {
        for service in world.services() {
            touched.services.insert(service.checked.name().clone());
        }
        touched.gateways.extend(world.gateways().map(|g| g.checked.name().clone()));
        let keys = |kind| world.objects(kind, None).into_iter().map(|e| e.object().key());
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_route()) {
            touched.routes.extend(keys(kind));
        }
        touched.filters.extend(keys(Kind::RouteFilter));
        touched.grants.extend(keys(Kind::ReferenceGrant));
        touched.policies.extend(keys(Kind::TrafficPolicy));
        touched.overrides.extend(keys(Kind::BreakerOverride));
        touched.access.extend(keys(Kind::AccessPolicy));
        touched.token_policies.extend(keys(Kind::TokenPolicy));
        touched.denylists.extend(keys(Kind::Denylist));
        touched.rollouts.extend(world.rollouts.services().cloned());
        for instance in world.all_instances() {
            let endpoint = &instance.checked.endpoint;
            touched.instances.insert((endpoint.service.clone(), endpoint.uid.clone()));
        }
    }
    touched
}
