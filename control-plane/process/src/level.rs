//! What is logged, and for how long: a filter that somebody sets holds for a time, and then the one of the start is in
//! force again. Nobody has to remember that they turned a log up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Puts a filter into force; an error says what is wrong with it.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What is logged.
pub struct LogLevel {
    base: String,
    set: SetFilter,
    now: Mutex<Option<(String, Instant)>>,
    changed: Notify,
}

impl LogLevel {
    /// The filter of the start is in force.
    pub fn new(base: &str, set: SetFilter) -> Self {
        Self { base: base.to_owned(), set, now: Mutex::default(), changed: Notify::new() }
    }

    /// Logs by `filter` for as long as is said. An error says what is wrong, and nothing has changed.
    pub fn change(&self, filter: &str, lasting: Duration) -> Result<(), String> {
        if filter.is_empty() || filter.len() > LONGEST_FILTER {
            return Err(format!("a filter has 1 to {LONGEST_FILTER} characters: info, or info,h2=debug"));
        }
        if lasting.is_zero() || lasting > LONGEST {
            return Err("it holds for more than nothing and for 24h at most".into());
        }
        let mut now = self.now();
        (self.set)(filter)?;
        *now = Some((filter.to_owned(), Instant::now() + lasting));
        drop(now);
        self.changed.notify_one();
        tracing::info!(filter, seconds = lasting.as_secs(), "what is logged was changed");
        Ok(())
    }

    /// The filter of the start is in force again.
    pub fn reset(&self) -> Result<(), String> {
        let mut now = self.now();
        (self.set)(&self.base)?;
        *now = None;
        Ok(())
    }

    /// What is in force, and for how long.
    pub fn told(&self) -> Value {
        let now = self.now();
        let Some((filter, until)) = &*now else {
            return json!({ "filter": self.base, "atStart": self.base });
        };
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        json!({ "filter": filter, "atStart": self.base, "endsInSeconds": left })
    }

    /// Sees to it that what was set ends. To be run beside everything else.
    pub async fn keep(&self) {
        loop {
            let until = self.now().as_ref().map(|(_, until)| *until);
            let Some(until) = until else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(until) => match self.reset() {
                    Ok(()) => tracing::info!(filter = self.base, "what is logged is as at the start again"),
                    Err(why) => tracing::warn!(why, "what is logged can not be as at the start again"),
                },
            }
        }
    }

    fn now(&self) -> MutexGuard<'_, Option<(String, Instant)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a filter holds where nobody says.
pub const USUAL: Duration = Duration::from_mins(10);
const LONGEST: Duration = Duration::from_hours(24);
const LONGEST_FILTER: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_filter_holds_for_its_time_and_the_last_one_counts() {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let (told, notes) = (Arc::new(Notify::new()), Arc::clone(&noted));
        let tell = Arc::clone(&told);
        let set = move |filter: &str| {
            if filter.contains('!') {
                return Err("no filter".to_owned());
            }
            notes.lock().unwrap().push((filter.to_owned(), Instant::now()));
            tell.notify_one();
            Ok(())
        };
        let level = Arc::new(LogLevel::new("info", Box::new(set)));
        let kept = Arc::clone(&level);
        let keeper = tokio::spawn(async move { kept.keep().await });
        let began = Instant::now();
        level.change("debug", Duration::from_secs(600)).unwrap();
        level.change("trace", Duration::from_secs(60)).unwrap();
        assert_eq!(level.told()["filter"], "trace");
        assert_eq!(level.told()["endsInSeconds"], 60);
        for (bad, lasting) in [("!", USUAL), ("", USUAL), ("info", Duration::ZERO), ("info", LONGEST * 2)] {
            assert!(level.change(bad, lasting).is_err(), "{bad} {lasting:?}");
        }
        assert_eq!(level.told()["filter"], "trace");
        told.notified().await;
        told.notified().await;
        let last = noted.lock().unwrap().last().cloned().unwrap();
        assert_eq!((last.0.as_str(), last.1 - began), ("info", Duration::from_secs(60)));
        assert_eq!(level.told(), json!({ "filter": "info", "atStart": "info" }));
        keeper.abort();
    }
}
