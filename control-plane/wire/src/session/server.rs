//! The control plane's side: what one sidecar was sent, and what it said to that.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_mesh::{Hostname, ResourceKind, ResourceName, Selector};

use super::interest::{Holding, Interest};
use super::{Carried, Catalog, DeltaRequest, DeltaResponse, Rejected};
use crate::codec::{Encoded, ResourceVersion};

/// The state of one connection of a sidecar.
pub struct ServerSession {
    limits: Limits,
    may_read: Box<dyn MayRead>,
    interest: Interest,
    /// What the client was sent on this connection or said to hold. What it refused counts as sent: the same version
    /// would only be refused again.
    sent: Holding,
    kinds: BTreeMap<ResourceKind, KindState>,
    nonces: u64,
}

#[derive(Default)]
struct KindState {
    /// Past its first subscriptions, so that what the client says to hold no longer counts.
    introduced: bool,
    /// Names to be looked at, and whether they are sent even if they did not change.
    due: BTreeMap<ResourceName, bool>,
    /// Host names whose meaning is to be looked up, and whether the service is sent even if it did not change.
    due_hosts: BTreeMap<Hostname, bool>,
    /// Selectors to be answered that are no single name.
    due_groups: BTreeMap<Selector, bool>,
    /// Aliases that go with the next response.
    aliases: BTreeMap<ResourceName, BTreeSet<Hostname>>,
    /// Names and selectors that are to be called gone.
    gone: BTreeSet<String>,
    in_flight: Option<InFlight>,
    acked: u64,
    rejected: BTreeMap<String, Rejected>,
}

struct InFlight {
    nonce: String,
    revision: u64,
    names: BTreeMap<String, ResourceName>,
}

/// Bounds of one session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Selectors a client may have at a time.
    pub subscriptions: usize,
    /// Resources a client may say it holds.
    pub known: usize,
    /// Bytes of a name.
    pub name_length: usize,
    /// Refused resources kept of an answer, for each kind.
    pub rejected: usize,
    /// Bytes of resources in one response, beyond the first resource.
    pub response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 4096,
            known: 262_144,
            name_length: 512,
            rejected: 256,
            response_bytes: 1024 * 1024,
        }
    }
}

/// Which selectors a client may use. What it may not read is answered as if it were not there.
pub trait MayRead: Send + Sync {
    /// Whether the client may.
    fn may_read(&self, selector: &Selector) -> bool;
}

impl<F: Fn(&Selector) -> bool + Send + Sync> MayRead for F {
    fn may_read(&self, selector: &Selector) -> bool {
        self(selector)
    }
}

/// What may have changed in the catalog.
#[derive(Clone, Copy, Debug)]
pub enum Changed<'a> {
    /// Nothing.
    Nothing,
    /// These resources, and what these host names mean.
    Names {
        /// Resources that were set or removed.
        names: &'a [ResourceName],
        /// Host names that were added, removed or moved.
        hosts: &'a [Hostname],
    },
    /// Anything: compare all that the session has to do with.
    Anything,
}

/// What a request meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The client wants what it selects.
    Subscribed(Selector),
    /// The client no longer does.
    Unsubscribed(Selector),
    /// The client asked for what it may not read.
    Refused(Selector),
    /// Everything of a response is in force.
    Acked {
        /// The kind.
        kind: ResourceKind,
        /// The revision of the response.
        revision: u64,
    },
    /// A response is in force but for these.
    Rejected {
        /// The kind.
        kind: ResourceKind,
        /// The revision of the response.
        revision: u64,
        /// What was refused.
        rejected: Vec<Rejected>,
    },
    /// The answer to a response that is not under way was ignored.
    Stale {
        /// What it named.
        nonce: String,
    },
}

/// What no client of ours does. The connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// More subscriptions than allowed.
    #[error("more than {0} subscriptions")]
    TooManySubscriptions(usize),
    /// More resources said to be held than allowed.
    #[error("more than {0} known resources")]
    TooManyKnown(usize),
    /// A name that is too long.
    #[error("a name of {length} bytes, more than {max}")]
    NameTooLong {
        /// Its length.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// A name that is none.
    #[error("{0}")]
    BadName(String),
}

impl ServerSession {
    /// The session of a new connection.
    pub fn new(limits: Limits, may_read: impl MayRead + 'static) -> Self {
        let kinds = ResourceKind::ALL.into_iter().map(|kind| (kind, KindState::default())).collect();
        Self {
            limits,
            may_read: Box::new(may_read),
            interest: Interest::default(),
            sent: Holding::default(),
            kinds,
            nonces: 0,
        }
    }

