//! What shall be in place, in the words that nft and iptables have in common.
//!
//! The order of the rules of a chain is their meaning: each chain reads downwards as "this passes, that passes, the rest
//! goes to the sidecar". Only packets that begin a connection are redirected, so that connections from before the rules
//! live on.

use crate::network::{Family, Network};
use crate::plan::{InboundMode, Plan};
use crate::ports::{PortRange, Ports};

/// A list of rules, hung into the path of packets at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// What local programs send, before it is routed.
    Outbound,
    /// What arrives, redirected by address translation.
    Inbound,
    /// What arrives, given to the sidecar's socket with its address untouched.
    InboundTproxy,
}

impl Chain {
    /// Every chain, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Inbound, Self::InboundTproxy];
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which packets it is for: all of what is said here holds for them.
    pub when: Match,
    /// What becomes of them.
    pub then: Verdict,
}

/// Which packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// Whose program sent it.
    pub owner: Option<Owner>,
    /// It leaves or arrives by the loopback interface.
    pub loopback: bool,
    /// It goes there.
    pub to: Option<Network>,
    /// It goes to an address of this host: not to be forwarded.
    pub local: bool,
    /// By this transport.
    pub transport: Option<Transport>,
    /// To one of these ports; to any where there is none. Wants a transport.
    pub ports: Ports,
    /// It begins a connection, or it does not. Wants TCP.
    pub begins: Option<bool>,
    /// It belongs to such a socket of this host.
    pub socket: Option<Socket>,
}

/// Whose program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Of this user.
    User(u32),
    /// Of this group.
    Group(u32),
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Socket {
    /// One that may own any address: the sidecar's.
    Transparent,
    /// Any but one that listens at all addresses.
    Specific,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes as it is.
    Pass,
    /// Its connection goes to this port of the sidecar.
    Redirect(u16),
    /// It is marked, and the next rule looks at it.
    Mark(u32),
    /// It is marked and given to the sidecar's socket at this port.
    Tproxy {
        /// The port.
        port: u16,
        /// The mark, by which it is routed here.
        mark: u32,
    },
}

/// The chains of one family with their rules, in order. A chain that is not wanted is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset(pub Vec<(Chain, Vec<Rule>)>);

impl Ruleset {
    /// What `plan` wants for `family`, where one match of ports has so many places.
    pub fn new(plan: &Plan, family: Family, slots: Option<usize>) -> Self {
        let mut chains = vec![(Chain::Outbound, outbound(plan, family, slots))];
        match plan.inbound {
            InboundMode::Redirect => chains.push((Chain::Inbound, inbound(plan, slots))),
            InboundMode::Tproxy => chains.push((Chain::InboundTproxy, inbound_tproxy(plan, slots))),
            InboundMode::Off => {}
        }
        Self(chains)
    }

    /// The rules of a chain.
    pub fn chain(&self, chain: Chain) -> Option<&[Rule]> {
        self.0.iter().find(|(c, _)| *c == chain).map(|(_, rules)| rules.as_slice())
    }

    /// Whether there is no chain.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    fn pass(when: Match) -> Self {
        Self { when, then: Verdict::Pass }
    }
}

fn outbound(plan: &Plan, family: Family, slots: Option<usize>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    // The sidecar's own calls go where it sends them, also to its application over loopback.
    for owner in &plan.exempt {
        rules.push(Rule::pass(Match { owner: Some(*owner), ..Match::default() }));
    }
    for network in plan.skip_outbound_networks.iter().filter(|n| n.family() == family) {
        rules.push(Rule::pass(Match { to: specific(*network), ..Match::default() }));
    }
    // Before loopback passes: resolvers often are at a loopback address.
    if let Some(port) = plan.dns {
        let ports = Ports::new([PortRange::one(53)]);
        let udp = Match { transport: Some(Transport::Udp), ports: ports.clone(), ..Match::default() };
        let tcp = Match { ports, ..connection() };
        rules.extend([udp, tcp].map(|when| Rule { when, then: Verdict::Redirect(port) }));
    }
    // An application's calls to itself, by 127.0.0.1 or by any address of its own.
    rules.push(Rule::pass(Match { loopback: true, ..Match::default() }));
    rules.extend(passing_ports(&plan.skip_outbound_ports, slots));
    let then = Verdict::Redirect(plan.outbound_port);
    for to in targets(&plan.only_outbound_networks, family) {
        for when in narrowed(&connection(), &plan.only_outbound_ports, slots) {
            rules.push(Rule { when: Match { to, ..when }, then });
        }
    }
    rules
}

