//! Who this workload is, and how it proves it.
//!
//! The identity comes from files, from a SPIFFE Workload API, from key and leaf of an earlier start, or for a join token from the control plane;
//! [`obtain`] tries them in this order. [`Renewal`] replaces the leaf at half of its life; files of somebody else are
//! followed by [`FilesWatch`]. What a certificate must look
//! like is deliberately elsewhere (`outrigger-certs`).

mod files;
mod kubernetes;
mod renew;
mod workload_api;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::{
    CertError, ControlConnector, HandshakeError, IdentityFiles, JoinToken, PeerError, RootHash,
    WorkloadIdentity, WorkloadKey,
};
use outrigger_mesh::{SpiffeId, Trust};
use outrigger_wire::rpc::{Attestation, RpcErrorKind, SignRequest};

pub use files::FilesWatch;
pub use kubernetes::KubernetesToken;
pub use renew::{Renewal, RenewalStatus};
pub use workload_api::WorkloadApiWatch;

use crate::config::backoff::Backoff;
use crate::config::dial::Control;

/// Whose identity is wanted, and where it may come from.
#[derive(Debug)]
pub struct IdentitySettings {
    /// The workload. Whatever comes from anywhere must be for exactly this.
    pub id: SpiffeId,
    /// Where key and leaf are kept between starts; `None` keeps them in memory only.
    pub folder: Option<PathBuf>,
    /// Files that somebody else provides. With them nothing else is tried.
    pub files: Option<CertificateFiles>,
    /// The socket of a SPIFFE Workload API. With it neither the disk nor the control plane is asked.
    pub workload_api: Option<PathBuf>,
    /// Where the control plane is, and what lets this workload in.
    pub control: Option<JoinSettings>,
}

/// Certificate files, PEM.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key; only its owner may read it.
    pub key: PathBuf,
    /// The roots of the leaf's trust domain.
    pub roots: PathBuf,
}

/// How to join.
#[derive(Debug)]
pub struct JoinSettings {
    /// The control plane's address.
    pub address: String,
    /// The join token. Not needed when key and leaf are on disk.
    pub token: Option<TokenSource>,
}

/// Where a join token is.
#[derive(Debug)]
pub enum TokenSource {
    /// In a file, which is read when it is needed.
    File(PathBuf),
    /// Given by the environment.
    Given(JoinToken),
    /// No join token, but what Kubernetes gives a pod.
    Kubernetes(KubernetesToken),
}

/// An identity, and where it came from.
#[derive(Debug)]
pub struct Obtained {
    /// The identity.
    pub identity: Arc<WorkloadIdentity>,
    /// Whom it believed when it was obtained.
    pub trust: Trust,
    /// Where it came from.
    pub from: Origin,
}

/// Where an identity came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From files of somebody else, who also renews them.
    Files,
    /// From a SPIFFE Workload API, which also renews them.
    WorkloadApi,
    /// From an earlier start.
    Disk,
    /// From the control plane, for a join token.
    Joined,
}

/// Why there is no identity. None of them gets better by waiting.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file can not be used.
    #[error("the identity can not be used: {0}")]
    Certificate(#[from] CertError),
    /// A file can not be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is for somebody else.
    #[error("{what} is for {got}, and this sidecar was started for {expected}")]
    OtherIdentity {
        /// What it was found in.
        what: String,
        /// Who it should be for.
        expected: SpiffeId,
        /// Who it is for.
        got: SpiffeId,
    },
    /// There is nothing to get one with.
    #[error("no identity for {id}: {why}")]
    Nothing {
        /// The workload.
        id: SpiffeId,
        /// What is missing.
        why: String,
    },
    /// The control plane said no.
    #[error("the control plane at {address} refuses to attest this workload: {why}")]
    Refused {
        /// Where it is.
        address: String,
        /// Its reason.
        why: String,
    },
    /// The other end is not the control plane that the token is for.
    #[error("{0}; is what attests this workload of another mesh?")]
    Stranger(String),
    /// TLS can not be set up.
    #[error(transparent)]
    Tls(#[from] HandshakeError),
}

/// Obtains the identity; waits for the control plane for as long as it is away, telling `waiting` why. To be dropped
/// when the process is asked to end.
pub async fn obtain(
    settings: &IdentitySettings,
    waiting: impl Fn(&str) + Send,
) -> Result<Obtained, IdentityError> {
    if let Some(files) = &settings.files {
        return files::read(files, &settings.id);
    }
    if let Some(socket) = &settings.workload_api {
        return workload_api::obtain(socket, &settings.id, waiting).await;
    }
    let kept = match &settings.folder {
        Some(folder) => from_disk(folder, &settings.id)?,
        None => Kept::Nothing,
    };
    let kept = match kept {
        Kept::Valid(obtained) if is_of_another_mesh(&obtained, settings) => Kept::Foreign,
        Kept::Valid(obtained) => return Ok(obtained),
        other => other,
    };
    let nothing = |why: String| IdentityError::Nothing { id: settings.id.clone(), why };
    let Some(join) = &settings.control else {
        return Err(nothing(format!("{kept}, and there is no control plane to get another from")));
    };
    let Some(source) = &join.token else {
        return Err(nothing(format!("{kept}, and there is no join token to get another with")));
    };
    let evidence = Evidence::read(source)?;
    join_mesh(settings, join, &evidence, waiting).await
}

/// Whether there is a token that can be read and is for a mesh with none of the roots we kept: the mesh was made anew,
/// and whoever gave us the token wants us in the new one.
fn is_of_another_mesh(kept: &Obtained, settings: &IdentitySettings) -> bool {
    let source = settings.control.as_ref().and_then(|join| join.token.as_ref());
    let token = match source.map(Evidence::read) {
        Some(Ok(Evidence::Join(token))) => token,
        Some(Ok(Evidence::Kubernetes(kubernetes))) => {
            let trust = kubernetes.trust(&settings.id);
            return trust.is_ok_and(|trust| !kept.trust.roots.iter().any(|root| trust.roots.contains(root)));
        }
        Some(Err(_)) | None => return false,
    };
    if settings.folder.as_ref().is_some_and(|folder| IdentityFiles::new(folder).did_join_with(&token)) {
        // The mesh has another root by now, but it is the mesh that this token let us into.
        return false;
    }
    let foreign = !kept.trust.roots.iter().any(|root| RootHash::of(root) == token.root());
    if foreign {
        tracing::warn!("the identity kept from an earlier start is of another mesh than the join token");
    }
    foreign
}

/// What was found on disk.
enum Kept {
    Valid(Obtained),
    Nothing,
    Expired(PathBuf),
    Foreign,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(_) => f.write_str("there is one"),
            Self::Foreign => f.write_str("the one kept from an earlier start is of another mesh"),
            Self::Nothing => f.write_str("none was kept from an earlier start"),
            Self::Expired(folder) => write!(f, "the one kept in {} has expired", folder.display()),
        }
    }
}

