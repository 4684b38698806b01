//! A change on paper: the world as it would be, and what the store would be told. Nothing here waits or writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outrigger_mesh::{EndpointUid, Label, ServiceName, SpiffeId};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use super::{ApplyError, ObjectChange, Write, agreement, bounds, dependents};
use crate::addresses::VirtualAddress;
use crate::audit::{AuditEntry, Author};
use crate::check::{Checked, CheckedInstance, CheckedService, check, check_dangling, check_stored};
use crate::compile::Touched;
use crate::rollout;
use crate::spec::{Code, Document, Key, Kind, MeshService, Metadata, Object, Problem, Severity, Spec, Time};
use crate::store::{self, Expect, Space};
use crate::world::{AnyEntry, Entry, World};

/// The world as it would be, with what differs from the one before.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) touched: Touched,
    pub(super) changes: Vec<ObjectChange>,
    pub(super) warnings: Vec<Problem>,
    pub(super) writes: Vec<store::Write>,
    pub(super) audit: Vec<AuditEntry>,
    /// Where in `writes` each object is.
    written: HashMap<(Space, String), usize>,
    /// The counts that what is written gets.
    revision: u64,
    generation: u64,
    /// Whether routes may refer to what is not there, or not granted.
    pub(super) dangling: bool,
}

