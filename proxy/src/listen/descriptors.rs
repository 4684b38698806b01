//! File descriptors: who may use them up to where, and what is done when they run out.
//!
//! The system hands out the lowest number that is free, so that numbers can be shared out and nothing needs to be
//! counted: connections that are served have the low ones, connections that are made to others go beyond, and the
//! highest are for the admin surface, the control plane and files. Where the system itself says that there are none
//! (the limit was lowered, or the whole machine is out), accepting pauses and admin lives on [`Spare`] ones.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, which is ours to do, and shares out what there is. To be called before anything
/// is opened.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!("the limit of file descriptors can not be raised to the hard limit");
    }
    if limit() < SMALLEST_LIMIT {
        let limit = limit();
        tracing::warn!(limit, "so few file descriptors can not be enough: allow at least {SMALLEST_LIMIT}");
    }
    ceilings();
}

/// Whether `accepted` has one of the numbers that are kept for connections to others.
pub fn is_beyond_accepting(accepted: &impl AsRawFd) -> bool {
    accepted.as_raw_fd() >= ceilings().accept
}

/// The stream under a number that served connections may have. `Err` gives it back while there is none.
pub fn settle(stream: TcpStream) -> Result<TcpStream, TcpStream> {
    match rustix::io::fcntl_dupfd_cloexec(&stream, 0) {
        Ok(lowest) if !is_beyond_accepting(&lowest) => Ok(lowest.into()),
        _ => Err(stream),
    }
}

/// Whether `socket`, about to connect, is one of those that are kept for admin and the control plane.
pub fn is_beyond_connecting(socket: &impl AsRawFd) -> bool {
    socket.as_raw_fd() >= ceilings().connect
}

/// Whether this machine or process is out of something, as opposed to a peer that failed.
pub fn is_exhaustion(error: &io::Error) -> bool {
    let known = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| known.iter().any(|e| e.raw_os_error() == code))
}

/// How many are open, as far as the system tells, which takes one.
pub fn open() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// How many there may be.
pub fn limit() -> RawFd {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|n| RawFd::try_from(n).ok()).unwrap_or(RawFd::MAX)
}

/// Descriptors held open for nothing, to be given up when somebody must be heard although there are none.
#[derive(Debug, Default)]
pub struct Spare(Vec<OwnedFd>);

impl Spare {
    /// As many as can be had.
    pub fn new() -> Self {
        let mut spare = Self::default();
        spare.refill();
        spare
    }

    /// Gives one up, so that another can be opened. Says whether there was one.
    pub fn give_up(&mut self) -> bool {
        self.0.pop().is_some()
    }

    /// Takes back what was given up, as far as it can be had.
    pub fn refill(&mut self) {
        while self.0.len() < SPARE {
            let Ok(file) = File::open("/dev/null") else { return };
            self.0.push(file.into());
        }
    }
}

/// The first number that is not for accepting, and not for connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ceilings {
    accept: RawFd,
    connect: RawFd,
}

impl Ceilings {
    fn of(limit: RawFd) -> Self {
        let connect = limit - (limit / 8).clamp(SMALLEST_RESERVE, LARGEST_RESERVE);
        // Whatever is accepted may need a connection of its own to go on, but most share one.
        Self { accept: connect - limit / 4, connect }
    }
}

fn ceilings() -> Ceilings {
    static OF_PROCESS: OnceLock<Ceilings> = OnceLock::new();
    *OF_PROCESS.get_or_init(|| Ceilings::of(limit()))
}

const SMALLEST_LIMIT: RawFd = 256;
const SMALLEST_RESERVE: RawFd = 16;
const LARGEST_RESERVE: RawFd = 256;
/// Each is one more request to admin at the same time.
const SPARE: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn accepting_stops_before_connecting_and_connecting_before_the_end(limit in 64..RawFd::MAX) {
            let Ceilings { accept, connect } = Ceilings::of(limit);
            prop_assert!(0 < accept && accept + 16 <= connect && connect + 16 <= limit);
        }
    }

    #[test]
    fn a_spare_one_is_given_up_once_and_taken_back() {
        let mut spare = Spare::new();
        assert_eq!((0..10).filter(|_| spare.give_up()).count(), SPARE);
        spare.refill();
        assert!(spare.give_up());
    }

    #[test]
    fn being_out_of_descriptors_is_not_the_failure_of_a_peer() {
        assert!(is_exhaustion(&Errno::MFILE.into()));
        assert!(!is_exhaustion(&Errno::CONNREFUSED.into()));
    }
}
