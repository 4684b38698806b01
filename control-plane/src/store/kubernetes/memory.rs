//! What is known of the cluster, as spaces of records: made of what is told, never of what was only asked for.
//!
//! The count of a space is the highest version that anything in it had (`metadata.resourceVersion`, which is a number on every API
//! server of Kubernetes), or one more than before where a change is told after a later one of another kind. The version of a
//! record is that of its object, as of the last change that was seen of what it says: a status that is written moves only the object's.
//! Instances of Services have no version
//! of their own, and nobody writes them: theirs is the count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use outrigger_kube::api::Collection;
use outrigger_kube::follow::{Told, version};
use outrigger_kube::means::{Facts, NAMESPACES, SERVICES, SOURCES, added, misread};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::change_log::Change;
use super::super::{
    AuditLine, Committed, Image, KEPT_REVISIONS, Listed, Record, Revision, RevisionChange, Space,
};
use super::{boxed, kinds};
use crate::audit::{AuditEntry, Author};
use crate::spec::{Key, Kind, Object, ObjectName, closed};

/// What is known.
#[derive(Default)]
pub(super) struct Memory {
    facts: Facts,
    /// The objects of our kinds as they are at the API server, but for those that are other controllers'.
    written: BTreeMap<Key, Written>,
    /// What of them does not hold, and why.
    refused: BTreeMap<Key, Vec<String>>,
    /// The Instances that each Service has.
    derived: BTreeMap<Place, BTreeSet<String>>,
    records: [BTreeMap<String, Record>; Space::ALL.len()],
    positions: [u64; Space::ALL.len()],
    /// Up to which version the watch of each collection has told.
    seen: BTreeMap<Collection, u64>,
    /// Who asked for a change that is not told of yet.
    authors: BTreeMap<String, Author>,
    revisions: VecDeque<Revision>,
    audit: VecDeque<AuditLine>,
}

type Place = (String, String);

struct Written {
    raw: Arc<Json>,
    version: u64,
}

/// The lines of the audit log that are kept in memory; all are in the log.
const KEPT_LINES: usize = 10_000;

impl Memory {
    pub(super) fn get(&self, space: Space, key: &str) -> Option<&Record> {
        self.records[space as usize].get(key)
    }

