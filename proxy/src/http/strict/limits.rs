//! How long a head may be, and how many fields it may have.
//!
//! Each sidecar adds to what it passes on, so that a head within an edge's bounds must find wider ones behind it: it is
//! refused where it enters, or nowhere.

/// What heads are held to. Values, and what whoever breaks them is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest head, from its first byte to the blank line.
    pub head: usize,
    /// The most fields. Over HTTP/2 the crumbs of a cookie are one.
    pub fields: usize,
    pub(super) too_long: &'static str,
    pub(super) too_many: &'static str,
}

impl Limits {
    /// For whoever is outside of the mesh: callers, applications, strangers.
    pub const EDGE: Self = Self {
        head: 64 * 1024,
        fields: 100 - ADDED_FIELDS,
        too_long: "the head is longer than 64 KiB",
        too_many: "the message has more than 88 fields",
    };

    /// Between sidecars, which know each other. The parser behind the guard stops at 100 fields, as many applications do.
    pub const MESH: Self = Self {
        head: Self::EDGE.head + ADDED_BYTES,
        fields: 100,
        too_long: "the head is longer than 80 KiB",
        too_many: "the message has more than 100 fields",
    };

    /// The longest decoded header list (RFC 9113, section 6.5.2), for the settings of HTTP/2.
    pub fn header_list(self) -> u32 {
        u32::try_from(self.head).unwrap_or(u32::MAX)
    }
}

/// What a buffer must hold so that the guard and not the buffer finds a head too long: blank lines come before it.
pub const HEAD_BUFFER: usize = Limits::MESH.head + 1024;

/// What a sidecar may add to a head: 32 bytes a field where HTTP/1 becomes HTTP/2 (3 KiB), escapes where a path of 16 KiB
/// becomes canonical (its bytes thrice, within 16 KiB), and fields of its own.
const ADDED_BYTES: usize = 16 * 1024;
/// The attempt, the deadline, a method that an upgrade hides, four of a gateway's, what a trace and an upgrade need.
const ADDED_FIELDS: usize = 12;
