//! The processes of the demo: a control plane, and instances of services, each an application with its sidecar.
//!
//! Everything is started, stopped and killed by its own id. What runs is owned by [`Plant`]; dropped, it is killed.
//! The harm that `--chaos` does is in `harm`.

mod harm;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use http::Method;
use serde::Deserialize;

use super::cast::{Part, Program};
use crate::binaries::Binaries;
use crate::certs;
use crate::client::Admin;
use crate::failure::{Doing, Failure};
use crate::http::{Ask, ask};
use crate::ports;
use crate::process::{Guarded, Launch, Output, Process, Stopped};
use crate::sidecar::{self, Sidecar};

/// All that runs.
#[derive(Debug)]
pub(super) struct Plant {
    binaries: Binaries,
    folder: PathBuf,
    control: Control,
    instances: Vec<Instance>,
}

/// The control plane, at addresses that stay.
#[derive(Debug)]
struct Control {
    process: Process,
    push: SocketAddr,
    admin: SocketAddr,
}

/// An application and the sidecar beside it.
#[derive(Debug)]
pub(super) struct Instance {
    /// `cart-1`.
    pub(super) name: String,
    pub(super) part: Part,
    pub(super) port: u16,
    application: Process,
    sidecar: Sidecar,
    settings: sidecar::Settings,
}

/// Where the control plane listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) push: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Addresses {
    /// The usual ones where both are free and wanted, else ones of the system's choice.
    pub(super) fn choose(usual: bool) -> Result<Self, Failure> {
        let (push, admin) = (ports::preferred(15_010), ports::preferred(15_080));
        if usual && push.port() != 0 && admin.port() != 0 {
            return Ok(Self { push, admin });
        }
        Ok(Self { push: ports::loopback(ports::lasting()?), admin: ports::loopback(ports::lasting()?) })
    }
}