    pub(super) fn list(&self, space: Space, prefix: &str) -> Listed {
        let from = self.records[space as usize].range(prefix.to_owned()..);
        let records =
            from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, r)| (k.clone(), r.clone()));
        Listed { records: records.collect(), position: self.position(space) }
    }

    pub(super) fn position(&self, space: Space) -> u64 {
        self.positions[space as usize]
    }

    /// The counts of all spaces.
    pub(super) fn counts(&self) -> Committed {
        let at = |space| self.position(space);
        Committed {
            revision: at(Space::Config),
            generation: at(Space::Instances),
            tokens: at(Space::Tokens),
            certificates: at(Space::Certificates),
            rollouts: at(Space::Rollouts),
            status: at(Space::Status),
        }
    }

    pub(super) fn refused(&self) -> BTreeMap<Key, Vec<String>> {
        self.refused.clone()
    }

    pub(super) fn refusal(&self, key: &Key) -> Option<Vec<String>> {
        self.refused.get(key).cloned()
    }

    pub(super) fn has(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        key(kind, namespace, name).is_some_and(|key| self.written.contains_key(&key))
    }

    pub(super) fn written(&self, kind: Kind) -> Vec<(Key, Arc<Json>)> {
        let of_kind = self.written.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(key, written)| (key.clone(), Arc::clone(&written.raw))).collect()
    }

    /// An object of ours as it is at the API server.
    pub(super) fn raw(&self, key: &Key) -> Option<&Json> {
        self.written.get(key).map(|written| &*written.raw)
    }

    /// The namespaces, with what is noted on each.
    pub(super) fn namespaces(&self) -> Vec<(String, Json)> {
        self.facts.namespaces().map(|(name, noted)| (name.to_owned(), noted.clone())).collect()
    }

    /// One of them, with its name, and its Services.
    pub(super) fn namespace(&self, name: &str) -> Option<(Json, Vec<Json>)> {
        let mut namespace = self.facts.namespace(name)?.clone();
        namespace["metadata"]["name"] = name.into();
        Some((namespace, self.facts.services_in(name).cloned().collect()))
    }

    /// What a Service is, where there is one of this name.
    pub(super) fn derived(&self, key: &Key) -> Option<Json> {
        (key.kind == Kind::MeshService).then(|| self.facts.service(&place(key)))?.map(|(json, _)| json)
    }

    /// An object together with what the Service of its name means.
    pub(super) fn meant(&self, object: &Object) -> Option<Object> {
        let derived = self.derived(&object.key())?;
        Object::from_json(added(&derived, &object.to_json())).ok()
    }

    pub(super) fn revisions(&self, before: Option<u64>, limit: usize) -> Vec<Revision> {
        let earlier = |r: &&Revision| before.is_none_or(|before| r.revision < before);
        self.revisions.iter().rev().filter(earlier).take(limit).cloned().collect()
    }

    pub(super) fn revision(&self, number: u64) -> Option<Revision> {
        self.revisions.iter().find(|r| r.revision == number).cloned()
    }

    pub(super) fn audit(&self, before: Option<u64>, limit: usize) -> Vec<AuditLine> {
        let earlier = |line: &&AuditLine| before.is_none_or(|before| line.line < before);
        self.audit.iter().rev().filter(earlier).take(limit).cloned().collect()
    }

    pub(super) fn image(&self) -> Image {
        let of_space = |space: Space| {
            self.records[space as usize].iter().map(move |(key, record)| (space, key.clone(), record.clone()))
        };
        Image {
            counts: self.counts(),
            records: Space::ALL.into_iter().flat_map(of_space).collect(),
            revisions: self.revisions.iter().cloned().collect(),
            audit: self.audit.iter().cloned().collect(),
        }
    }

    /// Notes what was done.
    pub(super) fn note(&mut self, entries: Vec<AuditEntry>) {
        for entry in entries {
            let line = self.audit.back().map_or(1, |last| last.line + 1);
            self.audit.push_back(AuditLine { line, entry });
            if self.audit.len() > KEPT_LINES {
                self.audit.pop_front();
            }
        }
    }

    /// Whose the next change of a record is.
    pub(super) fn awaits(&mut self, path: &str, author: &Author) {
        self.authors.insert(path.to_owned(), author.clone());
    }

    /// Puts records of a space in place that are kept here alone.
    pub(super) fn put(
        &mut self,
        space: Space,
        writes: Vec<(String, Option<Json>)>,
    ) -> Option<(Space, Change)> {
        let next = self.position(space) + 1;
        let records = writes.into_iter().map(|(key, value)| {
            let created = self.get(space, &key).map_or(next, |r| r.created);
            (key, value.map(|value| Record { created, changed: next, value }))
        });
        let records = records.collect();
        self.settle(space, next, records)
    }

    /// Takes an answer to a write of our own, unless it has been told of before.
    pub(super) fn take_own(&mut self, of: &Collection, raw: Json) -> Vec<(Space, Change)> {
        let is_known = version(&raw).is_none_or(|v| self.seen.get(of).is_some_and(|seen| v <= *seen));
        if is_known { vec![] } else { self.take_any(of, &Told::Changed(raw)) }
    }

    /// Takes what is told of a collection; what has changed by it.
    pub(super) fn take(&mut self, of: &Collection, told: &Told) -> Vec<(Space, Change)> {
        let seen = match told {
            Told::All(_, at) | Told::At(at) => Some(*at),
            Told::Changed(object) | Told::Gone(object) => version(object),
            Told::Lost(_) => None,
        };
        if let Some(seen) = seen {
            // A list may be as of an earlier moment than a watch before it, and is all that is known then.
            self.seen.insert(of.clone(), seen);
        }
        self.take_any(of, told)
    }

    fn take_any(&mut self, of: &Collection, told: &Told) -> Vec<(Space, Change)> {
        if let Some(kind) = kinds::kind_of(of) {
            self.take_kind(kind, told)
        } else if SOURCES.contains(of) {
            self.take_facts(of, told)
        } else {
            self.take_boxed(of, told)
        }
    }

    fn take_kind(&mut self, kind: Kind, told: &Told) -> Vec<(Space, Change)> {
        let (mut touched, mut at) = (BTreeSet::new(), 0);
        match told {
            Told::All(items, as_of) => {
                at = *as_of;
                // What was written after the list stays.
                let old: Vec<Key> = self.written.keys().filter(|key| key.kind == kind).cloned().collect();
                let gone = |w: &Written| w.version <= at;
                for key in old {
                    if self.written.get(&key).is_some_and(gone) {
                        self.written.remove(&key);
                    }
                    touched.insert(key);
                }
                touched.extend(items.iter().filter_map(|raw| self.put_written(kind, raw)));
            }
            Told::Changed(raw) => {
                at = version(raw).unwrap_or_default();
                touched.extend(self.put_written(kind, raw));
            }
            Told::Gone(raw) => {
                at = version(raw).unwrap_or_default();
                let key = key_of(kind, raw);
                if let Some(key) = key.filter(|key| self.written.get(key).is_some_and(|w| w.version < at)) {
                    self.written.remove(&key);
                    touched.insert(key);
                }
            }
            Told::At(_) | Told::Lost(_) => {}
        }
        let space = if kind == Kind::Instance { Space::Instances } else { Space::Config };
        // Instances are counted one by one, so that each change of them can be put in place by itself.
        let at = if kind == Kind::Instance { 0 } else { at };
        let records = touched.iter().map(|key| (key.path(), self.record_of(key))).collect();
        let mut changes: Vec<_> = self.settle(space, at, records).into_iter().collect();
        if kind == Kind::MeshService {
            // It may say that its instances are found otherwise.
            let services: Vec<Place> = touched.iter().map(place).collect();
            changes.extend(self.settle_instances(&services));
        }
        changes
    }

    fn put_written(&mut self, kind: Kind, raw: &Json) -> Option<Key> {
        let (key, version) = (key_of(kind, raw)?, version(raw)?);
        if self.written.get(&key).is_some_and(|w| w.version >= version) {
            return None;
        }
        if kinds::is_of_others(kind, raw) {
            // It may have been ours before.
            return self.written.remove(&key).map(|_| key);
        }
        self.written.insert(key.clone(), Written { raw: Arc::new(raw.clone()), version });
        Some(key)
    }

    fn take_facts(&mut self, of: &Collection, told: &Told) -> Vec<(Space, Change)> {
        warn_of_misread(of, told);
        let touched: Vec<Place> = self.facts.take(of, told).into_iter().collect();
        let keys = touched.iter().filter_map(|(namespace, name)| key(Kind::MeshService, namespace, name));
        let records: Vec<_> = keys.map(|key| (key.path(), self.record_of(&key))).collect();
        let at = records.iter().filter_map(|(_, r)| r.as_ref().map(|r| r.changed)).max().unwrap_or_default();
        let config = self.settle(Space::Config, at, records);
        config.into_iter().chain(self.settle_instances(&touched)).collect()
    }

    fn settle_instances(&mut self, services: &[Place]) -> Option<(Space, Change)> {
        let next = self.position(Space::Instances) + 1;
        let mut records = vec![];
        for service in services {
            let is_found = key(Kind::MeshService, &service.0, &service.1)
                .and_then(|key| self.get(Space::Config, &key.path()))
                .is_some_and(|record| record.value["spec"]["discovery"] == "kubernetes");
            let mut now = BTreeSet::new();
            for (name, value) in if is_found { self.facts.instances(service) } else { BTreeMap::new() } {
                let Some(key) = key(Kind::Instance, &service.0, &name) else { continue };
                let path = key.path();
                let created = self.get(Space::Instances, &path).map_or(next, |r| r.created);
                // It is read like any other, so that what is told of it is the same.
                let value = kinds::read(&value).map(|(_, value)| value);
                match value {
                    Ok(value) => records.push((path.clone(), Some(Record { created, changed: next, value }))),
                    Err(why) => tracing::warn!(instance = path, why = why.join("; "), "left out"),
                }
                now.insert(path);
            }
            let before = self.derived.remove(service).unwrap_or_default();
            records.extend(before.difference(&now).map(|path| (path.clone(), None)));
            if !now.is_empty() {
                self.derived.insert(service.clone(), now);
            }
        }
        self.settle(Space::Instances, next, records)
    }

    fn take_boxed(&mut self, of: &Collection, told: &Told) -> Vec<(Space, Change)> {
        let spaces = Space::ALL.into_iter().filter(|space| boxed::of_space(*space).as_ref() == Some(of));
        let record = |raw: &Json| {
            let (space, key, value) = boxed::read(raw)?;
            Some((space, key, Record { created: created(raw), changed: version(raw)?, value }))
        };
        match told {
            Told::All(items, at) => {
                let known: Vec<_> = items.iter().filter_map(record).collect();
                let mut changes = vec![];
                for space in spaces {
                    let of_space = known.iter().filter(|(of, ..)| *of == space);
                    let mut records: BTreeMap<String, Option<Record>> =
                        of_space.map(|(_, key, record)| (key.clone(), Some(record.clone()))).collect();
                    for (key, record) in &self.records[space as usize] {
                        // What was written after the list stays.
                        let kept = (record.changed > *at).then(|| record.clone());
                        records.entry(key.clone()).or_insert(kept);
                    }
                    changes.extend(self.settle(space, *at, records.into_iter().collect()));
                }
                changes
            }
            Told::Changed(raw) => {
                let Some((space, key, record)) = record(raw) else { return vec![] };
                if self.get(space, &key).is_some_and(|known| known.changed >= record.changed) {
                    return vec![];
                }
                let at = record.changed;
                self.settle(space, at, vec![(key, Some(record))]).into_iter().collect()
            }
            Told::Gone(raw) => {
                let Some((space, key, record)) = record(raw) else { return vec![] };
                if self.get(space, &key).is_some_and(|known| known.changed >= record.changed) {
                    return vec![];
                }
                self.settle(space, record.changed, vec![(key, None)]).into_iter().collect()
            }
            Told::At(_) | Told::Lost(_) => vec![],
        }
    }

    /// What an object of ours is now, by what was written and what a Service means. One that does not hold any more is as it
    /// was, as long as this process remembers: a policy that somebody broke is not one that is gone. Where nothing is remembered,
    /// one that lets requests in lets none, and what is wanted of tokens is told as it was written: who reads it knows what stands for that.
    fn record_of(&mut self, key: &Key) -> Option<Record> {
        self.refused.remove(key);
        let derived = if key.kind == Kind::MeshService { self.facts.service(&place(key)) } else { None };
        let written = self.written.get(key).map(|w| (Arc::clone(&w.raw), w.version));
        let (whole, version, made) = match (&derived, &written) {
            (None, None) => return None,
            (Some((derived, version)), None) => {
                (derived.clone(), *version, self.facts.created(&place(key)).map(seconds))
            }
            (None, Some((raw, version))) => ((**raw).clone(), *version, Some(created(raw))),
            (Some((derived, _)), Some((raw, version))) => (added(derived, raw), *version, Some(created(raw))),
        };
        let status = derived.as_ref().and_then(|(derived, _)| status_of(derived, written.is_some()));
        match kinds::read(&whole) {
            Ok((_, value)) => {
                let value = told(value, status);
                Some(Record { created: made.unwrap_or_default(), changed: version, value })
            }
            Err(why) => {
                tracing::warn!(object = %key, why = why.join("; "), "it does not hold: what was in force stays");
                self.refused.insert(key.clone(), why);
                let path = key.path();
                let space = if key.kind == Kind::Instance { Space::Instances } else { Space::Config };
                let record = |value| Record { created: made.unwrap_or_default(), changed: version, value };
                let shut = || closed(&whole, |_| true).map(record);
                let as_it_is = || {
                    matches!(key.kind, Kind::TokenPolicy | Kind::Denylist)
                        .then(|| record(kinds::plain(&whole)))
                };
                if key.kind == Kind::Denylist {
                    // What of it can be read counts, beside what was in force.
                    return as_it_is();
                }
                let before = self.get(space, &path).cloned();
                // Its addresses are the cluster's to say, and may be another's by now.
                let before = before.map(|record| match key.kind {
                    Kind::MeshService => Record { value: told(record.value, status), ..record },
                    _ => record,
                });
                before.or_else(shut).or_else(as_it_is)
            }
        }
    }

    /// Puts records in place; what has changed by it, if anything has.
    fn settle(
        &mut self,
        space: Space,
        at: u64,
        records: Vec<(String, Option<Record>)>,
    ) -> Option<(Space, Change)> {
        let here = &mut self.records[space as usize];
        // Only what differs: a derived one is made anew whenever anything near it changes, and the version of an object moves
        // with its status, too.
        let by_version = boxed::of_space(space).is_some();
        let differs = |key: &str, record: &Option<Record>| match (here.get(key), record) {
            (Some(before), Some(now)) => {
                before.value != now.value
                    || before.created != now.created
                    || (by_version && before.changed != now.changed)
            }
            (before, now) => before.is_some() != now.is_some(),
        };
        let changed: Vec<_> = records.into_iter().filter(|(key, record)| differs(key, record)).collect();
        if changed.is_empty() {
            return None;
        }
        let mut changes = vec![];
        for (key, record) in &changed {
            let before = match record {
                Some(record) => here.insert(key.clone(), record.clone()),
                None => here.remove(key),
            };
            let (before, after) = (before.map(|r| r.value), record.as_ref().map(|r| r.value.clone()));
            changes.push(RevisionChange { key: key.clone(), before, after });
        }
        let position = &mut self.positions[space as usize];
        *position = at.max(*position + 1);
        let position = *position;
        if space == Space::Config {
            self.remember(position, changes);
        }
        Some((space, Change { position, records: changed }))
    }

    fn remember(&mut self, revision: u64, changes: Vec<RevisionChange>) {
        let authors: Vec<Author> = changes.iter().filter_map(|c| self.authors.remove(&c.key)).collect();
        let first = changes.first().and_then(|c| Key::from_path(&c.key));
        let who = match (authors.first(), first.and_then(|key| self.manager(&key))) {
            (Some(author), _) => author.who.clone(),
            (None, Some(manager)) => format!("kubernetes: {manager}"),
            (None, None) => "kubernetes".to_owned(),
        };
        let why = authors.first().and_then(|author| author.why.clone());
        self.revisions.push_back(Revision { revision, at: OffsetDateTime::now_utc(), who, why, changes });
        if self.revisions.len() as u64 > KEPT_REVISIONS {
            self.revisions.pop_front();
        }
    }

    /// The program that wrote an object last, as the API server notes it.
    fn manager(&self, key: &Key) -> Option<String> {
        let fields = self.raw(key)?["metadata"]["managedFields"].as_array()?;
        let last = fields.iter().filter(|f| f["subresource"].is_null()).max_by_key(|f| f["time"].as_str());
        Some(last?["manager"].as_str()?.chars().take(100).collect())
    }
}

