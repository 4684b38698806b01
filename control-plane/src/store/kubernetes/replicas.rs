//! This control plane among the others, and whether the API server tells what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use outrigger_kube::api::{CallErrorKind, Collection};
use outrigger_kube::follow::Told;
use outrigger_kube::lease::{self, Contest, LEASES, Living, RENEW, TERM};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::super::error::{StoreError, StoreErrorKind};
use super::super::replicas::{Holder, Replicas};
use super::Inner;

/// The Lease of whoever does what only one may do.
pub(super) const LEADER: &str = "outrigger-leader";
/// So many names a replica tells that it holds: an annotation has room for no more.
const MOST_HELD: usize = 2_000;
/// What is to be told waits no longer than this.
const TELL: Duration = Duration::from_secs(1);
const END_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the others, and of the API server.
pub(super) struct Standing {
    /// What nothing has been told of yet.
    awaited: BTreeSet<String>,
    /// What nothing new is known of, and why.
    lost: BTreeMap<String, String>,
    /// What of it the API server does not let be read.
    denied: BTreeSet<String>,
    /// Why the Lease could not be renewed, the last time.
    unheard: Option<String>,
    heard: Instant,
    leads: Option<Instant>,
    living: Living,
    said: String,
    mine: BTreeSet<String>,
}

/// What a replica tells the others.
#[derive(Default, Serialize, Deserialize)]
struct Word {
    said: String,
    holds: Vec<String>,
}

impl Standing {
    /// Nothing is known yet of these.
    pub(super) fn awaiting(names: impl Iterator<Item = String>) -> Self {
        Self {
            awaited: names.collect(),
            lost: BTreeMap::new(),
            denied: BTreeSet::new(),
            unheard: None,
            heard: Instant::now(),
            leads: None,
            living: Living::default(),
            said: String::new(),
            mine: BTreeSet::new(),
        }
    }

    pub(super) fn hear(&mut self, of: &Collection, told: &Told) {
        let name = of.to_string();
        if let Told::Lost(e) = told {
            if e.kind() == CallErrorKind::Forbidden {
                self.denied.insert(name.clone());
            }
            if self.lost.insert(name, e.to_string()).is_none() {
                tracing::warn!(of = %of, error = %e, "nothing new is known: what was told last holds");
            }
        } else {
            self.denied.remove(&name);
            if self.lost.remove(&name).is_some() {
                tracing::info!(of = %of, "it is followed again");
            }
        }
        if let Told::All(..) = told {
            self.awaited.remove(&of.to_string());
        }
        if *of == LEASES {
            match told {
                Told::All(all, _) => self.living.all_are(all),
                Told::Changed(lease) => self.living.note(lease),
                Told::Gone(lease) => self.living.forget(lease),
                Told::At(_) | Told::Lost(_) => {}
            }
        }
    }