fn from_disk(folder: &Path, id: &SpiffeId) -> Result<Kept, IdentityError> {
    match IdentityFiles::new(folder).load(id) {
        Ok(None) => Ok(Kept::Nothing),
        Ok(Some((identity, trust))) => {
            Ok(Kept::Valid(Obtained { identity: Arc::new(identity), trust, from: Origin::Disk }))
        }
        Err(CertError::Peer(PeerError::Expired)) => Ok(Kept::Expired(folder.to_path_buf())),
        Err(other) => Err(other.into()),
    }
}

/// What attests us to the control plane.
enum Evidence {
    Join(JoinToken),
    Kubernetes(KubernetesToken),
}

impl Evidence {
    fn read(source: &TokenSource) -> Result<Self, IdentityError> {
        match source {
            TokenSource::Given(token) => Ok(Self::Join(token.clone())),
            TokenSource::Kubernetes(kubernetes) => Ok(Self::Kubernetes(kubernetes.clone())),
            TokenSource::File(path) => {
                let failed = |source| IdentityError::File { path: path.clone(), source };
                let text = fs::read_to_string(path).map_err(failed)?;
                Ok(Self::Join(text.parse::<JoinToken>()?))
            }
        }
    }

    /// Who is believed to be the control plane at first contact.
    fn connector(&self, id: &SpiffeId) -> Result<ControlConnector, IdentityError> {
        Ok(match self {
            Self::Join(token) => ControlConnector::pinned(token.root())?,
            Self::Kubernetes(kubernetes) => ControlConnector::believing(&kubernetes.trust(id)?)?,
        })
    }

    /// As it is now.
    fn attestation(&self) -> Result<Attestation, IdentityError> {
        Ok(match self {
            Self::Join(token) => Attestation::JoinToken(token.expose().as_str().to_owned()),
            Self::Kubernetes(kubernetes) => Attestation::Kubernetes(kubernetes.read()?.as_str().to_owned()),
        })
    }
}

async fn join_mesh(
    settings: &IdentitySettings,
    join: &JoinSettings,
    evidence: &Evidence,
    waiting: impl Fn(&str) + Send,
) -> Result<Obtained, IdentityError> {
    let mut control = Control::new(&join.address, evidence.connector(&settings.id)?);
    let key = WorkloadKey::generate()?;
    let csr_der = key.csr()?;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let reply = loop {
        let request = SignRequest { csr_der: csr_der.clone(), attestation: Some(evidence.attestation()?) };
        let error = match control.client().sign(request).await {
            Ok(reply) => break reply,
            Err(error) => error,
        };
        if control.met_a_stranger() {
            return Err(IdentityError::Stranger(control.explain(&error)));
        }
        if !error.is_retryable() {
            return Err(IdentityError::Refused { address: join.address.clone(), why: error.message });
        }
        let (why, wait) = (control.explain(&error), backoff.wait());
        tracing::warn!(%why, retry_in = ?wait, "no certificate yet");
        waiting(&why);
        tokio::time::sleep(wait).await;
        if let Evidence::Kubernetes(_) = evidence {
            // The roots may be others by now, too.
            control = Control::new(&join.address, evidence.connector(&settings.id)?);
        }
    };
    let identity = WorkloadIdentity::from_parts(&key, &reply.chain, &reply.trust)?;
    check(&settings.id, &identity, || "what attests this workload".to_owned())?;
    if let Some(folder) = &settings.folder {
        let files = IdentityFiles::new(folder);
        files.store(&key, &reply.chain, &reply.trust)?;
        if let Evidence::Join(token) = evidence {
            files.joined_with(token)?;
        }
    }
    tracing::info!(id = %identity.id(), "joined the mesh");
    Ok(Obtained { identity: Arc::new(identity), trust: reply.trust, from: Origin::Joined })
}

fn check(
    expected: &SpiffeId,
    identity: &WorkloadIdentity,
    what: impl Fn() -> String,
) -> Result<(), IdentityError> {
    if identity.id() == expected {
        return Ok(());
    }
    Err(IdentityError::OtherIdentity { what: what(), expected: expected.clone(), got: identity.id().clone() })
}

/// Whether a refusal means that what attests us will never be accepted, as opposed to not now.
fn is_final(kind: RpcErrorKind) -> bool {
    matches!(kind, RpcErrorKind::Unauthenticated | RpcErrorKind::Denied | RpcErrorKind::Invalid)
}

/// How long until `at`; nothing when it has passed.
fn until(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::now()).unwrap_or_default()
}
