//! Refusals by service, caller and reason, for the reports to the control plane.
//!
//! Refusing takes a read lock for an instant, and adds to an atomic. Callers are many, so the pairs of service and caller
//! are bounded: beyond that refusals are told of the service alone, and beyond that not at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use outrigger_mesh::{Reason, RefusalKey, Report, ServiceName, Side, SpiffeId};

use crate::telemetry::by_reason::ByReason;

/// What was refused, by whom it was between.
#[derive(Debug, Default)]
pub struct RefusalTable {
    entries: RwLock<HashMap<Between, Arc<ByReason<AtomicU64>>>>,
    /// What the last delta had already told.
    told: Mutex<HashMap<RefusalKey, u64>>,
}

type Between = (Side, ServiceName, Option<SpiffeId>);

impl RefusalTable {
    /// Counts a refusal by the sidecar of the caller.
    pub fn by_caller(&self, service: &ServiceName, reason: Reason) {
        self.count(Side::Client, service, None, reason);
    }

    /// Counts a refusal by the sidecar of the service; `None` for a caller who proved nothing.
    pub fn by_service(&self, service: &ServiceName, caller: Option<&SpiffeId>, reason: Reason) {
        self.count(Side::Server, service, caller, reason);
    }

    /// What was refused since the last call. The caller keeps it until it has been delivered.
    pub fn delta(&self) -> Vec<(RefusalKey, u64)> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        for ((side, service, caller), counts) in entries.iter() {
            for (reason, count) in Reason::ALL.into_iter().zip(counts.iter()) {
                let now = count.load(Relaxed);
                if now == 0 {
                    continue;
                }
                let (side, service, caller) = (*side, service.clone(), caller.clone());
                let key = RefusalKey { side, service, caller, reason };
                let before = told.get(&key).copied().unwrap_or(0);
                // What has no room any more is told with the next report.
                if now > before && new.len() < Report::MAX_ENTRIES {
                    told.insert(key.clone(), now);
                    new.push((key, now - before));
                }
            }
        }
        new
    }

    fn count(&self, side: Side, service: &ServiceName, caller: Option<&SpiffeId>, reason: Reason) {
        let Some(counts) = self.entry((side, service.clone(), caller.cloned())) else { return };
        counts[reason as usize].fetch_add(1, Relaxed);
    }

    fn entry(&self, key: Between) -> Option<Arc<ByReason<AtomicU64>>> {
        if let Some(found) = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(Arc::clone(found));
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = |most| entries.len() < most || entries.contains_key(&key);
        let key = if has_room(MOST_PAIRS) { key } else { (key.0, key.1, None) };
        if entries.len() >= MOST_PAIRS + MOST_ALONE && !entries.contains_key(&key) {
            return None;
        }
        Some(Arc::clone(entries.entry(key).or_default()))
    }
}

/// Pairs of a service and a caller.
const MOST_PAIRS: usize = 512;
/// Services beyond that, of which callers are not told apart.
const MOST_ALONE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> SpiffeId {
        format!("spiffe://mesh.local/ns/shop/sa/a{n}").parse().unwrap()
    }

    #[test]
    fn a_refusal_is_told_once_with_its_side_service_caller_and_reason() {
        let table = RefusalTable::default();
        let cart: ServiceName = "shop/cart".parse().unwrap();
        table.by_caller(&cart, Reason::BreakerOpen);
        table.by_caller(&cart, Reason::BreakerOpen);
        table.by_service(&cart, Some(&id(1)), Reason::AuthzDenied);
        let mut told = table.delta();
        told.sort();
        let key = |side, caller, reason| RefusalKey { side, service: cart.clone(), caller, reason };
        assert_eq!(
            told,
            [
                (key(Side::Client, None, Reason::BreakerOpen), 2),
                (key(Side::Server, Some(id(1)), Reason::AuthzDenied), 1)
            ]
        );
        assert_eq!(table.delta(), []);
        table.by_caller(&cart, Reason::BreakerOpen);
        assert_eq!(table.delta(), [(key(Side::Client, None, Reason::BreakerOpen), 1)]);
    }

    #[test]
    fn callers_without_number_do_not_grow_the_table_beyond_its_bound_and_their_refusals_count() {
        let table = RefusalTable::default();
        let cart: ServiceName = "shop/cart".parse().unwrap();
        for n in 0..5_000 {
            table.by_service(&cart, Some(&id(n)), Reason::AuthzDenied);
        }
        for n in 0..5_000 {
            table.by_caller(&format!("shop/s{n}").parse().unwrap(), Reason::NoRoute);
        }
        let entries = table.entries.read().unwrap().len();
        assert_eq!(entries, MOST_PAIRS + MOST_ALONE);
        let told = table.delta();
        let of_cart = told.iter().filter(|(key, _)| key.service == cart).map(|(_, count)| count);
        assert_eq!(of_cart.sum::<u64>(), 5_000);
    }
}
