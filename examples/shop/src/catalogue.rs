//! What the shop sells, and money.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One thing the shop sells. Only the catalogue makes items: holding one proves that it exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name in addresses and messages.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// A line about it.
    pub description: &'static str,
    /// What it costs before a version of `prices` has had its way.
    pub list_price: Cents,
}

/// An amount of money in hundredths of [`CURRENCY`]; written as text, such as `"24.90"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(pub u64);

/// The item named `id`.
pub fn find(id: &str) -> Option<&'static Item> {
    ITEMS.iter().find(|item| item.id == id)
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("not an amount such as \"24.90\""))
    }
}

fn parse(text: &str) -> Option<Cents> {
    let (whole, hundredths) = text.split_once('.')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if hundredths.len() != 2 || !digits(whole) || !digits(hundredths) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(100)?.checked_add(hundredths.parse().ok()?).map(Cents)
}

/// The one currency of the shop.
pub const CURRENCY: &str = "EUR";

/// Everything the shop sells.
pub static ITEMS: [Item; 8] = [
    Item {
        id: "anchor",
        name: "Folding anchor",
        description: "Four flukes, 3 kg, fits under a thwart.",
        list_price: Cents(3_990),
    },
    Item {
        id: "bailer",
        name: "Bailer",
        description: "Carved from one piece of wood, never the first thing to give up.",
        list_price: Cents(1_249),
    },
    Item {
        id: "compass",
        name: "Deck compass",
        description: "Liquid filled, readable by moonlight.",
        list_price: Cents(8_975),
    },
    Item {
        id: "dry-bag",
        name: "Dry bag",
        description: "20 litres of things that stay dry.",
        list_price: Cents(2_433),
    },
    Item {
        id: "lantern",
        name: "Lantern",
        description: "Seen from two miles, runs for two nights.",
        list_price: Cents(3_468),
    },
    Item {
        id: "paddle",
        name: "Paddle",
        description: "Bent shaft, ash, oiled by hand.",
        list_price: Cents(11_900),
    },
    Item {
        id: "rope",
        name: "Rope",
        description: "30 m of 8 mm, floats, does not kink.",
        list_price: Cents(1_857),
    },
    Item {
        id: "sail",
        name: "Crab claw sail",
        description: "6 square metres, laced to two spars.",
        list_price: Cents(31_542),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_survives_being_written_and_read() {
        for amount in [0, 5, 99, 100, 2_433, u64::MAX] {
            let text = serde_json::to_string(&Cents(amount)).unwrap();
            assert_eq!(serde_json::from_str::<Cents>(&text).unwrap(), Cents(amount), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "1", "1.5", "1.505", "-1.00", "+1.00", "1.+5", "1,50", "99999999999999999999.00"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_item_is_found_by_its_id() {
        assert!(ITEMS.iter().all(|item| find(item.id) == Some(item)));
        assert_eq!(find("kraken"), None);
    }
}
