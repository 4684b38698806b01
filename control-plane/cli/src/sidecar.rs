//! A sidecar as a process of ours: started beside an application, known by its ready file, drained by SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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

impl Settings {
    /// Whether a port it shall have is another's.
    pub(crate) fn lost_a_port(&self) -> bool {
        self.placed.is_none()
            && [self.outbound, self.inbound, self.admin].into_iter().any(|address| !ports::is_free(address))
    }
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
    ) -> Result<Self, Failure> {
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
) -> Result<T, Failure> {
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read(ready_file) {
            return serde_json::from_slice(&text)
                .map_err(|e| Failure::failed(format!("{} is not as agreed: {e}", ready_file.display())));
        }
        if let Some(status) = process.ended() {
            return Err(told(process, &format!("did not start ({status})")));
        }
        if began.elapsed() > within {
            let what = format!("is not ready after {} s", within.as_secs());
            let failure = told(process, &what);
            process.kill().await;
            return Err(failure);
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
        let mut process = shell(folder.path(), "echo 127.0.0.1:15001 is taken >&2; exit 3");
        let ready = folder.path().join("ready");
        let failure = wait_ready::<Said>(&mut process, &ready, Duration::from_secs(10)).await.unwrap_err();
        assert!(
            failure.message().contains("the sidecar of cart did not start (exit status: 3)"),
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
        assert!(failure.message().contains("is not ready after"), "{failure}");
        assert!(process.ended().is_some());
    }
}
