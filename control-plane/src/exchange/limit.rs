//! How often one identity may ask: many at once, then a steady rate. The table is bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use outrigger_mesh::SpiffeId;
use tokio::time::Instant;

/// What each identity may still ask.
#[derive(Default)]
pub(super) struct Limits {
    left: Mutex<HashMap<SpiffeId, Left>>,
}

#[derive(Clone, Copy)]
struct Left {
    asks: f64,
    at: Instant,
}

impl Left {
    fn at(self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.asks + since * PER_SECOND).min(AT_ONCE)
    }
}

impl Limits {
    /// Takes one, if there is one.
    pub(super) fn take(&self, who: &SpiffeId) -> bool {
        let now = Instant::now();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() >= MOST && !left.contains_key(who) {
            // Whoever has not asked for a while begins anew, as if it had never asked.
            left.retain(|_, one| one.at(now) < AT_ONCE);
            if left.len() >= MOST {
                return false;
            }
        }
        let one = left.entry(who.clone()).or_insert(Left { asks: AT_ONCE, at: now });
        let asks = one.at(now);
        let granted = asks >= 1.0;
        *one = Left { asks: if granted { asks - 1.0 } else { asks }, at: now };
        granted
    }
}

/// All instances of a service have one identity, and each asks once for a user and a destination in five minutes.
const PER_SECOND: f64 = 300.0;
const AT_ONCE: f64 = 1_000.0;
const MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_identity_uses_up_its_own_and_gets_it_back_with_time() {
        let limits = Limits::default();
        let id =
            |name: &str| -> SpiffeId { format!("spiffe://mesh.local/ns/shop/sa/{name}").parse().unwrap() };
        let many = |who: &str| (0..3_000).filter(|_| limits.take(&id(who))).count();
        assert_eq!(many("web"), 1_000);
        assert_eq!(many("cart"), 1_000, "that is the web's own matter");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(many("web"), 300);
    }
}