impl Stage {
    /// Nothing changed yet.
    pub(super) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            touched: Touched::default(),
            changes: vec![],
            warnings: vec![],
            writes: vec![],
            audit: vec![],
            written: HashMap::new(),
            revision: world.revision() + 1,
            generation: world.generation() + 1,
            dangling: false,
        }
    }

    /// Whether the store has to be told anything.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The world as it will be once it is committed.
    pub(super) fn finish(mut self) -> World {
        if self.writes.iter().any(|w| w.space == Space::Config) {
            self.world.revision = self.revision;
        }
        if self.writes.iter().any(|w| w.space == Space::Instances) {
            self.world.generation = self.generation;
        }
        self.world
    }

    /// Stages all of `writes` on `old`, or tells everything that is wrong.
    pub(super) fn of(
        old: &World,
        writes: &[Write],
        author: &Author,
        dangling: bool,
    ) -> Result<Self, ApplyError> {
        expectations(old, writes)?;
        let mut stage = Self { dangling, ..Self::new(old) };
        let mut problems = vec![];
        // What is replaced goes first, so that a name may pass from one service to another in one change.
        for write in writes {
            let key = write.key();
            let moves = key.kind.is_service()
                || matches!(
                    key.kind,
                    Kind::TrafficPolicy
                        | Kind::BreakerOverride
                        | Kind::AccessPolicy
                        | Kind::TokenPolicy
                        | Kind::Rollout
                );
            if matches!(write, Write::Delete { .. }) || moves {
                stage.take_away(&key);
            }
        }
        for kind in Kind::ALL {
            for write in writes {
                match write {
                    Write::Put { document, .. } if document.object.kind() == kind => {
                        stage.put_document(old, document, &mut problems);
                    }
                    _ => {}
                }
            }
        }
        stage.dependants(old, writes, &mut problems);
        if problems.is_empty() {
            problems = agreement::contradictions(old, &stage.world, &stage.touched, writes);
            problems.extend(bounds::exceeded(old, &stage.world, &stage.touched, writes));
        }
        if !problems.is_empty() {
            return Err(ApplyError::Refused(problems));
        }
        for write in writes {
            stage.record(old, write, author);
        }
        stage.orphans(writes, author);
        stage.abandoned(author);
        Ok(stage)
    }

    /// Puts one checked instance in place, whoever says so.
    pub(super) fn put_instance(&mut self, object: Object, checked: CheckedInstance, author: &Author) {
        let key = object.key();
        let before = self.world.object(&key);
        self.touch(&key);
        let action = if before.is_some() { "update" } else { "register" };
        let created = before.as_ref().map_or(self.generation, AnyEntry::created);
        let value = stored(&object, checked.registered_by.as_ref(), None);
        self.world.put_instance(Entry { object, created, changed: self.generation, checked });
        self.touch(&key);
        self.tell(&key, Some(value), before.map(|e| e.changed()), action, author);
    }

    /// Takes one object away that nothing refers to: an instance, an override.
    pub(super) fn remove(&mut self, key: &Key, action: &str, author: &Author) {
        let before = self.world.object(key);
        self.take_away(key);
        self.tell(key, None, before.map(|e| e.changed()), action, author);
    }

    fn put_document(&mut self, old: &World, document: &Document, problems: &mut Vec<Problem>) {
        let object = Object {
            metadata: Metadata { resource_version: None, ..document.object.metadata.clone() },
            spec: document.object.spec.clone(),
        };
        let object = match with_expiry(object) {
            Ok(object) => object,
            Err(problem) => return problems.push(document.located(problem)),
        };
        let key = object.key();
        let before = old.object(&key);
        self.touch(&key);
        let same = before.as_ref().is_some_and(|e| e.object().says_the_same(&object));
        if let Some(by) = before.as_ref().and_then(AnyEntry::registered_by).filter(|_| !same) {
            let message = format!("the instance registered itself, as {by}, and would do so again");
            let problem = Problem::error("/metadata/name", Code::Conflict, message);
            problems.push(document.located(problem.hint("change it at its sidecar")));
            return;
        }
        // An override that is over says nothing any more; to write it once more changes nothing.
        let over = same && before.as_ref().and_then(AnyEntry::has_expired) == Some(true);
        let checked = match (over, same || self.dangling) {
            (true, _) => check_stored(&object, &self.world),
            // A route that was written under older rules stays as it is.
            (false, true) if same && key.kind.is_route() => check_stored(&object, &self.world),
            // What is as it was does not become wrong by what others did meanwhile.
            (false, true) => check_dangling(&object, &self.world),
            (false, false) => check(&object, &self.world),
        };
        let checked = match checked {
            Ok((checked, warnings)) => {
                self.warnings.extend(warnings.into_iter().map(|w| document.located(w)));
                checked
            }
            Err(found) => {
                let errors = found.into_iter().filter(|p| p.severity == Severity::Error);
                problems.extend(errors.map(|p| document.located(p)));
                self.stand_in(&object);
                return;
            }
        };
        let next = if key.kind == Kind::Instance { self.generation } else { self.revision };
        let (created, changed) = match &before {
            Some(e) if same => (e.created(), e.changed()),
            Some(e) => (e.created(), next),
            None => (next, next),
        };
        match checked {
            Checked::Service(mut checked) => {
                let Some(address) = self.address_for(old, &checked, before.as_ref()) else {
                    let message = "every virtual address of the mesh is taken";
                    let problem = Problem::error("/metadata/name", Code::TooLarge, message);
                    problems.push(document.located(problem.hint("delete services that nobody uses")));
                    return;
                };
                checked.at(address);
                checked.in_cluster(before.as_ref().map_or(&[][..], AnyEntry::cluster_addresses).to_vec());
                self.world.put_service(Entry { object, created, changed, checked });
            }
            Checked::Defaults(checked) => {
                self.world.put_defaults(Some(Entry { object, created, changed, checked }));
            }
            Checked::Gateway(checked) => {
                self.world.put_gateway(Entry { object, created, changed, checked });
            }
            Checked::Route(checked) => self.world.put_route(Entry { object, created, changed, checked }),
            Checked::Filter(checked) => self.world.put_filter(Entry { object, created, changed, checked }),
            Checked::Grant(checked) => self.world.put_grant(Entry { object, created, changed, checked }),
            Checked::Policy(checked) => self.world.put_policy(Entry { object, created, changed, checked }),
            Checked::Override(checked) => {
                self.world.put_override(Entry { object, created, changed, checked });
            }
            Checked::Access(checked) => self.world.put_access(Entry { object, created, changed, checked }),
            Checked::Tokens(checked) => {
                self.world.put_token_policy(Entry { object, created, changed, checked });
            }
            Checked::Denylist(checked) => {
                self.world.put_denylist(Entry { object, created, changed, checked });
            }
            Checked::Rollout(checked) => {
                self.world.rollouts.put(Entry { object, created, changed, checked });
            }
            Checked::Instance(mut checked) => {
                checked.registered_by = before.and_then(|e| e.registered_by().cloned());
                self.world.put_instance(Entry { object, created, changed, checked });
            }
        }
        self.touch(&key);
    }

    /// The virtual address of a service: the one it asks for, else the one it has, else a free one. What a service had
    /// before this change is not free, wherever in the change that service comes.
    fn address_for(
        &self,
        old: &World,
        service: &CheckedService,
        before: Option<&AnyEntry>,
    ) -> Option<VirtualAddress> {
        let name = service.name();
        let others = |of: Option<&ServiceName>| of.is_some_and(|other| other != name);
        let is_free = |a| !others(self.world.at_address(a)) && !others(old.at_address(a));
        let kept = before.and_then(AnyEntry::address).filter(|a| is_free(*a));
        service.address().or(kept).or_else(|| VirtualAddress::find(name, is_free))
    }

    /// In the place of a service that is wrong in itself: what names it is not wrong because of that, and must not be
    /// told so.
    fn stand_in(&mut self, object: &Object) {
        let mut ports = match &object.spec {
            Spec::MeshService(written) => written.ports.clone(),
            Spec::EgressService(written) => written.ports.clone(),
            _ => return,
        };
        let mut seen = BTreeSet::new();
        ports.retain(|p| seen.insert(p.port));
        let spec = Spec::MeshService(MeshService { ports, ..MeshService::default() });
        let object = Object { metadata: object.metadata.clone(), spec };
        if let Ok((Checked::Service(checked), _)) = check(&object, &self.world) {
            self.world.put_service(Entry { object, created: 0, changed: 0, checked });
        }
    }

    /// Checks again what names a service or a route of this change and is not part of it itself.
    fn dependants(&mut self, old: &World, writes: &[Write], problems: &mut Vec<Problem>) {
        let own: BTreeSet<Key> = writes.iter().map(Write::key).collect();
        let mut told: BTreeMap<Key, &Write> = BTreeMap::new();
        for write in writes.iter().filter(|write| changes(old, write)) {
            for key in policies_on(old, &write.key()) {
                if !own.contains(&key) {
                    told.entry(key).or_insert(write);
                }
            }
            if write.key().kind == Kind::MeshDefaults {
                for key in with_own_names(old).filter(|key| !own.contains(key)) {
                    told.entry(key).or_insert(write);
                }
            }
            for key in dependents::routes_on(old, &write.key()).filter(|key| !own.contains(key)) {
                told.entry(key).or_insert(write);
            }
            let Some(name) = parent_name(&write.key()) else { continue };
            if matches!(write, Write::Delete { .. }) && write.key().kind.is_service() {
                for key in policies_that_fall_back_to(old, &name) {
                    if !own.contains(&key) {
                        told.entry(key).or_insert(write);
                    }
                }
            }
        }
        for (key, write) in told {
            if key.kind.is_route() {
                self.dependent_route(old, &key, write, problems);
                continue;
            }
            let Some(entry) = self.world.object(&key) else { continue };
            let found = match check(entry.object(), &self.world) {
                // The rule that a policy is for can stand elsewhere in its route now.
                Ok((Checked::Policy(checked), _)) => {
                    let (created, changed) = (entry.created(), entry.changed());
                    let object = entry.object().clone();
                    self.world.put_policy(Entry { object, created, changed, checked });
                    self.touch(&key);
                    continue;
                }
                Ok(_) => continue,
                Err(found) => found,
            };
            for wrong in found.into_iter().filter(|p| p.severity == Severity::Error) {
                problems.push(dependents::no_longer(&key, &wrong.message, write));
            }
        }
    }

    /// Tells the store of one write, if it changes anything.
    fn record(&mut self, old: &World, write: &Write, author: &Author) {
        let key = write.key();
        let (before, after) = (old.object(&key), self.world.object(&key));
        let versions = (before.as_ref().map(AnyEntry::changed), after.as_ref().map(AnyEntry::changed));
        let action = match versions {
            (None, None) => return,
            (None, Some(_)) => "created",
            (Some(_), None) => "deleted",
            (Some(before), Some(after)) if before == after => "unchanged",
            _ => "updated",
        };
        self.changes.push(ObjectChange { key: key.clone(), action });
        let audited = match action {
            "created" => "create",
            "updated" => "update",
            "deleted" => "delete",
            _ => return,
        };
        // Who overrides a breaker says why in the override itself.
        let said = after.as_ref().and_then(|e| match &e.object().spec {
            Spec::BreakerOverride(says) => Some(says.why.clone()),
            _ => None,
        });
        let author = Author { why: said.or_else(|| author.why.clone()), ..author.clone() };
        let value = after.map(|e| stored(e.object(), e.registered_by(), e.address()));
        self.tell(&key, value, versions.0, audited, &author);
    }

    /// Instances go with their service, and so does what was said of its breakers.
    fn orphans(&mut self, writes: &[Write], author: &Author) {
        for write in writes {
            let Write::Delete { key, .. } = write else { continue };
            let Some(name) = service_name(key).filter(|n| self.world.service(n).is_none()) else { continue };
            let instances = self.world.instances(&name).map(|i| i.object.key());
            let overrides = self.world.overrides_of(&name).map(|o| o.object.key());
            let rollouts = self.world.rollout_of(&name).map(|e| e.object.key());
            let keys: Vec<Key> = instances.chain(overrides).chain(rollouts).collect();
            for key in keys {
                self.remove(&key, "delete", author);
                self.changes.push(ObjectChange { key, action: "deleted" });
            }
        }
    }

    /// What is left of rollouts that are taken away before they are done: their candidates get nothing, until somebody
    /// says otherwise or they are gone.
    fn abandoned(&mut self, author: &Author) {
        let now = OffsetDateTime::now_utc();
        for service in self.touched.rollouts.clone() {
            if self.world.rollout_of(&service).is_some() {
                continue;
            }
            let Some(before) = self.world.rollouts.progress(&service).cloned() else { continue };
            let there = self.world.service(&service).is_some();
            let left = there.then(|| rollout::taken_away(&before, now)).flatten();
            let value = left.as_ref().map(|change| json!(change.next));
            if let Some(change) = &left {
                let author = Author { why: Some(change.next.why.clone()), ..author.clone() };
                let object =
                    Key::from_path(&before.of.rollout).map_or_else(String::new, |key| key.to_string());
                self.audit.push(AuditEntry::new(&author, change.action, object));
            }
            self.world.rollouts.set(&service, left.map(|change| change.next.into()));
            let key = rollout::store_key(&service);
            self.writes.push(store::Write { space: Space::Rollouts, key, value, expect: Expect::Anything });
        }
    }

    fn tell(&mut self, key: &Key, value: Option<Json>, before: Option<u64>, action: &str, author: &Author) {
        self.audit.push(AuditEntry::new(author, action, key));
        let (space, path) = (space_of(key.kind), key.path());
        // An instance can come and go within one batch; the store is told the end of it.
        let known = self.written.entry((space, path.clone())).or_insert(self.writes.len());
        if let Some(write) = self.writes.get_mut(*known) {
            write.value = value;
            return;
        }
        let expect = before.map_or(Expect::Absent, Expect::Version);
        self.writes.push(store::Write { space, key: path, value, expect });
    }

    fn take_away(&mut self, key: &Key) {
        self.touch(key);
        match key.kind {
            Kind::MeshService | Kind::EgressService => {
                // One of the other kind may have the name: that one is not meant.
                if let Some(name) = service_name(key).filter(|_| self.world.object(key).is_some()) {
                    self.world.remove_service(&name);
                }
            }
            Kind::MeshDefaults => {
                if self.world.object(key).is_some() {
                    self.world.put_defaults(None);
                }
            }
            Kind::Gateway => {
                if let Some(name) = parent_name(key) {
                    self.world.remove_gateway(&name);
                }
            }
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => self.world.remove_route(key),
            Kind::RouteFilter => self.world.remove_filter(key),
            Kind::ReferenceGrant => self.world.remove_grant(key),
            Kind::TrafficPolicy => self.world.remove_policy(key),
            Kind::BreakerOverride => self.world.remove_override(key),
            Kind::AccessPolicy => self.world.remove_access(key),
            Kind::TokenPolicy => self.world.remove_token_policy(key),
            Kind::Denylist => self.world.remove_denylist(key),
            Kind::Rollout => self.world.rollouts.remove(key),
            Kind::Instance => {
                if let Ok(uid) = EndpointUid::new(key.name.as_str()) {
                    self.world.remove_instance(&key.namespace, &uid);
                }
            }
        }
    }

    /// Notes that the object of `key`, as it is now, is not as it was or will be.
    fn touch(&mut self, key: &Key) {
        match key.kind {
            Kind::MeshService | Kind::EgressService => self.touched.services.extend(service_name(key)),
            Kind::MeshDefaults => self.touched.defaults = true,
            Kind::Gateway => self.touched.gateways.extend(parent_name(key)),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => {
                self.touched.routes.insert(key.clone());
            }
            Kind::RouteFilter => {
                self.touched.filters.insert(key.clone());
            }
            Kind::ReferenceGrant => {
                self.touched.grants.insert(key.clone());
            }
            Kind::TrafficPolicy => {
                self.touched.policies.insert(key.clone());
            }
            Kind::BreakerOverride => {
                self.touched.overrides.insert(key.clone());
            }
            Kind::AccessPolicy => {
                self.touched.access.insert(key.clone());
            }
            Kind::TokenPolicy => {
                self.touched.token_policies.insert(key.clone());
            }
            Kind::Denylist => {
                self.touched.denylists.insert(key.clone());
            }
            Kind::Rollout => {
                let service = self.world.rollouts.get(key).map(|e| e.checked.service.clone());
                self.touched.rollouts.extend(service);
            }
            Kind::Instance => {
                let Ok(uid) = EndpointUid::new(key.name.as_str()) else { return };
                if let Some(service) = self.world.service_of_instance(&key.namespace, &uid) {
                    self.touched.instances.insert((service.clone(), uid));
                }
            }
        }
    }
}

