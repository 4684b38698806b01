//! How many connections one worker may have open, to an endpoint and to a service: its share of what the service says.
//!
//! Each worker has connections of its own, so a limit is divided between them: together they keep to it, except that
//! each may have one. What is counted lies in `pool`.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use outrigger_mesh::{ConnectionLimits, ServiceName};

use crate::attempt::pool::{Entry, Waiters};
use crate::live::Live;

/// The connections of one worker to a service whose number is limited.
#[derive(Debug)]
pub(super) struct Group {
    /// Those who wait until there is one less.
    pub(super) waiters: Waiters,
}

impl Group {
    /// A group, with a warning where its limits can not be kept.
    pub(super) fn new(
        service: &ServiceName,
        limits: ConnectionLimits,
        live: &Live,
        worker: usize,
    ) -> Rc<Self> {
        let workers = live.workers.load(Relaxed);
        let small = |n: &u32| (*n as usize) < workers;
        if worker == 0
            && (limits.per_endpoint.is_some_and(|n| small(&n))
                || limits.per_service.is_some_and(|n| small(&n)))
        {
            tracing::warn!(
                %service, workers, ?limits,
                "a limit of connections is smaller than the number of workers, which have one each"
            );
        }
        Rc::new(Self { waiters: Waiters::default() })
    }
}

/// What of `limit` is for worker number `worker`.
pub(super) fn of_worker(limit: u32, live: &Live, worker: usize) -> usize {
    share(limit as usize, live.workers.load(Relaxed), worker)
}

/// Makes room for a connection: whether fewer than `most` are open at `entries`, if need be after one that idles was
/// closed.
pub(super) fn make_room<'a>(entries: impl Iterator<Item = &'a Rc<Entry>> + Clone, most: usize) -> bool {
    let open: usize = entries.clone().map(|entry| entry.connections()).sum();
    open < most || { entries }.any(|entry| entry.close_idle())
}

fn share(limit: usize, workers: usize, worker: usize) -> usize {
    let workers = workers.max(1);
    (limit / workers + usize::from(worker < limit % workers)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_workers_are_the_limit_and_nobody_has_none() {
        for workers in 1..6 {
            for limit in 1..30 {
                let all: usize = (0..workers).map(|worker| share(limit, workers, worker)).sum();
                assert_eq!(all, limit.max(workers));
            }
        }
    }
}
