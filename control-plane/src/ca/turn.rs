//! The one task that changes the authority: takes note of what sidecars acknowledge, moves a change of the root from gate
//! to gate, and does what operators ask for. What is committed to the store is done after it, and again after a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::{Authority, LeafLifetime};
use outrigger_mesh::TrustDomain;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::company::{self, Given, Watched};
use super::follow::Others;
use super::keeper::{Fleet, Holding, Keeper, Signing};
use super::kept::{self, ABORTED, COMPLETED, Kept};
use super::ledger::{Attested, Leaf, Ledger, Missing};
use super::rotation::{Event, Rotation, Step};
use crate::audit::{AuditEntry, Author};
use crate::state::State;
use crate::store::{CommitError, Space, Store};

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new root, with this time for each gate.
    Rotate(Option<Duration>),
    /// Go on after a pause, with this time for the gate.
    Resume(Option<Duration>),
    /// Open the gate although somebody is missing; without the word nothing is done but tell who.
    Force(bool),
    /// Turn back.
    Abort,
    /// Another intermediate under the same root.
    NewIntermediate,
}

/// Why a wish was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotTurned {
    /// Why not.
    pub message: String,
    /// Who would be cut off.
    pub casualties: Vec<Missing>,
    /// Whether trying again may help.
    pub unavailable: bool,
}

/// Asks the task for changes. Cheap to clone.
#[derive(Clone)]
pub struct Turning(mpsc::Sender<Asked>);

/// A wish, who has it, and where the answer goes.
type Asked = (Wish, Author, oneshot::Sender<Result<(), NotTurned>>);

