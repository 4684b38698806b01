//! The counts of one step, packed: an hour of steps of thousands of pairs has to fit into some megabytes, and most of a
//! histogram's buckets are empty.

use std::collections::BTreeMap;

use outrigger_mesh::{BUCKETS, Reason, RefusalKey, TrafficStats};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests and how they went.
    pub traffic: TrafficStats,
    /// Refusals by reason.
    pub refused: BTreeMap<Reason, u64>,
}

impl Counts {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.traffic.merge(&other.traffic);
        for (reason, count) in &other.refused {
            self.refuse(*reason, *count);
        }
    }

    /// So many were refused.
    pub fn all_refused(&self) -> u64 {
        self.refused.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(super) fn of_refusal(key: &RefusalKey, count: u64) -> Self {
        Self { refused: BTreeMap::from([(key.reason, count)]), ..Self::default() }
    }

    fn refuse(&mut self, reason: Reason, count: u64) {
        let sum = self.refused.entry(reason).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// The same, packed: numbers of seven bits a byte, the lowest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell(Box<[u8]>);

impl Cell {
    pub(super) fn pack(counts: &Counts) -> Self {
        let Counts { traffic, refused } = counts;
        let mut bytes = Vec::with_capacity(32);
        for number in [traffic.requests, traffic.success, traffic.unanswered] {
            put(&mut bytes, number);
        }
        put(&mut bytes, traffic.latency.non_zero().count() as u64);
        for (bucket, count) in traffic.latency.non_zero() {
            put(&mut bytes, bucket as u64);
            put(&mut bytes, count);
        }
        for (reason, count) in refused {
            bytes.push(*reason as u8);
            put(&mut bytes, *count);
        }
        Self(bytes.into_boxed_slice())
    }

    /// Adds what is packed here to `counts`.
    pub(super) fn add_to(&self, counts: &mut Counts) {
        let mut bytes = &*self.0;
        let mut next = || take(&mut bytes);
        let traffic = &mut counts.traffic;
        traffic.requests = traffic.requests.saturating_add(next());
        traffic.success = traffic.success.saturating_add(next());
        traffic.unanswered = traffic.unanswered.saturating_add(next());
        for _ in 0..next().min(BUCKETS as u64) {
            let (bucket, count) = (next(), next());
            traffic.latency.add(usize::try_from(bucket).unwrap_or(BUCKETS), count);
        }
        while let Some((reason, rest)) = bytes.split_first() {
            bytes = rest;
            let count = take(&mut bytes);
            if let Some(reason) = Reason::ALL.get(usize::from(*reason)) {
                counts.refuse(*reason, count);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let lowest = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            bytes.push(lowest);
            return;
        }
        bytes.push(lowest | 0x80);
    }
}

/// The next number; 0 when there is none.
fn take(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0_u64, 0_u32);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_added_as_it_was(
            requests in any::<u64>(), success in 0_u64..1_000, unanswered in 0_u64..9,
            latencies in proptest::collection::vec((0_usize..BUCKETS, 1_u64..100_000), 0..40),
            refused in proptest::collection::btree_map(0_usize..Reason::ALL.len(), 1_u64..1_000_000, 0..5),
        ) {
            let mut counts = Counts::default();
            let traffic = &mut counts.traffic;
            (traffic.requests, traffic.success, traffic.unanswered) = (requests, success, unanswered);
            for (bucket, count) in latencies {
                traffic.latency.add(bucket, count);
            }
            counts.refused = refused.into_iter().map(|(at, count)| (Reason::ALL[at], count)).collect();
            let mut read = Counts::default();
            Cell::pack(&counts).add_to(&mut read);
            prop_assert_eq!(read, counts);
        }
    }

    #[test]
    fn a_reason_has_the_number_of_its_place() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason}");
        }
    }
}
