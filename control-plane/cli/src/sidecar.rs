//! A sidecar as a process of ours: started beside an application, known by its ready file, drained by SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;

use crate::failure::{Doing, Failure};
use crate::http::{Ask, NoAnswer, ask, ask_socket};
use crate::netns::Placed;
use crate::ports;
use crate::process::{Guarded, Launch, Output, Process, Stopped};

/// What a sidecar is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The program `outrigger-proxy`.
    pub(crate) program: PathBuf,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) service_account: Option<String>,
    pub(crate) version: Option<String>,
    /// Where the application listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// The control plane's push address.
    pub(crate) control: SocketAddr,
    pub(crate) trust_domain: String,
    /// Where it keeps its key, leaf, snapshot, socket and log.
    pub(crate) data: PathBuf,
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) drain_timeout: Duration,
    pub(crate) log: String,
    /// Where it is put and who it becomes, if that is not here and as we are.
    pub(crate) placed: Option<Placed>,
    /// Arguments that a person added, passed on as they are.
    pub(crate) more: Vec<String>,
}

/// What a running sidecar says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) outbound: SocketAddr,
    #[serde(default)]
    pub(crate) inbound: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    #[serde(default)]
    pub(crate) admin_socket: Option<PathBuf>,
    /// The name of the instance it registered.
    #[serde(default)]
    pub(crate) uid: Option<String>,
}

/// A sidecar that runs.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    /// Its addresses are not ours: it is asked by its socket.
    elsewhere: bool,
    pub(crate) ready: Ready,
}

impl Sidecar {
    /// Starts one and waits until it serves. The token is needed where it has no certificate of its own yet.
    pub(crate) async fn start(
        settings: &Settings,
        token: Option<&str>,
        guarded: Guarded,
        within: Duration,
    ) -> Result<Self, NotStarted> {
        std::fs::create_dir_all(&settings.data)
            .doing(format_args!("can not make the folder {}", settings.data.display()))?;
        let ready_file = settings.data.join("ready.json");
        if let Some(Placed { user, .. }) = &settings.placed {
            std::os::unix::fs::chown(&settings.data, Some(user.uid), Some(user.gid))
                .doing(format_args!("can not give {} to the sidecar", settings.data.display()))?;
        }
        // A file of an earlier run would be believed.
        let _ = std::fs::remove_file(&ready_file);
        let mut process = launch(settings, token, &ready_file, guarded).start()?;
        let ready = wait_ready(&mut process, &ready_file, within).await?;
        Ok(Self { process, elsewhere: settings.placed.is_some(), ready })
    }

    /// The same. A port that was free when we looked may be another's a moment later: then it gets those that the
    /// system chooses, and another token, since one can be used once.
    pub(crate) async fn start_anywhere(
        settings: &mut Settings,
        token: impl AsyncFn() -> Result<Option<String>, Failure>,
        guarded: &Guarded,
        within: Duration,
    ) -> Result<Self, Failure> {
        match Self::start(settings, token().await?.as_deref(), guarded.clone(), within).await {
            // In a namespace of its own nobody else takes any.
            Err(not) if not.address_was_taken() && settings.placed.is_none() => {
                let any = ports::loopback(0);
                (settings.outbound, settings.inbound, settings.admin) = (any, any, any);
                Ok(Self::start(settings, token().await?.as_deref(), guarded.clone(), within).await?)
            }
            started => Ok(started?),
        }
    }

    /// Withdraws the instance and waits until what came in has been answered, while the application still runs and
    /// still calls others through it.
    pub(crate) async fn withdraw(&self, within: Duration) -> Result<(), NoAnswer> {
        let socket = self.ready.admin_socket.clone().unwrap_or_default();
        let asked = Ask { method: Method::POST, body: Some(Vec::new()), within, ..Ask::get("/drain") };
        let answer = ask_socket(&socket, asked).await?;
        if !answer.status.is_success() {
            return Err(NoAnswer::Broken(format!("{}: {}", answer.status, answer.text().trim())));
        }
        let began = Instant::now();
        while began.elapsed() < within {
            let answer = if self.elsewhere {
                ask_socket(&socket, Ask::get("/ready")).await?
            } else {
                ask(self.ready.admin, Ask::get("/ready")).await?
            };
            if answer.text().contains(INBOUND_CLOSED) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(NoAnswer::Late(within))
    }

    /// Drains it and ends it.
    pub(crate) async fn stop(&mut self, grace: Duration) -> Stopped {
        self.process.stop(grace).await
    }
}

/// Why a process of ours does not serve.
#[derive(Debug)]
pub(crate) struct NotStarted {
    failure: Failure,
    /// How it ended, if it did by itself.
    status: Option<ExitStatus>,
}

impl NotStarted {
    /// Whether somebody else listened at an address that the sidecar was to have. Asked afterwards, the addresses do
    /// not tell: whoever took one may have gone since, of two that took one from each other both have.
    pub(crate) fn address_was_taken(&self) -> bool {
        self.status.and_then(|status| status.code()) == Some(ADDRESS_IS_TAKEN)
    }
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self { failure, status: None }
    }
}

impl From<NotStarted> for Failure {
    fn from(not: NotStarted) -> Self {
        not.failure
    }
}

/// The exit code of `outrigger-proxy` that says so.
const ADDRESS_IS_TAKEN: i32 = 4;

/// What a sidecar's `/ready` says when nothing from the mesh is under way any more.
const INBOUND_CLOSED: &str = "inbound closed";

