//! The change of the root as a state machine: no clock, no store, no network.
//!
//! `distribute` (everybody is told to believe both roots) → `sign` (new certificates come from the new root) → `retire`
//! (the old root is believed until nothing of it is left). Each step has a gate that holds until nobody is missing. A
//! gate that takes longer than its timeout pauses the rotation, and an operator goes on, forces it or aborts it. An abort
//! before anything was signed ends at once; later it is the way back, `withdraw`: the old root signs again, and the new
//! one is believed until nothing of it is left.
//!
//! Who is missing is counted by the `ledger`; what each step means for keys and trust is done by the `keeper`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A change of the root that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The SHA-256 of the root that was, in hex.
    pub from: String,
    /// The SHA-256 of the root that shall be.
    pub to: String,
    /// Where it is.
    pub step: Step,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub began: OffsetDateTime,
    /// When the step began, or was taken up again.
    #[serde(with = "time::serde::rfc3339")]
    pub step_began: OffsetDateTime,
    /// How long each gate may take.
    pub timeout_seconds: u64,
    /// Whether a gate took longer: nothing moves by itself then.
    pub paused: bool,
    /// The gates that were forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<Forced>,
}

/// A gate that an operator opened while somebody was missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The gate.
    pub step: Step,
    /// How many were missing.
    pub missing: usize,
}

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Both roots are believed, the old one signs. Gate: everybody who holds a certificate has acknowledged both.
    Distribute,
    /// Both are believed, the new one signs. Gate: everybody has been given a certificate of the new one.
    Sign,
    /// The same. Gate: the last certificate of the old one is over, and in use no more.
    Retire,
    /// Both are believed, the old one signs again. Gate: the last certificate of the new one is over, and in use no more.
    Withdraw,
}

impl Step {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Distribute => "distribute",
            Self::Sign => "sign",
            Self::Retire => "retire",
            Self::Withdraw => "withdraw",
        }
    }

    /// What its gate waits for.
    pub fn waits_for(self) -> &'static str {
        match self {
            Self::Distribute => "every holder of a certificate to acknowledge both roots",
            Self::Sign => "every holder of a certificate to renew it under the new root",
            Self::Retire => "the last certificate of the old root to expire, and connections by it to end",
            Self::Withdraw => "the last certificate of the new root to expire, and connections by it to end",
        }
    }
}

/// What happened to a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next step has begun.
    Entered(Step),
    /// The gate took too long.
    Paused,
    /// The new root is the only one.
    Completed,
    /// The old root is the only one.
    Aborted,
}

/// Which of the two roots signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The one that was.
    Old,
    /// The one that shall be.
    New,
}

impl Rotation {
    /// Begins at `now`.
    pub fn begin(from: String, to: String, timeout: Duration, now: OffsetDateTime) -> Self {
        Self {
            from,
            to,
            step: Step::Distribute,
            began: now,
            step_began: now,
            timeout_seconds: timeout.as_secs(),
            paused: false,
            forced: vec![],
        }
    }

    /// Looks at the gate: `missing` are not ready.
    pub fn look(&mut self, missing: usize, now: OffsetDateTime) -> Option<Event> {
        if self.paused {
            return None;
        }
        if missing == 0 {
            return Some(self.pass(now));
        }
        if now >= self.gate_ends() {
            self.paused = true;
            return Some(Event::Paused);
        }
        None
    }

    /// Opens the gate although `missing` are not ready.
    pub fn force(&mut self, missing: usize, now: OffsetDateTime) -> Event {
        self.forced.push(Forced { step: self.step, missing });
        self.pass(now)
    }

    /// Gives the gate its time again, or another.
    pub fn resume(&mut self, timeout: Option<Duration>, now: OffsetDateTime) {
        self.paused = false;
        self.step_began = now;
        if let Some(timeout) = timeout {
            self.timeout_seconds = timeout.as_secs();
        }
    }

    /// Turns back. `None` when it is on the way back already.
    pub fn abort(&mut self, now: OffsetDateTime) -> Option<Event> {
        match self.step {
            Step::Distribute => Some(Event::Aborted),
            Step::Sign | Step::Retire => Some(self.enter(Step::Withdraw, now)),
            Step::Withdraw => None,
        }
    }

    /// Which root signs.
    pub fn signer(&self) -> Signer {
        match self.step {
            Step::Distribute | Step::Withdraw => Signer::Old,
            Step::Sign | Step::Retire => Signer::New,
        }
    }

    /// The root whose certificates are to go, once one signs that is not it.
    pub fn leaving(&self) -> Option<&str> {
        match self.step {
            Step::Distribute => None,
            Step::Sign | Step::Retire => Some(&self.from),
            Step::Withdraw => Some(&self.to),
        }
    }

    /// When the gate has taken too long.
    pub fn gate_ends(&self) -> OffsetDateTime {
        let timeout = time::Duration::seconds(i64::try_from(self.timeout_seconds).unwrap_or(i64::MAX));
        self.step_began.checked_add(timeout).unwrap_or(self.step_began)
    }

    fn pass(&mut self, now: OffsetDateTime) -> Event {
        match self.step {
            Step::Distribute => self.enter(Step::Sign, now),
            Step::Sign => self.enter(Step::Retire, now),
            Step::Retire => Event::Completed,
            Step::Withdraw => Event::Aborted,
        }
    }

    fn enter(&mut self, step: Step, now: OffsetDateTime) -> Event {
        (self.step, self.step_began, self.paused) = (step, now, false);
        Event::Entered(step)
    }
}
