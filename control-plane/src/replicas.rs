//! What the replicas of a control plane tell each other of their sidecars: how far the configuration has come at each.
//!
//! A sidecar acknowledges to the replica that it hangs on. Each replica tells the sum of it beside its key in the shared
//! store, and whoever waits for everybody asks its own sidecars and reads what the others tell. One that is cut off from
//! the store sends its sidecars to the others, and one that has many more than they have sends some.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::admin::Acknowledged;
use crate::push::{Hub, NOT_ANSWERED};
use crate::state::State;
use crate::store::Store;

/// What one replica tells.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    /// The revision that it has pushed.
    revision: u64,
    /// How many of its sidecars obey it.
    acknowledged: usize,
    /// How many it has.
    proxies: usize,
    /// The first of those that do not, with the reason.
    missing: Vec<(String, String)>,
}

/// Tells the others of the sidecars of `hub`, until it is dropped.
pub(crate) async fn tell(hub: Arc<Hub>, state: Arc<State>) {
    let Some(replicas) = state.store().replicas() else { return };
    let mut told = None;
    loop {
        let revision = state.world().revision();
        let Acknowledged { acknowledged, proxies, mut missing } =
            hub.acknowledged(revision, Duration::ZERO).await;
        missing.truncate(MOST_MISSING);
        let said = Some(Said { revision, acknowledged, proxies, missing });
        // What can not be told now is told when the store answers.
        if said != told
            && let Ok(text) = serde_json::to_string(&said)
            && replicas.tell(text).await.is_ok()
        {
            told = said;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends the sidecars of `hub` to other control planes while this one is cut off from the store: what they register here
/// the others do not see, and take away. Runs until it is dropped.
///
/// Whether the others are cut off, too, is not known here. Whoever finds all of them so comes back, is served, and is sent
/// to look again after a while: the longer it lasts the later, but within a `lease`.
pub(crate) async fn send_elsewhere(hub: Arc<Hub>, state: Arc<State>, lease: Duration) {
    let Some(replicas) = state.store().replicas() else { return };
    let mut since = None;
    loop {
        if replicas.cut_off() {
            let since = *since.get_or_insert_with(|| {
                tracing::warn!(
                    "cut off from the shared store: sidecars that know other control planes go there"
                );
                Instant::now()
            });
            let stay = (since.elapsed() / 4).clamp((lease / 3).max(SHORTEST_STAY), lease.max(SHORTEST_STAY));
            hub.send_elsewhere(since, stay);
        } else {
            since = None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends some of the sidecars of `hub` to other control planes while this one has many more than they have, as after one of
/// them was away. A few at a time: each of them makes one connection more, and misses nothing. Runs until it is dropped.
pub(crate) async fn balance(hub: Arc<Hub>, state: Arc<State>) {
    let Some(replicas) = state.store().replicas() else { return };
    loop {
        // Replicas that look at the same moment see the same.
        tokio::time::sleep(ROUND.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        if replicas.cut_off() || replicas.lost().is_some() {
            continue;
        }
        let others: Vec<usize> =
            replicas.others().iter().map(|text| read(text).map_or(0, |said| said.proxies)).collect();
        let (own, most) = (hub.count(), surplus(hub.count(), &others));
        if most > 0 {
            let sent = hub.send_some(most.min(own.div_ceil(ONE_IN)), ROUND);
            tracing::info!(own, ?others, sent, "others have fewer sidecars: some are sent there");
        }
    }
}

/// How many sidecars are too many here: what is above the fair share, once that is more than a quarter of it.
fn surplus(own: usize, others: &[usize]) -> usize {
    let all = own + others.iter().sum::<usize>();
    let fair = all.div_ceil(others.len() + 1);
    let is_much = own > fair + (fair / 4).max(SOME);
    if is_much { own - fair } else { 0 }
}

/// Waits until every sidecar of every replica has answered everything up to `revision`, or for `timeout`.
pub(crate) async fn acknowledged(
    hub: &Hub,
    store: &dyn Store,
    revision: u64,
    timeout: Duration,
) -> Acknowledged {
    let deadline = Instant::now() + timeout;
    let mut all = hub.acknowledged(revision, timeout).await;
    let Some(replicas) = store.replicas() else { return all };
    let others = loop {
        let others: Vec<Said> = replicas.others().iter().filter_map(|text| read(text)).collect();
        if others.iter().all(|said| said.has_answered(revision)) || Instant::now() >= deadline {
            break others;
        }
        tokio::time::sleep(LOOK / 4).await;
    };
    for said in others {
        all.proxies += said.proxies;
        if said.revision >= revision {
            all.acknowledged += said.acknowledged;
            all.missing.extend(said.missing);
        } else if said.proxies > 0 {
            let why = format!("{} sidecars are at revision {}", said.proxies, said.revision);
            all.missing.push(("another control plane".into(), why));
        }
    }
    all.missing.sort();
    all
}

impl Said {
    /// Whether all of its sidecars have, as those here: one that rejects has answered, too.
    fn has_answered(&self, revision: u64) -> bool {
        self.revision >= revision && self.missing.iter().all(|(_, why)| why != NOT_ANSWERED)
    }
}

/// One that has said nothing yet has just begun, and has nobody.
fn read(text: &str) -> Option<Said> {
    serde_json::from_str(text).ok()
}

/// How often it is looked at what there is to tell.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked whether others have fewer sidecars.
const ROUND: Duration = Duration::from_secs(5);
/// In each round one sidecar in so many is sent, or one.
const ONE_IN: usize = 20;
/// So many more than the others is nothing.
const SOME: usize = 2;
const MOST_MISSING: usize = 20;
/// Nobody is sent on more often.
const SHORTEST_STAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_fair_share_is_too_much_once_it_is_a_quarter() {
        for (own, others, expected) in [
            (0, vec![], 0),
            (1_000, vec![], 0),
            (1_000, vec![0], 500),
            (600, vec![500], 0),
            (700, vec![300], 200),
            (900, vec![900, 0], 300),
            (3, vec![0], 0),
            (6, vec![0], 3),
            (10, vec![200], 0),
        ] {
            assert_eq!(surplus(own, &others), expected, "{own} beside {others:?}");
        }
    }

    #[test]
    fn it_comes_to_an_end() {
        // Each round the one with too many sends a twentieth; they go to any of the others.
        for begin in [vec![1_000, 0, 0], vec![500, 400, 0], vec![7, 0], vec![20_000, 1, 1, 1]] {
            let mut at = begin.clone();
            let mut rounds = 0;
            loop {
                let surpluses: Vec<usize> = (0..at.len())
                    .map(|i| surplus(at[i], &[&at[..i], &at[i + 1..]].concat()).min(at[i].div_ceil(ONE_IN)))
                    .collect();
                if surpluses.iter().all(|n| *n == 0) {
                    break;
                }
                for (i, sent) in surpluses.into_iter().enumerate() {
                    for n in 0..sent {
                        at[i] -= 1;
                        let to = (i + 1 + n % (begin.len() - 1)) % begin.len();
                        at[to] += 1;
                    }
                }
                rounds += 1;
                assert!(rounds < 200, "{begin:?}: {at:?}");
            }
            assert_eq!(at.iter().sum::<usize>(), begin.iter().sum::<usize>());
        }
    }
}