/// An object as the store keeps it.
fn stored(object: &Object, registered_by: Option<&SpiffeId>, address: Option<VirtualAddress>) -> Json {
    let mut value = object.to_json();
    let status = match (registered_by, address) {
        (Some(by), _) => json!({ "registeredBy": by.to_string() }),
        (None, Some(address)) => json!({ "address": address.v4() }),
        (None, None) => return value,
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("status".into(), status);
    }
    value
}

fn space_of(kind: Kind) -> Space {
    match kind {
        Kind::Instance => Space::Instances,
        _ => Space::Config,
    }
}

/// Whether a write says anything new: what does not can not be why something no longer holds.
fn changes(old: &World, write: &Write) -> bool {
    match write {
        Write::Put { document, .. } => {
            !old.object(&write.key()).is_some_and(|e| e.object().says_the_same(&document.object))
        }
        Write::Delete { .. } => true,
    }
}

/// Services that have names of their own, which somebody may have to grant, or identities that somebody must vouch for.
fn with_own_names(world: &World) -> impl Iterator<Item = Key> {
    let own = |spec: &Spec| match spec {
        Spec::MeshService(service) => !service.hostnames.is_empty() || !service.identities.is_empty(),
        _ => false,
    };
    world.services().filter(move |e| own(&e.object.spec)).map(|e| e.object.key())
}

