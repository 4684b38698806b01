//! The rules as nft writes and lists them.
//!
//! One table of our own a family, replaced as a whole in one transaction. Tables by family instead of one `inet` table:
//! kernels before 5.2 can not translate addresses in those.

use std::fmt::Write as _;

use crate::network::{Family, Network};
use crate::ports::{PortRange, Ports};
use crate::rules::{Chain, Found, Match, Owner, Rule, Ruleset, Socket, Transport, Verdict};

/// The name of our tables.
pub const TABLE: &str = "outrigger";

/// The word of nft for a family.
pub fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// One transaction that puts `wanted` in the place of whatever our tables held, and takes our tables of `gone` away.
pub fn script(wanted: &[(Family, Ruleset)], gone: &[Family]) -> String {
    let mut text = String::new();
    for (family, rules) in wanted {
        text.push_str(&emptied(*family));
        text.push_str(&table(*family, rules));
    }
    for family in gone {
        text.push_str(&emptied(*family));
    }
    text
}

/// Added before it is deleted: deleting what is not there is an error.
fn emptied(family: Family) -> String {
    let family = family_word(family);
    format!("table {family} {TABLE} {{}}\ndelete table {family} {TABLE}\n")
}

fn table(family: Family, rules: &Ruleset) -> String {
    let mut text = format!("table {} {TABLE} {{\n", family_word(family));
    for (chain, rules) in &rules.0 {
        let (name, head) = hung(*chain);
        let _infallible = write!(text, "\tchain {name} {{\n\t\t{head}\n");
        for rule in rules {
            let _infallible = writeln!(text, "\t\t{}", rule_text(family, *chain, rule));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// A chain's name, and where it hangs. Numbers, because nft 1.0.6 knows the priority names of some hooks only. Before the
/// usual -100: container runtimes translate the addresses of their resolvers there.
fn hung(chain: Chain) -> (&'static str, &'static str) {
    match chain {
        Chain::Outbound => ("outbound", "type nat hook output priority -110; policy accept;"),
        Chain::Inbound => ("inbound", "type nat hook prerouting priority -110; policy accept;"),
        Chain::InboundTproxy => {
            ("inbound_tproxy", "type filter hook prerouting priority -150; policy accept;")
        }
    }
}

/// One rule, as nft takes it.
pub fn rule_text(family: Family, chain: Chain, rule: &Rule) -> String {
    let when = &rule.when;
    let mut words: Vec<String> = Vec::new();
    match when.owner {
        Some(Owner::User(id)) => words.push(format!("meta skuid {id}")),
        Some(Owner::Group(id)) => words.push(format!("meta skgid {id}")),
        None => {}
    }
    if when.loopback {
        words.push(format!("{} \"lo\"", if chain == Chain::Outbound { "oifname" } else { "iifname" }));
    }
    if let Some(to) = when.to {
        words.push(format!("{} daddr {to}", family_word(family)));
    }
    if when.local {
        words.push("fib daddr type local".into());
    }
    if let Some(transport) = when.transport {
        let name = transport.as_str();
        match when.ports.ranges() {
            // A test of TCP's flags says it.
            [] if when.begins.is_some() => {}
            [] => words.push(format!("meta l4proto {name}")),
            [_] => words.push(format!("{name} dport {}", when.ports)),
            _ => words.push(format!("{name} dport {{ {} }}", when.ports.written(", ", '-'))),
        }
    }
    match when.begins {
        Some(true) => words.push("tcp flags & (fin | syn | rst | ack) == syn".into()),
        Some(false) => words.push("tcp flags & (fin | syn | rst | ack) != syn".into()),
        None => {}
    }
    match when.socket {
        Some(Socket::Transparent) => words.push("socket transparent 1".into()),
        Some(Socket::Specific) => words.push("socket wildcard 0".into()),
        None => {}
    }
    words.push(match rule.then {
        Verdict::Pass => "return".into(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Mark(mark) => format!("meta mark set 0x{mark:08x}"),
        Verdict::Tproxy { port, mark } => format!("tproxy to :{port} meta mark set 0x{mark:08x} accept"),
    });
    words.join(" ")
}

/// The families of `nft list tables` in which we have a table.
pub fn read_tables(listing: &str) -> Vec<Family> {
    let ours = |family: &Family| {
        let line = format!("table {} {TABLE}", family_word(*family));
        listing.lines().any(|l| l.trim() == line)
    };
    Family::ALL.into_iter().filter(ours).collect()
}

/// What `nft list table` says of our table.
pub fn read(family: Family, listing: &str) -> Found {
    let mut found = Found::default();
    // The chain whose lines are read; `None` in a chain that is none of ours.
    let mut chain: Option<Chain> = None;
    for line in lines(listing) {
        let line = line.as_str();
        if let Some(name) = line.strip_prefix("chain ") {
            let name = name.trim_end_matches('{').trim();
            chain = Chain::ALL.into_iter().find(|c| hung(*c).0 == name);
            match chain {
                Some(chain) => found.rules.0.push((chain, Vec::new())),
                None => found.foreign.push(format!("chain {name}")),
            }
        } else if line.starts_with("table ") || line == "}" {
            chain = None;
        } else if let Some(here) = chain {
            if line.starts_with("type ") {
                if line != hung(here).1 {
                    found.foreign.push(format!("the chain {} hangs at: {line}", hung(here).0));
                }
                continue;
            }
            match (read_rule(family, here, line), found.rules.0.last_mut()) {
                (Some(rule), Some((_, rules))) => rules.push(rule),
                _ => found.foreign.push(format!("in {}: {line}", hung(here).0)),
            }
        } else {
            found.foreign.push(line.to_owned());
        }
    }
    found
}

/// The lines of a listing without blanks, sets that nft breaks over several lines made one again.
fn lines(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in listing.lines() {
        // Some list a handle behind everything.
        let line = line.split_once('#').map_or(line, |(said, _)| said).trim();
        if line.is_empty() {
            continue;
        }
        match lines.last_mut() {
            Some(last) if open => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
        let set = lines.last().and_then(|l| l.split_once("dport {"));
        open = set.is_some_and(|(_, rest)| !rest.contains('}'));
    }
    lines
}

/// One rule of a listing; `None` where it says anything that ours do not.
fn read_rule(family: Family, chain: Chain, line: &str) -> Option<Rule> {
    let mut words = Words::of(line);
    let mut when = Match::default();
    let mut then = None;
    while let Some(word) = words.next() {
        match word {
            "meta" => match words.next()? {
                "skuid" => when.owner = Some(Owner::User(words.next()?.parse().ok()?)),
                "skgid" => when.owner = Some(Owner::Group(words.next()?.parse().ok()?)),
                "l4proto" => when.transport = Some(transport(words.next()?)?),
                "mark" => {
                    words.expect("set")?;
                    let mark = number(words.next()?)?;
                    then = match then {
                        None => Some(Verdict::Mark(mark)),
                        Some(Verdict::Tproxy { port, .. }) => Some(Verdict::Tproxy { port, mark }),
                        Some(_) => return None,
                    };
                }
                _ => return None,
            },
            "oifname" if chain == Chain::Outbound => {
                words.expect("\"lo\"")?;
                when.loopback = true;
            }
            "iifname" if chain != Chain::Outbound => {
                words.expect("\"lo\"")?;
                when.loopback = true;
            }
            "ip" | "ip6" if word == family_word(family) => {
                words.expect("daddr")?;
                when.to = Some(words.next()?.parse::<Network>().ok()?);
            }
            "fib" => {
                words.expect("daddr")?;
                words.expect("type")?;
                matches!(words.next()?, "local" | "2").then_some(())?;
                when.local = true;
            }
            "tcp" | "udp" => {
                when.transport = Some(transport(word)?);
                match words.next()? {
                    "dport" => when.ports = ports(&mut words)?,
                    "flags" => when.begins = Some(begins(&mut words)?),
                    _ => return None,
                }
            }
            "socket" => {
                when.socket = Some(match (words.next()?, words.next()?) {
                    ("transparent", "1") => Socket::Transparent,
                    ("wildcard", "0") => Socket::Specific,
                    _ => return None,
                });
            }
            "return" if then.is_none() => then = Some(Verdict::Pass),
            "redirect" if then.is_none() => {
                words.expect("to")?;
                then = Some(Verdict::Redirect(words.next()?.strip_prefix(':')?.parse().ok()?));
            }
            "tproxy" if then.is_none() => {
                words.expect("to")?;
                let port = words.next()?.strip_prefix(':')?.parse().ok()?;
                then = Some(Verdict::Tproxy { port, mark: 0 });
            }
            "accept" if matches!(then, Some(Verdict::Tproxy { .. })) => {}
            _ => return None,
        }
    }
    Some(Rule { when, then: then? })
}

/// A port, a range, or a set of them.
fn ports(words: &mut Words<'_>) -> Option<Ports> {
    let first = words.next()?;
    if first != "{" {
        return Some(Ports::new([first.parse::<PortRange>().ok()?]));
    }
    let mut ranges = Vec::new();
    loop {
        match words.next()? {
            "}" => return Some(Ports::new(ranges)),
            "," => {}
            word => ranges.push(word.parse::<PortRange>().ok()?),
        }
    }
}

/// Versions of nft list the same test in two forms, with names or with numbers:
/// `& (fin | syn | rst | ack) == syn` and `syn / fin,syn,rst,ack`, the second with `!=` before it for the contrary.
fn begins(words: &mut Words<'_>) -> Option<bool> {
    let rest: Vec<&str> = words.by_ref_until_flags_end();
    let (mask, value, equal) = match rest.as_slice() {
        ["&", mask @ .., operator @ ("==" | "!="), value] => (mask, value, *operator == "=="),
        ["!=", value, "/", mask @ ..] => (mask, value, false),
        ["==", value, "/", mask @ ..] | [value, "/", mask @ ..] => (mask, value, true),
        _ => return None,
    };
    let mut bits = 0;
    for word in mask {
        if !matches!(*word, "(" | ")" | "|" | ",") {
            bits |= flag(word)?;
        }
    }
    (bits == FIN_SYN_RST_ACK && flag(value)? == SYN).then_some(equal)
}

fn flag(word: &str) -> Option<u32> {
    match word {
        "fin" => Some(1),
        "syn" => Some(SYN),
        "rst" => Some(4),
        "ack" => Some(16),
        _ => number(word),
    }
}

const SYN: u32 = 2;
const FIN_SYN_RST_ACK: u32 = 0x17;

fn transport(word: &str) -> Option<Transport> {
    match word {
        "tcp" | "6" => Some(Transport::Tcp),
        "udp" | "17" => Some(Transport::Udp),
        _ => None,
    }
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The words of a rule; punctuation of sets and flags is words of its own.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let mut rest = word;
            while let Some(at) = rest.find([',', '(', ')']) {
                if at > 0 {
                    words.push(&rest[..at]);
                }
                words.push(&rest[at..=at]);
                rest = &rest[at + 1..];
            }
            if !rest.is_empty() {
                words.push(rest);
            }
        }
        Self { words, at: 0 }
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn expect(&mut self, wanted: &str) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// Everything up to the word that begins the next part of a rule.
    fn by_ref_until_flags_end(&mut self) -> Vec<&'a str> {
        let next_part = |w: &&str| matches!(*w, "redirect" | "return" | "socket" | "tproxy" | "meta" | "tcp");
        let rest = self.words.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(next_part).unwrap_or(rest.len());
        self.at += length;
        rest[..length].to_vec()
    }
}
