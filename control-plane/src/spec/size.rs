//! Sizes as Kubernetes writes them: `4096`, `64Ki`, `10Mi`, `1Gi`.

use std::fmt;

use super::written::as_text;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// Reads digits with an optional `Ki`, `Mi`, `Gi` or `Ti`.
    pub fn parse(text: &str) -> Result<Self, String> {
        read(text).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            format!(
                "{shown:?} is not a size; write a number of bytes, or one with Ki, Mi, Gi or Ti, like 10Mi"
            )
        })
    }

    /// The bytes.
    pub fn get(self) -> u64 {
        self.0
    }
}

const UNITS: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

fn read(text: &str) -> Option<u64> {
    let unit =
        UNITS.into_iter().find_map(|(unit, bits)| text.strip_suffix(unit).map(|digits| (digits, bits)));
    let (digits, bits) = unit.unwrap_or((text, 0));
    let number: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    number.checked_mul(1 << bits)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |bits: &u32| self.0 > 0 && self.0.trailing_zeros() >= *bits;
        match UNITS.iter().find(|(_, bits)| whole(bits)) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => self.0.fmt(f),
        }
    }
}

as_text!(Size);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_kubernetes_writes_them() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64Ki", 65_536), ("10Mi", 10 << 20), ("1Ti", 1 << 40)]
        {
            assert_eq!(Size::parse(text).map(Size::get), Ok(bytes), "{text}");
        }
        for bad in ["", "Ki", "1K", "1.5Mi", "-1", "+1", "1 Ki", "99999999999Ti", "1ki"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_size_reads_back_as_printed(bytes in prop_oneof![any::<u64>(), (0_u64..9999).prop_map(|n| n << 20)]) {
            prop_assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)));
        }
    }
}
