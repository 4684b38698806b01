//! `outrigger guard`: becomes another program that ends when its parent does.
//!
//! Between a fork and an exec only unsafe code can ask the kernel for the death signal. So a process of ours is
//! started as this hidden command, which asks for itself and then turns into the program: the setting survives the
//! exec, and the process id stays the same. Thus nothing outlives an `outrigger run` or `demo` that was killed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::failure::Failure;

/// What to become, and whose end is its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Guard {
    /// The process id of the parent that started this.
    #[arg(long)]
    parent: u32,
    /// Ask to end (SIGTERM) instead of ending at once (SIGKILL).
    #[arg(long)]
    gently: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The arguments that make this command of `program`; the program's own follow.
pub(crate) fn prefix(gently: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        vec!["guard".into(), "--parent".into(), std::process::id().to_string().into()];
    if gently {
        words.push("--gently".into());
    }
    words.push("--".into());
    words
}

/// Becomes the program. Returns only when that failed.
pub(crate) fn become_program(guard: &Guard) -> Failure {
    let signal = if guard.gently { Signal::TERM } else { Signal::KILL };
    if let Err(e) = set_parent_process_death_signal(Some(signal)) {
        return Failure::failed(format!("can not tie this process to its parent: {e}"));
    }
    // The parent may have gone before the kernel was asked.
    if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) != Some(guard.parent) {
        return Failure::failed("the process that started this one has gone");
    }
    let Some((program, arguments)) = guard.command.split_first() else {
        return Failure::usage("no program was given");
    };
    let error = Command::new(program).args(arguments).exec();
    Failure::failed(format!("can not start {}: {error}", program.to_string_lossy()))
}
