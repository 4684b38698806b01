//! Quantities of Kubernetes, such as `100m` or `64Mi`, as far as they have to be compared: the API server writes them in its
//! own form, and one that only looks otherwise is no change.

use std::str::FromStr;

/// An amount, exact to a billionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

/// The text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoQuantity;

const NANOS: i128 = 1_000_000_000;
/// More digits than any machine needs, and few enough that nothing overflows.
const MOST_DIGITS: usize = 18;

impl Quantity {
    pub(crate) fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl FromStr for Quantity {
    type Err = NoQuantity;

    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = whole.len() + part.len();
        if digits == 0 || digits > MOST_DIGITS || part.contains('.') {
            return Err(NoQuantity);
        }
        let units: i128 = format!("{whole}{part}").parse().map_err(|_| NoQuantity)?;
        let places = u32::try_from(part.len()).map_err(|_| NoQuantity)?;
        let scale = 10_i128.checked_pow(places).ok_or(NoQuantity)?;
        let (up, down) = factor(suffix).ok_or(NoQuantity)?;
        let nanos = units.checked_mul(up).and_then(|n| n.checked_mul(NANOS)).ok_or(NoQuantity)?;
        let divisor = scale.checked_mul(down).ok_or(NoQuantity)?;
        // What is finer than a billionth is rounded up, as Kubernetes does.
        Ok(Self(nanos.div_euclid(divisor) + i128::from(nanos.rem_euclid(divisor) != 0)))
    }
}

/// By what the suffix multiplies, and by what it divides.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANOS),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANOS, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.unsigned_abs() <= 18)?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    })
}

/// Whether two texts are the same amount.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<Quantity>(), b.parse::<Quantity>()), (Ok(a), Ok(b)) if a == b)
}

/// Whether `request` is more than `limit`.
pub(crate) fn is_above(request: &str, limit: &str) -> bool {
    matches!((request.parse::<Quantity>(), limit.parse::<Quantity>()), (Ok(r), Ok(l)) if r > l)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    #[test]
    fn amounts_are_equal_however_they_are_written() {
        let equal = [
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1Ki", "1024"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            (".5", "500m"),
        ];
        for (a, b) in equal {
            assert!(same(a, b), "{a} {b}");
        }
        assert!(!same("1M", "1Mi") && !same("x", "y") && same("x", "x"));
        assert!("64Mi".parse::<Quantity>().unwrap() < "1Gi".parse().unwrap());
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in
            ["", ".", "1.2.3", "m", "1kk", "-1", "1 Mi", "1e99", "1ex", "9999999999999999999", "\u{661}"]
        {
            assert_eq!(bad.parse::<Quantity>(), Err(NoQuantity), "{bad}");
        }
    }
}
