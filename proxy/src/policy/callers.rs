//! A bulkhead for each caller of a service, so that a noisy one can not take the whole of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_mesh::{Bulkhead as Settings, Bulkheads, ServiceName, SpiffeId};

use crate::request::bulkhead::Bulkhead;
use crate::request::places::Table;

/// The bulkheads of the callers of one service. A caller is remembered for as long as it has a connection, or something
/// under way, or there is room for more of them; where there are too many at once, the rest of them share one.
#[derive(Debug, Default)]
pub struct Callers(Mutex<HashMap<Option<SpiffeId>, Arc<Bulkhead>>>);

impl Callers {
    /// The bulkhead of `caller`, who proved nothing where that is `None`.
    pub fn bulkhead(
        &self,
        service: &ServiceName,
        caller: Option<&SpiffeId>,
        settings: Settings,
        table: &Table,
    ) -> Arc<Bulkhead> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of = caller.cloned();
        if let Some(known) = all.get(&of) {
            return Arc::clone(known);
        }
        if all.len() >= MOST {
            all.retain(|_, bulkhead| Arc::strong_count(bulkhead) > 1);
        }
        if all.len() >= MOST {
            of = None;
        }
        let known = all.entry(of).or_insert_with_key(|of| {
            let bulkhead = Bulkhead::new(settings, Bulkheads::default().max_streams);
            table.show("caller", format!("{service} {}", name(of.as_ref())), &bulkhead);
            bulkhead
        });
        Arc::clone(known)
    }
}

/// How a caller is called.
pub fn name(caller: Option<&SpiffeId>) -> String {
    caller.map_or_else(|| "unauthenticated".into(), ToString::to_string)
}

const MOST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_bounded_and_those_that_are_there_are_kept() {
        let (callers, table) = (Callers::default(), Table::default());
        let service: ServiceName = "shop/cart".parse().unwrap();
        let settings = Settings { max_in_flight: 1, max_queue: 0, ..Settings::default() };
        let id = |i: usize| -> SpiffeId { format!("spiffe://mesh.local/ns/shop/sa/a{i}").parse().unwrap() };
        let of = |i| callers.bulkhead(&service, Some(&id(i)), settings, &table);
        let (first, inside) = (of(0), of(0).try_enter().unwrap());
        for i in 1..2 * MOST {
            of(i);
        }
        assert!(callers.0.lock().unwrap().len() <= MOST);
        assert!(Arc::ptr_eq(&first, &of(0)) && of(0).try_enter().is_none());
        drop(inside);
        let all: Vec<_> = (0..2 * MOST).map(of).collect();
        assert!(callers.0.lock().unwrap().len() <= MOST + 1);
        assert!(Arc::ptr_eq(&all[2 * MOST - 1], &all[2 * MOST - 2]), "the rest share one");
    }
}