fn inbound(plan: &Plan, slots: Option<usize>) -> Vec<Rule> {
    let mut rules = inbound_passing(plan, slots);
    let then = Verdict::Redirect(plan.inbound_port);
    let arriving = Match { local: true, ..connection() };
    let narrowed = narrowed(&arriving, &plan.only_inbound_ports, slots);
    rules.extend(narrowed.into_iter().map(|when| Rule { when, then }));
    rules
}

fn inbound_tproxy(plan: &Plan, slots: Option<usize>) -> Vec<Rule> {
    let tcp = Match { transport: Some(Transport::Tcp), ..Match::default() };
    let mark = plan.tproxy_mark;
    let mut rules = inbound_passing(plan, slots);
    // What belongs to a connection that the sidecar has.
    let taken = Match { socket: Some(Socket::Transparent), ..tcp.clone() };
    rules.push(Rule { when: taken.clone(), then: Verdict::Mark(mark) });
    rules.push(Rule::pass(taken));
    // What belongs to a connection from before these rules: TPROXY would drop it.
    let older = Match { socket: Some(Socket::Specific), begins: Some(false), ..tcp.clone() };
    rules.push(Rule::pass(older));
    // Also what only seems not to begin a connection: an answer to a SYN cookie.
    let arriving = Match { local: true, ..tcp };
    let then = Verdict::Tproxy { port: plan.inbound_port, mark };
    let narrowed = narrowed(&arriving, &plan.only_inbound_ports, slots);
    rules.extend(narrowed.into_iter().map(|when| Rule { when, then }));
    rules
}

fn inbound_passing(plan: &Plan, slots: Option<usize>) -> Vec<Rule> {
    let mut rules = vec![Rule::pass(Match { loopback: true, ..Match::default() })];
    rules.extend(passing_ports(&plan.skip_inbound_ports, slots));
    rules
}

/// A packet that begins a TCP connection.
fn connection() -> Match {
    Match { transport: Some(Transport::Tcp), begins: Some(true), ..Match::default() }
}

fn passing_ports(ports: &Ports, slots: Option<usize>) -> Vec<Rule> {
    let chunks = ports.chunks(slots).into_iter();
    let tcp = Some(Transport::Tcp);
    chunks.map(|ports| Rule::pass(Match { transport: tcp, ports, ..Match::default() })).collect()
}

/// `when`, and only to these ports, where there are any.
fn narrowed(when: &Match, only: &Ports, slots: Option<usize>) -> Vec<Match> {
    if only.is_empty() {
        return vec![when.clone()];
    }
    only.chunks(slots).into_iter().map(|ports| Match { ports, ..when.clone() }).collect()
}

/// Where to, in this family: anywhere, if no network of any family is named.
fn targets(only: &[Network], family: Family) -> Vec<Option<Network>> {
    if only.is_empty() {
        return vec![None];
    }
    only.iter().filter(|n| n.family() == family).map(|n| specific(*n)).collect()
}

/// Every packet filter leaves out a network that is everything when it lists a rule.
fn specific(network: Network) -> Option<Network> {
    (!network.is_everything()).then_some(network)
}

/// What was found in place, as far as it could be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Our chains, with the rules in them.
    pub rules: Ruleset,
    /// What is in our chains or hangs them elsewhere, and is none of ours.
    pub foreign: Vec<String>,
}

impl Found {
    /// What differs from `wanted`, each in one line; a rule is told as `write` writes it.
    pub fn differences(&self, wanted: &Ruleset, write: impl Fn(Chain, &Rule) -> String) -> Vec<String> {
        let mut told = Vec::new();
        for chain in Chain::ALL {
            match (wanted.chain(chain), self.rules.chain(chain)) {
                (None, None) => {}
                (Some(_), None) => told.push(format!("missing: the whole chain {chain:?}")),
                (None, Some(_)) => told.push(format!("too much: the whole chain {chain:?}")),
                (Some(wanted), Some(found)) => {
                    let missing = without(wanted, found);
                    let extra = without(found, wanted);
                    if missing.is_empty() && extra.is_empty() && wanted != found {
                        told.push(format!("the rules of the chain {chain:?} are in another order"));
                    }
                    told.extend(missing.into_iter().map(|r| format!("missing: {}", write(chain, r))));
                    told.extend(extra.into_iter().map(|r| format!("too much: {}", write(chain, r))));
                }
            }
        }
        told.extend(self.foreign.iter().map(|line| format!("not of ours: {line}")));
        told
    }

    /// Whether nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.foreign.is_empty()
    }
}

/// The rules of `these` that are not among `those`, where each counts once.
fn without<'a>(these: &'a [Rule], those: &[Rule]) -> Vec<&'a Rule> {
    let mut left: Vec<&Rule> = those.iter().collect();
    let mut rest = Vec::new();
    for rule in these {
        match left.iter().position(|r| *r == rule) {
            Some(at) => drop(left.swap_remove(at)),
            None => rest.push(rule),
        }
    }
    rest
}
