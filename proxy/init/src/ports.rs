//! Sets of ports in one canonical form: sorted ranges that neither overlap nor touch, so that equal sets are equal
//! values and no packet filter finds anything to merge.

use std::fmt;
use std::str::FromStr;

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl PortRange {
    /// One port.
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// How many places it takes in a multiport match of iptables.
    fn slots(self) -> usize {
        if self.first == self.last { 1 } else { 2 }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |digits: &str| match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(format!("{text:?} is not a port or range of ports (1 to 65535, as 80 or 8000-8010)")),
        };
        let (first, last) = match text.split_once(['-', ':']) {
            None => (port(text)?, port(text)?),
            Some((first, last)) => (port(first)?, port(last)?),
        };
        if first > last {
            return Err(format!("{text:?} is not a range of ports: it ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

/// A set of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(Vec<PortRange>);

impl Ports {
    /// The set of these ranges.
    pub fn new(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut ranges: Vec<PortRange> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// Whether `port` is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|r| r.first <= port && port <= r.last)
    }

    /// The same ports in sets that each fit a match of so many places, in which a range counts twice. A set of none is
    /// no set at all.
    pub fn chunks(&self, slots: Option<usize>) -> Vec<Self> {
        let mut chunks: Vec<(usize, Vec<PortRange>)> = Vec::new();
        for range in &self.0 {
            let fits = |used: usize| slots.is_none_or(|slots| used + range.slots() <= slots);
            match chunks.last_mut() {
                Some((used, chunk)) if fits(*used) => {
                    *used += range.slots();
                    chunk.push(*range);
                }
                _ => chunks.push((range.slots(), vec![*range])),
            }
        }
        chunks.into_iter().map(|(_, chunk)| Self(chunk)).collect()
    }

    /// Written with these separators: between ranges, and between the ends of one.
    pub fn written(&self, between: &str, within: char) -> String {
        let one = |r: &PortRange| {
            let PortRange { first, last } = r;
            if first == last { first.to_string() } else { format!("{first}{within}{last}") }
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(between)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(",", '-'))
    }
}

/// Separated by commas and blanks.
impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split([',', ' ', '\t', '\n']).filter(|w| !w.is_empty());
        Ok(Self::new(words.map(str::parse).collect::<Result<Vec<_>, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_meet_become_one() {
        let ports: Ports = "80, 22,81-90,85-95,443".parse().unwrap();
        assert_eq!(ports.to_string(), "22,80-95,443");
        assert!(ports.contains(95) && !ports.contains(96));
        assert!("".parse::<Ports>().unwrap().is_empty());
    }

    #[test]
    fn what_is_not_a_port_is_told() {
        for bad in ["0", "65536", "-1", "90-80", "80-", "+80", "http", "0-10", "1-2-3"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chunk_has_at_most_fifteen_places_where_a_range_takes_two() {
        let ports =
            Ports::new((0..40).map(|n| PortRange { first: 100 * n + 1, last: 100 * n + 1 + (n % 2) }));
        let chunks = ports.chunks(Some(15));
        for chunk in &chunks {
            let places: usize = chunk.ranges().iter().map(|r| r.slots()).sum();
            assert!(places <= 15, "{chunk}");
        }
        assert_eq!(Ports::new(chunks.iter().flat_map(|c| c.ranges().iter().copied())), ports);
        assert_eq!(ports.chunks(None), [ports]);
        assert!(Ports::default().chunks(Some(15)).is_empty());
    }

    proptest! {
        #[test]
        fn a_set_is_read_back_as_written(ranges in prop::collection::vec((1..=u16::MAX, 0..200u16), 0..20)) {
            let ports = Ports::new(ranges.iter().map(|(first, more)| PortRange {
                first: *first,
                last: first.saturating_add(*more),
            }));
            prop_assert_eq!(ports.to_string().parse::<Ports>().unwrap(), ports.clone());
            for (first, _) in &ranges {
                prop_assert!(ports.contains(*first));
            }
        }
    }
}
