//! Whether the sidecar can serve, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What must be there before traffic is sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The ports are bound.
    Listeners,
    /// There is a valid identity.
    Identity,
    /// There is configuration: from the control plane, the disk copy or a plan.
    Configuration,
    /// The instance is registered.
    Registration,
}

impl Condition {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Identity => "identity",
            Self::Configuration => "configuration",
            Self::Registration => "registration",
        }
    }
}

/// The conditions, each with why it is not met as long as it is not. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Conditions>>);

type Conditions = BTreeMap<Condition, Option<String>>;

impl Readiness {
    /// Waits for `conditions`.
    pub fn waiting_for(conditions: &[Condition]) -> Self {
        let missing = conditions.iter().map(|c| (*c, Some("not there yet".to_owned()))).collect();
        Self(Arc::new(Mutex::new(missing)))
    }

    /// A condition is not met, and why.
    pub fn not_yet(&self, condition: Condition, why: &str) {
        self.all().insert(condition, Some(why.to_owned()));
    }

    /// A condition is met.
    pub fn met(&self, condition: Condition) {
        self.all().insert(condition, None);
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.all().values().all(Option::is_none)
    }

    /// Each condition, and why it is not met if it is not.
    pub fn conditions(&self) -> Vec<(Condition, Option<String>)> {
        self.all().iter().map(|(condition, why)| (*condition, why.clone())).collect()
    }

    /// What is missing, in words.
    pub fn reasons(&self) -> Vec<String> {
        self.in_words(|_| true)
    }

    /// What of `conditions` is missing, in words.
    pub fn missing_of(&self, conditions: &[Condition]) -> Vec<String> {
        self.in_words(|condition| conditions.contains(&condition))
    }

    fn in_words(&self, meant: impl Fn(Condition) -> bool) -> Vec<String> {
        let all = self.all();
        let missing = all.iter().filter(|(condition, _)| meant(**condition));
        missing.filter_map(|(c, why)| Some(format!("{}: {}", c.as_str(), why.as_deref()?))).collect()
    }

    fn all(&self) -> MutexGuard<'_, Conditions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
