//! All of a store as a value.

use super::{AuditLine, Committed, Record, Revision, Space};

/// Everything that a store keeps, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// The count of each space.
    pub counts: Committed,
    /// The records of all spaces, by space and key.
    pub records: Vec<(Space, String, Record)>,
    /// The revisions that are kept, the oldest first.
    pub revisions: Vec<Revision>,
    /// The lines of the audit log that are kept, the oldest first.
    pub audit: Vec<AuditLine>,
}
