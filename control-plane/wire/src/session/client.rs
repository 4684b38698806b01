//! The sidecar's side: what it wants, what it holds, what it has to say.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_mesh::{FeatureSet, Hostname, Resource, ResourceKind, ResourceName, Selector, ServiceName};

use super::interest::{Holding, Interest};
use super::{Carried, DeltaRequest, DeltaResponse, Rejected};
use crate::codec::{DecodeError, ResourceVersion, decode};

/// The state of a sidecar's subscriptions. It outlives connections.
///
/// The order of calls: `seed` and `seed_host` from the disk copy, `subscribe` to what is wanted, then for every
/// connection `on_connect`, and from then on, after every call that may have given it something to say, `next_request`
/// until there is none. Every [`Delta`] is applied and then answered.
#[derive(Debug)]
pub struct ClientSession {
    known: FeatureSet,
    interest: Interest,
    /// What is in force, or handed out to be applied.
    held: Holding,
    kinds: BTreeMap<ResourceKind, KindState>,
    /// Counts connections, so that an answer to an earlier one is not sent on this one.
    connection: u64,
}

#[derive(Debug, Default)]
struct KindState {
    subscribe: BTreeSet<Selector>,
    unsubscribe: BTreeSet<Selector>,
    /// The connection's first requests are still to be sent, and carry what is held.
    introduce: bool,
    /// What is held and not yet told.
    introduction: Vec<(String, String)>,
    answer: Option<(String, Vec<Rejected>)>,
    /// What was handed out and is not yet answered: if the connection ends now, it may be in force or not.
    handed_out: BTreeSet<ResourceName>,
}

/// What a response changes.
#[derive(Debug)]
pub struct Delta {
    /// The kind it is about.
    pub kind: ResourceKind,
    /// The revision of the world it comes from.
    pub revision: u64,
    /// Resources to put in force, with the subscribed host names that mean them.
    pub set: Vec<(Resource, ResourceVersion, Vec<Hostname>)>,
    /// What every host name spoken of means from now on: those of `set`, and those of services already held.
    pub hosts: Vec<(Hostname, ServiceName)>,
    /// What is gone.
    pub removed: Vec<Removed>,
    /// Resources that could not be read. They are in the answer already; here for logs.
    pub undecodable: Vec<Rejected>,
    /// To be given back with the answer.
    pub ticket: Ticket,
}

/// What is gone, or was never there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The resource does not exist, or nothing subscribed to means it any more.
    Name(ResourceName),
    /// The selector selects nothing now: a host name without a service, a service without endpoints.
    Selector(Selector),
}

/// The claim that a response is still to be answered.
#[derive(Debug)]
#[must_use = "a response that is not answered is the last one of its kind"]
pub struct Ticket {
    kind: ResourceKind,
    nonce: String,
    connection: u64,
    undecodable: Vec<Rejected>,
    /// What was handed out, with the version that was in force before.
    handed_out: Vec<(ResourceName, Option<ResourceVersion>)>,
}

impl ClientSession {
    /// A session of a sidecar that knows the features `known`, holding nothing.
    pub fn new(known: FeatureSet) -> Self {
        let kinds = ResourceKind::ALL.into_iter().map(|kind| (kind, KindState::default())).collect();
        Self { known, interest: Interest::default(), held: Holding::default(), kinds, connection: 0 }
    }

    /// Notes a resource that is in force from an earlier life. What nothing selects at the next connection is
    /// forgotten here.
    pub fn seed(&mut self, name: ResourceName, version: ResourceVersion) {
        self.held.insert(name, version);
    }

    /// Notes what a host name meant in an earlier life. The host name must be subscribed to.
    pub fn seed_host(&mut self, host: &Hostname, service: &ServiceName) {
        if self.interest.contains(&Selector::Host(host.clone())) {
            self.interest.means(host, Some(service));
        }
    }

    /// Wants what `selector` selects. Twice is once.
    pub fn subscribe(&mut self, selector: Selector) {
        if self.interest.insert(selector.clone()) {
            self.kind(selector.kind()).subscribe.insert(selector);
        }
    }

    /// No longer wants it; answers the names that nothing else wants, which are forgotten.
    pub fn unsubscribe(&mut self, selector: &Selector) -> Vec<ResourceName> {
        if !self.interest.contains(selector) {
            return Vec::new();
        }
        let gone = self.held.give_up(selector, &mut self.interest);
        let kind = self.kind(selector.kind());
        for name in &gone {
            kind.handed_out.remove(name);
        }
        if !kind.subscribe.remove(selector) {
            kind.unsubscribe.insert(selector.clone());
        }
        gone
    }