impl Plant {
    /// Starts the control plane. Everything lies in `folder`.
    pub(super) async fn start(binaries: Binaries, folder: &Path, at: Addresses) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).doing(format_args!("can not make {}", folder.display()))?;
        let control = start_control(&binaries, folder, at).await?;
        Ok(Self { binaries, folder: folder.to_owned(), control, instances: Vec::new() })
    }

    pub(super) fn admin(&self) -> Result<Admin, Failure> {
        Admin::at(&format!("http://{}", self.control.admin))
    }

    pub(super) fn addresses(&self) -> Addresses {
        Addresses { push: self.control.push, admin: self.control.admin }
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.instances.iter().position(|instance| instance.name == name)
    }

    /// Starts all of these at once.
    pub(super) async fn add_all(&mut self, parts: &[Part]) -> Result<(), Failure> {
        let each =
            parts.iter().flat_map(|part| (1..=part.instances).map(|number| self.start_one(*part, number)));
        let started = try_join_all(each).await?;
        self.instances.extend(started);
        Ok(())
    }

    /// Starts one more.
    pub(super) async fn add(&mut self, part: Part, number: usize) -> Result<(), Failure> {
        let instance = self.start_one(part, number).await?;
        self.instances.push(instance);
        Ok(())
    }

    /// Starts an application, waits until it listens, then starts its sidecar: what registers can serve.
    async fn start_one(&self, part: Part, number: usize) -> Result<Instance, Failure> {
        let Starting { name, port, process: mut application, settings } = self.application(part, number)?;
        wait_listening(&mut application, port).await?;
        let token = self.token(part).await?;
        let sidecar = Sidecar::start(&settings, Some(&token), self.guarded(), START_WITHIN).await?;
        Ok(Instance { name, part, port, application, sidecar, settings })
    }

    /// Drains a sidecar, starts it again beside the same application, and waits until all who call its service know
    /// the new instance.
    pub(super) async fn restart_sidecar(&mut self, index: usize) -> Result<(), Failure> {
        let guarded = self.guarded();
        let instance = &mut self.instances[index];
        match instance.sidecar.stop(DRAIN_WITHIN).await {
            Stopped::Itself(status) if status.success() => {}
            stopped => {
                let what = match stopped {
                    Stopped::Itself(status) => format!("ended with {status} when asked to drain"),
                    Stopped::Killed => format!("had not drained after {} s", DRAIN_WITHIN.as_secs()),
                };
                let failure = Failure::failed(format!("the sidecar of {} {what}", instance.name));
                return Err(failure.hint(format!("its log is {}", instance.log().display())));
            }
        }
        // Without a token: it comes back with the certificate it kept.
        instance.sidecar = Sidecar::start(&instance.settings, None, guarded, START_WITHIN).await?;
        self.wait_known(index, KNOWN_WITHIN).await
    }

    /// Stops the control plane as a person would, and starts it again with the same store at the same addresses.
    pub(super) async fn restart_control(&mut self) -> Result<(), Failure> {
        let at = self.addresses();
        match self.control.process.stop(DRAIN_WITHIN).await {
            Stopped::Itself(status) if status.success() => {}
            Stopped::Itself(status) => {
                return Err(Failure::failed(format!("the control plane ended with {status}")));
            }
            Stopped::Killed => return Err(Failure::failed("the control plane did not end when asked")),
        }
        self.control = start_control(&self.binaries, &self.folder, at).await?;
        Ok(())
    }

    /// Kills an application and its sidecar at once (SIGKILL), as a machine that loses power does.
    /// `now` is asked the moment it is done.
    pub(super) async fn kill<T>(&mut self, index: usize, now: impl FnOnce() -> T) -> (Instance, T) {
        let mut instance = self.instances.remove(index);
        instance.sidecar.process.signal(rustix::process::Signal::KILL);
        instance.application.signal(rustix::process::Signal::KILL);
        let seen = now();
        instance.sidecar.process.kill().await;
        instance.application.kill().await;
        (instance, seen)
    }

    /// Waits until every sidecar that calls this instance's service knows the instance.
    pub(super) async fn wait_known(&self, index: usize, within: Duration) -> Result<(), Failure> {
        let instance = &self.instances[index];
        let Some(uid) = instance.uid() else { return Ok(()) };
        let began = Instant::now();
        loop {
            let mut missing = Vec::new();
            for other in &self.instances {
                let clusters = other.ask("/clusters").await?;
                if clusters.contains(&instance.part.full_name()) && !clusters.contains(uid) {
                    missing.push(other.name.as_str());
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            if began.elapsed() > within {
                let who = missing.join(", ");
                let name = &instance.name;
                return Err(Failure::failed(format!("{name} ({uid}) is not known to the sidecars of {who}")));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// What ended though nobody asked it to.
    pub(super) fn gone(&mut self) -> Vec<String> {
        let control = self.control.process.ended().map(|status| format!("the control plane ({status})"));
        let instances = self.instances.iter_mut().flat_map(|instance| {
            let application = instance.application.ended().map(|s| format!("{} ({s})", instance.name));
            let sidecar =
                instance.sidecar.process.ended().map(|s| format!("the sidecar of {} ({s})", instance.name));
            [application, sidecar]
        });
        instances.flatten().chain(control).collect()
    }

    /// Asks everything to end, and ends what does not: applications and sidecars first, then the control plane.
    pub(super) async fn stop(mut self) {
        for instance in &self.instances {
            instance.sidecar.process.signal(rustix::process::Signal::TERM);
            instance.application.signal(rustix::process::Signal::TERM);
            // One that stands still would not hear it.
            instance.application.signal(rustix::process::Signal::CONT);
        }
        let ended = async {
            for instance in &mut self.instances {
                let _ = instance.sidecar.process.wait().await;
                let _ = instance.application.wait().await;
            }
        };
        let _ = tokio::time::timeout(END_WITHIN, ended).await;
        for instance in &mut self.instances {
            instance.sidecar.process.kill().await;
            instance.application.kill().await;
        }
        self.control.process.stop(END_WITHIN).await;
    }

    fn application(&self, part: Part, number: usize) -> Result<Starting, Failure> {
        let name = format!("{}-{number}", part.label());
        let port = ports::lasting()?;
        // The application is told once where its calls go, so the sidecar comes back to the same port.
        let outbound = ports::loopback(ports::lasting()?);
        let data = self.folder.join(&name);
        std::fs::create_dir_all(&data).doing(format_args!("can not make {}", data.display()))?;
        let launch = self.launch(part, &Place { name: &name, port, outbound, data: &data })?;
        let settings = sidecar::Settings {
            program: self.binaries.program("outrigger-proxy")?,
            namespace: NAMESPACE.into(),
            service: part.service.into(),
            service_account: None,
            version: Some(part.version.into()),
            port,
            control: self.control.push,
            trust_domain: TRUST_DOMAIN.into(),
            data,
            outbound,
            inbound: ports::loopback(0),
            admin: ports::loopback(0),
            drain_timeout: Duration::from_secs(10),
            log: "info".into(),
            placed: None,
            more: Vec::new(),
        };
        Ok(Starting { name, port, process: launch.start()?, settings })
    }

    fn launch(&self, part: Part, at: &Place<'_>) -> Result<Launch, Failure> {
        let mut launch = match part.program {
            Program::Binary(program) => Launch::new(at.name, self.binaries.program(program)?),
            Program::Python(script) => {
                let path = self.folder.join("recommendations.py");
                std::fs::write(&path, script).doing(format_args!("can not write {}", path.display()))?;
                Launch::new(at.name, "python3").arg(path)
            }
        };
        launch = launch
            .env("PORT", at.port.to_string())
            .env("VERSION", part.version)
            .env("OUTRIGGER_OUTBOUND", at.outbound.to_string());
        launch.output = Output::File(at.data.join("application.log"));
        launch.guarded = self.guarded();
        Ok(launch)
    }

    async fn token(&self, part: Part) -> Result<String, Failure> {
        let made = self.admin()?.join_token(NAMESPACE, part.service, "5m").await?;
        certs::token(&made).map(str::to_owned)
    }

    fn guarded(&self) -> Guarded {
        Guarded::Killed(self.binaries.outrigger().to_owned())
    }
}

impl Instance {
    /// The name under which its sidecar registered it.
    pub(super) fn uid(&self) -> Option<&str> {
        self.sidecar.ready.uid.as_deref()
    }

    /// Where users reach the application itself.
    pub(super) fn address(&self) -> SocketAddr {
        ports::loopback(self.port)
    }

    /// Where its sidecar takes what comes from the mesh.
    pub(super) fn inbound(&self) -> Option<SocketAddr> {
        self.sidecar.ready.inbound
    }

    /// Where its sidecar tells of itself.
    pub(super) fn admin(&self) -> SocketAddr {
        self.sidecar.ready.admin
    }

    /// What its sidecar tells of itself.
    pub(super) async fn ask(&self, path: &str) -> Result<String, Failure> {
        let asked = Ask { method: Method::GET, ..Ask::get(path) };
        let answer = ask(self.admin(), asked)
            .await
            .map_err(|why| Failure::failed(format!("{} of the sidecar of {}: {why}", path, self.name)))?;
        Ok(answer.text())
    }

    fn log(&self) -> PathBuf {
        self.settings.data.join("sidecar.log")
    }
}

/// Where an application runs.
struct Place<'a> {
    name: &'a str,
    port: u16,
    /// Where its sidecar takes its calls.
    outbound: SocketAddr,
    data: &'a Path,
}

struct Starting {
    name: String,
    port: u16,
    process: Process,
    settings: sidecar::Settings,
}

#[derive(Deserialize)]
struct ControlReady {
    push: SocketAddr,
    admin: SocketAddr,
}

/// The namespace of the shop.
pub(super) const NAMESPACE: &str = "shop";
/// The trust domain of the demo's mesh.
pub(super) const TRUST_DOMAIN: &str = "mesh.local";
/// The lease of an instance whose sidecar says nothing more: short, so that a killed one is seen to go.
pub(super) const LEASE: Duration = Duration::from_secs(5);

const START_WITHIN: Duration = Duration::from_secs(20);
const DRAIN_WITHIN: Duration = Duration::from_secs(15);
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
const END_WITHIN: Duration = Duration::from_secs(4);

async fn start_control(binaries: &Binaries, folder: &Path, at: Addresses) -> Result<Control, Failure> {
    let ready_file = folder.join("control.json");
    let _ = std::fs::remove_file(&ready_file);
    let mut launch = Launch::new("the control plane", binaries.program("outrigger-control")?)
        .flag("--data", folder.join("control"))
        .flag("--push", at.push.to_string())
        .flag("--admin", at.admin.to_string())
        .flag("--trust-domain", TRUST_DOMAIN)
        .flag("--lease", format!("{}s", LEASE.as_secs()))
        .flag("--ready-file", &ready_file);
    launch.output = Output::File(folder.join("control.log"));
    launch.guarded = Guarded::Killed(binaries.outrigger().to_owned());
    let mut process = launch.start()?;
    let ready: ControlReady = sidecar::wait_ready(&mut process, &ready_file, START_WITHIN).await?;
    Ok(Control { process, push: ready.push, admin: ready.admin })
}

async fn wait_listening(process: &mut Process, port: u16) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        if tokio::net::TcpStream::connect(ports::loopback(port)).await.is_ok() {
            return Ok(());
        }
        if let Some(status) = process.ended() {
            let failure = Failure::failed(format!("{} did not start ({status})", process.name()));
            return Err(failure.hint(process.last_words()));
        }
        if began.elapsed() > START_WITHIN {
            return Err(Failure::failed(format!("{} does not listen on port {port}", process.name())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
