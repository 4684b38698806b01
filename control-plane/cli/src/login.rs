//! `outrigger login`, `logout` and `whoami`.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use outrigger_certs::{RootHash, certificates_from_pem};

use crate::args::{Control, Printed};
use crate::client::Admin;
use crate::credentials::{self, ClientFiles, Credential, Credentials, Token};
use crate::failure::{Doing, Failure};
use crate::out::{self, Format};
use crate::server::{Believed, Server};

/// Keep a token for a control plane, and be its holder from then on. The token is read from a file, from
/// OUTRIGGER_TOKEN, or asked for; it is never an argument. Or show a client certificate in its place.
///
/// In a cluster of Kubernetes a token of a service account does, too, where a role is bound to it (docs/kubernetes.md):
///
///   kubectl -n shop create token pipeline --audience outrigger | outrigger login --token-file - --mesh-roots roots.pem
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The file with the token. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A certificate to show in place of a token (PEM, leaf first): of a workload of the mesh, or of an authority that the
    /// control plane was given.
    #[arg(long, value_name = "FILE", requires = "client_key", conflicts_with = "token_file")]
    client_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// The SHA-256 of the root of the mesh, if it is not the one that the token names.
    #[arg(long, value_name = "HEX", conflicts_with_all = ["mesh_roots", "ca_file", "system_roots"])]
    ca_pin: Option<String>,
    /// The roots of the mesh (PEM), in place of the hash of one: in a cluster they are in the ConfigMap outrigger-roots.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ca_file", "system_roots"])]
    mesh_roots: Option<PathBuf>,
    /// The roots that vouch for a server with a certificate of its own (PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "system_roots")]
    ca_file: Option<PathBuf>,
    /// Believe a server for which the roots of this system vouch.
    #[arg(long)]
    system_roots: bool,
    #[command(flatten)]
    about: About,
}

/// Where a role may be bound.
#[derive(Debug, clap::Args)]
struct About {
    /// The namespace in which a cluster gives you a role, if not that of the service account. May be repeated.
    #[arg(short, long, value_name = "NAME")]
    namespace: Vec<String>,
}

/// Forget the token for a control plane. It stays good: `outrigger token revoke` ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {}

/// Show who the control plane takes you for.
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    about: About,
    #[command(flatten)]
    printed: Printed,
}

impl About {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.namespace.iter().map(String::as_str)
    }
}

impl Login {
    pub(crate) async fn run(self, control: &Control) -> Result<ExitCode, Failure> {
        let folder = credentials::folder()?;
        let mut kept = Credentials::load(&folder)?;
        let server = control.server(&kept)?;
        let certificate = self.certificate()?;
        let token = if certificate.is_some() { None } else { Some(self.token()?) };
        let (mut credential, mut tried) = (Credential { token, certificate, believed: None }, None);
        for believed in self.believed(&server, credential.token.as_ref())? {
            credential.believed = believed;
            // Tried before it is kept: a token that is not good is told now.
            let admin = Admin::with(server.clone(), Some(credential.clone()))?;
            tried = Some(admin.about(self.about.names()).whoami().await);
            if tried.as_ref().is_some_and(Result::is_ok) {
                break;
            }
        }
        let who = tried.unwrap_or_else(|| Err(Failure::usage("--mesh-roots has no certificate in it")))?;
        kept.servers.insert(server.url(), credential);
        kept.current = Some(server.url());
        kept.save(&folder)?;
        out::say(format!("logged in at {} as {}", server.url(), sentence(&who)));
        Ok(ExitCode::SUCCESS)
    }

    fn certificate(&self) -> Result<Option<ClientFiles>, Failure> {
        let Some((certificate, key)) = self.client_cert.as_ref().zip(self.client_key.as_ref()) else {
            return Ok(None);
        };
        // As seen from wherever the next command is run.
        let whole = |file: &PathBuf| std::path::absolute(file).doing(file.display());
        Ok(Some(ClientFiles { certificate: whole(certificate)?, key: whole(key)? }))
    }

