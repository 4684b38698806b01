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

/// The conditions that are not met. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<Condition, String>>>);

impl Readiness {
    /// Waits for `conditions`.
    pub fn waiting_for(conditions: &[Condition]) -> Self {
        let missing = conditions.iter().map(|c| (*c, "not there yet".to_owned())).collect();
        Self(Arc::new(Mutex::new(missing)))
    }

    /// A condition is not met, and why.
    pub fn not_yet(&self, condition: Condition, why: &str) {
        self.missing().insert(condition, why.to_owned());
    }

    /// A condition is met.
    pub fn met(&self, condition: Condition) {
        self.missing().remove(&condition);
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// What is missing, in words.
    pub fn reasons(&self) -> Vec<String> {
        self.missing().iter().map(|(c, why)| format!("{}: {why}", c.as_str())).collect()
    }

    /// What of `conditions` is missing, in words.
    pub fn missing_of(&self, conditions: &[Condition]) -> Vec<String> {
        let missing = self.missing();
        let of = |(condition, why): (&Condition, &String)| {
            conditions.contains(condition).then(|| format!("{}: {why}", condition.as_str()))
        };
        missing.iter().filter_map(of).collect()
    }

    fn missing(&self) -> MutexGuard<'_, BTreeMap<Condition, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
