//! All open connections of one side of a worker: how they are told to end, and what cuts those that are slow or idle.
//!
//! One task of the worker looks at all of them once a second, so that nothing here costs a timer a request. Deliberately
//! elsewhere: the protocol itself and the loop that obeys ([`crate::http::serve`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// The open connections of one side of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    open: Rc<RefCell<HashMap<u64, Rc<Control>>>>,
    next: Cell<u64>,
    state: Cell<State>,
}

impl Connections {
    /// Registers a connection for as long as the guard lives.
    pub fn enter(&self) -> Guard {
        let id = self.next.replace(self.next.get() + 1);
        let control = Rc::new(Control::new(self.state.get()));
        self.open.borrow_mut().insert(id, Rc::clone(&control));
        Guard { id, open: Rc::clone(&self.open), control }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets every connection, present and future, finish what it has and close.
    pub fn end(&self) {
        self.set(State::Ending);
    }

    /// Closes every connection at once.
    pub fn cut(&self) {
        self.set(State::Cut);
    }

    fn set(&self, state: State) {
        self.state.set(state);
        self.open.borrow().values().for_each(|c| c.set(state));
    }

    /// Cuts what has been sending a head for too long, and ends what idles for too long.
    pub fn sweep(&self) {
        let now = Instant::now();
        for control in self.open.borrow().values() {
            if control.busy.get() > 0 {
                continue;
            }
            let slow = control.head_since.get().is_some_and(|since| now - since > HEAD_TIMEOUT);
            if slow && control.http1.get() {
                control.set(State::Cut);
            } else if now - control.idle_since.get() > IDLE_TIMEOUT {
                control.set(State::Ending);
            }
        }
    }

    /// Makes room where there is none: lets go of what has idled longest, a few at a time.
    pub fn make_room(&self) {
        let now = Instant::now();
        let open = self.open.borrow();
        let idle = |c: &&Rc<Control>| c.busy.get() == 0 && now - c.idle_since.get() > IDLE_UNDER_PRESSURE;
        let mut longest: Vec<_> = open.values().filter(idle).collect();
        longest.sort_unstable_by_key(|c| c.idle_since.get());
        for control in longest.into_iter().take(AT_ONCE) {
            // Whoever has not even sent a head is owed no goodbye.
            let silent = control.http1.get() && control.head_since.get().is_some();
            control.set(if silent { State::Cut } else { State::Ending });
        }
    }
}

/// An open connection. Dropping it says that it is gone.
#[derive(Debug)]
pub struct Guard {
    id: u64,
    open: Rc<RefCell<HashMap<u64, Rc<Control>>>>,
    /// What the connection itself reads and writes of its state.
    pub(super) control: Rc<Control>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.borrow_mut().remove(&self.id);
    }
}

/// How far a connection is from its end. It only ever comes closer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It serves.
    #[default]
    Open,
    /// It finishes what it has and takes nothing new.
    Ending,
    /// It is closed at once.
    Cut,
}

/// What is known of a connection, and the way to reach the task that serves it.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) state: Cell<State>,
    waker: RefCell<Option<Waker>>,
    pub(super) http1: Cell<bool>,
    pub(super) busy: Cell<u32>,
    pub(super) head_since: Cell<Option<Instant>>,
    idle_since: Cell<Instant>,
}

impl Control {
    fn new(state: State) -> Self {
        let now = Instant::now();
        Self {
            state: Cell::new(state),
            waker: RefCell::default(),
            http1: Cell::new(true),
            busy: Cell::new(0),
            // The first head has to come in time, too.
            head_since: Cell::new(Some(now)),
            idle_since: Cell::new(now),
        }
    }

    pub(super) fn set(&self, state: State) {
        if state > self.state.get() {
            self.state.set(state);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> State {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.state.get()
    }
}

/// A request that is being answered, until the end of the answer's body.
#[derive(Debug)]
pub(super) struct Busy(Rc<Control>);

impl Busy {
    pub(super) fn new(control: &Rc<Control>) -> Self {
        control.busy.set(control.busy.get() + 1);
        control.head_since.set(None);
        Self(Rc::clone(control))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.busy.get() - 1;
        self.0.busy.set(left);
        if left == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// How long a head may take to come.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any sidecar keeps an idle connection: the side that sends is the side that lets go.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a connection may idle while others wait for its place.
const IDLE_UNDER_PRESSURE: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 64;