/// Tells of annotations that can not be read: nothing of the cluster's own has a status of ours.
fn warn_of_misread(of: &Collection, told: &Told) {
    let objects = match told {
        Told::All(items, _) => items.as_slice(),
        Told::Changed(object) => std::slice::from_ref(object),
        Told::Gone(_) | Told::At(_) | Told::Lost(_) => &[],
    };
    for object in objects.iter().filter(|_| [NAMESPACES, SERVICES].contains(of)) {
        if let Some(why) = misread(object) {
            let (namespace, name) = outrigger_kube::api::place(object);
            tracing::warn!(kind = of.kind, namespace, name, why, "an annotation counts as not written");
        }
    }
}

/// What the cluster alone says of a Service: its addresses, where it is in the mesh. What is not, and of which nobody has written
/// anything, is called as it was before there was a mesh.
fn status_of(derived: &Json, is_written: bool) -> Option<Json> {
    let told = &derived["status"];
    let addresses = told.get("clusterAddresses").filter(|_| is_written || told["meshed"] == true)?;
    Some(json!({ "clusterAddresses": addresses }))
}

/// A value with that in the place of any other status: what others wrote into one is not read.
fn told(mut value: Json, status: Option<Json>) -> Json {
    if let Some(object) = value.as_object_mut() {
        object.shift_remove("status");
        object.extend(status.map(|status| ("status".to_owned(), status)));
    }
    value
}

fn key(kind: Kind, namespace: &str, name: &str) -> Option<Key> {
    let namespace = outrigger_mesh::Label::new(namespace).ok()?;
    Some(Key { kind, namespace, name: ObjectName::new(name).ok()? })
}

fn key_of(kind: Kind, raw: &Json) -> Option<Key> {
    let (namespace, name) = outrigger_kube::api::place(raw);
    key(kind, namespace, name)
}

fn place(key: &Key) -> Place {
    (key.namespace.to_string(), key.name.to_string())
}

/// When an object was made, in seconds: of two the older one comes first.
fn created(raw: &Json) -> u64 {
    raw["metadata"]["creationTimestamp"].as_str().map_or(0, seconds)
}

fn seconds(text: &str) -> u64 {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    parsed.and_then(|at| u64::try_from(at.unix_timestamp()).ok()).unwrap_or_default()
}
