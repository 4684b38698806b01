//! The end of overrides of breakers. Sidecars end them by their own clocks; here they stop being compiled, so that a
//! sidecar that comes later is not told of them, and the audit log has a line.

use std::time::{Duration, SystemTime};

use crate::audit::{AuditEntry, Author};
use crate::compile::Touched;
use crate::world::{Entry, World};

/// No wait is longer: a clock that was set is noticed after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How long a store that does not answer is left alone.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Waits until the next override ends; for ever while there is none that does.
pub(super) async fn until_next(world: &World) {
    let open = world.all_overrides().filter(|e| !e.checked.expired);
    let Some(next) = open.filter_map(|e| e.checked.until()).min() else {
        return std::future::pending().await;
    };
    loop {
        match next.duration_since(SystemTime::now()) {
            Ok(left) if !left.is_zero() => tokio::time::sleep(left.min(LOOK_AGAIN)).await,
            _ => return,
        }
    }
}

/// Marks those whose time is over: what is touched, and what the audit log says of it.
pub(super) fn expire(world: &mut World) -> (Touched, Vec<AuditEntry>) {
    let now = SystemTime::now();
    let over: Vec<_> = world
        .all_overrides()
        .filter(|e| !e.checked.expired && e.checked.has_expired(now))
        .map(std::sync::Arc::clone)
        .collect();
    let author = Author::system("its time is over");
    let (mut touched, mut audit) = (Touched::default(), vec![]);
    for entry in over {
        let key = entry.object.key();
        audit.push(AuditEntry::new(&author, "expire", &key));
        touched.overrides.insert(key);
        let mut checked = entry.checked.clone();
        checked.expired = true;
        let (created, changed) = (entry.created, entry.changed);
        world.put_override(Entry { object: entry.object.clone(), created, changed, checked });
    }
    (touched, audit)
}
