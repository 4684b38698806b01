//! A transaction as writes to the API server, one after the other.
//!
//! What was expected is judged first, of all of them, and where there are several the API server is asked to judge each of them
//! (a dry run) before it is asked to make the first. Each write names the version that it was decided on, so nobody's
//! change is overwritten. What it is not is atomic: the API server has no transactions. Where one of several fails, those before
//! it are made, and the error says which; what is there then is read again, and is in force.

use std::sync::Arc;

use outrigger_kube::api::{CallError, CallErrorKind, Collection, Meant};
use outrigger_kube::follow::version;
use serde_json::{Map, Value as Json};

use super::super::error::{CommitError, StoreError, StoreErrorKind};
use super::super::{Committed, Space, Transaction, Write};
use super::memory::Memory;
use super::{Inner, boxed, kind_of, kinds};
use crate::audit::{AuditEntry, Author};
use crate::spec::{Key, Kind};

/// Makes all of `transaction`, if the configuration is still at the revision `on`. It goes on when nobody waits for it any
/// more.
pub(super) async fn commit(
    inner: &Arc<Inner>,
    on: Option<u64>,
    transaction: Transaction,
) -> Result<Committed, CommitError> {
    inner.open()?;
    let inner = Arc::clone(inner);
    let making = tokio::spawn(async move { make(&inner, on, transaction).await });
    match making.await {
        Ok(made) => made,
        Err(_) => Err(error(StoreErrorKind::Io, "it is shutting down").into()),
    }
}

async fn make(inner: &Inner, on: Option<u64>, transaction: Transaction) -> Result<Committed, CommitError> {
    let mut steps = plan(inner, on, &transaction)?;
    let of = steps.len();
    let configured = steps.iter().filter(|step| boxed::of_space(step.space).is_none()).count();
    if configured > 1 {
        for step in &mut steps {
            let mut tried = try_out(inner, step).await;
            while renewed(inner, step, &transaction.writes, tried.as_ref().err()).await {
                tried = try_out(inner, step).await;
            }
            tried.map_err(|e| failed(&[], step, &e, of))?;
        }
    }
    let mut committed = inner.memory().counts();
    let mut done: Vec<String> = vec![];
    for mut step in steps {
        let mut taken = take(inner, &step, &transaction.author).await;
        while renewed(inner, &mut step, &transaction.writes, taken.as_ref().err()).await {
            taken = take(inner, &step, &transaction.author).await;
        }
        match taken {
            // The count at which it is in memory: that of instances is no version, and others may have leapt ahead.
            Ok(()) => {
                let at = inner.memory().position(step.space);
                raise(&mut committed, step.space, at);
            }
            Err(e) if e.kind() == CallErrorKind::Conflict && done.is_empty() => {
                return Err(conflict(inner, &step).await);
            }
            Err(e) => {
                let error = failed(&done, &step, &e, of);
                if !done.is_empty() {
                    // What was made is not without its line.
                    note(inner, in_part(transaction.audit, &error));
                }
                return Err(error.into());
            }
        }
        done.push(step.key);
    }
    let noted: Vec<_> = transaction.writes.into_iter().filter(|write| write.space == Space::Status).collect();
    let mut memory = inner.memory();
    if !noted.is_empty() {
        let noted = noted.into_iter().map(|write| (write.key, write.value)).collect();
        if let Some((space, change)) = memory.put(Space::Status, noted) {
            inner.changes[space as usize].push(change);
        }
        committed.status = memory.position(Space::Status);
    }
    drop(memory);
    note(inner, transaction.audit);
    Ok(committed)
}

/// Puts lines in the audit log: in the log, and in memory.
fn note(inner: &Inner, audit: Vec<AuditEntry>) {
    for entry in &audit {
        let (who, from, action, object) = (&entry.who, &entry.from, &entry.action, &entry.object);
        tracing::info!(target: "audit", who, from, action, object, why = entry.why.as_deref());
    }
    inner.memory().note(audit);
}

/// The lines of what was made in part, which say so.
fn in_part(mut audit: Vec<AuditEntry>, error: &StoreError) -> Vec<AuditEntry> {
    for entry in &mut audit {
        let why = entry.why.take().map_or_else(String::new, |why| format!("{why}; "));
        entry.why = Some(format!("{why}made in part: {error}"));
    }
    audit
}

/// One write to the API server.
struct Step {
    space: Space,
    /// The key of the record.
    key: String,
    /// The version that it was decided on.
    seen: Option<u64>,
    of: Collection,
    act: Act,
    /// How often it was decided anew.
    renewed: u8,
}

