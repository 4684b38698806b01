//! Waiting a little for what the control plane is still to tell of services that were asked for just now.
//!
//! What waits looks at what is known, and again after every change. Looking and asking whether there is something to
//! wait for are two looks at what changes meanwhile, so their order matters: see [`look_while`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::registry::Discovery;
use crate::config::routes::RoutePlan;
use crate::error::Error;
use crate::live::LiveService;
use crate::worker::Worker;

/// How long it is waited at most.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

/// Whether a route leads to services of which it was not told yet whether they are divided, and between whom to choose: who
/// chose now would pass them over.
pub fn awaits(plan: &RoutePlan) -> bool {
    plan.targets.iter().filter_map(|target| target.service.as_ref()).any(is_awaited)
}

/// Waits for them a little, where an answer may come.
pub async fn told(worker: &Worker, plan: &RoutePlan) -> Result<(), Error> {
    while_awaited(worker, || awaits(plan)).await;
    Ok(())
}

/// The same of one service.
pub async fn told_of(worker: &Worker, service: &Arc<LiveService>) {
    while_awaited(worker, || is_awaited(service)).await;
}

async fn while_awaited(worker: &Worker, awaited: impl Fn() -> bool) {
    let registry = &worker.shared.registry;
    let may_come = || matches!(registry.discovery(), Discovery::Connecting | Discovery::Connected);
    let look = || Ok((!awaited()).then_some(()));
    // Whoever has waited goes on with what is known, be it nothing.
    let _: Result<Option<()>, Error> = look_while(registry.changed(), may_come, look).await;
}

/// Whether a service is still to be told, or its endpoints, which may come before it. That there is none, or that it has no
/// endpoint, was told as well.
fn is_awaited(service: &Arc<LiveService>) -> bool {
    let endpoints = service.endpoints.load();
    match &*service.snapshot.load() {
        None => !endpoints.complete || !endpoints.everything.is_empty(),
        Some(snapshot) => !endpoints.complete && !snapshot.is_looked_up(),
    }
}

/// Looks until something is found, as long as something `may_come` and for [`LOOKUP_PATIENCE`] at most.
pub async fn look_while<T, E>(
    mut changed: watch::Receiver<u64>,
    may_come: impl Fn() -> bool,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let end = Instant::now() + LOOKUP_PATIENCE;
    loop {
        changed.borrow_and_update();
        // Asked before it is looked. The other way round, what came in between was found by neither: not there yet for
        // the look, and nothing more to wait for.
        let is_worth_waiting = may_come();
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if !is_worth_waiting || !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    type Seen = Result<Option<u8>, Infallible>;

    #[tokio::test(start_paused = true)]
    async fn what_comes_between_two_looks_is_found() {
        // A request was refused with `no_endpoint` at the very moment at which the endpoints came.
        let (sender, changed) = watch::channel(0);
        let (has_come, looks) = (Cell::new(false), Cell::new(0));
        let look = || -> Seen {
            looks.set(looks.get() + 1);
            let seen = has_come.replace(true);
            sender.send_modify(|n| *n += 1);
            Ok(seen.then_some(7))
        };
        assert_eq!(look_while(changed, || !has_come.get(), look).await, Ok(Some(7)));
        assert_eq!(looks.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_only_for_what_may_come_and_not_for_ever() {
        let (_sender, changed) = watch::channel(0);
        let began = Instant::now();
        assert_eq!(look_while(changed.clone(), || false, || -> Seen { Ok(None) }).await, Ok(None));
        assert!(began.elapsed().is_zero());
        assert_eq!(look_while(changed, || true, || -> Seen { Ok(None) }).await, Ok(None));
        assert_eq!(began.elapsed(), LOOKUP_PATIENCE);
    }
}
