//! `outrigger guard`: becomes another program that ends when its parent does.
//!
//! Between a fork and an exec only unsafe code can ask the kernel for the death signal. So a process of ours is
//! started as this hidden command, which asks for itself and then turns into the program: the setting survives the
//! exec, and the process id stays the same. Thus nothing outlives an `outrigger run` or `demo` that was killed.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Gid, Signal, Uid, getppid, set_parent_process_death_signal};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::failure::{Doing, Failure};
use crate::netns::Placed;

/// What to become, and whose end is its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Guard {
    /// The process id of the parent that started this.
    #[arg(long)]
    parent: u32,
    /// Ask to end (SIGTERM) instead of ending at once (SIGKILL).
    #[arg(long)]
    gently: bool,
    /// The network namespace to enter.
    #[arg(long)]
    net: Option<PathBuf>,
    /// Whom to become, with --gid.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The group, and the only one.
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The arguments that make this command of `program`; the program's own follow.
pub(crate) fn prefix(gently: bool, placed: Option<&Placed>) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        vec!["guard".into(), "--parent".into(), std::process::id().to_string().into()];
    if gently {
        words.push("--gently".into());
    }
    if let Some(Placed { net, user }) = placed {
        words.extend(["--net".into(), net.into()]);
        words.extend([
            "--uid".into(),
            user.uid.to_string().into(),
            "--gid".into(),
            user.gid.to_string().into(),
        ]);
    }
    words.push("--".into());
    words
}

/// Becomes the program. Returns only when that failed.
pub(crate) fn become_program(guard: &Guard) -> Failure {
    // First: the kernel forgets the death signal of a process that becomes somebody else.
    if let Err(failure) = place(guard) {
        return failure;
    }
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

/// Enters the namespace and becomes the user, while there is one thread only.
fn place(guard: &Guard) -> Result<(), Failure> {
    if let Some(net) = &guard.net {
        let link = File::open(net).doing(format_args!("can not open {}", net.display()))?;
        let entered = move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network));
        entered.map_err(std::io::Error::from).doing("can not enter the network namespace")?;
    }
    if let (Some(uid), Some(gid)) = (guard.uid, guard.gid) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[])
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, uid))
            .map_err(std::io::Error::from)
            .doing("can not become the user")?;
    }
    Ok(())
}
