//! A hash for small maps of one worker, looked into at every request: a few multiplications where the standard one takes
//! a hundred instructions. Nobody outside fills these maps: what they hold is bounded, and found out by ourselves.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`Quick`].
pub(crate) type BuildQuick = BuildHasherDefault<Quick>;

/// Multiplies and folds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            self.write_u64(u64::from_le_bytes(*eight));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(last));
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ SALT) * u128::from(FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

const SALT: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn names_and_numbers_that_are_alike_lie_apart() {
        let build = BuildQuick::default();
        let hash = |name: &str| build.hash_one(name.as_bytes());
        let names: Vec<String> =
            (0..1_000).flat_map(|n| [format!("cart-{n}.shop"), format!("cart-{n}:80")]).collect();
        let all: HashSet<u64> = names.iter().map(|name| hash(name)).collect();
        assert_eq!(all.len(), names.len());
        // What a table takes of it: the lower bits for the place, the uppermost seven for the first look.
        for bits in [|h: u64| h & 255, |h: u64| h >> 57] {
            let seen: HashSet<u64> = (0..2_000_u64).map(|n| bits(build.hash_one((n, 80_u16)))).collect();
            assert!(seen.len() > 100, "{}", seen.len());
        }
    }
}
