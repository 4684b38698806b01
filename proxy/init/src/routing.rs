//! What TPROXY needs of the routing: packets with our mark are for this host, whatever their address.

use crate::network::Family;
use crate::tool::{self, ToolError};

/// The mark and the table of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// The mark.
    pub mark: u32,
    /// The table, all of whose routes are ours.
    pub table: u32,
}

/// What of it is in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// How many rules send the mark to the table.
    pub rules: usize,
    /// Whether the table keeps everything here.
    pub route: bool,
}

impl Placed {
    /// All that is needed.
    pub const WHOLE: Self = Self { rules: 1, route: true };
}

impl Routing {
    /// What is in place.
    pub fn read(self, family: Family) -> Result<Placed, ToolError> {
        let flag = flag(family);
        let rules = tool::run("ip", &[flag, "rule", "show"], "")?;
        let table = self.table.to_string();
        let routes = match tool::run("ip", &[flag, "route", "show", "table", &table], "") {
            Ok(routes) => routes,
            // A table without a route is not there at all.
            Err(ToolError::Failed { .. }) => String::new(),
            Err(e) => return Err(e),
        };
        Ok(Placed {
            rules: rules.lines().filter(|l| self.is_rule(l)).count(),
            route: routes.lines().any(is_route),
        })
    }

    /// Puts it in place; what is there already stays.
    pub fn put(self, family: Family) -> Result<(), ToolError> {
        let flag = flag(family);
        let placed = self.read(family)?;
        let table = self.table.to_string();
        let route = ["route", "replace", "local", "default", "dev", "lo", "table", &table];
        tool::run("ip", &[&[flag][..], &route].concat(), "")?;
        if placed.rules == 0 {
            tool::run("ip", &[&[flag, "rule", "add"][..], &self.rule().each()].concat(), "")?;
        }
        for _ in 1..placed.rules {
            tool::run("ip", &[&[flag, "rule", "del"][..], &self.rule().each()].concat(), "")?;
        }
        Ok(())
    }

    /// Takes it away.
    pub fn remove(self, family: Family) -> Result<(), ToolError> {
        let flag = flag(family);
        let placed = self.read(family)?;
        for _ in 0..placed.rules {
            tool::run("ip", &[&[flag, "rule", "del"][..], &self.rule().each()].concat(), "")?;
        }
        if placed.route {
            tool::run("ip", &[flag, "route", "flush", "table", &self.table.to_string()], "")?;
        }
        Ok(())
    }

    /// The commands that put it in place, for people to read.
    pub fn written(self, family: Family) -> String {
        let (flag, rule) = (flag(family), self.rule());
        format!(
            "ip {flag} route replace local default dev lo table {}\nip {flag} rule add {}\n",
            self.table,
            rule.each().join(" ")
        )
    }

    fn rule(self) -> RuleWords {
        RuleWords { mark: format!("{:#x}", self.mark), table: self.table.to_string() }
    }

    fn is_rule(self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let mark = |word: &str| {
            let value = word.strip_suffix("/0xffffffff").unwrap_or(word);
            value.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()) == Some(self.mark)
        };
        let table = self.table.to_string();
        matches!(words.as_slice(), ["from", "all", "fwmark", m, "lookup", t] if mark(m) && *t == table)
    }
}

struct RuleWords {
    mark: String,
    table: String,
}

impl RuleWords {
    /// Before the table `main`.
    fn each(&self) -> [&str; 6] {
        ["pref", "15006", "fwmark", &self.mark, "lookup", &self.table]
    }
}

fn is_route(line: &str) -> bool {
    line.starts_with("local default dev lo")
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rule_is_told_from_others() {
        let routing = Routing { mark: 0x3a9e, table: 15_006 };
        for ours in [
            "15006:\tfrom all fwmark 0x3a9e lookup 15006",
            "9: from all fwmark 0x3a9e/0xffffffff lookup 15006",
        ] {
            assert!(routing.is_rule(ours), "{ours}");
        }
        for other in [
            "0:\tfrom all lookup local",
            "15006:\tfrom all fwmark 0x3a9e lookup 15007",
            "15006:\tfrom all fwmark 0x3a9f lookup 15006",
            "15006:\tfrom 10.0.0.0/8 fwmark 0x3a9e lookup 15006",
            "15006:\tnot from all fwmark 0x3a9e lookup 15006",
        ] {
            assert!(!routing.is_rule(other), "{other}");
        }
    }
}