/// The policies that hold for the object of `key`, if policies can.
fn policies_on(world: &World, key: &Key) -> Vec<Key> {
    match (service_name(key), key.kind) {
        (Some(service), _) => {
            let tokens = world.token_policy_of(&service).map(|p| p.object.key());
            let traffic = world.policies_of(&service).map(|p| p.object.key());
            traffic.chain(world.access_naming(&service).cloned()).chain(tokens).collect()
        }
        (None, Kind::HttpRoute | Kind::GrpcRoute) => {
            world.policies_of_route(key).map(|p| p.object.key()).collect()
        }
        _ => vec![],
    }
}

/// The policies that name a service to stand in for another. They are looked for only when a service goes.
fn policies_that_fall_back_to(world: &World, name: &ServiceName) -> Vec<Key> {
    let names = |entry: &AnyEntry| match &entry.object().spec {
        Spec::TrafficPolicy(policy) => {
            let breaker = policy.settings.service_breaker.as_ref();
            let fallback = breaker.and_then(|b| b.fallback.as_ref()).and_then(|f| f.service.as_deref());
            fallback == Some(name.name().as_str())
        }
        _ => false,
    };
    let all = world.objects(Kind::TrafficPolicy, Some(name.namespace()));
    all.iter().filter(|entry| names(entry)).map(|entry| entry.object().key()).collect()
}