    /// Whether `selector` is wanted.
    pub fn is_subscribed(&self, selector: &Selector) -> bool {
        self.interest.contains(selector)
    }

    /// What it holds, in no order.
    pub fn held(&self) -> impl Iterator<Item = (&ResourceName, &ResourceVersion)> {
        self.held.iter()
    }

    /// A new connection: says everything it wants again, with the versions it holds.
    pub fn on_connect(&mut self) {
        self.connection += 1;
        for kind in self.kinds.values_mut() {
            *kind = KindState { handed_out: std::mem::take(&mut kind.handed_out), ..KindState::default() };
        }
        for selector in self.interest.iter().cloned().collect::<Vec<_>>() {
            let kind = self.kind(selector.kind());
            kind.introduce = true;
            kind.subscribe.insert(selector);
        }
        let unwanted: Vec<_> =
            self.held.iter().map(|(name, _)| name).filter(|n| !self.interest.selects(n)).cloned().collect();
        for name in unwanted {
            self.held.remove(&name);
        }
    }

    /// What to send next, if anything.
    pub fn next_request(&mut self) -> Option<DeltaRequest> {
        // The order of kinds is that in which a sidecar needs them.
        let kind = *self.kinds.iter().find(|(_, state)| state.has_something_to_say())?.0;
        if std::mem::take(&mut self.kind(kind).introduce) {
            self.kind(kind).introduction = self.known_of(kind);
        }
        let state = self.kind(kind);
        let rest = state.introduction.len().saturating_sub(MAX_KNOWN);
        let known = state.introduction.split_off(rest).into_iter().collect();
        if rest > 0 {
            // The subscriptions come with the last of them, so that they are judged by all.
            let (subscribe, unsubscribe) = (Vec::new(), Vec::new());
            let (nonce, rejected) = (String::new(), Vec::new());
            return Some(DeltaRequest { kind, subscribe, unsubscribe, known, nonce, rejected });
        }
        let (nonce, rejected) = state.answer.take().unwrap_or_default();
        Some(DeltaRequest {
            kind,
            subscribe: texts(&mut state.subscribe),
            unsubscribe: texts(&mut state.unsubscribe),
            known,
            nonce,
            rejected,
        })
    }

    fn known_of(&self, kind: ResourceKind) -> Vec<(String, String)> {
        let handed_out = &self.kinds[&kind].handed_out;
        let of_kind = self.held.iter().filter(|(name, _)| name.kind() == kind);
        of_kind
            .map(|(name, version)| {
                // It may be refused yet: no version, so that it is sent again, but its removal is told.
                let version = if handed_out.contains(name) { "" } else { version.as_str() };
                (name.to_string(), version.to_owned())
            })
            .collect()
    }

    /// Takes a response apart. What nothing wants any more is left out.
    pub fn on_response(&mut self, response: DeltaResponse) -> Delta {
        let DeltaResponse { kind, revision, nonce, resources, removed } = response;
        let ticket = Ticket {
            kind,
            nonce,
            connection: self.connection,
            undecodable: Vec::new(),
            handed_out: Vec::new(),
        };
        let mut delta = Delta {
            kind,
            revision,
            set: Vec::new(),
            hosts: Vec::new(),
            removed: Vec::new(),
            undecodable: Vec::new(),
            ticket,
        };
        for carried in resources {
            self.take_resource(kind, carried, &mut delta);
        }
        for text in &removed {
            self.take_removal(kind, text, &mut delta);
        }
        delta.ticket.undecodable.clone_from(&delta.undecodable);
        delta
    }

    fn take_resource(&mut self, kind: ResourceKind, carried: Carried, delta: &mut Delta) {
        let Carried { name: text, version, payload, aliases } = carried;
        let version = ResourceVersion::from_wire(&version);
        let Ok(name) = ResourceName::parse(kind, &text) else {
            let reason = format!("this is not the name of a {kind}");
            return delta.undecodable.push(rejected(&text, &version, reason));
        };
        let hosts = self.take_aliases(&name, &aliases, delta);
        if !self.interest.selects(&name) {
            return;
        }
        let Some(payload) = payload else {
            if self.held.get(&name) != Some(&version) {
                self.ask_again(&name, &hosts);
            }
            return;
        };
        match decode(kind, &text, &payload, &self.known) {
            Ok(resource) => {
                let before = self.held.insert(name.clone(), version.clone());
                self.kind(kind).handed_out.insert(name.clone());
                delta.ticket.handed_out.push((name, before));
                delta.set.push((resource, version, hosts));
            }
            Err(error) => delta.undecodable.push(undecodable(&text, &version, &error)),
        }
    }

