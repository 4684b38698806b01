//! The command line as written. What each command does is in the file of its name.

use clap::{Parser, Subcommand};

use crate::client::Admin;
use crate::credentials::{self, Credential, Credentials, Token};
use crate::failure::Failure;
use crate::out::Format;
use crate::server::{Believed, Server};
use crate::{
    apply, audit, backup, breaker, certs, check, compile, completions, compose_setup, context, dashboard,
    delete, demo, diff, explain, failure, get, guard, history, inject, lint, log_level, login, proxy,
    rollout, run, tap, token, top, topology,
};

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
    /// The control plane's admin API; that of the last login, or else http://127.0.0.1:15080. Whoever did not log in there
    /// shows the token in OUTRIGGER_TOKEN, if any.
    #[arg(long, alias = "admin", global = true, value_name = "URL", env = "OUTRIGGER_SERVER")]
    server: Option<String>,
    /// The control plane of this name (OUTRIGGER_CONTEXT, unless a URL is given); `outrigger context list` shows them.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Why, for the audit log: with every command that changes something.
    #[arg(long, global = true, value_name = "REASON")]
    why: Option<String>,
}

impl Control {
    /// Which control plane is meant.
    pub(crate) fn server(&self, kept: &Credentials) -> Result<Server, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let url = self.server.clone().or_else(|| variable("OUTRIGGER_ADMIN"));
        let url = match (&self.context, url) {
            (Some(name), _) => Some(kept.of_context(name)?.to_owned()),
            (None, Some(url)) => Some(url),
            (None, None) => match variable("OUTRIGGER_CONTEXT") {
                Some(name) => Some(kept.of_context(&name)?.to_owned()),
                None => kept.current.clone(),
            },
        };
        let url = url.unwrap_or_else(|| "http://127.0.0.1:15080".into());
        Server::parse(&url).map_err(|why| {
            Failure::usage(format!("{url:?} is not the URL of an admin API: {why}"))
                .hint("write it as http://127.0.0.1:15080, or https://mesh.example:15080")
        })
    }

    /// It, with what proves who we are.
    pub(crate) fn admin(&self) -> Result<Admin, Failure> {
        let kept = credentials::folder().and_then(|folder| Credentials::load(&folder));
        let given = std::env::var("OUTRIGGER_TOKEN").ok().filter(|text| !text.is_empty());
        let kept = match (kept, &given) {
            (Ok(kept), _) => kept,
            // Whoever has no folder of his own, and shows a token, needs none.
            (Err(_), Some(_)) => Credentials::default(),
            (Err(failure), None) => return Err(failure),
        };
        let server = self.server(&kept)?;
        let known = kept.servers.get(&server.url()).cloned();
        let credential = match given {
            None => known,
            Some(text) => {
                let token = Token::read(&text)?;
                let pin = || token.pin().filter(|_| server.is_secure()).map(Believed::Pin);
                let believed = known.and_then(|known| known.believed).or_else(pin);
                Some(Credential { token: Some(token), certificate: None, believed })
            }
        };
        Admin::with(server, credential)?.because(self.why.as_deref())
    }
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
    /// Give one version of a service the place of another, step by step or at once, and back when it does worse.
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Say what the breaker of a service does, for a while and with a reason.
    #[command(subcommand)]
    Breaker(breaker::Breaker),
    /// Look at live requests of a service, or to one.
    Tap(tap::Tap),
    /// Show the services and how it goes with them, over and over.
    Top(top::Top),
    /// Show what the control plane logs, or change it for a while.
    LogLevel(log_level::LogLevel),
    /// Show who calls whom, and how it goes.
    Topology(topology::Topology),
    /// Certificates and what leads to them.
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Tokens of the admin API.
    #[command(subcommand)]
    Token(token::Token),
    /// Keep a token for a control plane, and be its holder from then on.
    Login(login::Login),
    /// Forget the token for a control plane.
    Logout(login::Logout),
    /// Show who the control plane takes you for.
    Whoami(login::Whoami),
    /// Names for control planes, for whoever works with several meshes.
    #[command(subcommand)]
    Context(context::Context),
    /// Show who changed what, when, from where and why; and who was refused.
    Audit(audit::Audit),
    /// Show the revisions of the configuration, or what one of them changed.
    History(history::History),
    /// Show what differs between two revisions, or what applying files would change, and for which sidecars.
    Diff(diff::Diff),
    /// Make the configuration what it was at a revision.
    Rollback(history::Rollback),
    /// Write all that the control plane keeps to a file.
    Backup(backup::Backup),
    /// Make the store of a control plane of a backup.
    Restore(backup::Restore),
    /// Compile resources without a control plane, for `outrigger-proxy --plan`.
    Compile(compile::Compile),
    /// Find what is wrong or doubtful in files, without a control plane.
    Lint(lint::Lint),
    /// Make the workloads of Kubernetes files members of the mesh, keeping everything else as it is.
    Inject(inject::Inject),
    /// Take back what `inject` did to files, byte for byte.
    Uninject(inject::Uninject),
    /// Find what is wrong in a mesh without anybody having said so: pods without sidecars, old versions, what is rejected.
    Check(check::Check),
    /// Prepare the sidecars of a Compose file.
    #[command(hide = true)]
    ComposeSetup(compose_setup::ComposeSetup),
    /// Run a command as a service of the mesh, with a sidecar beside it.
    Run(run::Run),
    /// Tell where the pages of the mesh are: services, rollouts, who calls whom, and how one comes in.
    Dashboard(dashboard::Dashboard),
    /// A whole mesh on this machine: a shop under load, a canary, restarts, and what was served and lost.
    Demo(demo::Demo),
    /// Print what a shell needs to complete commands and flags.
    Completions(completions::Completions),
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
