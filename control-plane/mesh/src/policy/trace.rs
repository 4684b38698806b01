//! How much of what begins a trace is kept.

use std::fmt;
use std::str::FromStr;

/// A share of what begins a trace, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceShare(u32);

impl TraceShare {
    /// All of it.
    pub const ALL: Self = Self(MILLION);

    /// So many millionths; `None` for more than all.
    pub fn of_millionths(millionths: u32) -> Option<Self> {
        (millionths <= MILLION).then_some(Self(millionths))
    }

    /// How many millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// From 0 to 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }
}

impl FromStr for TraceShare {
    type Err = String;

    /// Reads a percentage with at most four decimals: `1%`, `0.05%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(40).collect();
        read(text).ok_or_else(|| {
            format!("{shown:?} is no share: write a percentage from 0% to 100% with at most four decimals, like 1% or 0.05%")
        })
    }
}

fn read(text: &str) -> Option<TraceShare> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 3) || !digits(decimals, 4) {
        return None;
    }
    let (whole, part): (u32, u32) = (whole.parse().ok()?, format!("{decimals:0<4}").parse().ok()?);
    TraceShare::of_millionths(whole * PERCENT + part)
}

impl fmt::Display for TraceShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / PERCENT, self.0 % PERCENT);
        if part == 0 {
            return write!(f, "{whole}%");
        }
        let decimals = format!("{part:04}");
        write!(f, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

const MILLION: u32 = 1_000_000;
/// A percent, in millionths.
const PERCENT: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_and_reads_back_as_printed() {
        for (text, millionths) in [
            ("0%", 0),
            ("1%", 10_000),
            ("0.05%", 500),
            ("33.3%", 333_000),
            ("0.0001%", 1),
            ("100%", 1_000_000),
        ] {
            let share: TraceShare = text.parse().unwrap();
            assert_eq!((share.millionths(), share.to_string().as_str()), (millionths, text));
        }
        assert_eq!("050.10%".parse::<TraceShare>().unwrap().to_string(), "50.1%");
        for bad in
            ["", "1", "%", "100.1%", "101%", "-1%", "+1%", "1.%", ".5%", "0.00001%", "1 %", "1e1%", "9999%"]
        {
            let why = bad.parse::<TraceShare>().unwrap_err();
            assert!(why.contains("0% to 100%"), "{bad}: {why}");
        }
    }
}