    /// Takes a request. Answers come from [`Self::next_response`].
    pub fn on_request(&mut self, request: DeltaRequest) -> Result<Vec<ClientEvent>, ProtocolError> {
        let kind = request.kind;
        let mut events = Vec::new();
        if !request.nonce.is_empty() {
            events.push(self.on_answer(kind, request.nonce, request.rejected));
        }
        if !self.kind(kind).introduced {
            self.on_introduction(kind, &request.known)?;
        }
        for text in &request.unsubscribe {
            let selector = self.selector(kind, text)?;
            if self.interest.contains(&selector) {
                self.unsubscribe(&selector);
                events.push(ClientEvent::Unsubscribed(selector));
            }
        }
        // Later ones are always sent: the client may have given the resource up in the meantime.
        let force = self.kind(kind).introduced;
        self.kind(kind).introduced |= !request.subscribe.is_empty();
        for text in &request.subscribe {
            let selector = self.selector(kind, text)?;
            if !self.may_read.may_read(&selector) {
                self.kind(kind).gone.insert(text.clone());
                events.push(ClientEvent::Refused(selector));
                continue;
            }
            self.subscribe(&selector, force)?;
            events.push(ClientEvent::Subscribed(selector));
        }
        Ok(events)
    }

    fn on_introduction(
        &mut self,
        kind: ResourceKind,
        known: &BTreeMap<String, String>,
    ) -> Result<(), ProtocolError> {
        for (text, version) in known {
            self.check_length(text)?;
            self.check_length(version)?;
            let name = ResourceName::parse(kind, text).map_err(|e| ProtocolError::BadName(e.to_string()))?;
            self.sent.insert(name, ResourceVersion::from_wire(version));
        }
        if self.sent.len() > self.limits.known {
            return Err(ProtocolError::TooManyKnown(self.limits.known));
        }
        Ok(())
    }

    fn on_answer(&mut self, kind: ResourceKind, nonce: String, mut rejected: Vec<Rejected>) -> ClientEvent {
        let state = self.kinds.entry(kind).or_default();
        let Some(answered) = state.in_flight.take_if(|f| f.nonce == nonce) else {
            return ClientEvent::Stale { nonce };
        };
        for name in answered.names.keys() {
            state.rejected.remove(name);
        }
        // Only what this response carried can be refused by its answer, and only what is still wanted matters.
        let interest = &self.interest;
        rejected.truncate(self.limits.rejected);
        rejected.retain(|r| answered.names.get(&r.name).is_some_and(|name| interest.selects(name)));
        state.rejected.extend(rejected.iter().map(|r| (r.name.clone(), r.clone())));
        state.acked = answered.revision;
        let revision = answered.revision;
        for name in answered.names.values().filter(|name| !self.interest.selects(name)) {
            self.sent.remove(name);
        }
        if rejected.is_empty() {
            ClientEvent::Acked { kind, revision }
        } else {
            ClientEvent::Rejected { kind, revision, rejected }
        }
    }

    fn subscribe(&mut self, selector: &Selector, force: bool) -> Result<(), ProtocolError> {
        self.interest.insert(selector.clone());
        if self.interest.len() > self.limits.subscriptions {
            return Err(ProtocolError::TooManySubscriptions(self.limits.subscriptions));
        }
        self.kind(selector.kind()).want(selector.clone(), force);
        Ok(())
    }

    fn unsubscribe(&mut self, selector: &Selector) {
        // What is under way may arrive after the client has subscribed again: it counts as held until it is answered.
        let in_flight = self.kinds.get(&selector.kind()).and_then(|state| state.in_flight.as_ref());
        let under_way: Vec<_> = in_flight
            .iter()
            .flat_map(|f| f.names.values())
            .filter_map(|name| Some((name.clone(), self.sent.get(name)?.clone())))
            .collect();
        let gone = self.sent.give_up(selector, &mut self.interest);
        for (name, version) in under_way {
            self.sent.insert(name, version);
        }
        let state = self.kind(selector.kind());
        for name in &gone {
            state.aliases.remove(name);
            state.rejected.remove(&name.to_string());
        }
        match selector {
            Selector::Host(host) => {
                state.due_hosts.remove(host);
                for hosts in state.aliases.values_mut() {
                    hosts.remove(host);
                }
            }
            Selector::EndpointsOf(_) | Selector::All(_) => {
                state.due_groups.remove(selector);
            }
            // Looked at again when it is its turn, and left out if nothing else wants it.
            Selector::Named(_) => {}
        }
        state.gone.remove(&selector.to_string());
    }