impl Turning {
    /// Waits until it is done, on disk and in force.
    pub async fn ask(&self, wish: Wish, author: Author) -> Result<(), NotTurned> {
        let (reply, answer) = oneshot::channel();
        let gone = || NotTurned { unavailable: true, ..no("the control plane is shutting down") };
        self.0.send((wish, author, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The task.
pub struct Turner {
    pub(super) keeper: Arc<Keeper>,
    pub(super) kept: Kept,
    files: Option<Watched>,
    /// What the files hold and can not be taken up yet, and why that is.
    waiting: Option<(Arc<Authority>, String)>,
    state: Option<Arc<State>>,
    queue: mpsc::Receiver<Asked>,
    lifetime: LeafLifetime,
    pub(super) others: Others,
}

/// Where an authority comes from.
pub struct Place<'a> {
    /// The folder of earlier versions, see [`Kept::open`].
    pub folder: &'a Path,
    /// That of a company, in place of one that is made.
    pub given: Option<Given>,
}

/// The authority of a mesh.
pub async fn open(
    store: Arc<dyn Store>,
    fleet: Arc<dyn Fleet>,
    place: Place<'_>,
    trust_domain: &TrustDomain,
    lifetime: LeafLifetime,
) -> anyhow::Result<(Arc<Keeper>, Turning, Turner)> {
    // From before the account is read: what is entered meanwhile is entered twice rather than never.
    let position = store.list(Space::Certificates, KEPT_NOWHERE).await?.position;
    let others = store.replicas().is_some().then(|| store.watch(Space::Certificates, position));
    let leaves = kept::leaves(&*store).await?;
    let (kept, files) = match place.given {
        None => (Kept::open(&*store, place.folder, trust_domain).await?, None),
        Some(given) => {
            let timeout = gate(lifetime);
            let kept = company::open(&*store, place.folder, trust_domain, &given, &leaves, timeout).await?;
            (kept, Some(Watched::new(given.files)))
        }
    };
    let ledger = Ledger::of_kept(leaves);
    let signing = Signing::of(kept.in_force(trust_domain)?, kept.version());
    let of = (kept.rotation.clone(), kept.last.clone());
    let keeper = Arc::new(Keeper::new(store, fleet, signing, ledger, of)?);
    let (wishes, queue) = mpsc::channel(QUEUE);
    let own = Arc::clone(&keeper);
    let turner = Turner { keeper: own, kept, files, waiting: None, state: None, queue, lifetime, others };
    Ok((keeper, Turning(wishes), turner))
}

/// Within a lifetime every certificate that nobody renews has expired, unless it was made for a longer one.
fn gate(lifetime: LeafLifetime) -> Duration {
    lifetime.get() + Duration::from_hours(1)
}

const BY_FILES: &str = "the authority is given as files: replace them, and the control plane takes up another intermediate \
                        at once, another root step by step; put the former ones back to abort";
const QUEUE: usize = 16;
/// No key begins so: the count alone is wanted.
const KEPT_NOWHERE: &str = "\0";
/// How often the gates are looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(500);
/// What happens in so short a time is looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// How many accounts are written in one transaction.
const BATCH: usize = 256;
/// How many connections are asked to come back at a time: they all shake hands with us then.
const RECONNECTS: usize = 20;
/// A sidecar that was just given a certificate is about to put it in force.
const ARRIVES: time::Duration = time::Duration::seconds(2);

impl Turner {
    /// Runs until it is dropped. `state` makes join tokens, which carry the root of the moment.
    pub async fn run(mut self, state: Arc<State>) {
        state.set_root(self.keeper.root());
        self.state = Some(state);
        let mut progress = self.keeper.fleet.progress();
        loop {
            tokio::select! {
                wish = self.queue.recv() => {
                    let Some((wish, author, reply)) = wish else { return };
                    self.follow().await;
                    let done = self.fulfil(wish, &author).await;
                    // Whoever asked may have gone.
                    let _ = reply.send(done);
                }
                changed = progress.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(SETTLE).await;
                    progress.mark_unchanged();
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            self.follow().await;
            let holdings = self.keeper.fleet.holdings();
            self.take_note(&holdings).await;
            self.take_up_files().await;
            self.look(&holdings).await;
            self.renew_own_in_time();
        }
    }

    async fn fulfil(&mut self, wish: Wish, author: &Author) -> Result<(), NotTurned> {
        let now = OffsetDateTime::now_utc();
        if self.files.is_some() && matches!(wish, Wish::Rotate(_) | Wish::NewIntermediate | Wish::Abort) {
            return Err(no(BY_FILES));
        }
        match (wish, self.kept.rotation.clone()) {
            (Wish::Rotate(timeout), None) => self.begin(timeout, author).await,
            (Wish::Rotate(_), Some(rotation)) => Err(no(format!(
                "a change of the root is under way already, at {}: see its status",
                rotation.step.as_str()
            ))),
            (Wish::NewIntermediate, None) => self.new_intermediate(author).await,
            (Wish::NewIntermediate, Some(_)) => {
                Err(no("the root is being changed, which changes the intermediate too; wait for its end"))
            }
            (_, None) => Err(no("no change of the root is under way")),
            (Wish::Resume(timeout), Some(mut rotation)) => {
                rotation.resume(timeout, now);
                self.turn(self.kept.clone().at(rotation), author, "resume").await
            }
            (Wish::Force(yes), Some(mut rotation)) => {
                let casualties = self.missing(&rotation, &self.keeper.fleet.holdings());
                if !yes {
                    let message = format!("{} would be cut off; say yes to that", casualties.len());
                    return Err(NotTurned { casualties, ..no(message) });
                }
                let (step, count) = (rotation.step, casualties.len());
                tracing::warn!(step = step.as_str(), casualties = count, by = author.who, "a gate is forced");
                let event = rotation.force(count, now);
                self.happened(rotation, event, author, &format!("force {} past {count}", step.as_str())).await
            }
            (Wish::Abort, Some(mut rotation)) => match rotation.abort(now) {
                Some(event) => self.happened(rotation, event, author, "abort").await,
                None => Err(no("it is on its way back already")),
            },
        }
    }

    async fn begin(&mut self, timeout: Option<Duration>, author: &Author) -> Result<(), NotTurned> {
        let (kept, from, to) =
            self.kept.with_next(&self.keeper.trust_domain).map_err(|e| no(e.to_string()))?;
        let timeout = timeout.unwrap_or_else(|| self.patience());
        let now = OffsetDateTime::now_utc();
        let rotation = Rotation::begin(from.to_string(), to.to_string(), timeout, now);
        tracing::info!(%from, %to, ?timeout, "a change of the root begins");
        self.turn(kept.at(rotation), author, "rotate-root").await
    }

    /// How long a gate may take: until all that are valid now have ended, and those made meanwhile.
    fn patience(&self) -> Duration {
        let now = OffsetDateTime::now_utc();
        let longest = self.keeper.inner().ledger.all().map(Leaf::in_use_until).max();
        let longest = longest.and_then(|until| (until - now).try_into().ok()).unwrap_or(Duration::ZERO);
        gate(self.lifetime).max(longest + Duration::from_hours(1))
    }

    async fn new_intermediate(&mut self, author: &Author) -> Result<(), NotTurned> {
        let kept =
            self.kept.with_new_intermediate(&self.keeper.trust_domain).map_err(|e| no(e.to_string()))?;
        self.turn(kept, author, "rotate-intermediate").await?;
        tracing::info!(
            sha256 = self.keeper.signing().authority.intermediate_sha256(),
            "another intermediate"
        );
        Ok(())
    }

    /// Takes up what the files of a company hold now. What can not be taken up leaves everything as it was.
    async fn take_up_files(&mut self) {
        let domain = self.keeper.trust_domain.clone();
        match self.files.as_mut().and_then(|files| files.look(&domain)) {
            Some(Ok(authority)) => self.waiting = Some((Arc::new(authority), String::new())),
            Some(Err(error)) => {
                tracing::error!(%error, "the files of the authority are not taken up; it stays as it was");
            }
            None => {}
        }
        let Some((authority, told)) = self.waiting.take() else { return };
        let now = OffsetDateTime::now_utc();
        let taken = match self.kept.clone().take_up(&authority, &domain, self.patience(), now) {
            Ok((kept, what)) => {
                self.turn(kept, &Author::system("the files of the authority"), what).await.map(|()| what)
            }
            Err(why) => Err(no(why)),
        };
        match taken {
            Ok(what) => {
                let (root, intermediate) = (authority.root_sha256(), authority.intermediate_sha256());
                tracing::info!(what, %root, intermediate, "the files of the authority have changed");
            }
            Err(error) => {
                let why = error.to_string();
                if why != told {
                    tracing::error!(why, "the files of the authority are not taken up yet");
                }
                self.waiting = Some((authority, why));
            }
        }
    }

    /// Moves the rotation if its gate is open, or has been closed for too long.
    async fn look(&mut self, holdings: &[Holding]) {
        let Some(mut rotation) = self.kept.rotation.clone() else { return };
        self.call_back(&rotation, holdings);
        if self.keeper.store.replicas().is_some_and(|replicas| !replicas.leads()) {
            return;
        }
        let missing = self.missing(&rotation, holdings);
        let Some(event) = rotation.look(missing.len(), OffsetDateTime::now_utc()) else { return };
        if event == Event::Paused {
            let (step, who) = (rotation.step.as_str(), names(&missing));
            tracing::warn!(step, missing = missing.len(), %who, "the change of the root is paused");
        }
        let author = Author::system("its gate");
        let what = match event {
            Event::Entered(step) => step.as_str(),
            Event::Paused => "pause",
            Event::Completed => "complete",
            Event::Aborted => "end the abort of",
        };
        if let Err(error) = self.happened(rotation, event, &author, what).await {
            tracing::error!(%error, "the change of the root does not go on");
        }
    }

    async fn happened(
        &mut self,
        rotation: Rotation,
        event: Event,
        author: &Author,
        what: &str,
    ) -> Result<(), NotTurned> {
        let kept = self.kept.clone().at(rotation);
        let kept = match event {
            Event::Entered(_) | Event::Paused => kept,
            Event::Completed => kept.ended(COMPLETED),
            Event::Aborted => kept.ended(ABORTED),
        };
        self.turn(kept, author, what).await?;
        tracing::info!(what, "the change of the root");
        Ok(())
    }

    /// Stores `kept` and puts it in force.
    async fn turn(&mut self, kept: Kept, author: &Author, what: &str) -> Result<(), NotTurned> {
        // Proven before it is stored.
        let signing = kept.in_force(&self.keeper.trust_domain).map_err(|e| no(e.to_string()))?;
        let audit = AuditEntry::new(author, what, "the certificate authority");
        self.kept = kept.commit(&*self.keeper.store, author, vec![audit]).await.map_err(|e| match e {
            CommitError::Store(e) => NotTurned { unavailable: true, ..no(e.to_string()) },
            CommitError::Conflict { .. } => no("another control plane changed the authority meanwhile"),
        })?;
        self.put_in_force(Signing::of(signing, self.kept.version()));
        Ok(())
    }

    /// Signs with what is kept from now on.
    pub(super) fn put_in_force(&self, signing: Signing) {
        {
            let mut inner = self.keeper.inner();
            (inner.rotation, inner.last) = (self.kept.rotation.clone(), self.kept.last.clone());
        }
        self.keeper.put_in_force(signing);
        if let Some(state) = &self.state {
            state.set_root(self.keeper.root());
        }
    }

    /// What was shown and acknowledged since the last time.
    async fn take_note(&self, holdings: &[Holding]) {
        let now = OffsetDateTime::now_utc();
        let (forgotten, changed) = {
            let mut inner = self.keeper.inner();
            let forgotten = inner.ledger.sweep(now);
            let root = oldest_root(inner.rotation.as_ref(), &inner.signing);
            for holding in holdings {
                note(&mut inner.ledger, holding, &root, now);
            }
            (forgotten, inner.ledger.take_changed(BATCH))
        };
        if forgotten.is_empty() && changed.is_empty() {
            return;
        }
        let author = Author::system("certificates were shown");
        let stored = kept::store_leaves(&*self.keeper.store, &changed, &forgotten, author, vec![]).await;
        if let Err(error) = stored {
            tracing::warn!(%error, "the account of certificates is not stored");
            self.keeper.inner().ledger.put_back(&changed);
        }
    }

    /// Whoever was given a certificate of the other root is asked to show it.
    fn call_back(&self, rotation: &Rotation, holdings: &[Holding]) {
        let Some(leaving) = rotation.leaving() else { return };
        let now = OffsetDateTime::now_utc();
        let due: Vec<_> = {
            let inner = self.keeper.inner();
            let due = |holding: &&Holding| {
                let leaf = inner.ledger.get(&holding.certificate);
                leaf.is_some_and(|leaf| leaf.root == leaving)
                    && inner.ledger.has_successor(&holding.certificate, now - ARRIVES)
            };
            holdings.iter().filter(due).take(RECONNECTS).map(|h| h.certificate.clone()).collect()
        };
        for certificate in &due {
            self.keeper.fleet.reconnect(certificate);
        }
    }

    fn missing(&self, rotation: &Rotation, holdings: &[Holding]) -> Vec<Missing> {
        self.keeper.missing(rotation, holdings)
    }

    fn renew_own_in_time(&self) {
        let own = self.keeper.own_identity();
        let life = own.expires_at().duration_since(own.not_before()).unwrap_or_default();
        let left = own.expires_at().duration_since(SystemTime::now()).unwrap_or_default();
        if left < life / 2 {
            self.keeper.renew_own();
        }
    }
}

impl Keeper {
    /// Who keeps the gate of `rotation` closed.
    pub(super) fn missing(&self, rotation: &Rotation, holdings: &[Holding]) -> Vec<Missing> {
        let inner = self.inner();
        let (ledger, now) = (&inner.ledger, OffsetDateTime::now_utc());
        let (leaves, why) = match rotation.step {
            Step::Distribute => {
                (ledger.without_trust(&inner.signing.trust_version, now), "has not acknowledged both roots")
            }
            Step::Sign => (ledger.latest_of(&rotation.from, now), "has not renewed its certificate"),
            Step::Retire => {
                (ledger.in_use_of(&rotation.from), "may have connections by a certificate of the old root")
            }
            Step::Withdraw => {
                (ledger.in_use_of(&rotation.to), "may have connections by a certificate of the new root")
            }
        };
        let waits = matches!(rotation.step, Step::Retire | Step::Withdraw);
        let connected: std::collections::BTreeSet<_> = holdings.iter().map(|h| &h.certificate).collect();
        let missing = |leaf: &Leaf| Missing {
            identity: leaf.identity.clone(),
            certificate: leaf.sha256.clone(),
            from: leaf.from.clone(),
            until: if waits { leaf.in_use_until() } else { leaf.not_after },
            connected: connected.contains(&leaf.sha256),
            why: if leaf.by == Attested::Files {
                format!("{why}: it was issued as files")
            } else {
                why.into()
            },
        };
        leaves.into_iter().map(missing).collect()
    }
}

/// The root of certificates nobody knows the root of: the one that is longest in force.
fn oldest_root(rotation: Option<&Rotation>, signing: &Signing) -> String {
    rotation.map_or_else(|| signing.authority.root_sha256().to_string(), |r| r.from.clone())
}

fn note(ledger: &mut Ledger, holding: &Holding, root: &str, now: OffsetDateTime) {
    let sha256 = &holding.certificate;
    if ledger.get(sha256).is_none() && holding.not_after > SystemTime::from(now) {
        ledger.enter(Leaf {
            sha256: sha256.clone(),
            serial: String::new(),
            identity: holding.identity.to_string(),
            holder: sha256.clone(),
            root: root.to_owned(),
            by: Attested::Earlier,
            from: holding.from.clone(),
            issued: holding.since,
            not_after: holding.not_after.into(),
            order: 0,
            seen: None,
            trust: None,
        });
    }
    if ledger.get(sha256).is_some_and(|leaf| leaf.seen.is_none_or(|seen| seen < holding.since)) {
        ledger.seen(sha256, holding.since);
    }
    if let Some(trust) = &holding.trust {
        ledger.acknowledged(sha256, trust);
    }
}

fn no(message: impl Into<String>) -> NotTurned {
    NotTurned { message: message.into(), casualties: vec![], unavailable: false }
}

fn names(missing: &[Missing]) -> String {
    let names: Vec<_> = missing.iter().take(10).map(|m| m.identity.as_str()).collect();
    names.join(", ")
}