    /// Whether nothing new is heard of one of these.
    pub(super) fn is_lost(&self, collections: &[Collection]) -> bool {
        collections.iter().any(|of| self.lost.contains_key(&of.to_string()))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether something is awaited that nobody lets be read: waiting would not help.
    pub(super) fn is_denied(&self) -> bool {
        self.awaited.intersection(&self.denied).next().is_some()
    }

    /// Why it is not complete: what is not allowed first.
    pub(super) fn missing(&self) -> String {
        let why =
            |name: &String| self.lost.get(name).map_or_else(|| format!("{name}: no answer"), Clone::clone);
        let denied = self.awaited.intersection(&self.denied);
        let mut all: Vec<String> = denied.chain(self.awaited.difference(&self.denied)).map(why).collect();
        all.dedup();
        all.truncate(5);
        all.join("; ")
    }

    fn words(&self, identity: &str) -> Vec<Word> {
        let others = self.living.living().filter(|(who, _)| *who != identity);
        others.map(|(_, said)| serde_json::from_str(said).unwrap_or_default()).collect()
    }

    fn word(&self) -> String {
        let holds = self.mine.iter().take(MOST_HELD).cloned().collect();
        serde_json::to_string(&Word { said: self.said.clone(), holds }).unwrap_or_default()
    }
}

/// Keeps the Leases of this replica, until it is dropped.
pub(super) async fn keep(inner: Arc<Inner>) {
    let (namespace, identity) = (&inner.address.namespace, &inner.address.identity);
    let mut contest = Contest::new(namespace, LEADER, identity);
    let (mut shown, mut at) = (String::new(), None::<Instant>);
    let mut renewed = None::<Instant>;
    loop {
        let word = inner.standing().word();
        if word != shown || at.is_none_or(|at| at.elapsed() >= RENEW) {
            match lease::show(&inner.api, namespace, identity, &word).await {
                Ok(()) => (shown, at) = (word, Some(Instant::now())),
                Err(e) => tracing::debug!(error = %e, "the Lease of this control plane is not renewed"),
            }
        }
        if renewed.is_none_or(|at| at.elapsed() >= RENEW) {
            let began = Instant::now();
            let round = contest.round(&inner.api).await;
            let mut standing = inner.standing();
            let led = standing.leads.is_some_and(|until| began < until);
            standing.leads = contest.until();
            if led != standing.leads.is_some() {
                tracing::info!(leads = !led, lease = LEADER, "who leads has changed");
            }
            match round {
                Ok(()) => (standing.heard, standing.unheard) = (began, None),
                Err(e) => standing.unheard = Some(e.to_string()),
            }
            renewed = Some(began);
        }
        tokio::time::sleep(TELL).await;
    }
}

/// Gives everything back, so that nobody has to wait for its end.
pub(super) async fn end(inner: &Inner) {
    let (namespace, identity) = (&inner.address.namespace, &inner.address.identity);
    let ending = async {
        // A contest that knows nothing gives back nothing; whose the Lease is it says itself.
        if inner.standing().leads.take().is_some() {
            let mut contest = Contest::new(namespace, LEADER, identity);
            let _ = contest.round(&inner.api).await;
            let _ = contest.end(&inner.api).await;
        }
        let _ = lease::hide(&inner.api, namespace, identity).await;
    };
    // They end by themselves when this does not arrive.
    let _ = timeout(END_WITHIN, ending).await;
}

impl Replicas for Inner {
    fn leads(&self) -> bool {
        self.standing().leads.is_some_and(|until| Instant::now() < until)
    }

    fn count(&self) -> usize {
        let (standing, own) = (self.standing(), self.address.identity.as_str());
        // That one lives oneself needs no Lease.
        1 + standing.living.living().filter(|(who, _)| *who != own).count()
    }

    fn lost(&self) -> Option<String> {
        let standing = self.standing();
        standing.unheard.clone().or_else(|| standing.lost.values().next().cloned())
    }

    fn cut_off(&self) -> bool {
        self.standing().heard.elapsed() >= TERM
    }

    fn tell(&self, said: String) -> BoxFuture<'_, Result<(), StoreError>> {
        // Written by `keep`, at most once a second.
        self.standing().said = said;
        async { Ok(()) }.boxed()
    }

    fn others(&self) -> Vec<String> {
        self.standing().words(&self.address.identity).into_iter().map(|word| word.said).collect()
    }

    fn hold(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut standing = self.standing();
        standing.mine.extend(names);
        let lost = standing.heard.elapsed() >= TERM;
        async move {
            if lost {
                let detail = "the others can not be told of it";
                return Err(StoreError::new(StoreErrorKind::Unavailable, "in Kubernetes", detail));
            }
            Ok(())
        }
        .boxed()
    }

    fn let_go<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.standing().mine.remove(name);
        async { Ok(()) }.boxed()
    }

    fn holder(&self, name: &str) -> Holder {
        let standing = self.standing();
        if standing.mine.contains(name) {
            return Holder::This;
        }
        let words = standing.words(&self.address.identity);
        if words.iter().any(|word| word.holds.iter().any(|held| held == name)) {
            Holder::Another
        } else {
            Holder::Nobody
        }
    }
}
