//! What several control planes on one store know of each other.

use futures_util::future::BoxFuture;

use super::StoreError;

/// The control planes on one store. A store that one process alone can have open has none of this.
pub trait Replicas: Send + Sync + 'static {
    /// Whether this one is the one that does what only one may do: rollouts, a change of the root, taking away what nobody
    /// holds. Never two at a time, as long as their clocks run equally fast; at times none.
    fn leads(&self) -> bool;

    /// How many there are, this one included.
    fn count(&self) -> usize;

    /// Why the store does not answer, while it does not.
    fn lost(&self) -> Option<String>;

    /// Whether the others have surely given this one up, and what it holds: nothing was heard of the store for so long. Never
    /// where nobody could ever be heard.
    fn cut_off(&self) -> bool;

    /// What the others are told of this one from now on.
    fn tell(&self, said: String) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What each of the others has told last; empty: nothing yet.
    fn others(&self) -> Vec<String>;

    /// From now on this replica has these names, for as long as it lives or until another one has them.
    fn hold(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Nobody has this name any more.
    fn let_go<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Who has a name.
    fn holder(&self, name: &str) -> Holder;
}

/// Who has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This replica.
    This,
    /// Another one, which lives.
    Another,
    /// Nobody: it never was anybody's, or its replica has ended.
    Nobody,
}
