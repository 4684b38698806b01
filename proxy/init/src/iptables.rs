//! The rules as `iptables-save` writes them, for both forms of iptables.
//!
//! Chains of our own in the tables nat and mangle, with one jump to each. A table is changed in one commit, which fills
//! the chains and moves the jumps at once.

use std::fmt::Write as _;

use crate::network::Network;
use crate::ports::{PortRange, Ports};
use crate::rules::{Chain, Found, Match, Owner, Rule, Ruleset, Socket, Transport, Verdict};

/// How many places a multiport match has.
pub const SLOTS: usize = 15;

/// What of ours one family's tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The chains with their rules, and what is odd about them.
    pub found: Found,
    /// Every rule of a built-in chain that leads to one of ours, as it was listed.
    jumps: Vec<(Place, String)>,
}

/// Where a chain of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    table: &'static str,
    hook: &'static str,
    name: &'static str,
}

impl Place {
    const fn of(chain: Chain) -> Self {
        match chain {
            Chain::Outbound => Self { table: "nat", hook: "OUTPUT", name: "OUTRIGGER_OUTBOUND" },
            Chain::Inbound => Self { table: "nat", hook: "PREROUTING", name: "OUTRIGGER_INBOUND" },
            Chain::InboundTproxy => Self { table: "mangle", hook: "PREROUTING", name: "OUTRIGGER_TPROXY" },
        }
    }

    fn jump(self) -> String {
        format!("-A {} -j {}", self.hook, self.name)
    }
}

/// The input of `iptables-restore --noflush` that puts `wanted` in the place of what `now` holds of ours. Empty where
/// nothing is wanted and nothing is there.
pub fn script(wanted: &Ruleset, now: &Saved) -> String {
    let mut text = String::new();
    for table in ["nat", "mangle"] {
        let chains: Vec<Chain> = Chain::ALL.into_iter().filter(|c| Place::of(*c).table == table).collect();
        let mut lines = String::new();
        for &chain in &chains {
            let place = Place::of(chain);
            let (new, old) = (wanted.chain(chain), now.found.rules.chain(chain));
            if new.is_none() && old.is_none() {
                continue;
            }
            // Makes the chain, or empties it.
            let _infallible = writeln!(lines, ":{} - [0:0]", place.name);
            for (_, jump) in now.jumps.iter().filter(|(to, _)| *to == place) {
                let _infallible = writeln!(lines, "{}", jump.replacen("-A ", "-D ", 1));
            }
            match new {
                None => {
                    let _infallible = writeln!(lines, "-X {}", place.name);
                }
                Some(rules) => {
                    // First, so that nobody else's rule comes before.
                    let _infallible = writeln!(lines, "-I {} 1 -j {}", place.hook, place.name);
                    for rule in rules {
                        let _infallible = writeln!(lines, "{}", rule_text(chain, rule));
                    }
                }
            }
        }
        if !lines.is_empty() {
            let _infallible = write!(text, "*{table}\n{lines}COMMIT\n");
        }
    }
    text
}

/// One rule, as `iptables-save` writes it.
pub fn rule_text(chain: Chain, rule: &Rule) -> String {
    let when = &rule.when;
    let mut words = vec![format!("-A {}", Place::of(chain).name)];
    if let Some(to) = when.to {
        words.push(format!("-d {to}"));
    }
    if when.loopback {
        words.push(format!("{} lo", if chain == Chain::Outbound { "-o" } else { "-i" }));
    }
    if let Some(transport) = when.transport {
        let name = transport.as_str();
        words.push(format!("-p {name}"));
        if when.ports.ranges().len() == 1 || when.begins.is_some() {
            words.push(format!("-m {name}"));
        }
        if when.ports.ranges().len() == 1 {
            words.push(format!("--dport {}", when.ports.written(",", ':')));
        }
        match when.begins {
            Some(true) => words.push("--tcp-flags FIN,SYN,RST,ACK SYN".into()),
            Some(false) => words.push("! --tcp-flags FIN,SYN,RST,ACK SYN".into()),
            None => {}
        }
        if when.ports.ranges().len() > 1 {
            words.push(format!("-m multiport --dports {}", when.ports.written(",", ':')));
        }
    }
    match when.owner {
        Some(Owner::User(id)) => words.push(format!("-m owner --uid-owner {id}")),
        Some(Owner::Group(id)) => words.push(format!("-m owner --gid-owner {id}")),
        None => {}
    }
    if when.local {
        words.push("-m addrtype --dst-type LOCAL".into());
    }
    match when.socket {
        Some(Socket::Transparent) => words.push("-m socket --transparent".into()),
        Some(Socket::Specific) => words.push("-m socket".into()),
        None => {}
    }
    words.push(match rule.then {
        Verdict::Pass => "-j RETURN".into(),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Mark(mark) => format!("-j MARK --set-xmark 0x{mark:x}/0xffffffff"),
        Verdict::Tproxy { port, mark } => {
            format!("-j TPROXY --on-port {port} --tproxy-mark 0x{mark:x}/0xffffffff")
        }
    });
    words.join(" ")
}

