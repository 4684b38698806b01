//! The one watch of a store: what anybody writes goes from here to those who watch a space.
//!
//! It ends with the store. When the connection does, another member is asked for what came after the last change that was
//! seen; when etcd has forgotten that, everybody who watches is told to begin anew.

use std::sync::Arc;

use outrigger_wire::etcd::{Event, Told};

use super::super::change_log::Change;
use super::super::error::StoreError;
use super::super::{Record, Space};
use super::cluster::pause;
use super::{Inner, read};

/// Follows what is written after the revision `at`, until it is dropped.
pub(super) async fn follow(inner: Arc<Inner>, mut at: i64) {
    let mut tries = 0;
    loop {
        let began = at;
        match watch(&inner, &mut at).await {
            Ok(Ended::Connection(why)) => tracing::debug!(why, "the watch of the shared store ended"),
            Ok(Ended::Forgotten(why)) => match restart(&inner).await {
                Ok(revision) => {
                    tracing::warn!(why, "the shared store is read anew");
                    at = revision;
                }
                Err(error) => tracing::warn!(%error, "the shared store can not be read anew"),
            },
            Err(error) => tracing::warn!(%error, "the shared store is not watched"),
        }
        tries = if at > began { 0 } else { tries + 1 };
        tokio::time::sleep(pause(tries)).await;
    }
}

/// Why a watch ended.
enum Ended {
    /// The connection did.
    Connection(String),
    /// What is asked for is no longer kept, or does not follow what is known.
    Forgotten(String),
}

async fn watch(inner: &Inner, at: &mut i64) -> Result<Ended, StoreError> {
    // A member that this replica has not logged in to yet would take the watch, and end it.
    read::head(&inner.cluster, &inner.layout).await?;
    let (keys, from) = (inner.layout.live(), *at + 1);
    let opened = inner.cluster.call(|etcd| {
        let keys = keys.clone();
        async move { etcd.watch(keys, from).await }
    });
    let mut watch = opened.await.map_err(|e| inner.cluster.fault(&e))?;
    loop {
        match watch.next().await {
            Ok(None) => return Ok(Ended::Connection("etcd ended it".into())),
            Err(e) => return Ok(Ended::Connection(e.detail)),
            Ok(Some(Told::Began)) => {}
            Ok(Some(Told::Progress(revision))) => *at = revision.max(*at),
            Ok(Some(Told::Compacted(since))) => {
                return Ok(Ended::Forgotten(format!("etcd keeps history since its revision {since} only")));
            }
            Ok(Some(Told::Changed(events))) => {
                for revision in events.chunk_by(|a, b| a.pair.changed == b.pair.changed) {
                    if let Err(why) = tell(inner, revision) {
                        return Ok(Ended::Forgotten(why));
                    }
                    *at = revision[0].pair.changed;
                    inner.seen.send_replace(*at);
                }
            }
        }
    }
}

/// Tells those who watch of one transaction.
fn tell(inner: &Inner, events: &[Event]) -> Result<(), String> {
    // Replicas come and go without a transaction.
    let events: Vec<&Event> =
        events.iter().filter(|event| !inner.session.note(&inner.layout, event)).collect();
    if events.is_empty() {
        return Ok(());
    }
    let head = events.iter().find(|event| event.pair.key == inner.layout.head() && !event.gone);
    let head = head.ok_or("somebody else than a control plane wrote to it")?;
    let head = read::head_of(&inner.cluster, &head.pair).map_err(|e| e.to_string())?;
    let mut changes: [Vec<(String, Option<Record>)>; Space::ALL.len()] = Default::default();
    for event in events {
        let Some((space, key)) = inner.layout.read_record(&event.pair.key) else { continue };
        let record = if event.gone {
            None
        } else {
            Some(read::value_of(&inner.cluster, &event.pair).map_err(|e| e.to_string())?)
        };
        changes[space as usize].push((key, record));
    }
    for (space, records) in Space::ALL.into_iter().zip(changes) {
        let (log, position) = (inner.changes_of(space), head.count(space));
        match position.checked_sub(log.position()) {
            Some(0) => {}
            // Empty, where something was taken away that was not there.
            Some(1) => log.push(Change { position, records }),
            _ => return Err(format!("the count of {} leapt to {position}", space.as_str())),
        }
    }
    Ok(())
}

/// Begins anew with what is there now.
async fn restart(inner: &Arc<Inner>) -> Result<i64, StoreError> {
    let (head, revision) = read::head(&inner.cluster, &inner.layout).await?;
    inner.session.look(&inner.cluster, &inner.layout, revision).await?;
    for space in Space::ALL {
        inner.changes_of(space).restart(head.count(space));
    }
    inner.seen.send_replace(revision);
    Ok(revision)
}
