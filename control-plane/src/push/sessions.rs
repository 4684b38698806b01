//! One sidecar's discovery stream: what was marked for it, what it was sent, and what it answered.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use outrigger_mesh::{Feature, FeatureSet, Hostname, ResourceKind, ResourceName, Selector, SpiffeId};
use outrigger_wire::rpc::{Hello, RpcError, RpcErrorKind, ServerStream};
use outrigger_wire::session::{Changed, ClientEvent, DeltaRequest, DeltaResponse, Limits, ServerSession};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::catalog::Position;
use super::figures::{Owed, Publication, Slow};
use super::fleet::{Proof, own_trust};
use super::hub::{Concern, Hub};
use super::obeyed::Obeyed;
use super::pace::Pace;
use super::status::{ProxyStatus, RejectedResource};
use crate::ca::Holding;

/// The number of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// A connected sidecar as the hub sees it.
#[derive(Debug)]
pub(super) struct Proxy {
    id: SessionId,
    hello: Hello,
    proof: Option<Proof>,
    from: SocketAddr,
    since: OffsetDateTime,
    began: Instant,
    marked: Notify,
    replaced: Notify,
    cut: watch::Sender<Option<Cut>>,
    ended: AtomicBool,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    marks: Marks,
    progress: [Progress; ResourceKind::ALL.len()],
    rejected: Vec<RejectedResource>,
    subscriptions: usize,
    /// The publications that it owes an answer to, the oldest first.
    owes: VecDeque<Owed>,
    /// The version of the roots of its trust domain that it obeys.
    trust: Option<String>,
    /// What it obeys of the services that somebody asks for.
    obeyed: Obeyed,
    /// All that it wants and holds is known.
    has_come_in: bool,
}

/// What changed and is not looked at yet.
#[derive(Debug, Default)]
struct Marks {
    names: HashSet<ResourceName>,
    hosts: HashSet<Hostname>,
    /// There was too much to keep: anything may have changed.
    overflow: bool,
}

/// How far the answers of one kind have come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Everything up to here is answered.
    reached: Position,
    /// When the response under way is answered, everything up to here is.
    covers: Option<Position>,
    /// Nothing is under way and nothing is due.
    idle: bool,
}

