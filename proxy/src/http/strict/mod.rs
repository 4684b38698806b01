//! Who may not be believed about where an HTTP/1 message ends: everybody, so it is judged here, on the bytes.
//!
//! hyper settles some doubtful cases before a handler can see them. These guards stand below it, between it and the
//! connection, and follow the stream by themselves: head, body by length or by chunks, next head. A head is shown to hyper
//! once it is whole and has a single reading; what breaks the rules is never shown. Nothing is copied but a head that
//! came in pieces.
//!
//! - [`head`] and [`fields`]: one head over a growing buffer, held to [`limits`]; [`chunks`]: a chunked body, byte by byte.
//! - [`request_guard`]: what callers send. A violation is answered by the connection's driver ([`crate::http::h1`]).
//! - [`response_guard`]: what upstreams answer. A violation fails the exchange and the connection.
//!
//! Deliberately elsewhere: what a request means (`canonical`, `headers`), and how a refusal looks (`reply`). The table of
//! all cases is docs/decisions/0005-who-judges-http1.md.

mod classes;
mod chunks;
mod fields;
mod head;
mod held;
mod limits;
mod request_guard;
mod response_guard;
mod turns;

#[cfg(test)]
mod tests;

use outrigger_mesh::Reason;

pub use head::{HeadReader, Progress, Request, Response};
pub use limits::{HEAD_BUFFER, Limits};
pub use request_guard::RequestGuard;
pub use response_guard::{Asked, ResponseGuard};
pub use turns::{Broken, Turn, Turns, Verdict};

/// Fields in a trailer section, to which nobody adds any.
const MAX_TRAILER_FIELDS: usize = 100;

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What the caller is told.
    pub reason: Reason,
    /// For people.
    pub detail: &'static str,
}

impl Violation {
    pub(crate) const fn bad(detail: &'static str) -> Self {
        Self { reason: Reason::BadRequest, detail }
    }

    pub(crate) const fn large(detail: &'static str) -> Self {
        Self { reason: Reason::HeaderTooLarge, detail }
    }
}