    fn token(&self) -> Result<Token, Failure> {
        let text = match &self.token_file {
            Some(file) if file.as_os_str() == "-" => all_of_stdin()?,
            Some(file) => std::fs::read_to_string(file).doing(file.display())?,
            None => match std::env::var("OUTRIGGER_TOKEN") {
                Ok(text) => text,
                Err(_) if std::io::stdin().is_terminal() => asked()?,
                Err(_) => all_of_stdin()?,
            },
        };
        Token::read(&text)
    }

    /// Why the server could be believed. Of several roots of the mesh one is the server's.
    fn believed(&self, server: &Server, token: Option<&Token>) -> Result<Vec<Option<Believed>>, Failure> {
        if !server.is_secure() {
            return Ok(vec![None]);
        }
        if let Some(file) = &self.mesh_roots {
            let text = std::fs::read_to_string(file).doing(file.display())?;
            let roots = certificates_from_pem(&text)
                .map_err(|e| Failure::usage(format!("--mesh-roots {}: {e}", file.display())))?;
            let pin = |der: &Arc<[u8]>| Some(Believed::Pin(RootHash::of(der).to_string()));
            return Ok(roots.iter().map(pin).collect());
        }
        Ok(vec![Some(match (&self.ca_pin, &self.ca_file) {
            (Some(pin), _) => Believed::Pin(pin.to_ascii_lowercase()),
            (None, Some(file)) => Believed::Roots(std::fs::read_to_string(file).doing(file.display())?),
            (None, None) if self.system_roots => Believed::System,
            (None, None) => {
                let pin = token.and_then(Token::pin).ok_or_else(|| {
                    let what = if token.is_some() { "a token of Kubernetes" } else { "a certificate" };
                    Failure::usage(format!("{what} does not tell which server is meant"))
                        .hint("give --mesh-roots, --ca-pin, --ca-file or --system-roots")
                })?;
                Believed::Pin(pin)
            }
        })])
    }
}

impl Logout {
    pub(crate) fn run(control: &Control) -> Result<ExitCode, Failure> {
        let folder = credentials::folder()?;
        let mut kept = Credentials::load(&folder)?;
        let url = control.server(&kept)?.url();
        if kept.servers.remove(&url).is_none() {
            return Err(Failure::failed(format!("there is no token for {url}")));
        }
        if kept.current.as_ref() == Some(&url) {
            kept.current = None;
        }
        kept.save(&folder)?;
        out::say(format!("forgot the token for {url}; it is good until it is revoked"));
        Ok(ExitCode::SUCCESS)
    }
}

impl Whoami {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let who = admin.clone().about(self.about.names()).whoami().await?;
        match self.printed.format {
            Format::Table => out::say(sentence(&who)),
            format => out::value(&who, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sentence(who: &serde_json::Value) -> String {
    let text = |field: &str| who[field].as_str().unwrap_or("?").to_owned();
    let some = who["namespaces"].as_array().map(|all| {
        let names: Vec<&str> = all.iter().filter_map(|name| name.as_str()).collect();
        format!(" in {}", names.join(", "))
    });
    let until = who["expires"].as_str().map(|at| format!(", until {at}")).unwrap_or_default();
    format!("{}: {}{}{until}", text("who"), text("role"), some.unwrap_or_default())
}

/// No token is longer; those of Kubernetes have one to two kilobytes.
const LONGEST: u64 = 16 * 1024;

fn all_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(LONGEST).read_to_string(&mut text).doing("can not read the token")?;
    Ok(text)
}

/// Asks for it on the terminal, which does not show what is typed.
fn asked() -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let input = std::io::stdin();
    let before = tcgetattr(&input).map_err(std::io::Error::from).doing("can not ask for the token")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    eprint!("Token: ");
    let set = |modes| tcsetattr(&input, OptionalActions::Flush, modes).map_err(std::io::Error::from);
    set(&silent).doing("can not hide the token")?;
    let mut text = String::new();
    let read = input.lock().take(LONGEST).read_line(&mut text);
    let _as_it_was = set(&before);
    out::warn("");
    read.doing("can not read the token")?;
    Ok(text)
}