    /// Notes what the subscribed ones among host names mean, and drops what lost its last meaning by that.
    fn take_aliases(&mut self, name: &ResourceName, aliases: &[String], delta: &mut Delta) -> Vec<Hostname> {
        let ResourceName::Service(service) = name else {
            return Vec::new();
        };
        let mut hosts = Vec::new();
        for host in aliases.iter().filter_map(|a| Hostname::new(a).ok()) {
            if self.interest.contains(&Selector::Host(host.clone())) {
                let before = self.interest.means(&host, Some(service));
                self.drop_unwanted(before, delta);
                delta.hosts.push((host.clone(), service.clone()));
                hosts.push(host);
            }
        }
        hosts
    }

    fn drop_unwanted(&mut self, service: Option<ServiceName>, delta: &mut Delta) {
        let Some(name) = service.map(ResourceName::Service) else {
            return;
        };
        if !self.interest.selects(&name) && self.held.remove(&name).is_some() {
            delta.removed.push(Removed::Name(name));
        }
    }

    /// The other side believes that we hold a version which we gave up meanwhile: subscribe anew, to get all of it.
    fn ask_again(&mut self, name: &ResourceName, hosts: &[Hostname]) {
        let named = Selector::Named(name.clone());
        let selectors = hosts.iter().cloned().map(Selector::Host).chain([named]);
        for selector in selectors.filter(|s| self.interest.contains(s)).collect::<Vec<_>>() {
            let kind = self.kind(selector.kind());
            kind.unsubscribe.insert(selector.clone());
            kind.subscribe.insert(selector);
        }
    }

    fn take_removal(&mut self, kind: ResourceKind, text: &str, delta: &mut Delta) {
        // A name that can not be read is none that we hold.
        let Ok(selector) = Selector::parse(kind, text) else {
            return;
        };
        match selector {
            Selector::Named(name) => {
                let held = self.held.remove(&name).is_some();
                self.kind(kind).handed_out.remove(&name);
                if held || self.interest.selects(&name) {
                    delta.removed.push(Removed::Name(name));
                }
            }
            Selector::Host(ref host) if self.interest.contains(&selector) => {
                let before = self.interest.means(host, None);
                self.drop_unwanted(before, delta);
                delta.removed.push(Removed::Selector(selector));
            }
            _ if self.interest.contains(&selector) => delta.removed.push(Removed::Selector(selector)),
            _ => {}
        }
    }

    /// Answers a response: `rejected` names what of it was not put in force. What was undecodable is added by itself.
    pub fn answer(&mut self, ticket: Ticket, rejected: Vec<Rejected>) {
        let Ticket { kind, nonce, connection, undecodable, handed_out } = ticket;
        for (name, before) in handed_out {
            self.kind(kind).handed_out.remove(&name);
            let text = name.to_string();
            if rejected.iter().any(|r| r.name == text) && self.held.get(&name).is_some() {
                match before {
                    Some(version) => self.held.insert(name, version),
                    None => self.held.remove(&name),
                };
            }
        }
        if connection == self.connection {
            let all = undecodable.into_iter().chain(rejected).collect();
            self.kind(kind).answer = Some((nonce, all));
        }
    }

    fn kind(&mut self, kind: ResourceKind) -> &mut KindState {
        self.kinds.entry(kind).or_default()
    }
}

impl KindState {
    fn has_something_to_say(&self) -> bool {
        !self.subscribe.is_empty() || !self.unsubscribe.is_empty() || self.answer.is_some()
    }
}

fn texts(selectors: &mut BTreeSet<Selector>) -> Vec<String> {
    std::mem::take(selectors).iter().map(ToString::to_string).collect()
}

fn undecodable(name: &str, version: &ResourceVersion, error: &DecodeError) -> Rejected {
    rejected(name, version, error.reason().to_owned())
}

fn rejected(name: &str, version: &ResourceVersion, reason: String) -> Rejected {
    Rejected { name: crate::codec::shortened(name), version: version.to_string(), reason }
}

/// How many versions one request carries at most: it has to fit in one message.
const MAX_KNOWN: usize = 16_384;
