//! Attestation by Kubernetes: its API server says whose a projected service-account token is (`TokenReview`).
//!
//! A token counts for our own audience alone, so that one made for somebody else opens nothing here, and what is sent to us
//! opens nothing elsewhere. No token is ever in an error or in the log, the control plane's own least of all. How the API server is
//! reached is in `outrigger-kube`; here is what its answer means, and how often it is asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use outrigger_kube::api::{Address, ApiServer, CallError, CallErrorKind};
use outrigger_kube::review::{User, whose};
use outrigger_mesh::Label;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Where the API server is, and how the control plane proves itself to it.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// Its URL, https.
    pub api: String,
    /// The control plane's own token, which the kubelet replaces now and then.
    pub token: PathBuf,
    /// Who vouches for the API server, PEM.
    pub ca: PathBuf,
    /// The audience that tokens of workloads must be for.
    pub audience: String,
}

/// Asks the API server whose tokens are.
pub struct TokenReviews {
    api: ApiServer,
    audience: String,
    places: Semaphore,
}

/// Why a token attests nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAttested {
    /// It is not good.
    #[error("the Kubernetes token is refused: {0}")]
    Refused(String),
    /// Nobody could say whether it is good.
    #[error("the Kubernetes token can not be reviewed now: {0}")]
    Unknown(String),
    /// Too many are being reviewed.
    #[error("too many Kubernetes tokens are being reviewed")]
    Busy,
}

/// As long as a review may take.
const WHOLE: Duration = Duration::from_secs(5);
/// Kubernetes makes tokens of one to two kilobytes.
const MAX_TOKEN: usize = 16 * 1024;
/// As many are reviewed at a time: who has no certificate must not drive the API server.
const AT_ONCE: usize = 16;
const ACCOUNT: &str = "system:serviceaccount:";

impl TokenReviews {
    /// Proves the settings; the error names what is wrong with which.
    pub fn new(settings: KubernetesSettings) -> anyhow::Result<Self> {
        if settings.audience.is_empty() {
            bail!("--kubernetes-audience is empty: tokens for anybody would be good");
        }
        let address = Address { url: settings.api, token: settings.token, roots: settings.ca };
        let api = ApiServer::new(&address).context("--kubernetes-api")?;
        Ok(Self { api, audience: settings.audience, places: Semaphore::new(AT_ONCE) })
    }

    /// The namespace and service account that `token` proves.
    pub async fn review(&self, token: &str) -> Result<(Label, Label), NotAttested> {
        // What can not be a token is not worth asking for.
        if !is_token(token) {
            return Err(NotAttested::Refused("it is no JSON Web Token".into()));
        }
        let Ok(_place) = self.places.try_acquire() else { return Err(NotAttested::Busy) };
        let user = match timeout(WHOLE, whose(&self.api, token, Some(&self.audience))).await {
            Ok(Ok(user)) => user,
            Ok(Err(e)) => return Err(NotAttested::Unknown(in_words(&e, token))),
            Err(_late) => {
                return Err(NotAttested::Unknown(format!("the API server took longer than {WHOLE:?}")));
            }
        };
        let Some(user) = user else {
            let told = format!(
                "the API server does not know it, or not for the audience {}: project one that is for it",
                self.audience
            );
            return Err(NotAttested::Refused(told));
        };
        account(&user).map_err(NotAttested::Refused)
    }
}

/// The namespace and name of the service account that somebody is.
fn account(user: &User) -> Result<(Label, Label), String> {
    let account = user.name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account else { return Err("it is of no service account".into()) };
    let label = |text: &str| Label::new(text).map_err(|e| format!("its service account: {e}"));
    Ok((label(namespace)?, label(account)?))
}

/// Why nobody could say whose a token is. Where an API server says it with the token in question that is not repeated.
fn in_words(e: &CallError, token: &str) -> String {
    if e.kind() == CallErrorKind::Forbidden {
        return "the API server does not let the control plane ask: its service account must be allowed to create \
                tokenreviews (ClusterRole system:auth-delegator)"
            .into();
    }
    let (told, beginning) = (e.to_string(), token.get(..BEGINNING).unwrap_or(token));
    if told.contains(beginning) { "the API server refuses the question".into() } else { told }
}

/// By so much of it a token is known again: no more than of what sort it is.
const BEGINNING: usize = 16;

/// Three parts of base64url: what the API server would take to pieces.
fn is_token(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= MAX_TOKEN && text.split('.').count() == 3 && text.split('.').all(is_part)
}