/// What of ours the output of `iptables-save` holds.
pub fn read(listing: &str) -> Saved {
    let mut saved = Saved::default();
    let mut table = "";
    // How many rules of each built-in chain came before.
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(name) = line.strip_prefix(':').and_then(|l| l.split(' ').next()) {
            match ours(table, name) {
                Some(chain) => saved.found.rules.0.push((chain, Vec::new())),
                None if name.starts_with(PREFIX) => {
                    saved.found.foreign.push(format!("chain {name} in {table}"));
                }
                None => {}
            }
        } else if let Some((name, _)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' ')) {
            match ours(table, name) {
                Some(chain) => saved.add(chain, line),
                None => saved.look_for_jump(table, name, line, seen.contains(&(table, name))),
            }
            seen.push((table, name));
        }
    }
    // The tables come in any order, and we compare values.
    saved.found.rules.0.sort_by_key(|(chain, _)| *chain);
    for (chain, _) in &saved.found.rules.0 {
        let place = Place::of(*chain);
        if !saved.jumps.iter().any(|(to, line)| *to == place && *line == place.jump()) {
            let nothing = format!("nothing leads to the chain {}", place.name);
            saved.found.foreign.push(nothing);
        }
    }
    saved
}

impl Saved {
    /// What nft holds has no jumps: its chains hang by themselves.
    pub fn of_nft(found: Found) -> Self {
        Self { found, jumps: Vec::new() }
    }

    /// Whether nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.jumps.is_empty()
    }

    fn add(&mut self, chain: Chain, line: &str) {
        let rule = read_rule(chain, line);
        let rules = self.found.rules.0.iter_mut().find(|(c, _)| *c == chain);
        match (rule, rules) {
            (Some(rule), Some((_, rules))) => rules.push(rule),
            _ => self.found.foreign.push(line.to_owned()),
        }
    }

    fn look_for_jump(&mut self, table: &str, hook: &str, line: &str, others_before: bool) {
        let target = line.rsplit_once("-j ").map_or("", |(_, to)| to.split(' ').next().unwrap_or(""));
        let Some(chain) = ours(table, target) else { return };
        let place = Place::of(chain);
        if line != place.jump() || hook != place.hook {
            self.found.foreign.push(line.to_owned());
        } else if self.jumps.iter().any(|(to, _)| *to == place) {
            self.found.foreign.push(format!("once more: {line}"));
        } else if others_before {
            self.found.foreign.push(format!("rules before: {line}"));
        }
        self.jumps.push((place, line.to_owned()));
    }
}

fn ours(table: &str, name: &str) -> Option<Chain> {
    Chain::ALL.into_iter().find(|c| Place::of(*c).table == table && Place::of(*c).name == name)
}

/// One rule of a listing; `None` where it says anything that ours do not.
fn read_rule(chain: Chain, line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace().skip(2).peekable();
    let mut when = Match::default();
    let mut not = false;
    let mut module = "";
    while let Some(word) = words.next() {
        match word {
            "!" => {
                not = true;
                continue;
            }
            "-d" => when.to = Some(words.next()?.parse::<Network>().ok()?),
            "-o" if chain == Chain::Outbound => when.loopback = (words.next()? == "lo").then_some(true)?,
            "-i" if chain != Chain::Outbound => when.loopback = (words.next()? == "lo").then_some(true)?,
            "-p" => {
                when.transport = Some(match words.next()? {
                    "tcp" => Transport::Tcp,
                    "udp" => Transport::Udp,
                    _ => return None,
                });
            }
            "-m" => {
                module = words.next()?;
                match module {
                    "tcp" | "udp" | "multiport" | "owner" | "addrtype" => {}
                    "socket" => when.socket = Some(Socket::Specific),
                    _ => return None,
                }
            }
            "--transparent" if module == "socket" => when.socket = Some(Socket::Transparent),
            "--dport" | "--dports" => {
                let ranges = words.next()?.split(',').map(|r| r.parse::<PortRange>().ok());
                when.ports = Ports::new(ranges.collect::<Option<Vec<_>>>()?);
            }
            "--tcp-flags" => {
                if (words.next()?, words.next()?) != ("FIN,SYN,RST,ACK", "SYN") {
                    return None;
                }
                when.begins = Some(!std::mem::take(&mut not));
            }
            "--uid-owner" => when.owner = Some(Owner::User(words.next()?.parse().ok()?)),
            "--gid-owner" => when.owner = Some(Owner::Group(words.next()?.parse().ok()?)),
            "--dst-type" => when.local = (words.next()? == "LOCAL").then_some(true)?,
            "-j" => {
                let then = read_verdict(&mut words)?;
                return Some(Rule { when, then });
            }
            _ => return None,
        }
        if not {
            return None;
        }
    }
    None
}

fn read_verdict<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Verdict> {
    let target = words.next()?;
    let (mut port, mut mark) = (None, None);
    while let Some(word) = words.next() {
        match (target, word) {
            ("REDIRECT", "--to-ports") | ("TPROXY", "--on-port") => port = Some(words.next()?.parse().ok()?),
            ("TPROXY", "--on-ip") => matches!(words.next()?, "0.0.0.0" | "::").then_some(())?,
            ("TPROXY", "--tproxy-mark") | ("MARK", "--set-xmark") => {
                let value = words.next()?.strip_suffix("/0xffffffff")?.strip_prefix("0x")?;
                mark = Some(u32::from_str_radix(value, 16).ok()?);
            }
            _ => return None,
        }
    }
    match (target, port, mark) {
        ("RETURN", None, None) => Some(Verdict::Pass),
        ("REDIRECT", Some(port), None) => Some(Verdict::Redirect(port)),
        ("MARK", None, Some(mark)) => Some(Verdict::Mark(mark)),
        ("TPROXY", Some(port), Some(mark)) => Some(Verdict::Tproxy { port, mark }),
        _ => None,
    }
}

const PREFIX: &str = "OUTRIGGER_";