impl Proxy {
    pub(super) fn new(id: SessionId, hello: Hello, from: SocketAddr, proof: Option<Proof>) -> Self {
        Self {
            id,
            hello,
            proof,
            from,
            since: OffsetDateTime::now_utc(),
            began: Instant::now(),
            marked: Notify::new(),
            replaced: Notify::new(),
            cut: watch::Sender::new(None),
            ended: AtomicBool::new(false),
            facts: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn node(&self) -> (SpiffeId, String) {
        (self.hello.identity.clone(), self.hello.node.clone())
    }

    /// Notes something that a publication concerns it with.
    pub(super) fn mark(&self, concern: Concern<'_>, publication: &mut Publication) {
        let mut facts = self.facts();
        let marks = &mut facts.marks;
        if !marks.overflow {
            match concern {
                Concern::Name(name) => marks.names.insert(name.clone()),
                Concern::Host(host) => marks.hosts.insert(host.clone()),
            };
        }
        if marks.names.len() + marks.hosts.len() > MAX_MARKS {
            *marks = Marks { overflow: true, ..Marks::default() };
        }
        let is_new = facts.owes.back().is_none_or(|last| last.number() < publication.number());
        // One that owes so much already is waited for anyway.
        if is_new && facts.owes.len() < MAX_OWED {
            facts.owes.push_back(publication.owed());
        }
        drop(facts);
        self.marked.notify_one();
    }

    /// How many selectors it has subscribed to.
    pub(super) fn subscriptions(&self) -> usize {
        self.facts().subscriptions
    }

    /// How far it has come: what is answered, or, when there is nothing for it to answer, the present.
    pub(super) fn position(&self, now: Position) -> Position {
        let facts = self.facts();
        let of_kind = |progress: &Progress| facts.position(*progress, now);
        facts.progress.iter().map(of_kind).min().unwrap_or(now)
    }

    pub(super) fn position_of(&self, kind: ResourceKind, now: Position) -> Position {
        let facts = self.facts();
        facts.position(facts.progress[kind as usize], now)
    }

    pub(super) fn status(&self, now: Position) -> ProxyStatus {
        let acked_revision = self.position(now).revision;
        let facts = self.facts();
        ProxyStatus {
            node: self.hello.node.clone(),
            identity: self.hello.identity.to_string(),
            service: self.hello.service.as_ref().map(ToString::to_string),
            endpoint: self.hello.endpoint.as_ref().map(ToString::to_string),
            version: self.hello.version.clone(),
            skew: skew(&self.hello.version, &self.hello.features),
            from: self.from.to_string(),
            connected_since: self.since,
            subscriptions: facts.subscriptions,
            acked_revision,
            rejected: facts.rejected.clone(),
        }
    }

    pub(super) fn identity(&self) -> &SpiffeId {
        &self.hello.identity
    }

    pub(super) fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// What it holds; `None` when its connection showed no certificate.
    pub(super) fn holding(&self) -> Option<Holding> {
        let Proof { certificate, not_after } = self.proof.clone()?;
        Some(Holding {
            certificate,
            not_after,
            identity: self.hello.identity.clone(),
            from: self.from.to_string(),
            since: self.since,
            trust: self.facts().trust.clone(),
        })
    }

    /// Has it note anew how far it has come.
    pub(super) fn look_again(&self) {
        self.marked.notify_one();
    }

    pub(super) fn with_obeyed<T>(&self, read: impl FnOnce(&Obeyed, &[RejectedResource]) -> T) -> T {
        let facts = self.facts();
        read(&facts.obeyed, &facts.rejected)
    }

    /// Whether all that it wants and holds is known. Who has not come in yet has answered nothing, and may obey anything.
    pub(super) fn has_come_in(&self) -> bool {
        self.facts().has_come_in
    }

    /// Since when it is here, if it could as well be at another control plane.
    pub(super) fn movable_since(&self) -> Option<Instant> {
        self.hello.elsewhere.then_some(self.began)
    }

    /// Ends its connection; it may come back.
    pub(super) fn cut(&self, why: Cut) {
        self.cut.send_replace(Some(why));
    }

    /// Another session of the same process has come.
    pub(super) fn replace(&self) {
        self.replaced.notify_one();
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Whoever is gone is not waited for.
        drop(std::mem::take(&mut self.facts().owes));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its sidecar was given a newer certificate and is to show it.
    NewerCertificate,
    /// Its identity is revoked.
    Revoked,
    /// Another control plane is to be asked: this one is cut off from the store.
    Elsewhere,
    /// Another control plane is to be asked: it has fewer sidecars.
    Balance,
}

impl From<Cut> for RpcError {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::NewerCertificate => {
                Self::new(RpcErrorKind::Unavailable, "connect again, with the newer certificate")
            }
            Cut::Revoked => Self::new(RpcErrorKind::Denied, "this identity is revoked"),
            Cut::Elsewhere => Self::new(
                RpcErrorKind::Elsewhere,
                "this control plane is cut off from the store; ask another one",
            ),
            Cut::Balance => Self::new(
                RpcErrorKind::Elsewhere,
                "this control plane has more sidecars than others; ask another one",
            ),
        }
    }
}

impl Facts {
    /// Owes no answer any more to what it has answered.
    fn settle(&mut self, now: Position) {
        let come_to = self.progress.iter().map(|progress| self.position(*progress, now)).min().unwrap_or(now);
        let answered = self.owes.partition_point(|owed| owed.number() <= come_to.publication);
        self.owes.drain(..answered);
    }

    fn position(&self, progress: Progress, now: Position) -> Position {
        if progress.idle && self.marks.is_empty() { now } else { progress.reached }
    }
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.hosts.is_empty() && !self.overflow
    }
}

