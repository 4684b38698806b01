//! The carts themselves, behind one lock that is held for a look-up and nothing more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Addition, User};
use crate::catalogue::Item;

/// All carts.
#[derive(Default)]
pub(super) struct Carts(Mutex<HashMap<User, Cart>>);

/// Why nothing more goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// This cart is full.
    #[error("a cart holds at most {MAX_PIECES} pieces")]
    Cart,
    /// There are too many carts already.
    #[error("the shop has no more than {MAX_CARTS} carts")]
    Shop,
}

/// Kinds of item in the order they came, with how many of each.
type Cart = Vec<(&'static Item, u32)>;

impl Carts {
    /// Puts something into the cart of `user` and says how many pieces it holds then.
    pub(super) fn add(&self, user: &User, addition: Addition) -> Result<u32, Full> {
        let mut carts = self.lock();
        if !carts.contains_key(user) && carts.len() >= MAX_CARTS {
            return Err(Full::Shop);
        }
        let held: u32 = carts.get(user).map_or(0, |cart| cart.iter().map(|(_, quantity)| quantity).sum());
        let pieces = held.saturating_add(addition.quantity);
        if pieces > MAX_PIECES {
            return Err(Full::Cart);
        }
        let cart = carts.entry(user.clone()).or_default();
        match cart.iter_mut().find(|(item, _)| item.id == addition.item.id) {
            Some((_, quantity)) => *quantity += addition.quantity,
            None => cart.push((addition.item, addition.quantity)),
        }
        Ok(pieces)
    }

    /// What the cart of `user` holds; a cart nobody has put anything into is empty.
    pub(super) fn of(&self, user: &User) -> Cart {
        self.lock().get(user).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<User, Cart>> {
        // A cart is never left half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many carts the shop keeps.
pub const MAX_CARTS: usize = 10_000;
/// So many pieces a cart holds.
pub const MAX_PIECES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::ITEMS;

    fn user(name: impl Into<String>) -> User {
        User::try_from(name.into()).unwrap()
    }

    fn addition(item: usize, quantity: u32) -> Addition {
        Addition { item: &ITEMS[item], quantity }
    }

    #[test]
    fn the_same_item_twice_is_one_line() {
        let carts = Carts::default();
        carts.add(&user("ada"), addition(0, 1)).unwrap();
        carts.add(&user("ada"), addition(1, 2)).unwrap();
        assert_eq!(carts.add(&user("ada"), addition(0, 3)), Ok(6));
        assert_eq!(carts.of(&user("ada")), [(&ITEMS[0], 4), (&ITEMS[1], 2)]);
        assert_eq!(carts.of(&user("bob")), []);
    }

    #[test]
    fn a_full_cart_takes_nothing_more_and_keeps_what_it_has() {
        let carts = Carts::default();
        carts.add(&user("ada"), addition(0, MAX_PIECES)).unwrap();
        assert_eq!(carts.add(&user("ada"), addition(1, 1)), Err(Full::Cart));
        assert_eq!(carts.of(&user("ada")), [(&ITEMS[0], MAX_PIECES)]);
    }

    #[test]
    fn a_full_shop_takes_no_new_cart_and_still_fills_the_old_ones() {
        let carts = Carts::default();
        for number in 0..MAX_CARTS {
            carts.add(&user(format!("user-{number}")), addition(0, 1)).unwrap();
        }
        assert_eq!(carts.add(&user("late"), addition(0, 1)), Err(Full::Shop));
        assert_eq!(carts.add(&user("user-7"), addition(0, 1)), Ok(2));
    }
}
