//! The packet filters of this host: which there are, what of ours they hold, and how rules get into them.

use std::fmt;

use crate::args::Chosen;
use crate::iptables::{self, Saved};
use crate::network::Family;
use crate::nft;
use crate::plan::Plan;
use crate::rules::{Chain, Found, Rule, Ruleset};
use crate::tool::{self, ToolError};

/// A packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nftables by `nft`.
    Nft,
    /// nftables by `iptables-nft`.
    IptablesNft,
    /// The older interface of the kernel.
    IptablesLegacy,
}

/// What of ours a packet filter holds, by family. A family of which it holds nothing is there, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Vec<(Family, Saved)>);

/// The rules for each family.
pub type Rulesets = Vec<(Family, Ruleset)>;

impl Backend {
    /// All, the preferred first.
    pub const ALL: [Self; 3] = [Self::Nft, Self::IptablesNft, Self::IptablesLegacy];

    /// Those to try for what was chosen.
    pub fn candidates(chosen: Chosen) -> Vec<Self> {
        match chosen {
            Chosen::Auto => Self::ALL.to_vec(),
            Chosen::Nft => vec![Self::Nft],
            Chosen::IptablesNft => vec![Self::IptablesNft],
            Chosen::IptablesLegacy => vec![Self::IptablesLegacy],
        }
    }

    /// The rules of `plan`, in the pieces that this one can take.
    pub fn rules(self, plan: &Plan) -> Rulesets {
        let slots = (self != Self::Nft).then_some(iptables::SLOTS);
        plan.families.iter().map(|family| (*family, Ruleset::new(plan, *family, slots))).collect()
    }

    /// What of ours it holds. Reads, and changes nothing.
    pub fn read(self, families: &[Family]) -> Result<Held, ToolError> {
        if self == Self::Nft {
            let tables = nft::read_tables(&tool::run("nft", &["-nn", "list", "tables"], "")?);
            let read = |family: &Family| {
                let word = nft::family_word(*family);
                let found = if tables.contains(family) {
                    let table = ["-nn", "list", "table", word, nft::TABLE];
                    nft::read(*family, &tool::run("nft", &table, "")?)
                } else {
                    Found::default()
                };
                Ok((*family, Saved::of_nft(found)))
            };
            return families.iter().map(read).collect::<Result<_, _>>().map(Held);
        }
        let read = |family: &Family| {
            let listing = tool::run(&self.program(*family, "save")?, &[], "")?;
            Ok((*family, iptables::read(&listing)))
        };
        families.iter().map(read).collect::<Result<_, _>>().map(Held)
    }

    /// Has the packet filter and the kernel look at the rules, without putting them in place.
    pub fn try_out(self, wanted: &Rulesets, now: &Held) -> Result<(), ToolError> {
        self.give(wanted, now, true)
    }

    /// Puts `wanted` in the place of what `now` says is there. With nft it is one transaction; with iptables one a family
    /// and table, so that after an error the first may have been changed.
    pub fn put(self, wanted: &Rulesets, now: &Held) -> Result<(), ToolError> {
        self.give(wanted, now, false)
    }

    fn give(self, wanted: &Rulesets, now: &Held, only_try: bool) -> Result<(), ToolError> {
        if self == Self::Nft {
            let holding = now.0.iter().filter(|(_, saved)| !saved.found.is_empty());
            let gone: Vec<Family> =
                holding.map(|(f, _)| *f).filter(|f| !wanted.iter().any(|(w, _)| w == f)).collect();
            let script = nft::script(wanted, &gone);
            let arguments: &[&str] = if only_try { &["--check", "-f", "-"] } else { &["-f", "-"] };
            return tool::run("nft", arguments, &script).map(drop);
        }
        for (family, saved) in &now.0 {
            let none = Ruleset::default();
            let rules = wanted.iter().find(|(f, _)| f == family).map_or(&none, |(_, rules)| rules);
            let script = iptables::script(rules, saved);
            if script.is_empty() {
                continue;
            }
            let program = self.program(*family, "restore")?;
            let arguments: &[&str] =
                if only_try { &["--noflush", "-w", "5", "--test"] } else { &["--noflush", "-w", "5"] };
            tool::run(&program, arguments, &script)?;
        }
        Ok(())
    }

    /// A rule as this one writes it.
    pub fn rule_text(self, family: Family, chain: Chain, rule: &Rule) -> String {
        match self {
            Self::Nft => nft::rule_text(family, chain, rule),
            Self::IptablesNft | Self::IptablesLegacy => iptables::rule_text(chain, rule),
        }
    }

    /// What it would be given on a host that holds nothing of ours.
    pub fn script(self, plan: &Plan) -> String {
        let wanted = self.rules(plan);
        if self == Self::Nft {
            return nft::script(&wanted, &[]);
        }
        let one = |(family, rules): &(Family, Ruleset)| {
            format!("# {family}\n{}", iptables::script(rules, &Saved::default()))
        };
        wanted.iter().map(one).collect()
    }

    /// The program for a family. A host may have one iptables only, under its plain name: then it tells which it is.
    fn program(self, family: Family, what: &str) -> Result<String, ToolError> {
        let (kind, other) = match self {
            Self::IptablesNft => ("nft", "(nf_tables)"),
            Self::Nft | Self::IptablesLegacy => ("legacy", "(legacy)"),
        };
        let stem = if family == Family::V4 { "iptables" } else { "ip6tables" };
        let own_name = format!("{stem}-{kind}-{what}");
        match tool::run(&own_name, &["--version"], "") {
            Ok(_) => return Ok(own_name),
            Err(e) if e.is_missing() => {}
            Err(e) => return Err(e),
        }
        let plain = format!("{stem}-{what}");
        match tool::run(&plain, &["--version"], "") {
            // Before 1.8 there was one only, and it did not say.
            Ok(said) if said.contains(other) || (kind == "legacy" && !said.contains('(')) => Ok(plain),
            Ok(_) => Err(ToolError::Missing(own_name)),
            Err(e) if e.is_missing() => Err(ToolError::Missing(own_name)),
            Err(e) => Err(e),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

impl Held {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, saved)| saved.is_empty())
    }

    /// The rules in it, as far as they are ours.
    pub fn rules(&self) -> Rulesets {
        self.0
            .iter()
            .filter(|(_, saved)| !saved.found.rules.is_empty())
            .map(|(family, saved)| (*family, saved.found.rules.clone()))
            .collect()
    }

    /// What differs from `wanted`, each in one line.
    pub fn differences(&self, wanted: &Rulesets, backend: Backend) -> Vec<String> {
        let none = Ruleset::default();
        let of_family = |(family, saved): &(Family, Saved)| {
            let rules = wanted.iter().find(|(f, _)| f == family).map_or(&none, |(_, rules)| rules);
            let told = saved.found.differences(rules, |chain, rule| backend.rule_text(*family, chain, rule));
            told.into_iter().map(|line| format!("{family}: {line}")).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_family).collect()
    }
}

/// Whether this host's kernel speaks IPv6. An address is not needed: it may come later.
pub fn host_has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// The families in which something of ours may be.
pub fn families_of_host() -> Vec<Family> {
    if host_has_ipv6() { Family::ALL.to_vec() } else { vec![Family::V4] }
}
