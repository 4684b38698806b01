//! `outrigger-proxy leave`: the hook before the end of a sidecar that is no native one (`preStop`), where it and its
//! application are told to end together.
//!
//! It has the sidecar withdraw its instance and finish what comes in, and returns when the application has gone: only then is
//! the sidecar told to end, so that the application's last calls have a sidecar. That the application has gone is seen in the
//! network that they share, in which nobody but the sidecar has a socket any more. Of an application that has none for a
//! while although it is there nothing can be seen; that is what `--calm` is for.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::beside::Beside;
use crate::settings::duration;

/// Withdraws the sidecar's instance and waits until its application has gone. Exit code 0: it has, or the time is over. 1: the
/// sidecar does not answer.
#[derive(Debug, Parser)]
#[command(name = "outrigger-proxy leave")]
pub struct Leave {
    /// How long to wait for the application.
    #[arg(long, default_value = "28s", value_parser = duration)]
    timeout: Duration,
    /// For how long nobody but the sidecar has to have had a socket before the application is taken for gone.
    #[arg(long, default_value = "3s", value_parser = duration)]
    calm: Duration,
    /// Where the kernel tells of this network's sockets.
    #[arg(long, hide = true, default_value = "/proc/net")]
    sockets: PathBuf,
    #[command(flatten)]
    sidecar: Beside,
}

impl Leave {
    /// Leaves. The error is why the sidecar could not be asked.
    pub fn run(&self) -> Result<(), String> {
        let until = Instant::now() + self.timeout;
        self.sidecar.ask("POST /drain")?;
        let uid = rustix::process::getuid().as_raw();
        let mut alone: Option<Instant> = None;
        while Instant::now() < until {
            let others = TABLES.iter().any(|table| has_others(&self.sockets.join(table), uid));
            alone = if others { None } else { alone.or_else(|| Some(Instant::now())) };
            if alone.is_some_and(|since| since.elapsed() >= self.calm) {
                break;
            }
            std::thread::sleep(BETWEEN);
        }
        Ok(())
    }
}

/// The connections and listeners of this network namespace, both families.
const TABLES: [&str; 2] = ["tcp", "tcp6"];
const BETWEEN: Duration = Duration::from_millis(100);

/// Whether anybody but the user `uid` has a socket. A table that is not there has none: a kernel without IPv6.
fn has_others(table: &Path, uid: u32) -> bool {
    let Ok(file) = std::fs::File::open(table) else { return false };
    BufReader::new(file).lines().skip(1).map_while(Result::ok).any(|line| is_of_another(&line, uid))
}

/// One line of the kernel's table. What nobody holds any more, and only lingers, has no inode.
fn is_of_another(line: &str, uid: u32) -> bool {
    let mut words = line.split_ascii_whitespace().skip(USER);
    let (user, inode) = (words.next(), words.nth(1));
    user.is_some_and(|user| user.parse() != Ok(uid)) && inode.is_some_and(|inode| inode != "0")
}

/// Which word of a line is the user's number; two behind it is the inode.
const USER: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_others_are_told_from_those_of_the_sidecar_and_of_nobody() {
        let listening = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0 100 0 0 10 0";
        assert!(is_of_another(listening, 15_001));
        assert!(!is_of_another(listening, 1000), "the sidecar's own");
        let lingering = "   1: 0100007F:1F90 0100007F:C350 06 00000000:00000000 03:00000E10 00000000     0        0 0 3 0";
        assert!(!is_of_another(lingering, 15_001), "TIME_WAIT is nobody's");
        for odd in ["", "0: a b c", "   0: 0 0 0A 0 0 0 x"] {
            assert!(!is_of_another(odd, 1), "{odd:?}");
        }
    }

    #[test]
    fn this_process_is_seen_in_the_kernels_own_table() {
        let _listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uid = rustix::process::getuid().as_raw();
        assert!(has_others(Path::new("/proc/net/tcp"), uid.wrapping_add(1)));
        assert!(!has_others(Path::new("/proc/net/none"), uid));
    }
}
