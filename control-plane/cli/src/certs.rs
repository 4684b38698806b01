//! `outrigger certs`: what leads to a certificate.

use std::process::ExitCode;

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Certs {
    /// Make a token with which one sidecar may once ask for its first certificate.
    JoinToken(JoinToken),
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

impl Certs {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let Self::JoinToken(wanted) = self;
        let made = admin.join_token(&wanted.namespace, &wanted.service_account, &wanted.ttl).await?;
        match wanted.printed.format {
            // The bare token, for `OUTRIGGER_JOIN_TOKEN=$(outrigger certs join-token …)`.
            Format::Table => out::say(token(&made)?),
            format => out::value(&made, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The token in the control plane's answer.
pub(crate) fn token(made: &serde_json::Value) -> Result<&str, Failure> {
    made["token"].as_str().ok_or_else(|| Failure::failed("the control plane answered without a token"))
}
