//! The command line as written. What each command does is in the file of its name.

use clap::{Parser, Subcommand};

use crate::out::Format;
use crate::{apply, breaker, certs, compile, delete, demo, explain, failure, get, guard, proxy, run};

/// The command line of the Outrigger service mesh.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, max_term_width = 110, after_help = failure::EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) control: Control,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the control plane is.
#[derive(Debug, clap::Args)]
pub(crate) struct Control {
    /// The control plane's admin API.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "OUTRIGGER_ADMIN",
        default_value = "http://127.0.0.1:15080"
    )]
    pub(crate) admin: String,
}

/// How to print.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Printed {
    /// The form of the answer.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, and it moves twice")]
pub(crate) enum Command {
    /// Write resources: all of the files' documents, or none.
    Apply(apply::Apply),
    /// Show resources of a kind, or one.
    Get(get::Get),
    /// Tell what would become of a request: its route, and what access policies say of it.
    Explain(explain::Explain),
    /// Delete resources by kind and name, or those in files.
    Delete(delete::Delete),
    /// Look at the sidecars.
    #[command(subcommand)]
    Proxy(proxy::Proxy),
    /// Say what the breaker of a service does, for a while and with a reason.
    #[command(subcommand)]
    Breaker(breaker::Breaker),
    /// Certificates and what leads to them.
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Compile resources without a control plane, for `outrigger-proxy --plan`.
    Compile(compile::Compile),
    /// Run a command as a service of the mesh, with a sidecar beside it.
    Run(run::Run),
    /// A whole mesh on this machine: a shop under load, a canary, restarts, and what was served and lost.
    Demo(demo::Demo),
    /// Become another program that ends with its parent.
    #[command(hide = true)]
    Guard(guard::Guard),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_help_tells_the_exit_codes() {
        let help = Arguments::command().render_help().to_string();
        assert!(help.contains("3  refused"), "{help}");
    }
}
