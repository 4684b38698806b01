//! `outrigger`: the command line of the mesh.
//!
//! One file a command; `client` asks the admin API, `documents` reads resource files, `process` and `sidecar` start
//! and stop what runs on this machine, `demo` is a whole mesh. What a resource means is deliberately elsewhere
//! (`outrigger-control`, `spec` and `check`): this program only finds, sends and tells.

mod apply;
mod args;
mod audit;
mod backup;
mod binaries;
mod breaker;
mod certs;
mod check;
mod client;
mod compile;
mod completions;
mod compose_setup;
mod context;
mod credentials;
mod dashboard;
mod delete;
mod demo;
mod diff;
mod documents;
mod drawn;
mod events;
mod explain;
mod failure;
mod get;
mod guard;
mod history;
mod http;
mod inject;
mod kind;
mod lint;
mod log_level;
mod login;
mod netns;
mod out;
mod ports;
mod problems;
mod process;
mod proxy;
mod rollout;
mod run;
mod server;
mod sidecar;
mod signals;
mod tap;
mod token;
mod top;
mod top_routes;
mod topology;
mod transparent;
mod unified;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use owo_colors::OwoColorize;

use crate::args::{Arguments, Command};
use crate::failure::{Doing, Failure};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before any thread is started: it becomes another program.
    if let Command::Guard(guard) = &arguments.command {
        return told(&guard::become_program(guard));
    }
    match runtime().and_then(|runtime| runtime.block_on(command(arguments))) {
        Ok(code) => code,
        Err(failure) => told(&failure),
    }
}

async fn command(arguments: Arguments) -> Result<ExitCode, Failure> {
    let control = arguments.control;
    let admin = || control.admin();
    match arguments.command {
        Command::Apply(apply) => apply.run(&admin()?).await,
        Command::Get(get) => get.run(&admin()?).await,
        Command::Explain(explain) => explain.run(&admin()?).await,
        Command::Delete(delete) => delete.run(&admin()?).await,
        Command::Proxy(proxy) => proxy.run(&admin()?).await,
        Command::Rollout(rollout) => rollout.run(&admin()?).await,
        Command::Breaker(breaker) => breaker.run(&admin()?).await,
        Command::Certs(certs) => certs.run(&admin()?).await,
        Command::Token(token) => token.run(&admin()?).await,
        Command::Login(login) => login.run(&control).await,
        Command::Logout(login::Logout {}) => login::Logout::run(&control),
        Command::Whoami(whoami) => whoami.run(&admin()?).await,
        Command::Context(context) => context.run(&control),
        Command::Completions(completions) => Ok(completions.run()),
        Command::Tap(tap) => tap.run(&admin()?).await,
        Command::Top(top) => top.run(&admin()?).await,
        Command::LogLevel(level) => level.run(&admin()?).await,
        Command::Topology(topology) => topology.run(&admin()?).await,
        Command::Audit(audit) => audit.run(&admin()?).await,
        Command::History(history) => history.run(&admin()?).await,
        Command::Diff(diff) => diff.run(&admin()?).await,
        Command::Rollback(rollback) => rollback.run(&admin()?).await,
        Command::Backup(backup) => backup.run(&admin()?).await,
        Command::Restore(restore) => restore.run().await,
        Command::Compile(compile) => compile.run(),
        Command::Lint(lint) => lint.run(),
        Command::Inject(inject) => inject.run(),
        Command::Uninject(uninject) => uninject.run(),
        Command::Check(check) => check.run(&control).await,
        Command::ComposeSetup(setup) => setup.run(&admin()?).await,
        Command::Run(run) => run.run(&admin()?).await,
        Command::Dashboard(dashboard) => dashboard.run(&admin()?).await,
        Command::Demo(demo) => demo.run().await,
        Command::Guard(guard) => Err(guard::become_program(&guard)),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().doing("can not start")
}

fn told(failure: &Failure) -> ExitCode {
    out::warn(format!("{} {failure}", "error:".red().bold()));
    failure.exit().into()
}
