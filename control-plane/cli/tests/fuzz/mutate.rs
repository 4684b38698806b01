//! Inputs that nobody thought of: seeds that are changed at random, over and over, and kept when they lead somewhere new.
//!
//! A target tells what became of an input in a few words. An input that is the first of its kind joins the seeds, so that
//! the search goes on from what was reached. The same number at the start gives the same inputs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Longer inputs are cut: what is slow for being long is found by other tests.
const LONGEST: usize = 16 * 1024;
/// More seeds than this show the same.
const MOST_SEEDS: usize = 4_000;

/// What a search found.
pub(crate) struct Found {
    /// How many inputs were tried.
    pub(crate) tried: u64,
    /// How often each thing became of one.
    pub(crate) outcomes: BTreeMap<String, u64>,
}

/// Gives `target` changed seeds for as long as the environment says, or two seconds.
pub(crate) fn search(
    name: &str,
    mut seeds: Vec<Vec<u8>>,
    words: &[&[u8]],
    target: impl Fn(&[u8]) -> String,
) -> Found {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let soak = std::env::var_os("OUTRIGGER_SOAK").is_some();
    let time = Duration::from_secs(number("OUTRIGGER_FUZZ_SECONDS").unwrap_or(if soak { 60 } else { 2 }));
    let start = number("OUTRIGGER_FUZZ_START").unwrap_or(1);
    let mut random = Random(start);
    let mut found = Found { tried: 0, outcomes: BTreeMap::new() };
    let end = Instant::now() + time;
    let mut next = seeds.clone();
    while Instant::now() < end {
        let input = next.pop().unwrap_or_else(|| random.changed(&seeds, words));
        let became = catch_unwind(AssertUnwindSafe(|| target(&input))).unwrap_or_else(|_| {
            let hex = input.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
            panic!("{name}: input {} of start {start} is not survived: {hex}", found.tried);
        });
        found.tried += 1;
        let times = found.outcomes.entry(became).or_default();
        *times += 1;
        if *times == 1 && seeds.len() < MOST_SEEDS {
            seeds.push(input);
        }
    }
    eprintln!("{name}: {} inputs, {} kinds of outcome", found.tried, found.outcomes.len());
    found
}

/// A generator of Steele, Lea and Flood ("Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        // What parsers stumble over comes more often than the rest.
        const TELLING: &[u8] = b"\0\x01\x7f\x80\x81\x82\xff\"\\%./:{}[],-_=+0 \n\r";
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { self.next().to_le_bytes()[0] }
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        (from, from + self.below((length - from).min(64) + 1))
    }

    fn changed(&mut self, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 << self.below(4) {
            self.change(&mut bytes, seeds, words);
            bytes.truncate(LONGEST);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&[u8]]) {
        let at = self.below(bytes.len());
        let (from, to) = self.range(bytes.len());
        match self.below(9) {
            _ if bytes.is_empty() => bytes.push(self.byte()),
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            // Lengths that are off by one.
            2 => bytes[at] = bytes[at].wrapping_add(if self.below(2) == 0 { 1 } else { 255 }),
            3 => bytes.insert(at, self.byte()),
            4 => drop(bytes.drain(from..to)),
            5 => {
                let copy = bytes[from..to].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let word = words[self.below(words.len())].to_vec();
                let over = if self.below(2) == 0 { at } else { (at + word.len()).min(bytes.len()) };
                bytes.splice(at..over, word);
            }
            7 => {
                let other = &seeds[self.below(seeds.len())];
                let (from, to) = self.range(other.len());
                bytes.splice(at..at, other[from..to].to_vec());
            }
            _ => bytes.truncate(at),
        }
    }
}
