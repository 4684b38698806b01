//! Memory near its limit: what comes new is refused with a reason, so that the process is not killed with all that is
//! under way.
//!
//! What counts is the memory of this process against the limit of its control group, or the one that was set: what it has
//! written to, not the pages of its program, which the system takes back by itself when it needs room. Looking costs one
//! small read ten times a second, on a file that is kept open, as there may be no descriptor left for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use outrigger_mesh::Reason;

use crate::error::Error;
use crate::live::Live;

/// Whether this process refuses what comes new.
#[derive(Debug, Default)]
pub struct Overload {
    shedding: AtomicBool,
    /// Times that it began to.
    episodes: AtomicU64,
}

impl Overload {
    /// Whether a request may begin.
    pub fn check(&self) -> Result<(), Error> {
        if self.shedding.load(Relaxed) {
            return Err(Error::refused(Reason::Overloaded, "the memory of this sidecar is near its limit"));
        }
        Ok(())
    }

    /// Times that it began to refuse.
    pub fn episodes(&self) -> u64 {
        self.episodes.load(Relaxed)
    }

    fn look(&self, used: u64, limit: u64) {
        let share = |percent: u64| limit / 100 * percent;
        let before = self.shedding.load(Relaxed);
        let now = used >= if before { share(CALM) } else { share(NEAR) };
        if now == before {
            return;
        }
        self.shedding.store(now, Relaxed);
        if now {
            self.episodes.fetch_add(1, Relaxed);
            tracing::warn!(used, limit, "memory is near its limit: new requests are refused");
        } else {
            tracing::info!(used, limit, "memory is well below its limit again");
        }
    }
}

/// Keeps an eye on the memory of this process. Returns at once where the system does not tell it.
pub async fn watch(live: Arc<Live>, limit: u64) {
    let Ok(file) = File::open("/proc/self/statm") else {
        return tracing::warn!("the own memory can not be seen, so that nothing is refused when it runs out");
    };
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        if let Ok(used) = own(&file) {
            live.overload.look(used, limit);
        }
        if live.overload.check().is_err() {
            give_back();
        }
    }
}

/// A limit of memory in bytes, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// Reads a limit as it is written: `64MiB`, `none`.
pub fn parse(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let bad = || format!("{text:?} is no amount of memory: write 64MiB, 1GiB, a number of bytes, or none");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let unit = match &text[digits..] {
        "" => 1,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        _ => return Err(bad()),
    };
    number.checked_mul(unit).filter(|n| *n > 0).map(|n| Limit(Some(n))).ok_or_else(bad)
}

/// The limit of this process's control group, the lowest on its way up.
pub fn limit_of_group() -> Limit {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Limit(groups.lines().filter_map(|line| limit_of(line, Path::new("/sys/fs/cgroup"))).min())
}

/// The limit that a line of /proc/self/cgroup leads to (`0::/path`, or `4:memory:/path` in the older version).
fn limit_of(line: &str, root: &Path) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (root, name) = match controllers {
        "" => (root.to_path_buf(), "memory.max"),
        "memory" => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    // Inside a container the path may be that of the host, and only the root is to be seen.
    let way = PathBuf::from(path.trim_start_matches('/'));
    let limits = way.ancestors().filter_map(|folder| {
        let text = std::fs::read_to_string(root.join(folder).join(name)).ok()?;
        text.trim().parse::<u64>().ok().filter(|limit| *limit < NO_LIMIT)
    });
    limits.min()
}

/// What is resident and not backed by a file, in bytes.
fn own(statm: &File) -> io::Result<u64> {
    let mut text = [0; 128];
    let n = statm.read_at(&mut text, 0)?;
    let text = std::str::from_utf8(&text[..n]).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut numbers = text.split(' ').map_while(|number| number.parse::<u64>().ok());
    let pages = (|| {
        let (_size, resident, shared) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(resident.saturating_sub(shared))
    })();
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * u64::try_from(rustix::param::page_size()).unwrap_or(4096))
}

/// What was freed counts as used until the allocator lets go of it, which it does not do by itself in time.
#[allow(unsafe_code, reason = "a function of the C library that takes a number and touches nothing of ours")]
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            safe fn malloc_trim(keep: usize) -> i32;
        }
        malloc_trim(0);
    }
}

/// In percent of the limit: where refusing begins, and below which it ends.
const NEAR: u64 = 90;
const CALM: u64 = 80;
const EVERY: Duration = Duration::from_millis(100);
/// The older version of control groups writes a very large number where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_near_the_limit_and_ends_well_below() {
        let overload = Overload::default();
        let mut refuses = |used| {
            overload.look(used, 1_000);
            overload.check().is_err()
        };
        assert_eq!([899, 900, 850, 800].map(&mut refuses), [false, true, true, true]);
        assert_eq!([799, 899].map(&mut refuses), [false, false]);
        assert_eq!(overload.episodes(), 1);
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pods/one/memory.max", "max\n");
        write("pods/memory.max", "5000\n");
        write("memory/pods/one/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_of("0::/pods/one", root.path()), Some(5_000));
        assert_eq!(limit_of("4:memory:/pods/one", root.path()), None);
        write("memory/memory.limit_in_bytes", "7000\n");
        assert_eq!(limit_of("4:memory:/not/seen/here", root.path()), Some(7_000));
        assert_eq!(limit_of("3:cpu:/pods/one", root.path()), None);
    }

    #[test]
    fn an_amount_of_memory_has_a_unit_or_is_none() {
        assert_eq!(parse("64MiB"), Ok(Limit(Some(64 << 20))));
        assert_eq!(parse("none"), Ok(Limit(None)));
        for bad in ["", "0", "MiB", "64MB", "-1", "99999999999GiB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_own_memory_is_told() {
        let used = own(&File::open("/proc/self/statm").unwrap()).unwrap();
        assert!((1 << 20..1 << 40).contains(&used), "{used}");
    }
}
