//! Panics: a fault of this program, told once and counted.
//!
//! A connection that panics ends, and with it what it held; the others go on. What is logged is the place. The words of a
//! panic are logged only where they are part of the program: others are made of what was at hand, which may be a secret.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

/// Parts of this process that ended in a panic and are not begun again.
static FALLEN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
static COUNT: AtomicU64 = AtomicU64::new(0);
static WINDOW: Mutex<Option<(Instant, u32)>> = Mutex::new(None);

/// Sees to panics of this process from now on.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(told)));
}

/// How many there were.
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// Runs a part of this process that is to last. One that panics is known as [`fallen`] from then on: what it did is not done
/// any more, and whoever looks after the process is told so.
pub async fn part(name: &'static str, work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        fell(name);
    }
}

/// A part of this process has ended in a panic.
pub fn fell(name: &'static str) {
    FALLEN.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    tracing::error!(part = name, "a part of this process has ended in a panic");
}

/// The parts that have ended in a panic.
pub fn fallen() -> Vec<&'static str> {
    FALLEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn told(info: &PanicHookInfo<'_>) {
    COUNT.fetch_add(1, Relaxed);
    if !within_bound() {
        return;
    }
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let (thread, what) = (thread.name().unwrap_or("unnamed"), words(info.payload()));
    tracing::error!(place, thread, what, "a panic: this is a fault of the program");
}

/// What may be told of a panic's words.
fn words(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("its words are not told")
}

/// A fault that happens with each request does not fill the log.
fn within_bound() -> bool {
    let mut window = WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    let (began, before) =
        window.filter(|(began, _)| began.elapsed() < Duration::from_secs(1)).unwrap_or((Instant::now(), 0));
    *window = Some((began, before.saturating_add(1)));
    before < TOLD_A_SECOND
}

const TOLD_A_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_falls_is_known_and_one_that_ends_is_not() {
        let before = fallen().len();
        part("ends", async {}).await;
        part("falls", async { panic!("planted") }).await;
        assert_eq!(fallen()[before..], ["falls"]);
    }

    #[test]
    fn only_words_of_the_program_are_told() {
        let of_the_program: Box<dyn Any + Send> = Box::new("a state that can not be");
        assert_eq!(words(&*of_the_program), "a state that can not be");
        let made: Box<dyn Any + Send> = Box::new(format!("no such token: {}", "s3cr3t"));
        assert!(!words(&*made).contains("s3cr3t"));
    }
}
