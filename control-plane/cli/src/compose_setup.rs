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
    /// A service with its ports: web=8080/http,9000/grpc/permissive. A service without ports only calls others. FOLDER:NAME=PORTS
    /// where its folder has another name: several that are one service have the ports of all of them.
    #[arg(long = "member", value_name = "NAME=PORTS", required = true)]
    members: Vec<Member>,
    /// The folder in which each member has a folder of its name: the data of its sidecar.
    #[arg(long, default_value = "/identities", value_name = "DIR")]
    identities: PathBuf,
    /// How long the control plane may take to start, in seconds.
    #[arg(long, default_value_t = 60)]
    within: u64,
}

/// One that runs a service, and the ports it has.
#[derive(Clone, Debug)]
struct Member {
    /// The folder of its sidecar below that of all identities.
    folder: String,
    /// The service.
    name: String,
    ports: Vec<Value>,
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, ports) = text.split_once('=').ok_or("write NAME=PORT/PROTOCOL,…")?;
        let ports = ports.split(',').filter(|port| !port.is_empty()).map(port).collect::<Result<_, _>>()?;
        let (folder, name) = name.split_once(':').unwrap_or((name, name));
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(letters) {
            return Err(format!("{name:?} is no name of a service"));
        }
        let folders = |c: char| letters(c) || matches!(c, '_' | '.');
        if folder.starts_with('.') || folder.is_empty() || !folder.chars().all(folders) {
            return Err(format!("{folder:?} is no name of a folder"));
        }
        Ok(Self { folder: folder.to_owned(), name: name.to_owned(), ports })
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
            leave(&self.identities.join(&member.folder), certs::token(&answer)?)?;
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
        for (name, ports) in services(&self.members) {
            if admin.object("services", &self.namespace, name).await?.is_none() {
                names.push(name);
                objects.push(json!({
                    "apiVersion": "outrigger.dev/v1alpha1",
                    "kind": "MeshService",
                    "metadata": {"name": name, "namespace": self.namespace},
                    "spec": {"ports": ports},
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

/// The services of `members` that have ports, each once. Of a port that several have the first tells the protocol, and it is
/// permissive where one says so, as one of several that is published does.
fn services(members: &[Member]) -> Vec<(&str, Vec<Value>)> {
    let mut services: Vec<(&str, Vec<Value>)> = vec![];
    for member in members.iter().filter(|member| !member.ports.is_empty()) {
        let Some((_, ports)) = services.iter_mut().find(|(name, _)| *name == member.name) else {
            services.push((&member.name, member.ports.clone()));
            continue;
        };
        for port in &member.ports {
            match ports.iter_mut().find(|known| known["port"] == port["port"]) {
                Some(known) if port.get("mtls").is_some() => known["mtls"] = port["mtls"].clone(),
                Some(_) => {}
                None => ports.push(port.clone()),
            }
        }
    }
    services
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
        for bad in ["web", "../x=1", "=1", "web=x", "..:web=1", "a/b:web=1", ":web=1", "web:=1"] {
            assert!(bad.parse::<Member>().is_err(), "{bad}");
        }
    }

    /// Two with one name were two mounts of one folder, which no engine takes, and two services of one name.
    #[test]
    fn several_that_are_one_service_have_a_folder_each_and_the_ports_of_all() {
        let members = ["shop_1:web=8080/http", "web=8080/grpc/permissive,9000", "cart=80"];
        let members: Vec<Member> = members.iter().map(|text| text.parse().unwrap()).collect();
        let folders: Vec<_> = members.iter().map(|member| member.folder.as_str()).collect();
        assert_eq!(folders, ["shop_1", "web", "cart"]);
        let web =
            vec![json!({"port": 8080, "protocol": "http", "mtls": "permissive"}), json!({"port": 9000})];
        assert_eq!(services(&members), [("web", web), ("cart", vec![json!({"port": 80})])]);
    }
}
