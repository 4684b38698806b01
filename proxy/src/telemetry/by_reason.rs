//! Something for each reason of a refusal.

use std::ops::Deref;

use outrigger_mesh::Reason;

/// One `T` for each reason, at the place of its number.
#[derive(Debug)]
pub struct ByReason<T>([T; Reason::ALL.len()]);

impl<T: Default> Default for ByReason<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> Deref for ByReason<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}