fn launch(settings: &Settings, token: Option<&str>, ready_file: &Path, guarded: Guarded) -> Launch {
    let name = format!("the sidecar of {}", settings.service);
    let mut launch = Launch::new(name, &settings.program)
        .flag("--service", &settings.service)
        .flag("--namespace", &settings.namespace)
        .flag("--port", settings.port.to_string())
        .flag("--control", settings.control.to_string())
        .flag("--trust-domain", &settings.trust_domain)
        .flag("--data", &settings.data)
        .flag("--outbound", settings.outbound.to_string())
        .flag("--inbound", settings.inbound.to_string())
        .flag("--admin", settings.admin.to_string())
        .flag("--drain-timeout", format!("{}s", settings.drain_timeout.as_secs()))
        .flag("--ready-file", ready_file)
        .flag("--log", &settings.log);
    if let Some(account) = &settings.service_account {
        launch = launch.flag("--service-account", account);
    }
    if let Some(version) = &settings.version {
        launch = launch.flag("--version", version);
    }
    for argument in &settings.more {
        launch = launch.arg(argument);
    }
    // By environment: arguments can be read by every process of the machine.
    if let Some(token) = token {
        launch = launch.env("OUTRIGGER_JOIN_TOKEN", token);
    }
    launch.guarded = guarded;
    launch.placed.clone_from(&settings.placed);
    launch.output = Output::File(settings.data.join("sidecar.log"));
    launch
}

/// Waits until a process of ours has written the file that says it serves.
pub(crate) async fn wait_ready<T: for<'a> Deserialize<'a>>(
    process: &mut Process,
    ready_file: &Path,
    within: Duration,
) -> Result<T, NotStarted> {
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read(ready_file) {
            let not = |e| Failure::failed(format!("{} is not as agreed: {e}", ready_file.display()));
            return Ok(serde_json::from_slice(&text).map_err(not)?);
        }
        if let Some(status) = process.ended() {
            let failure = told(process, &format!("did not start ({status})"));
            return Err(NotStarted { failure, status: Some(status) });
        }
        if began.elapsed() > within {
            let what = format!("is not ready after {} s", within.as_secs());
            let failure = told(process, &what);
            process.kill().await;
            return Err(failure.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn told(process: &Process, what: &str) -> Failure {
    let failure = Failure::failed(format!("{} {what}", process.name()));
    match process.last_words() {
        words if words.is_empty() => failure,
        words => failure.hint(format!("its last words were:\n    {}", words.replace('\n', "\n    "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Said {
        pid: u32,
    }

    fn shell(folder: &Path, script: &str) -> Process {
        let mut launch =
            Launch::new("the sidecar of cart", "/bin/sh").arg("-c").arg(script).arg(folder.join("ready"));
        launch.output = Output::File(folder.join("log"));
        launch.start().unwrap()
    }

    #[tokio::test]
    async fn a_process_is_ready_when_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), r#"echo '{"pid":7}' > "$0.new"; mv "$0.new" "$0"; sleep 60"#);
        let said: Said =
            wait_ready(&mut process, &folder.path().join("ready"), Duration::from_secs(10)).await.unwrap();
        assert_eq!(said.pid, 7);
    }

    #[tokio::test]
    async fn one_that_ends_instead_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo 127.0.0.1:15001 is taken >&2; exit 4");
        let ready = folder.path().join("ready");
        let not = wait_ready::<Said>(&mut process, &ready, Duration::from_secs(10)).await.unwrap_err();
        assert!(not.address_was_taken());
        let failure = Failure::from(not);
        assert!(
            failure.message().contains("the sidecar of cart did not start (exit status: 4)"),
            "{failure}"
        );
        assert!(failure.to_string().contains("127.0.0.1:15001 is taken"), "{failure}");
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_given_up_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "sleep 60");
        let ready = folder.path().join("ready");
        let failure = wait_ready::<Said>(&mut process, &ready, Duration::from_millis(50)).await.unwrap_err();
        assert!(!failure.address_was_taken());
        let failure = Failure::from(failure);
        assert!(failure.message().contains("is not ready after"), "{failure}");
        assert!(process.ended().is_some());
    }

    /// Two that start at once can take a port from each other and both be gone when one looks why.
    #[tokio::test]
    async fn one_that_lost_a_port_to_somebody_who_has_gone_since_gets_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("outrigger-proxy");
        let script = "#!/bin/sh\ncase \"$*\" in *' --outbound 127.0.0.1:0 '*) ;; *) exit 4;; esac\n\
                      while [ $# -gt 0 ]; do [ \"$1\" = --ready-file ] && ready=$2; shift; done\n\
                      echo '{\"outbound\":\"127.0.0.1:7\",\"admin\":\"127.0.0.1:8\"}' > \"$ready.new\"\n\
                      mv \"$ready.new\" \"$ready\"; exec sleep 60\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings = Settings {
            program,
            namespace: "shop".into(),
            service: "cart".into(),
            service_account: None,
            version: None,
            port: 80,
            control: ports::loopback(9),
            trust_domain: "mesh.local".into(),
            data: folder.path().join("data"),
            outbound: ports::loopback(15_001),
            inbound: ports::loopback(0),
            admin: ports::loopback(0),
            drain_timeout: Duration::from_secs(1),
            log: "info".into(),
            placed: None,
            more: vec![],
        };
        let asked = std::cell::Cell::new(0);
        let token = async || {
            asked.set(asked.get() + 1);
            Ok(None)
        };
        let within = Duration::from_secs(10);
        let sidecar = Sidecar::start_anywhere(&mut settings, token, &Guarded::No, within).await.unwrap();
        assert_eq!((sidecar.ready.outbound, asked.get()), (ports::loopback(7), 2));
    }
}