fn skew(version: &str, features: &FeatureSet) -> Option<String> {
    let lacking: Vec<_> = Feature::ALL.into_iter().filter(|f| !features.contains(*f)).collect();
    if !lacking.is_empty() {
        let words: Vec<_> = lacking.iter().map(|f| f.as_str()).collect();
        return Some(format!("it lacks {}", words.join(", ")));
    }
    let own = env!("CARGO_PKG_VERSION");
    (version != own).then(|| format!("the control plane is {own}"))
}

/// The stream of a session. In tests it is a pair of channels.
pub(super) trait Stream: Send {
    fn next(&mut self) -> impl Future<Output = Result<Option<DeltaRequest>, RpcError>> + Send;
    /// Gives a response to the connection; its bytes there. `Exhausted` when the reader does not take it.
    fn send(&self, response: DeltaResponse) -> impl Future<Output = Result<usize, RpcError>> + Send;
    fn hang_up(&self);
}

impl Stream for ServerStream {
    async fn next(&mut self) -> Result<Option<DeltaRequest>, RpcError> {
        ServerStream::next(self).await
    }

    async fn send(&self, response: DeltaResponse) -> Result<usize, RpcError> {
        ServerStream::send(self, response).await
    }

    fn hang_up(&self) {
        ServerStream::hang_up(self);
    }
}

impl Hub {
    /// Serves a sidecar until its stream ends. `hello.identity` must be proven, by `proof` where there was a handshake.
    pub(super) async fn serve(
        &self,
        hello: Hello,
        from: SocketAddr,
        proof: Option<Proof>,
        mut stream: impl Stream,
    ) -> Result<(), RpcError> {
        if self.is_denied(&hello.identity) {
            return Err(Cut::Revoked.into());
        }
        let own = (hello.identity.namespace().clone(), hello.identity.service_account().clone());
        let session = ServerSession::new(Limits::default(), move |selector: &Selector| match selector {
            Selector::Named(ResourceName::Inbound(ns, account)) => (ns, account) == (&own.0, &own.1),
            // A gateway is served by the service account of its own name.
            Selector::Named(ResourceName::Gateway(gateway)) => {
                (gateway.namespace(), gateway.name()) == (&own.0, &own.1)
            }
            // What a namespace's callers have made for themselves is nobody else's.
            Selector::Named(ResourceName::ConsumerRoutes(callers, _)) => *callers == own.0,
            _ => !matches!(
                selector.kind(),
                ResourceKind::Inbound | ResourceKind::Gateway | ResourceKind::ConsumerRoutes
            ),
        });
        let proxy = self.enter(|id| Proxy::new(id, hello, from, proof))?;
        let (coming, awaits) = (proxy.hello.requests, Some(Instant::now()));
        let mut guest = Guest { hub: self, proxy: &proxy, session, coming, awaits, has_ended: false };
        // Who is revoked from here on is found among the sessions; who was while he came in is not.
        let end = if self.is_denied(proxy.identity()) {
            Err(Cut::Revoked.into())
        } else {
            guest.serve(&mut stream).await
        };
        guest.has_ended = true;
        end
    }
}

/// A session that is entered in the hub, and leaves it however it ends.
struct Guest<'a> {
    hub: &'a Hub,
    proxy: &'a Proxy,
    session: ServerSession,
    /// How many requests are still to come until it is known what it wants and holds.
    coming: u32,
    /// Since when an answer, or one of those, is awaited.
    awaits: Option<Instant>,
    /// Its stream came to an end of its own; else its connection was gone under it.
    has_ended: bool,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            if self.awaits.is_some_and(|since| since.elapsed() >= SLOW) {
                self.too_slow(Slow::Gone);
            } else {
                tracing::info!(node = self.proxy.hello.node, "a sidecar's connection is gone");
            }
        }
        self.hub.leave(self.proxy, self.session.selectors().cloned());
    }
}

