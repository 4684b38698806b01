//! `outrigger certs`: what leads to a certificate, what was signed, and the life of the authority.

mod files;
mod rotation;

use std::process::ExitCode;

use serde_json::Value;

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Certs {
    /// Make a token with which one sidecar may once ask for its first certificate.
    JoinToken(JoinToken),
    /// Show the certificates that were signed and are valid: of whom, of which root, until when.
    List(List),
    /// Issue a certificate as files, for a peer that is no sidecar of ours.
    Issue(files::Issue),
    /// Change the root: everybody believes both, then the new one signs, then the old one goes.
    RotateRoot(rotation::RotateRoot),
    /// Change the intermediate under the same root. Certificates of the one before stay valid.
    RotateIntermediate(rotation::RotateIntermediate),
    /// Look at a change of the root, or steer it.
    #[command(subcommand)]
    Rotation(rotation::Rotation),
}

/// Make a token with which one sidecar may once ask for its first certificate.
#[derive(Debug, clap::Args)]
pub(crate) struct JoinToken {
    /// The namespace it is good for.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// The service account it is good for.
    #[arg(short, long)]
    service_account: String,
    /// How long it may be used, as 10m or 1h.
    #[arg(long, default_value = "10m")]
    ttl: String,
    #[command(flatten)]
    printed: Printed,
}

/// Show the certificates that were signed and are valid.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Of this identity only, as spiffe://mesh.local/ns/shop/sa/cart.
    #[arg(long)]
    identity: Option<String>,
    #[command(flatten)]
    printed: Printed,
}

impl Certs {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        match self {
            Self::JoinToken(wanted) => wanted.run(admin).await,
            Self::List(list) => list.run(admin).await,
            Self::Issue(issue) => issue.run(admin).await,
            Self::RotateRoot(rotate) => rotate.run(admin).await,
            Self::RotateIntermediate(rotate) => rotate.run(admin).await,
            Self::Rotation(rotation) => rotation.run(admin).await,
        }
    }
}

impl JoinToken {
    async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let made = admin.join_token(&self.namespace, &self.service_account, &self.ttl).await?;
        match self.printed.format {
            // The bare token, for `OUTRIGGER_JOIN_TOKEN=$(outrigger certs join-token …)`.
            Format::Table => out::say(token(&made)?),
            format => out::value(&made, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let path = match &self.identity {
            Some(identity) => format!("certs?identity={identity}"),
            None => "certs".to_owned(),
        };
        let listed = admin.list(&path, None).await?;
        match self.printed.format {
            Format::Table => out::say(table(&listed)),
            format => out::value(&listed, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(listed: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let short = |value: &Value| text(value).chars().take(12).collect::<String>();
    let row = |leaf: &Value| {
        let seen = if leaf["seen"].is_null() { "never" } else { "yes" };
        vec![
            text(&leaf["identity"]),
            short(&leaf["sha256"]),
            short(&leaf["root"]),
            text(&leaf["by"]),
            text(&leaf["from"]),
            seen.to_owned(),
            until(&leaf["notAfter"]),
        ]
    };
    let rows = listed["items"].as_array().into_iter().flatten().map(row);
    out::table(&["identity", "certificate", "root", "by", "from", "seen", "until"], rows)
}

/// A moment without the parts of a second.
fn until(moment: &Value) -> String {
    let text = moment.as_str().unwrap_or("-");
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text.to_owned(),
    }
}

/// The token in the control plane's answer.
pub(crate) fn token(made: &Value) -> Result<&str, Failure> {
    made["token"].as_str().ok_or_else(|| Failure::failed("the control plane answered without a token"))
}