/// So often may something be noted on an object while it is being written.
const MOST_RENEWED: u8 = 4;

enum Act {
    Create(Json),
    Replace(Json),
    Delete { namespace: String, name: String, version: String },
}

/// What is to be done, if everything is as it is expected to be.
fn plan(inner: &Inner, on: Option<u64>, transaction: &Transaction) -> Result<Vec<Step>, CommitError> {
    let memory = inner.memory();
    let latest = memory.position(Space::Config);
    if on.is_some_and(|on| on != latest) {
        return Err(error(StoreErrorKind::Behind, &format!("it is at revision {latest}")).into());
    }
    for write in &transaction.writes {
        let current = memory.get(write.space, &write.key);
        if !write.expect.holds(current.map(|r| r.changed)) {
            return Err(CommitError::Conflict { key: write.key.clone(), current: current.cloned() });
        }
    }
    let mut steps = vec![];
    for write in &transaction.writes {
        let step = match boxed::of_space(write.space) {
            Some(of) => step_of_box(inner, &memory, write, of),
            None if write.space == Space::Status => None,
            None => step_of_object(&memory, write)?,
        };
        steps.extend(step);
    }
    Ok(steps)
}

fn step_of_box(inner: &Inner, memory: &Memory, write: &Write, of: Collection) -> Option<Step> {
    let namespace = &inner.address.namespace;
    let seen = memory.get(write.space, &write.key).map(|record| record.changed);
    let before = seen.map(|seen| seen.to_string());
    let object = |value: &Json| boxed::of(write.space, namespace, &write.key, value, before.as_deref());
    let act = match (&write.value, &before) {
        (Some(value), None) => Act::Create(object(value)),
        (Some(value), Some(_)) => Act::Replace(object(value)),
        (None, Some(version)) => {
            let name = boxed::name(write.space, &write.key);
            Act::Delete { namespace: namespace.clone(), name, version: version.clone() }
        }
        (None, None) => return None,
    };
    Some(Step { space: write.space, key: write.key.clone(), seen, of, act, renewed: 0 })
}

fn step_of_object(memory: &Memory, write: &Write) -> Result<Option<Step>, StoreError> {
    let Some(key) = Key::from_path(&write.key) else {
        return Err(error(StoreErrorKind::Refused, &format!("{} is no object", write.key)));
    };
    let raw = memory.raw(&key);
    let act = match (&write.value, raw) {
        (Some(value), before) => {
            let value = match memory.derived(&key) {
                Some(derived) => without(value, &derived),
                None => value.clone(),
            };
            let mut object = kinds::written(&value, before);
            if key.kind == Kind::Instance {
                // By whom it was registered: only the control plane writes instances that have it.
                object["status"] = value.get("status").cloned().unwrap_or_else(|| Json::Object(Map::new()));
            }
            if before.is_some() { Act::Replace(object) } else { Act::Create(object) }
        }
        (None, Some(raw)) => Act::Delete {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            version: version(raw).unwrap_or_default().to_string(),
        },
        (None, None) if memory.get(write.space, &write.key).is_some() => {
            let what = if key.kind == Kind::Instance { "an endpoint" } else { "a Service" };
            let told = format!("{key} is {what} of the cluster: it goes when that does");
            return Err(error(StoreErrorKind::Refused, &told));
        }
        (None, None) => return Ok(None),
    };
    let seen = memory.get(write.space, &write.key).map(|record| record.changed);
    let of = kinds::collection(key.kind);
    Ok(Some(Step { space: write.space, key: write.key.clone(), seen, of, act, renewed: 0 }))
}

/// What is said beyond what the Service means: the rest is to follow the Service.
fn without(value: &Json, derived: &Json) -> Json {
    let mut value = value.clone();
    if let Some(spec) = value["spec"].as_object_mut() {
        spec.retain(|field, said| derived["spec"].get(field) != Some(said));
    }
    value
}

/// Whether a step that the API server refuses, since the object has another version, is decided anew: where only what is noted on
/// the object has changed, as its status has by our own hand. What it says is still what the step was decided on.
async fn renewed(inner: &Inner, step: &mut Step, writes: &[Write], refused: Option<&CallError>) -> bool {
    let is_conflict = refused.is_some_and(|e| e.kind() == CallErrorKind::Conflict);
    let key = Key::from_path(&step.key).filter(|_| boxed::of_space(step.space).is_none());
    let (Some(key), true, Some(named)) =
        (key, is_conflict && step.renewed < MOST_RENEWED, step.act.version())
    else {
        return false;
    };
    inner
        .until(|memory| memory.raw(&key).and_then(version).map(|v| v.to_string()) != Some(named.clone()))
        .await;
    let memory = inner.memory();
    let is_same = memory.get(step.space, &step.key).map(|record| record.changed) == step.seen;
    let write = writes.iter().find(|write| write.space == step.space && write.key == step.key);
    let next = write.filter(|_| is_same).and_then(|write| step_of_object(&memory, write).ok().flatten());
    let Some(next) = next.filter(|next| next.act.version() != Some(named)) else { return false };
    *step = Step { renewed: step.renewed + 1, ..next };
    true
}

