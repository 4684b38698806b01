//! What lies where under the prefix of a mesh.
//!
//! ```text
//! PREFIX/live/head                    the counts of all spaces; every transaction writes it
//! PREFIX/live/record/SPACE/KEY        a record
//! PREFIX/live/replica/lives/LEASE     a control plane that lives
//! PREFIX/live/replica/holds/NAME      what one of them holds, with its lease
//! PREFIX/log/revision/NUMBER          a revision of the configuration
//! PREFIX/log/audit/NUMBER             lines of the audit log, from this one on
//! ```
//!
//! Values are JSON. Numbers have twenty digits, so that keys are in the order of numbers.

use outrigger_wire::etcd::Keys;

use super::super::Space;
use super::session::Of;

/// The keys of one mesh.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    prefix: String,
}

impl Layout {
    pub(super) fn under(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn all(&self) -> Keys {
        Keys::under(&format!("{}/", self.prefix))
    }

    /// What is watched: the head and the records.
    pub(super) fn live(&self) -> Keys {
        Keys::under(&format!("{}/live/", self.prefix))
    }

    pub(super) fn head(&self) -> Vec<u8> {
        format!("{}/live/head", self.prefix).into_bytes()
    }

    pub(super) fn record(&self, space: Space, key: &str) -> Vec<u8> {
        format!("{}{key}", self.of_space(space)).into_bytes()
    }

    pub(super) fn records(&self, space: Space, prefix: &str) -> Keys {
        Keys::under(&format!("{}{prefix}", self.of_space(space)))
    }

    /// The space and the key of a record; `None` for what is no record of a space that is known here.
    pub(super) fn read_record(&self, key: &[u8]) -> Option<(Space, String)> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())?;
        let (space, key) = key.strip_prefix("/live/record/")?.split_once('/')?;
        let space = Space::ALL.into_iter().find(|s| s.as_str() == space)?;
        Some((space, key.to_owned()))
    }

    /// The replicas that live.
    pub(super) fn of_living(&self) -> Keys {
        Keys::under(&format!("{}/live/replica/lives/", self.prefix))
    }

    /// Everything of the replicas.
    pub(super) fn of_replicas(&self) -> Keys {
        Keys::under(&format!("{}/live/replica/", self.prefix))
    }

    pub(super) fn replica(&self, lease: i64) -> Vec<u8> {
        format!("{}/live/replica/lives/{lease:016x}", self.prefix).into_bytes()
    }

    pub(super) fn held(&self, name: &str) -> Vec<u8> {
        format!("{}/live/replica/holds/{name}", self.prefix).into_bytes()
    }

    /// What a key of the replicas says; `None` for any other.
    pub(super) fn read_replica(&self, key: &[u8]) -> Option<Of> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())?;
        match key.strip_prefix("/live/replica/")?.split_once('/')? {
            ("lives", _) => Some(Of::Replica),
            ("holds", name) => Some(Of::Held(name.to_owned())),
            _ => None,
        }
    }

    pub(super) fn revision(&self, number: u64) -> Vec<u8> {
        format!("{}/log/revision/{number:020}", self.prefix).into_bytes()
    }

    /// The revisions of `from..end`.
    pub(super) fn revisions(&self, from: u64, end: u64) -> Keys {
        Keys::between(self.revision(from), self.revision(end))
    }

    pub(super) fn audit(&self, line: u64) -> Vec<u8> {
        format!("{}/log/audit/{line:020}", self.prefix).into_bytes()
    }

    /// The lines of the audit log whose key is in `from..end`.
    pub(super) fn audit_lines(&self, from: u64, end: u64) -> Keys {
        Keys::between(self.audit(from), self.audit(end))
    }

    fn of_space(&self, space: Space) -> String {
        format!("{}/live/record/{}/", self.prefix, space.as_str())
    }
}

/// The number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key).ok()?.rsplit_once('/')?.1.parse().ok()
}

/// The lease at the end of a key.
pub(super) fn hex_of(key: &[u8]) -> Option<i64> {
    i64::from_str_radix(std::str::from_utf8(key).ok()?.rsplit_once('/')?.1, 16).ok()
}
