//! `outrigger run`: a command as a service of the mesh, with a sidecar beside it.
//!
//! The order of the end is what keeps requests whole: the sidecar withdraws the instance while the application still
//! serves, then the application is asked to end while its sidecar still carries its calls, then the sidecar ends.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use owo_colors::OwoColorize;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::certs;
use crate::client::Admin;
use crate::failure::{Doing, Failure};
use crate::netns::Placed;
use crate::out;
use crate::ports;
use crate::process::{Guarded, Launch, Process};
use crate::sidecar::{Settings, Sidecar};
use crate::signals::EndSignals;
use crate::transparent::{Place, Transparent};

/// Run a command as a service of the mesh, with a sidecar beside it.
///
/// The command finds in OUTRIGGER_OUTBOUND where it sends requests to other services (their name goes into Host), and
/// in PORT where to listen; with --transparent it needs to know neither, and calls any address. SIGTERM withdraws the instance, lets it finish, ends the
/// command and then the sidecar; a second one ends everything at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The service it is an instance of.
    #[arg(long)]
    service: String,
    /// The namespace of the service.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// Who it is, where that is not named like the service.
    #[arg(long)]
    service_account: Option<String>,
    /// The version of this instance.
    #[arg(long)]
    version: Option<String>,
    /// The port on 127.0.0.1 where the command listens; 0: any that is free.
    #[arg(long, env = "PORT", default_value_t = 0)]
    port: u16,
    /// The control plane's push address.
    #[arg(long, default_value = "127.0.0.1:15010", env = "OUTRIGGER_CONTROL")]
    control: SocketAddr,
    /// The mesh's trust domain.
    #[arg(long, default_value = "mesh.local", env = "OUTRIGGER_TRUST_DOMAIN")]
    trust_domain: String,
    /// A join token; without it one is asked of the admin API.
    #[arg(long, env = "OUTRIGGER_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// Where the sidecar keeps key, certificate, snapshot and log; without it a folder that is gone at the end.
    #[arg(long)]
    data: Option<PathBuf>,
    /// How long to let requests finish at the end, in seconds.
    #[arg(long, default_value_t = 30)]
    drain_timeout: u64,
    /// What the sidecar logs, as `info,proxy=debug`.
    #[arg(long, default_value = "info")]
    log: String,
    /// A fixed local port for another service: cart=9001. May be repeated.
    #[arg(long, value_name = "SERVICE=PORT")]
    upstream: Vec<String>,
    #[command(flatten)]
    interception: Transparent,
    /// The command, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Run {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let mut signals = EndSignals::listen()?;
        let binaries = Binaries::find()?;
        let (folder, _gone_at_the_end) = self.folder()?;
        let mut settings = self.settings(&binaries, folder)?;
        let place = self.interception.prepare(&binaries, &mut settings).await?;

        let guarded = Guarded::Asked(binaries.outrigger().to_owned());
        let mut sidecar = tokio::select! {
            started = Sidecar::start_anywhere(&mut settings, async || self.token(admin).await, &guarded, START_WITHIN) => started?,
            () = signals.next() => return Ok(ExitCode::from(SIGNALLED)),
        };
        self.tell(&sidecar, &settings);
        let mut application = self.application(&sidecar, &settings, guarded, place.as_ref())?;

        let status = tokio::select! {
            ended = application.wait() => ended.doing("can not wait for the command")?,
            _ = sidecar.process.wait() => return Err(sidecar_gone(&sidecar, &mut application).await),
            () = signals.next() => tokio::select! {
                status = self.end(&sidecar, &mut application) => status?,
                () = signals.next() => {
                    application.kill().await;
                    sidecar.process.kill().await;
                    return Ok(ExitCode::from(SIGNALLED));
                }
            },
        };
        sidecar.stop(AFTER_THE_COMMAND).await;
        Ok(code_of(status))
    }

    /// Withdraws first, then ends the command.
    async fn end(&self, sidecar: &Sidecar, application: &mut Process) -> Result<ExitStatus, Failure> {
        let drained = sidecar.withdraw(Duration::from_secs(self.drain_timeout));
        tokio::select! {
            drained = drained => if let Err(why) = drained {
                out::warn(format!("the sidecar could not drain: {why}"));
            },
            // A Ctrl-C in a terminal reaches the command too; there is nothing to wait for then.
            status = application.wait() => return status.doing("can not wait for the command"),
        }
        application.stop(COMMAND_GRACE).await;
        application.wait().await.doing("can not wait for the command")
    }

    async fn token(&self, admin: &Admin) -> Result<Option<String>, Failure> {
        if self.join_token.is_some() {
            return Ok(self.join_token.clone());
        }
        let account = self.service_account.as_deref().unwrap_or(&self.service);
        match admin.join_token(&self.namespace, account, "5m").await {
            Ok(made) => certs::token(&made).map(|token| Some(token.to_owned())),
            // The folder of an earlier run may hold a certificate that is still good; the sidecar tells if not.
            Err(failure) if self.data.as_ref().is_some_and(|folder| folder.exists()) => {
                out::warn(format!("no join token: {}", failure.message()));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn folder(&self) -> Result<(PathBuf, Option<TempDir>), Failure> {
        if let Some(folder) = &self.data {
            return Ok((folder.clone(), None));
        }
        let folder =
            tempfile::Builder::new().prefix("outrigger-run-").tempdir().doing("can not make a folder")?;
        Ok((folder.path().to_owned(), Some(folder)))
    }

    fn settings(&self, binaries: &Binaries, data: PathBuf) -> Result<Settings, Failure> {
        Ok(Settings {
            program: binaries.program("outrigger-proxy")?,
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            service_account: self.service_account.clone(),
            version: self.version.clone(),
            // The sidecar, which starts first, takes ports of the system's choice, and so does everybody else.
            port: if self.port == 0 { ports::lasting()? } else { self.port },
            control: self.control,
            trust_domain: self.trust_domain.clone(),
            data,
            outbound: ports::preferred(15_001),
            inbound: ports::preferred(15_006),
            admin: ports::preferred(15_000),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            log: self.log.clone(),
            placed: None,
            more: self.upstream.iter().flat_map(|u| ["--upstream".to_owned(), u.clone()]).collect(),
        })
    }

    fn application(
        &self,
        sidecar: &Sidecar,
        settings: &Settings,
        guarded: Guarded,
        place: Option<&Place>,
    ) -> Result<Process, Failure> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Failure::usage("no command was given"));
        };
        let mut launch = Launch::new(&self.service, program);
        launch.arguments = arguments.to_vec();
        launch = launch
            .env("OUTRIGGER_OUTBOUND", sidecar.ready.outbound.to_string())
            .env("PORT", settings.port.to_string());
        // The sidecar's secret is none of its application's business.
        launch.withheld.push("OUTRIGGER_JOIN_TOKEN");
        // A program in a group of its own may not read from the terminal.
        launch.own_group = !std::io::IsTerminal::is_terminal(&std::io::stdin());
        launch.guarded = guarded;
        launch.placed = place.map(|p| Placed { net: p.namespace.path().to_owned(), user: p.command });
        launch.start()
    }

    fn tell(&self, sidecar: &Sidecar, settings: &Settings) {
        let Self { namespace, service, .. } = self;
        let version = self.version.as_deref().map(|v| format!(" {v}")).unwrap_or_default();
        out::warn(
            format!("{namespace}/{service}{version} listens on 127.0.0.1:{}", settings.port)
                .bold()
                .to_string(),
        );
        out::warn(format!("  OUTRIGGER_OUTBOUND  {}", sidecar.ready.outbound));
        if let Some(inbound) = sidecar.ready.inbound {
            out::warn(format!("  inbound             {inbound}"));
        }
        out::warn(format!("  the sidecar's admin http://{}", sidecar.ready.admin));
        out::warn(format!("  the sidecar's log   {}", settings.data.join("sidecar.log").display()));
    }
}

const START_WITHIN: Duration = Duration::from_secs(30);
/// What the command gets between SIGTERM and SIGKILL.
const COMMAND_GRACE: Duration = Duration::from_secs(30);
/// What the sidecar gets when its application has gone: there is little left to finish.
const AFTER_THE_COMMAND: Duration = Duration::from_secs(10);
/// The exit code of a program that SIGTERM ended.
const SIGNALLED: u8 = 128 + 15;

async fn sidecar_gone(sidecar: &Sidecar, application: &mut Process) -> Failure {
    application.signal(Signal::TERM);
    application.stop(COMMAND_GRACE).await;
    Failure::failed("the sidecar ended by itself, so the command was ended too")
        .hint(format!("its last words were:\n    {}", sidecar.process.last_words().replace('\n', "\n    ")))
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
