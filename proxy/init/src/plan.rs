//! What the operator wants, proven.

use std::str::FromStr;

use crate::args::Wanted;
use crate::network::{Family, Network};
use crate::ports::{PortRange, Ports};
use crate::routing::Routing;
use crate::rules::Owner;

/// What shall be redirected, and what not. Every value has been proven, and the sidecar's own ports are among those that
/// pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The families to redirect.
    pub families: Vec<Family>,
    /// Where the sidecar takes the application's connections.
    pub outbound_port: u16,
    /// Where it takes those from the mesh.
    pub inbound_port: u16,
    /// How those get there.
    pub inbound: InboundMode,
    /// Whose programs are left alone: the sidecar itself.
    pub exempt: Vec<Owner>,
    /// Arriving connections to these ports pass, the sidecar's own ports among them.
    pub skip_inbound_ports: Ports,
    /// Only arriving connections to these are redirected, if any are named.
    pub only_inbound_ports: Ports,
    /// Leaving connections to these ports pass.
    pub skip_outbound_ports: Ports,
    /// Only leaving connections to these are redirected, if any are named.
    pub only_outbound_ports: Ports,
    /// Leaving packets to these networks pass.
    pub skip_outbound_networks: Vec<Network>,
    /// Only leaving connections to these are redirected, if any are named.
    pub only_outbound_networks: Vec<Network>,
    /// Where the sidecar answers DNS, if it shall.
    pub dns: Option<u16>,
    /// The mark of packets for TPROXY.
    pub tproxy_mark: u32,
    /// The routing table by which they stay here.
    pub tproxy_table: u32,
}

/// How connections from the mesh get to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum InboundMode {
    /// By address translation.
    Redirect,
    /// By giving packets to the sidecar's socket; addresses stay as they are.
    Tproxy,
    /// Not at all.
    Off,
}

impl Plan {
    /// Proves what was written. An error tells all mistakes, one a line.
    pub fn new(wanted: &Wanted, host_has_ipv6: bool) -> Result<Self, String> {
        let mut mistakes = Mistakes::default();
        let outbound_port = mistakes.port("--outbound-port", &wanted.outbound_port);
        let inbound_port = mistakes.port("--inbound-port", &wanted.inbound_port);
        let dns_port = mistakes.port("--dns-port", &wanted.dns_port);
        let mut exempt: Vec<Owner> = mistakes.ids("--proxy-uid", &wanted.proxy_uid, Owner::User);
        if exempt.is_empty() && mistakes.none_of("--proxy-uid") {
            mistakes
                .add("--proxy-uid", "somebody must be exempt, or the sidecar's own calls come back to it");
        }
        exempt.extend(mistakes.ids("--proxy-gid", &wanted.proxy_gid, Owner::Group));
        let skip_inbound = mistakes.ports("--skip-inbound-ports", &wanted.skip_inbound_ports);
        let only_inbound_ports = mistakes.ports("--only-inbound-ports", &wanted.only_inbound_ports);
        let skip_outbound = mistakes.ports("--skip-outbound-ports", &wanted.skip_outbound_ports);
        let only_outbound_ports = mistakes.ports("--only-outbound-ports", &wanted.only_outbound_ports);
        let own = mistakes.ports("--own-ports", &wanted.own_ports);
        let skip_networks = mistakes.networks("--skip-outbound-networks", &wanted.skip_outbound_networks);
        let only_networks = mistakes.networks("--only-outbound-networks", &wanted.only_outbound_networks);
        let tproxy_mark = mistakes.number("--tproxy-mark", &wanted.tproxy_mark, 1);
        let tproxy_table = mistakes.table(&wanted.tproxy_table);
        if outbound_port == inbound_port && outbound_port != WRONG && wanted.inbound_mode != InboundMode::Off
        {
            mistakes.add("--inbound-port", "is also --outbound-port: each direction has its own");
        }
        if wanted.dns && skip_outbound.contains(53) {
            mistakes.add("--dns", "takes port 53, which --skip-outbound-ports lets pass");
        }
        let families = match (wanted.ipv4, wanted.ipv6) {
            (_, true) if !host_has_ipv6 => {
                mistakes.add("--ipv6", "this host has no IPv6");
                Vec::new()
            }
            (false, true) => vec![Family::V6],
            (true, true) => Family::ALL.to_vec(),
            (false, false) if host_has_ipv6 => Family::ALL.to_vec(),
            (_, false) => vec![Family::V4],
        };
        mistakes.told()?;

        let ours = [outbound_port, inbound_port, dns_port].map(PortRange::one);
        let skip_inbound_ports = [skip_inbound.ranges(), own.ranges(), &ours].concat();
        Ok(Self {
            families,
            outbound_port,
            inbound_port,
            inbound: wanted.inbound_mode,
            exempt,
            skip_inbound_ports: Ports::new(skip_inbound_ports),
            only_inbound_ports,
            // The health and metrics of other sidecars, which they tell everybody in plaintext.
            skip_outbound_ports: Ports::new([skip_outbound.ranges(), &[PortRange::one(HEALTH)]].concat()),
            only_outbound_ports,
            skip_outbound_networks: skip_networks,
            only_outbound_networks: only_networks,
            dns: wanted.dns.then_some(dns_port),
            tproxy_mark,
            tproxy_table,
        })
    }
}

