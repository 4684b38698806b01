//! A number with at most two decimals: a share of traffic in percent, a rate, a factor.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number in hundredths, so that equal ones are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hundredths(i32);

impl Hundredths {
    /// So many hundredths.
    pub const fn new(hundredths: i32) -> Self {
        Self(hundredths)
    }

    /// The nearest one to a number that has no more than two decimals; `None` for any other.
    pub fn of(number: f64) -> Option<Self> {
        let scaled = number * 100.0;
        let whole = scaled.round();
        // What was written with two decimals is that near, and nothing with three is.
        let near = (scaled - whole).abs() < 1e-6;
        #[allow(clippy::cast_possible_truncation, reason = "bounded right here")]
        (near && whole.abs() <= 1e8).then_some(Self(whole as i32))
    }

    /// How many hundredths: of percent, parts of 10,000.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl Serialize for Hundredths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 100 == 0 {
            serializer.serialize_i32(self.0 / 100)
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Hundredths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::of(number).ok_or_else(|| serde::de::Error::custom("it has more than two decimals"))
    }
}

impl JsonSchema for Hundredths {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Hundredths".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_with_two_decimals_is_read_exactly_and_back(hundredths in -1_000_000_i32..1_000_000) {
            let own = Hundredths::new(hundredths);
            prop_assert_eq!(Hundredths::of(own.to_string().parse().unwrap()), Some(own));
            let json = serde_json::to_string(&own).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hundredths>(&json).unwrap(), own);
        }
    }

    #[test]
    fn a_third_decimal_is_refused() {
        for bad in [0.001, 99.999, f64::NAN, f64::INFINITY, 1e12] {
            assert_eq!(Hundredths::of(bad), None, "{bad}");
        }
    }
}
