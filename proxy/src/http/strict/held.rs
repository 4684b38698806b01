//! Bytes that were read and may not be shown yet.

use tokio::io::ReadBuf;

/// Bytes that were read and may not be shown yet. Empty nearly always, and then without memory.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// What has been shown.
    shown: usize,
    /// What may be shown.
    free: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What may not be shown yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.free..]
    }

    /// Lets so many more be shown.
    pub(super) fn free(&mut self, count: usize) {
        self.free += count;
    }

    pub(super) fn free_all(&mut self) {
        self.free = self.bytes.len();
    }

    /// Shows what may be shown; whether there was anything.
    pub(super) fn show(&mut self, to: &mut ReadBuf<'_>) -> bool {
        let ready = &self.bytes[self.shown..self.free];
        if ready.is_empty() {
            return false;
        }
        let count = ready.len().min(to.remaining());
        to.put_slice(&ready[..count]);
        self.shown += count;
        if self.shown == self.bytes.len() {
            *self = Self::default();
        } else if self.shown == self.free {
            self.bytes.drain(..self.shown);
            (self.shown, self.free) = (0, 0);
        }
        true
    }

    /// What was never shown.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.shown)
    }
}
