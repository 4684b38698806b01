//! Timers that outlive the requests they are set for.
//!
//! Nearly every request is over long before its deadline. Setting a timer for each, and taking it out again, costs more
//! than all else about deadlines; so those that were not needed are kept as they are set, and the next request takes one
//! over. One that is set too early rings, and is set to what is wanted by then: once in the length of a deadline, where it
//! was twice a request. One that is set too late is set anew at once.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timers of a worker that nobody waits for.
#[derive(Debug, Default)]
pub struct Alarms(RefCell<Vec<Pin<Box<Sleep>>>>);

impl Alarms {
    /// An alarm that is not set yet, and costs nothing until it is.
    pub fn unset(&self) -> Alarm<'_> {
        Alarm { of: self, sleep: None }
    }

    fn take(&self, at: Instant) -> Pin<Box<Sleep>> {
        let Some(mut sleep) = self.0.borrow_mut().pop() else { return Box::pin(sleep_until(at)) };
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        sleep
    }
}

/// One timer, while somebody waits for it.
#[derive(Debug)]
pub struct Alarm<'a> {
    of: &'a Alarms,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm<'_> {
    /// Ready once `at` has come.
    pub fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| self.of.take(at));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        let Some(sleep) = self.sleep.take() else { return };
        let mut kept = self.of.0.borrow_mut();
        if kept.len() < MOST {
            kept.push(sleep);
        }
    }
}

/// Each keeps the memory of the task that waited for it last until it rings.
const MOST: usize = 128;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    async fn wait(alarms: &Alarms, ms: u32) -> Duration {
        let began = Instant::now();
        let mut alarm = alarms.unset();
        poll_fn(|cx| alarm.poll(began + MS * ms, cx)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_set_for_another_rings_for_whoever_waits_now_and_in_time() {
        let alarms = Alarms::default();
        for (left, wanted) in [(20, 50), (50, 20), (30, 30)] {
            // Given up at once: it stays set.
            let at = Instant::now() + MS * left;
            let given_up = poll_fn(|cx| Poll::Ready(alarms.unset().poll(at, cx))).await;
            assert!(given_up.is_pending());
            assert_eq!(wait(&alarms, wanted).await, MS * wanted);
            assert_eq!(alarms.0.borrow().len(), 1);
        }
        assert_eq!(wait(&alarms, 7).await, MS * 7, "one that has rung is set anew");
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_at_once_each_for_its_own_time_and_no_more_are_kept_than_may_be() {
        let alarms = std::rc::Rc::new(Alarms::default());
        for _ in 0..2 {
            let waits = (0..300).map(|n| wait(&alarms, 300 - n));
            let waited = futures_util::future::join_all(waits).await;
            assert!(waited.iter().zip(0..).all(|(took, n)| *took == MS * (300 - n)), "{waited:?}");
            assert_eq!(alarms.0.borrow().len(), MOST);
        }
    }
}
