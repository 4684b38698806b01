//! Whose turn it is on a connection: how many requests came, how many were answered, and what broke the rules.
//!
//! The guard below hyper and the driver above it share this: a refusal goes out after the answers of the requests before
//! it, and never into the middle of one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::Violation;

/// The requests of one HTTP/1 connection, in order.
#[derive(Debug, Default)]
pub struct Turns {
    /// Heads that were shown.
    pub(super) heads: Cell<u64>,
    begun: Cell<u64>,
    finished: Cell<u64>,
    /// Whether everything written has left this process.
    pub(super) flushed: Cell<bool>,
    /// Whether the writing side was closed.
    pub(super) closing: Cell<bool>,
    /// Whether the peer may still be sending what nobody reads.
    pub(super) unread: Cell<bool>,
    pub(super) broken: Cell<Option<Broken>>,
    pub(super) released: Cell<bool>,
    /// Whether the newest request is of HTTP/1.0.
    pub(super) http10: Cell<bool>,
    /// Who reads on once a request has been answered.
    waiting: RefCell<Option<Waker>>,
    /// Whether the beginning of a head has come, and its end has not.
    pub(super) part: Cell<bool>,
}

/// What a caller broke, and where.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// What.
    pub violation: Violation,
    /// Whether a whole head came before it: the body is at fault.
    pub in_body: bool,
    /// Whether the request's head asks for JSON.
    pub json: bool,
    /// Whether the request is a HEAD, whose answer has no body.
    pub head: bool,
}

/// What to do about a connection whose caller broke a rule.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Every earlier request has been answered: refuse this one, then close.
    Refuse(Broken),
    /// The request that broke the rule was already answered to the end: close.
    Close,
    /// Its answer is under way, and can not be ended in order: cut.
    Cut,
}

impl Turns {
    /// What is to be done now, if anything.
    pub fn verdict(&self) -> Option<Verdict> {
        let broken = self.broken.get()?;
        let (heads, begun, finished) = (self.heads.get(), self.begun.get(), self.finished.get());
        if self.closing.get() {
            return None;
        }
        let refuse = self.flushed.get().then_some(Verdict::Refuse(broken));
        match (broken.in_body, heads - begun, heads - finished) {
            (false, _, 0) | (true, 1, 1) => refuse,
            (true, 0, 0) => self.flushed.get().then_some(Verdict::Close),
            (true, 0, _) => Some(Verdict::Cut),
            // What came before it is still to be answered.
            _ => None,
        }
    }

    /// Whether the newest request is of HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.http10.get()
    }

    /// From now on the bytes are no HTTP: they pass as they are. For whoever has accepted an Upgrade or a CONNECT.
    pub fn release(&self) {
        self.released.set(true);
    }

    /// Whether the peer may still be sending what nobody reads, so that closing at once could lose it the answer.
    pub fn has_unread(&self) -> bool {
        self.unread.get() || self.broken.get().is_some()
    }

    /// Wakes the reader when the next request has been answered: nothing new needs to come for it to go on.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
    }

    /// Whether the beginning of a head has come, and its end has not: also when it came beside the request before.
    pub fn has_part(&self) -> bool {
        self.part.get()
    }

    /// Whether every request that was shown has been answered to the end.
    pub(super) fn all_finished(&self) -> bool {
        self.heads.get() == self.finished.get()
    }
}

/// A request from its head to the end of its answer.
#[derive(Debug)]
pub struct Turn(Rc<Turns>);

impl Turn {
    /// The next request's.
    pub fn new(turns: &Rc<Turns>) -> Self {
        Self(Rc::clone(turns))
    }

    /// Its answer ends the HTTP of the connection.
    pub fn release(&self) {
        self.0.release();
    }

    /// Its answer is there.
    pub fn begin(&self) {
        self.0.begun.set(self.0.begun.get() + 1);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.finished.set(self.0.finished.get() + 1);
        if let Some(waiting) = self.0.waiting.take() {
            waiting.wake();
        }
    }
}