impl Act {
    /// The version that it names.
    fn version(&self) -> Option<String> {
        match self {
            Self::Create(_) => None,
            Self::Replace(object) => object.pointer("/metadata/resourceVersion")?.as_str().map(str::to_owned),
            Self::Delete { version, .. } => Some(version.clone()),
        }
    }
}

async fn try_out(inner: &Inner, step: &Step) -> Result<(), CallError> {
    match &step.act {
        Act::Create(object) => inner.api.create(&step.of, object, Meant::DryRun).await.map(drop),
        Act::Replace(object) => inner.api.replace(&step.of, object, Meant::DryRun).await.map(drop),
        Act::Delete { namespace, name, version } => {
            inner.api.delete(&step.of, namespace, name, Some(version), Meant::DryRun).await
        }
    }
}

/// Makes one write, and has it in memory.
async fn take(inner: &Inner, step: &Step, author: &Author) -> Result<(), CallError> {
    if step.space == Space::Config {
        inner.memory().awaits(&step.key, author);
    }
    let made = match &step.act {
        Act::Create(object) => inner.api.create(&step.of, object, Meant::Really).await?,
        Act::Replace(object) => inner.api.replace(&step.of, object, Meant::Really).await?,
        Act::Delete { namespace, name, version } => {
            inner.api.delete(&step.of, namespace, name, Some(version), Meant::Really).await?;
            let before: u64 = version.parse().unwrap_or_default();
            let is_gone = |memory: &Memory| match Key::from_path(&step.key)
                .filter(|_| boxed::of_space(step.space).is_none())
            {
                Some(key) => memory.raw(&key).and_then(self::version).is_none_or(|v| v > before),
                None => memory.get(step.space, &step.key).is_none_or(|r| r.changed > before),
            };
            // It is gone at the API server; where its watch is behind that is told when it comes.
            inner.until(is_gone).await;
            return Ok(());
        }
    };
    let mut made = made;
    if let (Act::Create(object) | Act::Replace(object), Some(_)) = (&step.act, registered(&step.act)) {
        let (namespace, name) = outrigger_kube::api::place(object);
        made = inner.api.merge_status(&step.of, namespace, name, &object["status"]).await?;
    }
    let mut memory = inner.memory();
    for (space, change) in memory.take_own(&step.of, made) {
        inner.changes[space as usize].push(change);
    }
    Ok(())
}

/// Who registered the instance that is written, if somebody did.
fn registered(act: &Act) -> Option<&str> {
    match act {
        Act::Create(object) | Act::Replace(object) => object.pointer("/status/registeredBy")?.as_str(),
        Act::Delete { .. } => None,
    }
}

/// Somebody else was faster: what is there instead, as soon as that is known.
async fn conflict(inner: &Inner, step: &Step) -> CommitError {
    inner.until(|memory| memory.get(step.space, &step.key).map(|r| r.changed) != step.seen).await;
    let current = inner.memory().get(step.space, &step.key).cloned();
    CommitError::Conflict { key: step.key.clone(), current }
}

fn failed(done: &[String], step: &Step, e: &CallError, of: usize) -> StoreError {
    let mut told = format!("{}: {e}", step.key);
    if of > 1 {
        let made = if done.is_empty() { "none".to_owned() } else { done.join(", ") };
        told = format!("{told}; of {of} writes these are made: {made}");
    }
    error(kind_of(e), &told)
}

fn raise(committed: &mut Committed, space: Space, at: u64) {
    let count = match space {
        Space::Config => &mut committed.revision,
        Space::Instances => &mut committed.generation,
        Space::Tokens => &mut committed.tokens,
        Space::Certificates => &mut committed.certificates,
        Space::Rollouts => &mut committed.rollouts,
        Space::Status => &mut committed.status,
    };
    *count = at;
}

fn error(kind: StoreErrorKind, detail: &str) -> StoreError {
    StoreError::new(kind, "in Kubernetes", detail)
}