impl Plan {
    /// The routing of ours that these two name.
    pub fn routing(mark: &str, table: &str) -> Result<Routing, String> {
        let mut mistakes = Mistakes::default();
        let mark = mistakes.number("--tproxy-mark", mark, 1);
        let table = mistakes.table(table);
        mistakes.told()?;
        Ok(Routing { mark, table })
    }
}

/// Where sidecars tell their health and metrics.
const HEALTH: u16 = 15_020;

/// Stands for a port that could not be read.
const WRONG: u16 = 0;

/// What is wrong, so far. What stands for a wrong value is never used: a plan is only made when nothing is wrong.
#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn add(&mut self, flag: &str, why: impl std::fmt::Display) {
        self.0.push(format!("{flag}: {why}"));
    }

    fn none_of(&self, flag: &str) -> bool {
        !self.0.iter().any(|m| m.starts_with(flag))
    }

    fn told(self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0.join("\n")) }
    }

    /// Every word of a list, each proven by itself.
    fn words<T: FromStr<Err = String>>(&mut self, flag: &str, lists: &[String]) -> Vec<T> {
        let words = lists.iter().flat_map(|l| l.split([',', ' ', '\t', '\n'])).filter(|w| !w.is_empty());
        let mut good = Vec::new();
        for word in words {
            match word.parse() {
                Ok(value) => good.push(value),
                Err(why) => self.add(flag, why),
            }
        }
        good
    }

    fn ports(&mut self, flag: &str, lists: &[String]) -> Ports {
        Ports::new(self.words::<PortRange>(flag, lists))
    }

    /// In order, each once: what is in place is compared with what is wanted.
    fn networks(&mut self, flag: &str, lists: &[String]) -> Vec<Network> {
        let mut networks: Vec<Network> = self.words(flag, lists);
        networks.sort_unstable();
        networks.dedup();
        networks
    }

    fn port(&mut self, flag: &str, text: &str) -> u16 {
        match text.parse::<PortRange>() {
            Ok(PortRange { first, last }) if first == last => first,
            Ok(_) => {
                self.add(flag, format!("{text:?} is a range: one port is wanted"));
                WRONG
            }
            Err(why) => {
                self.add(flag, why);
                WRONG
            }
        }
    }

    fn ids(&mut self, flag: &str, lists: &[String], as_owner: fn(u32) -> Owner) -> Vec<Owner> {
        let mut ids: Vec<u32> = self.words::<Id>(flag, lists).into_iter().map(|id| id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(as_owner).collect()
    }

    fn table(&mut self, text: &str) -> u32 {
        let table = self.number("--tproxy-table", text, 1);
        if (253..=255).contains(&table) {
            self.add("--tproxy-table", "is one of the system's own: 253 to 255");
        }
        table
    }

    fn number(&mut self, flag: &str, text: &str, least: u32) -> u32 {
        let read = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        read.filter(|n| *n >= least).unwrap_or_else(|| {
            self.add(flag, format!("{text:?} is not a number from {least} to {}", u32::MAX));
            least
        })
    }
}

struct Id(u32);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The last number means "nobody" to the kernel.
        text.parse()
            .ok()
            .filter(|id| *id != u32::MAX)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not an id"))
    }
}
