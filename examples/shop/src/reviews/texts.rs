//! What was said about the items, newest first.

use super::proto::Review;
use crate::catalogue::Item;

/// Everything said about `item`.
pub(super) fn about(item: &Item) -> Vec<Review> {
    SAID.iter()
        .filter(|(id, ..)| *id == item.id)
        .map(|(_, author, stars, text)| Review {
            author: (*author).to_owned(),
            stars: *stars,
            text: (*text).to_owned(),
        })
        .collect()
}

static SAID: [(&str, &str, u32, &str); 20] = [
    ("anchor", "Moana", 5, "Holds in sand, folds in a blink."),
    ("anchor", "Piet", 4, "Heavy, as it should be."),
    ("bailer", "Ines", 5, "Outlived two boats."),
    ("bailer", "Koa", 5, "It bails."),
    ("bailer", "Ruth", 3, "Slightly too big for my hatch."),
    ("compass", "Tevake", 2, "The stars were there all along."),
    ("compass", "Anna", 5, "Steady in a chop."),
    ("dry-bag", "Leilani", 5, "Swam with it. Dry."),
    ("dry-bag", "Tom", 4, "The buckle squeaks."),
    ("lantern", "Mele", 4, "Bright enough to read by."),
    ("lantern", "Joost", 5, "Two nights, as promised."),
    ("lantern", "Sione", 4, "Moths agree."),
    ("paddle", "Keola", 5, "Light and quiet."),
    ("paddle", "Maria", 5, "Oil it once a year and it will last."),
    ("rope", "Hina", 4, "Floats, really."),
    ("rope", "Ben", 3, "Would like it in another colour."),
    ("rope", "Aroha", 5, "No kinks in three seasons."),
    ("sail", "Mau", 5, "Points higher than one would think."),
    ("sail", "Greta", 4, "Took an afternoon to lace."),
    ("sail", "Nainoa", 5, "Fast."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{ITEMS, find};

    #[test]
    fn somebody_said_something_about_every_item_and_about_nothing_else() {
        assert!(ITEMS.iter().all(|item| about(item).len() >= 2));
        assert!(SAID.iter().all(|(id, ..)| find(id).is_some()));
    }
}