    /// Notes what may have changed, and answers what to send next, if anything may be sent: a kind whose last response
    /// is not answered waits. To be called until it answers nothing.
    pub fn next_response(&mut self, catalog: &dyn Catalog, changed: Changed<'_>) -> Option<DeltaResponse> {
        self.note(changed);
        for kind in ResourceKind::ALL {
            if self.kind(kind).in_flight.is_none()
                && let Some(response) = self.respond(kind, catalog)
            {
                return Some(response);
            }
        }
        None
    }

    fn note(&mut self, changed: Changed<'_>) {
        match changed {
            Changed::Nothing => {}
            Changed::Names { names, hosts } => {
                for name in names {
                    if self.interest.selects(name) || self.sent.get(name).is_some() {
                        self.kind(name.kind()).due.entry(name.clone()).or_default();
                    }
                }
                for host in hosts {
                    if self.interest.contains(&Selector::Host(host.clone())) {
                        self.kind(ResourceKind::Service).due_hosts.entry(host.clone()).or_default();
                    }
                }
            }
            Changed::Anything => {
                let names: Vec<_> = self.sent.iter().map(|(name, _)| name.clone()).collect();
                for name in names {
                    self.kind(name.kind()).due.entry(name).or_default();
                }
                for selector in self.interest.iter().cloned().collect::<Vec<_>>() {
                    self.kind(selector.kind()).want(selector, false);
                }
            }
        }
    }

    fn respond(&mut self, kind: ResourceKind, catalog: &dyn Catalog) -> Option<DeltaResponse> {
        self.look_up_hosts(kind, catalog);
        self.spread_groups(kind, catalog);
        let resources = self.changed_resources(kind, catalog);
        let removed: Vec<String> = std::mem::take(&mut self.kind(kind).gone).into_iter().collect();
        if resources.is_empty() && removed.is_empty() {
            return None;
        }
        self.nonces += 1;
        let (nonce, revision) = (self.nonces.to_string(), catalog.revision());
        let state = self.kind(kind);
        for name in &removed {
            state.rejected.remove(name);
        }
        let (names, resources) =
            resources.into_iter().map(|(name, carried)| ((carried.name.clone(), name), carried)).unzip();
        state.in_flight = Some(InFlight { nonce: nonce.clone(), revision, names });
        Some(DeltaResponse { kind, revision, nonce, resources, removed })
    }

    /// Host names become names of services with aliases.
    fn look_up_hosts(&mut self, kind: ResourceKind, catalog: &dyn Catalog) {
        for (host, force) in std::mem::take(&mut self.kind(kind).due_hosts) {
            let service = catalog.host(&host);
            let before = self.interest.means(&host, service.as_ref()).map(ResourceName::Service);
            if let Some(before) = before.filter(|b| !self.interest.selects(b)) {
                // The client forgets it by the same rule. What does not exist any more is still called gone.
                if catalog.get(&before).is_some() {
                    self.sent.remove(&before);
                } else {
                    self.kind(kind).due.entry(before).or_default();
                }
            }
            let state = self.kind(kind);
            for hosts in state.aliases.values_mut() {
                hosts.remove(&host);
            }
            match service.map(ResourceName::Service) {
                Some(name) => {
                    *state.due.entry(name.clone()).or_default() |= force;
                    state.gone.remove(host.as_str());
                    state.aliases.entry(name).or_default().insert(host);
                }
                None => {
                    state.gone.insert(host.to_string());
                }
            }
        }
    }

    /// Selectors of groups become the names they select, those that are gone included.
    fn spread_groups(&mut self, kind: ResourceKind, catalog: &dyn Catalog) {
        for (selector, force) in std::mem::take(&mut self.kind(kind).due_groups) {
            let found = match &selector {
                Selector::EndpointsOf(service) => catalog.endpoints_of(service),
                Selector::All(kind) => catalog.all(*kind),
                Selector::Named(_) | Selector::Host(_) => Vec::new(),
            };
            let old = self.sent.selected_by(&selector, &self.interest);
            let state = self.kind(kind);
            if found.is_empty() {
                state.gone.insert(selector.to_string());
            }
            for name in old {
                state.due.entry(name).or_default();
            }
            for encoded in found {
                *state.due.entry(encoded.name).or_default() |= force;
            }
        }
    }

    /// Works off what is due, as far as one response may grow.
    fn changed_resources(
        &mut self,
        kind: ResourceKind,
        catalog: &dyn Catalog,
    ) -> Vec<(ResourceName, Carried)> {
        let mut resources = Vec::new();
        let mut bytes = 0;
        while bytes + self.kind(kind).gone.len() * PER_NAME < self.limits.response_bytes
            && let Some((name, force)) = self.kind(kind).due.pop_first()
        {
            if let Some(carried) = self.changed_resource(&name, force, catalog) {
                bytes += carried.payload.as_ref().map_or(0, bytes::Bytes::len) + PER_NAME;
                resources.push((name, carried));
            }
        }
        resources
    }

