//! `outrigger-init`: redirection of an application's traffic into its sidecar.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use outrigger_init::act::{self, Failed};
use outrigger_init::args::{Arguments, Check, Command};
use outrigger_init::probe;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Apply(wanted) => act::apply(&wanted),
        Command::Check(wanted) => check(&wanted),
        Command::Remove(which) => act::remove(&which),
        Command::Print(wanted) => act::print(&wanted),
    };
    match done {
        Ok(told) => {
            // Who does not want to hear it has closed the pipe.
            let _nobody_listens = writeln!(io::stdout(), "{told}");
            ExitCode::SUCCESS
        }
        Err(failed) => {
            for line in failed.to_string().lines() {
                eprintln!("outrigger-init: {line}");
            }
            ExitCode::from(match failed {
                Failed::Differs(_) => 1,
                Failed::Usage(_) => 2,
                Failed::Impossible(_) => 3,
            })
        }
    }
}

fn check(check: &Check) -> Result<String, Failed> {
    let rules = act::check(&check.wanted)?;
    if !check.probe {
        return Ok(rules);
    }
    let seen = probe::probe(&act::proven(&check.wanted)?).map_err(Failed::Differs)?;
    Ok([vec![rules], seen].concat().join("\n"))
}