/// An override that lasts so long, as one that ends at a moment.
fn with_expiry(mut object: Object) -> Result<Object, Problem> {
    if let Spec::BreakerOverride(says) = &mut object.spec
        && let (Some(lasting), None) = (says.lasting, says.expires_at)
    {
        let Some(end) = Time::after_now(lasting.get()) else {
            return Err(Problem::error("/spec/for", Code::BadValue, "it would end too far away"));
        };
        says.expires_at = Some(end);
        says.lasting = None;
    }
    Ok(object)
}

fn service_name(key: &Key) -> Option<ServiceName> {
    parent_name(key).filter(|_| key.kind.is_service())
}

/// The name of what routes can have as their parent.
fn parent_name(key: &Key) -> Option<ServiceName> {
    let is_parent = key.kind.is_service() || key.kind == Kind::Gateway;
    let name = Label::new(key.name.as_str()).ok().filter(|_| is_parent)?;
    Some(ServiceName::new(key.namespace.clone(), name))
}

/// Whether every object is as its writer saw it, and written once.
fn expectations(old: &World, writes: &[Write]) -> Result<(), ApplyError> {
    let mut seen = BTreeSet::new();
    for write in writes {
        let key = write.key();
        if !seen.insert(key.clone()) {
            let message = format!("{key} is written twice in one change");
            return Err(ApplyError::Refused(vec![Problem::error("", Code::Duplicate, message)]));
        }
        let current = old.object(&key);
        let changed = current.as_ref().map(AnyEntry::changed);
        let (expect, version) = match write {
            Write::Put { document, expect } => (expect, document.object.metadata.resource_version.as_deref()),
            Write::Delete { expect, .. } => (expect, None),
        };
        let saw_this = version.is_none_or(|v| Some(v) == changed.map(|c| c.to_string()).as_deref());
        if !expect.holds(changed) || !saw_this {
            return Err(ApplyError::Precondition { key, current });
        }
    }
    Ok(())
}
