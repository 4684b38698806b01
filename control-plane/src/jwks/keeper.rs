//! When keys are fetched, and what is remembered of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_mesh::{IssuerName, TokenKey};
use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::fetch::fetch;
use super::parse;
use super::source::{KEPT, Source};
use crate::audit::Author;
use crate::state::State;
use crate::store::{Expect, Space, Store, StoreError, Transaction, Write};

/// Fetches what the world names, as long as it runs.
pub struct Keeper {
    state: Arc<State>,
    seen: Mutex<BTreeMap<Source, Status>>,
    wanted: Mutex<Vec<IssuerName>>,
    asked: Notify,
}

/// What is known of one source.
#[derive(Clone, Debug)]
pub struct Status {
    /// When it was asked last.
    pub asked: Option<Instant>,
    /// When it is asked next.
    next: Instant,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<String>,
    /// Fetches that gave keys, ever.
    pub fetched: u64,
    /// Fetches that did not.
    pub failed: u64,
}

impl Keeper {
    /// For the issuers of `state`.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, seen: Mutex::default(), wanted: Mutex::default(), asked: Notify::new() }
    }

    /// Sidecars met tokens with unknown keys of these issuers. Each source is asked anew, but not more often than its
    /// least interval allows.
    pub fn want(&self, issuers: &[IssuerName]) {
        if issuers.is_empty() {
            return;
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for name in issuers.iter().take(MOST_WANTED.saturating_sub(wanted.len())) {
            wanted.push(name.clone());
        }
        drop(wanted);
        self.asked.notify_one();
    }

    /// Runs until it is dropped.
    pub async fn run(&self) {
        let mut under_way: JoinSet<(Source, Result<Vec<TokenKey>, String>)> = JoinSet::new();
        let mut busy: HashSet<Source> = HashSet::new();
        loop {
            let next = self.look();
            for source in self.due(Instant::now()) {
                if busy.len() < AT_ONCE && busy.insert(source.clone()) {
                    under_way.spawn(async move {
                        let fetched = fetch(&source).await;
                        (source, fetched)
                    });
                }
            }
            tokio::select! {
                Some(done) = under_way.join_next() => {
                    if let Ok((source, fetched)) = done {
                        busy.remove(&source);
                        self.take(source, fetched).await;
                    }
                }
                () = sleep_until(next) => {}
                () = self.asked.notified() => self.hurry(),
            }
        }
    }

    /// What is known of every issuer, for operators.
    pub fn to_json(&self) -> Vec<Json> {
        let (world, seen) = (self.state.world(), self.seen());
        let of = |issuer: &crate::check::CheckedIssuer| {
            let keys = world.issuer(&issuer.name).map_or(0, |i| i.keys.all().len());
            let source = issuer.source.as_ref();
            let status = source.and_then(|source| seen.get(source));
            json!({
                "name": issuer.name.to_string(),
                "issuer": &*issuer.iss,
                "keys": keys,
                "state": if keys == 0 { "no keys" } else { "ok" },
                "source": source.map(Source::shown),
                "error": status.and_then(|s| s.error.clone()),
                "failures": status.map(|s| s.failures),
                "lastAskedSeconds": status.and_then(|s| s.asked).map(|at| at.elapsed().as_secs()),
            })
        };
        world.issuers().map(of).collect()
    }

    /// The same as metrics.
    pub fn metrics(&self) -> String {
        let world = self.state.world();
        let (mut ok, mut missing) = (0, 0);
        for issuer in world.issuers() {
            let has = world.issuer(&issuer.name).is_some_and(|i| !i.keys.all().is_empty());
            *(if has { &mut ok } else { &mut missing }) += 1;
        }
        let seen = self.seen();
        let fetched: u64 = seen.values().map(|s| s.fetched).sum();
        let failed: u64 = seen.values().map(|s| s.failed).sum();
        format!(
            "# HELP outrigger_control_issuers Issuers of tokens, by whether there are keys.\n\
             # TYPE outrigger_control_issuers gauge\n\
             outrigger_control_issuers{{state=\"ok\"}} {ok}\n\
             outrigger_control_issuers{{state=\"no_keys\"}} {missing}\n\
             # HELP outrigger_control_jwks_fetches_total Fetches of keys.\n\
             # TYPE outrigger_control_jwks_fetches_total counter\n\
             outrigger_control_jwks_fetches_total{{outcome=\"ok\"}} {fetched}\n\
             outrigger_control_jwks_fetches_total{{outcome=\"failed\"}} {failed}\n"
        )
    }

    /// Takes in sources that are new and forgets those that nobody names. When to look again.
    fn look(&self) -> Instant {
        let (world, now) = (self.state.world(), Instant::now());
        let named: Vec<Source> = world.issuers().filter_map(|i| i.source.clone()).collect();
        let mut seen = self.seen();
        seen.retain(|source, _| named.contains(source));
        for source in named.into_iter().take(MOST_SOURCES) {
            seen.entry(source).or_insert_with(|| Status {
                asked: None,
                next: now,
                failures: 0,
                error: None,
                fetched: 0,
                failed: 0,
            });
        }
        seen.values().map(|s| s.next.max(now + LEAST)).min().unwrap_or(now + LOOK_AGAIN).min(now + LOOK_AGAIN)
    }

    fn due(&self, now: Instant) -> Vec<Source> {
        self.seen().iter().filter(|(_, s)| s.next <= now).map(|(source, _)| source.clone()).collect()
    }

    /// Brings forward what sidecars asked for.
    fn hurry(&self) {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        let world = self.state.world();
        let mut seen = self.seen();
        for issuer in world.issuers().filter(|i| wanted.contains(&i.name)) {
            if let Some(status) = issuer.source.as_ref().and_then(|source| seen.get_mut(source)) {
                let soonest = status.asked.map_or_else(Instant::now, |asked| asked + REFETCH);
                status.next = status.next.min(soonest);
            }
        }
    }

    async fn take(&self, source: Source, fetched: Result<Vec<TokenKey>, String>) {
        let good = fetched.is_ok();
        {
            let mut seen = self.seen();
            let Some(status) = seen.get_mut(&source) else { return };
            let now = Instant::now();
            status.asked = Some(now);
            match &fetched {
                Ok(_) => {
                    (status.failures, status.error) = (0, None);
                    status.fetched += 1;
                    status.next = now + source.refresh;
                }
                Err(why) => {
                    tracing::warn!(
                        source = source.shown(),
                        why,
                        "keys were not fetched; those that are known stay"
                    );
                    status.failures += 1;
                    status.failed += 1;
                    status.error = Some(why.clone());
                    let pause = FIRST_RETRY * 2_u32.pow(status.failures.min(7));
                    status.next = now + pause.min(source.refresh.max(FIRST_RETRY));
                }
            }
        }
        if let (true, Ok(keys)) = (good, fetched)
            && let Err(error) = self.state.set_keys(source, keys).await
        {
            tracing::warn!(%error, "fetched keys are not put in force; they are fetched again");
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<Source, Status>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was fetched before this control plane started, by the key of its source.
pub(crate) async fn kept(store: &dyn Store) -> Result<BTreeMap<String, Vec<TokenKey>>, StoreError> {
    let all = store.list(Space::Tokens, KEPT).await?.records;
    let read = |record: &Json| parse::keys(record.to_string().as_bytes()).ok();
    Ok(all.into_iter().filter_map(|(key, record)| Some((key, read(&record.value)?))).collect())
}

/// Keeps what was fetched for the next start.
pub(crate) async fn keep(store: &dyn Store, source: &Source, keys: &[TokenKey]) {
    let write = Write {
        space: Space::Tokens,
        key: source.key(),
        value: Some(parse::to_json(keys)),
        expect: Expect::Anything,
    };
    let author = Author::system("keys were fetched");
    if let Err(error) = store.commit(Transaction { author, writes: vec![write], audit: vec![] }).await {
        tracing::warn!(?error, "fetched keys are not kept for the next start");
    }
}

const LEAST: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Between two fetches that sidecars ask for.
const REFETCH: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 4;
const MOST_SOURCES: usize = 1_024;
const MOST_WANTED: usize = 1_024;
