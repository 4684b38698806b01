//! Durations as the Gateway API writes them (GEP-2257): `10s`, `1m30s`, `250ms`.

use std::fmt;
use std::time::Duration as StdDuration;

use super::written::as_text;

/// A duration that can be written: whole milliseconds, up to 99,999 hours in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(StdDuration);

impl Duration {
    /// Reads `([0-9]{1,5}(h|m|s|ms)){1,4}`.
    pub fn parse(text: &str) -> Result<Self, String> {
        read(text).map(|millis| Self(StdDuration::from_millis(millis))).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            format!(
                "{shown:?} is not a duration; write one to four numbers with h, m, s or ms, like 10s or 1m30s"
            )
        })
    }

    /// The value.
    pub fn get(self) -> StdDuration {
        self.0
    }
}

const MAX_MILLIS: u64 = 99_999 * 3_600_000;

fn read(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut millis = 0;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 {
            return None;
        }
        let (number, tail) = rest.split_at(digits);
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        millis += number.parse::<u64>().ok()? * factor;
        rest = &tail[unit.len()..];
        if rest.is_empty() {
            // More could be read, but no longer be written.
            return (millis <= MAX_MILLIS).then_some(millis);
        }
    }
    None
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
        let (seconds, ms) = (millis / 1_000 % 60, millis % 1_000);
        for (number, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s"), (ms, "ms")] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

as_text!(Duration, "^([0-9]{1,5}(h|m|s|ms)){1,4}$");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_the_gateway_api_writes_them() {
        for (text, millis) in
            [("0s", 0), ("10s", 10_000), ("1m30s", 90_000), ("250ms", 250), ("1h1m1s1ms", 3_661_001)]
        {
            assert_eq!(Duration::parse(text).unwrap().get(), StdDuration::from_millis(millis), "{text}");
        }
        for bad in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "123456s",
            "1s1s1s1s1s",
            "1d",
            "1S",
            "１s",
            "40000h62000h",
        ] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_printed(text in "([0-9]{1,5}(h|m|s|ms)){1,4}") {
            if let Ok(duration) = Duration::parse(&text) {
                prop_assert_eq!(Duration::parse(&duration.to_string()), Ok(duration));
            }
        }
    }
}
