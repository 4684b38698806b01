//! `outrigger compose-setup`: what a Compose file with sidecars runs once, before they start.
//!
//! It shares the network of the control plane, whose admin API is on loopback. It tells the control plane of the services and
//! leaves a join token in the volume of each sidecar. A sidecar that has a certificate already does not look at it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::certs;
use crate::client::{Admin, How, NotWritten};
use crate::failure::{Doing, Exit, Failure};
use crate::out;

/// How long a token can be used: as long as the first start of all sidecars may take.
const TTL: &str = "1h";
/// The user and group of sidecars.
const SIDECAR: (u32, u32) = (15_001, 15_001);
const TOKEN: &str = "join-token";
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// Tell the control plane of the services of a Compose file, and give each sidecar a join token. `outrigger inject --compose`
/// writes the service that runs this.
#[derive(Debug, clap::Args)]
pub(crate) struct ComposeSetup {
    /// The namespace of the services.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// A service with its ports: web=8080/http,9000/grpc/permissive. A service without ports only calls others.
    #[arg(long = "member", value_name = "NAME=PORTS", required = true)]
    members: Vec<Member>,
    /// The folder in which each member has a folder of its name: the data of its sidecar.
    #[arg(long, default_value = "/identities", value_name = "DIR")]
    identities: PathBuf,
    /// How long the control plane may take to start, in seconds.
    #[arg(long, default_value_t = 60)]
    within: u64,
}

/// A service and its ports.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    ports: Vec<Value>,
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, ports) = text.split_once('=').ok_or("write NAME=PORT/PROTOCOL,…")?;
        let ports = ports.split(',').filter(|port| !port.is_empty()).map(port).collect::<Result<_, _>>()?;
        // It is the name of a folder, too.
        let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if name.is_empty() || !letters {
            return Err(format!("{name:?} is no name of a service"));
        }
        Ok(Self { name: name.to_owned(), ports })
    }
}

fn port(text: &str) -> Result<Value, String> {
    let mut parts = text.split('/');
    let number: u16 = parts.next().unwrap_or("").parse().map_err(|_| format!("{text:?} is no port"))?;
    let mut port = json!({ "port": number });
    for part in parts {
        match part {
            "detect" => {}
            "permissive" => port["mtls"] = "permissive".into(),
            protocol => port["protocol"] = protocol.into(),
        }
    }
    Ok(port)
}

impl ComposeSetup {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        self.await_control_plane(admin).await?;
        let made = self.make_services(admin).await?;
        for member in &self.members {
            let answer = admin.join_token(&self.namespace, &member.name, TTL).await?;
            leave(&self.identities.join(&member.name), certs::token(&answer)?)?;
        }
        let mut told = format!("{} sidecars have a join token", self.members.len());
        if !made.is_empty() {
            let _ = write!(told, "; made the services {}", made.join(", "));
        }
        out::say(told);
        Ok(ExitCode::SUCCESS)
    }

    async fn await_control_plane(&self, admin: &Admin) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(self.within);
        loop {
            match admin.list("services", Some(&self.namespace)).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.exit() == Exit::Unreachable && Instant::now() < until => {
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Those that are not there yet: what people changed since stays.
    async fn make_services(&self, admin: &Admin) -> Result<Vec<&str>, Failure> {
        let (mut objects, mut names) = (vec![], vec![]);
        for member in self.members.iter().filter(|member| !member.ports.is_empty()) {
            if admin.object("services", &self.namespace, &member.name).await?.is_none() {
                names.push(member.name.as_str());
                objects.push(json!({
                    "apiVersion": "outrigger.dev/v1alpha1",
                    "kind": "MeshService",
                    "metadata": {"name": member.name, "namespace": self.namespace},
                    "spec": {"ports": member.ports},
                }));
            }
        }
        if objects.is_empty() {
            return Ok(names);
        }
        match admin.apply(&objects, How::default()).await {
            Ok(_) => Ok(names),
            Err(NotWritten::Failed(failure)) => Err(failure),
            Err(NotWritten::Refused(refusal)) => Err(Failure::new(
                Exit::Refused,
                format!("the control plane refuses the services: {refusal:?}"),
            )),
        }
    }
}

/// Leaves a token where the sidecar, and nobody else, reads it.
fn leave(folder: &Path, token: &str) -> Result<(), Failure> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).doing(&shown)?;
    let path = folder.join(TOKEN);
    let new = folder.join(".join-token.new");
    let _ = std::fs::remove_file(&new);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).doing(&shown)?;
    file.write_all(token.as_bytes()).doing(&shown)?;
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = SIDECAR;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).doing(&shown)?;
        std::os::unix::fs::chown(&new, Some(uid), Some(gid)).doing(&shown)?;
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).doing(&shown)?;
    }
    std::fs::rename(&new, &path).doing(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_with_their_ports() {
        let member: Member = "web=8080/detect/permissive,9000/grpc".parse().unwrap();
        assert_eq!(member.name, "web");
        assert_eq!(
            member.ports,
            [json!({"port": 8080, "mtls": "permissive"}), json!({"port": 9000, "protocol": "grpc"})]
        );
        assert!("worker=".parse::<Member>().unwrap().ports.is_empty());
        for bad in ["web", "../x=1", "=1", "web=x"] {
            assert!(bad.parse::<Member>().is_err(), "{bad}");
        }
    }
}
