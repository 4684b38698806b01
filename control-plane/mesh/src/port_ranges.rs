//! Several ports, as people write them: `25,6000-6010`.

use std::fmt;
use std::str::FromStr;

/// Ports and ranges of them; at most [`PortRanges::MOST`] parts. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRanges(Box<[(u16, u16)]>);

impl PortRanges {
    /// As many parts are taken.
    pub const MOST: usize = 64;

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

impl FromStr for PortRanges {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, InvalidPorts> {
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0)
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            port(first.trim()).zip(port(last.trim())).filter(|(first, last)| first <= last)
        };
        let parts = text.split(',').take(Self::MOST + 1).map(|part| range(part.trim()));
        match parts.collect::<Option<Box<[_]>>>() {
            Some(parts) if parts.len() <= Self::MOST => Ok(Self(parts)),
            _ => Err(InvalidPorts),
        }
    }
}

/// A text that is not a list of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPorts;

impl fmt::Display for InvalidPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write ports and ranges with commas between, {} at most: 25,6000-6010", PortRanges::MOST)
    }
}

impl std::error::Error for InvalidPorts {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    #[test]
    fn ports_and_ranges_are_read_and_nothing_else() {
        let ports: PortRanges = "25, 6000-6010".parse().unwrap();
        let inside = [24, 25, 26, 5999, 6000, 6010, 6011].map(|port| ports.contains(port));
        assert_eq!(inside, [false, true, false, false, true, true, false]);
        assert!(!PortRanges::default().contains(25));
        for bad in ["", "0", "65536", "9-8", "1,,2", "1-2-3", "+1", "a", "1;2", "-"] {
            assert_eq!(bad.parse::<PortRanges>(), Err(InvalidPorts), "{bad}");
        }
        let many = |parts: usize| vec!["1"; parts].join(",").parse::<PortRanges>().is_ok();
        assert!(many(PortRanges::MOST) && !many(PortRanges::MOST + 1));
    }
}