impl Guest<'_> {
    async fn serve(&mut self, stream: &mut impl Stream) -> Result<(), RpcError> {
        let mut pace = Pace::new();
        let mut send_at: Option<Instant> = None;
        let mut cut = self.proxy.cut.subscribe();
        let expires = expiry(self.proxy.proof());
        loop {
            tokio::select! {
                request = stream.next() => {
                    let Some(request) = request? else { return Ok(()) };
                    self.take_request(request)?;
                    self.send(stream, false).await?;
                }
                () = self.proxy.marked.notified(), if send_at.is_none() => {
                    let now = Instant::now();
                    let at = pace.send_at(now);
                    self.hub.figures().gathered(at - now);
                    send_at = Some(at);
                }
                () = until(send_at) => {
                    send_at = None;
                    self.send(stream, true).await?;
                }
                () = until(self.awaits.map(|since| since + MAX_ANSWER)) => {
                    stream.hang_up();
                    self.too_slow(Slow::AnswersNothing);
                    return Err(RpcError::new(RpcErrorKind::Unavailable, "the sidecar does not answer"));
                }
                why = was_cut(&mut cut) => {
                    // Who is to go elsewhere has to read that, and hangs up itself.
                    if !matches!(why, Cut::Elsewhere | Cut::Balance) {
                        stream.hang_up();
                    }
                    return Err(why.into());
                }
                () = until(expires) => {
                    stream.hang_up();
                    let what = "connect again: the certificate of this connection has expired";
                    return Err(RpcError::new(RpcErrorKind::Unauthenticated, what));
                }
                () = self.proxy.replaced.notified() => {
                    let what = "another connection of the same process has come";
                    return Err(RpcError::new(RpcErrorKind::Conflict, what));
                }
            }
            let awaits = self.coming > 0 || self.session.awaits_answer();
            self.awaits = awaits.then(|| self.awaits.unwrap_or_else(Instant::now));
        }
    }

    /// Says that it was too slow, which ends it: the others must not pay for it.
    fn too_slow(&self, how: Slow) {
        let Hello { identity, node, .. } = &self.proxy.hello;
        let (from, how_long) = (self.proxy.from, self.awaits.map(|since| since.elapsed()));
        tracing::warn!(%identity, node, %from, why = how.as_str(), unanswered = ?how_long, "a sidecar was too slow, and is dropped");
        self.hub.figures().dropped(how);
    }

    fn take_request(&mut self, request: DeltaRequest) -> Result<(), RpcError> {
        if request.nonce.is_empty() {
            // What answers a response tells of no more. Who says much may take long for all of it, but not for ever: others wait
            // for him meanwhile.
            self.coming = self.coming.saturating_sub(1);
            let goes_on = self.coming > 0 && self.proxy.began.elapsed() < MAX_COMING;
            self.awaits = goes_on.then(Instant::now).or(self.awaits);
        }
        let invalid =
            |e: outrigger_wire::session::ProtocolError| RpcError::new(RpcErrorKind::Invalid, e.to_string());
        for event in self.session.on_request(request).map_err(invalid)? {
            match event {
                ClientEvent::Subscribed(selector) => self.hub.subscribe(selector, self.proxy.id),
                ClientEvent::Unsubscribed(selector) => self.hub.unsubscribe(&selector, self.proxy.id),
                ClientEvent::Refused(selector) => {
                    let Hello { identity, node, .. } = &self.proxy.hello;
                    let kind = selector.kind();
                    tracing::warn!(%identity, node, from = %self.proxy.from, %kind, %selector, "may not read this");
                }
                ClientEvent::Acked { kind, .. } => self.answered(kind),
                ClientEvent::Rejected { kind, revision, rejected } => {
                    self.hub.figures().rejected(kind, rejected.len());
                    for one in &rejected {
                        let (node, name, reason) = (&self.proxy.hello.node, &one.name, &one.reason);
                        tracing::warn!(node, %kind, name, revision, reason, "a sidecar rejected a resource");
                    }
                    self.answered(kind);
                }
                ClientEvent::Stale { nonce } => {
                    tracing::debug!(node = self.proxy.hello.node, nonce, "a late answer was ignored");
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, kind: ResourceKind) {
        let progress = &mut self.proxy.facts().progress[kind as usize];
        progress.reached = progress.covers.take().unwrap_or(progress.reached);
    }

    /// Sends what there is to send; `take`: with what was marked since the last time.
    async fn send(&mut self, stream: &impl Stream, take: bool) -> Result<(), RpcError> {
        for response in self.respond(take) {
            let kind = response.kind;
            let bytes = match stream.send(response).await {
                Err(error) if error.kind == RpcErrorKind::Exhausted => {
                    self.too_slow(Slow::ReadsNothing);
                    return Err(error);
                }
                sent => sent?,
            };
            self.hub.figures().sent(kind, bytes);
        }
        Ok(())
    }

    fn respond(&mut self, take: bool) -> Vec<DeltaResponse> {
        let catalog = self.hub.read();
        // Held until it is noted that something is under way: whoever looks in between would take it for the present.
        let proxy = self.proxy;
        let mut facts = proxy.facts();
        let marks = if take { std::mem::take(&mut facts.marks) } else { Marks::default() };
        // Only when nothing is left marked does the session know all that is in the catalog.
        let noted = facts.marks.is_empty().then(|| catalog.position());

        let (names, hosts): (Vec<_>, Vec<_>) =
            (marks.names.into_iter().collect(), marks.hosts.into_iter().collect());
        let mut changed =
            if marks.overflow { Changed::Anything } else { Changed::Names { names: &names, hosts: &hosts } };
        let mut responses = Vec::new();
        while let Some(response) = self.session.next_response(&*catalog, changed) {
            changed = Changed::Nothing;
            responses.push(response);
        }
        self.note_progress(&mut facts, noted);
        drop(facts);
        self.hub.progressed();
        responses
    }

    fn note_progress(&self, facts: &mut Facts, noted: Option<Position>) {
        facts.subscriptions = self.session.selectors().count();
        if self.coming > 0 {
            return;
        }
        facts.has_come_in = true;
        for kind in ResourceKind::ALL {
            let (due, in_flight) = (self.session.has_due(kind), self.session.is_in_flight(kind));
            let progress = &mut facts.progress[kind as usize];
            progress.idle = !due && !in_flight;
            match noted {
                Some(noted) if progress.idle => progress.reached = noted,
                Some(noted) if !due => progress.covers = Some(noted),
                _ => {}
            }
        }
        if let Some(now) = noted {
            facts.settle(now);
        }
        facts.trust = self.session.obeyed(&own_trust(&self.proxy.hello)).map(ToString::to_string);
        facts.obeyed = Obeyed::noted(&self.hub.asked().names(), &self.session);
        facts.rejected = self.session.rejected().map(|(kind, r)| rejected_resource(kind, r)).collect();
    }
}

fn rejected_resource(kind: ResourceKind, r: &outrigger_wire::session::Rejected) -> RejectedResource {
    RejectedResource { kind, name: r.name.clone(), version: r.version.clone(), reason: r.reason.clone() }
}

/// Waits until a session is to end, and answers why.
async fn was_cut(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    match cut.wait_for(Option::is_some).await.ok().and_then(|why| *why) {
        Some(why) => why,
        // Whoever could cut it is gone.
        None => std::future::pending().await,
    }
}

/// When the certificate of a connection ends. One that is renewed is shown in the next handshake, so this one must end.
fn expiry(proof: Option<&Proof>) -> Option<Instant> {
    instant(proof?.not_after)
}

/// The moment of the runtime's clock that is `at` by the calendar: now, if it is over; none, if it is never.
pub(super) fn instant(at: SystemTime) -> Option<Instant> {
    Instant::now().checked_add(at.duration_since(SystemTime::now()).unwrap_or_default())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A sidecar owes answers to no more publications than these, as far as they are counted.
const MAX_OWED: usize = 256;
/// More marks than these are one: anything may have changed.
const MAX_MARKS: usize = 4096;
/// A sidecar whose connection breaks when it has owed an answer for so long was not there any more.
const SLOW: Duration = Duration::from_secs(3);
/// For so long a sidecar that is coming in has its time anew with each request that tells more.
const MAX_COMING: Duration = Duration::from_secs(60);
/// A sidecar that leaves a response unanswered for so long hangs.
const MAX_ANSWER: Duration = Duration::from_secs(30);