    fn changed_resource(
        &mut self,
        name: &ResourceName,
        force: bool,
        catalog: &dyn Catalog,
    ) -> Option<Carried> {
        let selected = self.interest.selects(name);
        let aliases = self.kind(name.kind()).aliases.remove(name).unwrap_or_default();
        let Some(Encoded { version, payload, .. }) = catalog.get(name) else {
            if self.sent.remove(name).is_some() || selected {
                self.kind(name.kind()).gone.insert(name.to_string());
            }
            return None;
        };
        if !selected {
            self.sent.remove(name);
            return None;
        }
        let same = self.sent.get(name) == Some(&version);
        if same && !force && aliases.is_empty() {
            return None;
        }
        let carried = Carried {
            name: name.to_string(),
            version: version.to_string(),
            payload: (force || !same).then_some(payload),
            aliases: aliases.iter().map(ToString::to_string).collect(),
        };
        self.kind(name.kind()).gone.remove(&carried.name);
        self.sent.insert(name.clone(), version);
        Some(carried)
    }

    /// Whether everything this session has noted was sent and answered.
    pub fn is_settled(&self) -> bool {
        self.kinds.values().all(KindState::is_settled)
    }

    /// Whether something of this kind was noted and is not yet sent.
    pub fn has_due(&self, kind: ResourceKind) -> bool {
        self.kinds.get(&kind).is_some_and(KindState::has_due)
    }

    /// Whether a response of this kind waits for its answer.
    pub fn is_in_flight(&self, kind: ResourceKind) -> bool {
        self.kinds.get(&kind).is_some_and(|state| state.in_flight.is_some())
    }

    /// Whether a response waits for its answer.
    pub fn awaits_answer(&self) -> bool {
        self.kinds.values().any(|state| state.in_flight.is_some())
    }

    /// The revision of the last answered response of a kind, 0 before the first.
    pub fn acked_revision(&self, kind: ResourceKind) -> u64 {
        self.kinds.get(&kind).map_or(0, |state| state.acked)
    }

    /// The resources whose last sent version the client refused.
    pub fn rejected(&self) -> impl Iterator<Item = (ResourceKind, &Rejected)> {
        self.kinds.iter().flat_map(|(kind, state)| state.rejected.values().map(|r| (*kind, r)))
    }

    /// The version of a resource that the client obeys: it wants it, has acknowledged what it was sent last, and nothing
    /// newer is due.
    pub fn obeyed(&self, name: &ResourceName) -> Option<&ResourceVersion> {
        let state = self.kinds.get(&name.kind())?;
        let text = name.to_string();
        let open = state.in_flight.as_ref().is_some_and(|f| f.names.contains_key(&text));
        let settled = !open && !state.due.contains_key(name) && !state.rejected.contains_key(&text);
        if settled && state.due_groups.is_empty() && self.interest.selects(name) {
            self.sent.get(name)
        } else {
            None
        }
    }

    /// Whether the client has asked for a resource, by whatever name.
    pub fn wants(&self, name: &ResourceName) -> bool {
        self.interest.selects(name)
    }

    /// What the client has subscribed to.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.interest.iter()
    }

    fn selector(&self, kind: ResourceKind, text: &str) -> Result<Selector, ProtocolError> {
        self.check_length(text)?;
        Selector::parse(kind, text).map_err(|e| ProtocolError::BadName(e.to_string()))
    }

    fn check_length(&self, text: &str) -> Result<(), ProtocolError> {
        let (length, max) = (text.len(), self.limits.name_length);
        if length > max { Err(ProtocolError::NameTooLong { length, max }) } else { Ok(()) }
    }

    fn kind(&mut self, kind: ResourceKind) -> &mut KindState {
        self.kinds.entry(kind).or_default()
    }
}

impl KindState {
    fn want(&mut self, selector: Selector, force: bool) {
        let slot = match selector {
            Selector::Named(name) => self.due.entry(name).or_default(),
            Selector::Host(host) => self.due_hosts.entry(host).or_default(),
            group => self.due_groups.entry(group).or_default(),
        };
        *slot |= force;
    }

    fn is_settled(&self) -> bool {
        self.in_flight.is_none() && !self.has_due()
    }

    fn has_due(&self) -> bool {
        !(self.due.is_empty()
            && self.due_hosts.is_empty()
            && self.due_groups.is_empty()
            && self.gone.is_empty())
    }
}

/// About what a name, a version and the frame of a resource cost in a response.
const PER_NAME: usize = 160;

impl std::fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSession").field("interest", &self.interest).finish_non_exhaustive()
    }
}
