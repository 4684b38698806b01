//! Renewal of the leaf at half of its life, with a new key, without reconnecting.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use outrigger_certs::{CertError, IdentityFiles, WorkloadIdentity, WorkloadKey};
use outrigger_wire::rpc::{RpcError, SignRequest};

use super::{Obtained, Origin, is_final, until};
use crate::config::backoff::Backoff;
use crate::config::dial::Control;

/// Renews a leaf for as long as it runs.
#[derive(Debug)]
pub struct Renewal {
    identity: Arc<WorkloadIdentity>,
    control: Control,
    folder: Option<PathBuf>,
    received: SystemTime,
    status: Arc<RenewalStatus>,
}

/// How renewal is going.
#[derive(Debug, Default)]
pub struct RenewalStatus {
    renewals: AtomicU64,
    failures: AtomicU64,
}

impl RenewalStatus {
    /// Leaves received since the start.
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Relaxed)
    }

    pub(super) fn renewed(&self) {
        self.renewals.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Attempts that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }
}

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("{0}")]
    Certificate(#[from] CertError),
    #[error("{why}")]
    Call { why: String, error: RpcError },
    #[error("a task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Renewal {
    /// The renewal of what was obtained, by `control`, which must authenticate with the same identity. What comes from
    /// files is renewed by whoever writes the files: `None`.
    pub fn new(obtained: &Obtained, control: Control, folder: Option<PathBuf>) -> Option<Self> {
        let identity = Arc::clone(&obtained.identity);
        let received = match obtained.from {
            Origin::Files | Origin::WorkloadApi => return None,
            Origin::Joined => SystemTime::now(),
            // When it was received is not kept; it was made for us, so not long after it began.
            Origin::Disk => identity.not_before(),
        };
        Some(Self { identity, control, folder, received, status: Arc::default() })
    }

    /// How it is going.
    pub fn status(&self) -> Arc<RenewalStatus> {
        Arc::clone(&self.status)
    }

    /// Renews until it is dropped. A certificate whose renewal fails stays in use, and attempts go on to its end and
    /// beyond: the control plane may still accept what peers no longer do.
    pub async fn run(mut self) {
        loop {
            sleep_until(self.identity.renew_at(self.received, fastrand::f64())).await;
            let mut backoff = Backoff::new(FIRST_RETRY, self.longest_retry());
            while let Err(error) = self.renew().await {
                self.status.failures.fetch_add(1, Relaxed);
                let wait = backoff.wait();
                self.say(&error, wait);
                tokio::time::sleep(wait).await;
            }
            self.received = SystemTime::now();
            self.status.renewals.fetch_add(1, Relaxed);
            let left = until(self.identity.expires_at());
            tracing::info!(id = %self.identity.id(), valid_for = ?left, "certificate renewed");
        }
    }

    async fn renew(&self) -> Result<(), RenewError> {
        let key = WorkloadKey::generate()?;
        let request = SignRequest { csr_der: key.csr()?, attestation: None };
        let reply = self.control.client().sign(request).await;
        let reply = reply.map_err(|error| RenewError::Call { why: self.control.explain(&error), error })?;
        self.identity.trust().update(&reply.trust)?;
        self.identity.install(&key, &reply.chain)?;
        if let Some(folder) = self.folder.clone() {
            let stored = tokio::task::spawn_blocking(move || {
                IdentityFiles::new(&folder).store(&key, &reply.chain, &reply.trust)
            });
            // In force already: a full disk costs the next start, not this process.
            if let Err(error) = stored.await? {
                tracing::error!(%error, "the renewed certificate can not be stored");
            }
        }
        Ok(())
    }

    /// A tenth of what is left, between a second and five minutes: there must be many tries before the end.
    fn longest_retry(&self) -> Duration {
        (until(self.identity.expires_at()) / 10).clamp(FIRST_RETRY, LONGEST_RETRY)
    }

    fn say(&self, error: &RenewError, wait: Duration) {
        let left = until(self.identity.expires_at());
        let refused = matches!(error, RenewError::Call { error, .. } if is_final(error.kind));
        if left.is_zero() {
            tracing::error!(%error, retry_in = ?wait, "the certificate has expired and can not be renewed");
        } else if refused {
            tracing::error!(%error, valid_for = ?left, retry_in = ?wait, "renewal of the certificate is refused");
        } else {
            tracing::warn!(%error, valid_for = ?left, retry_in = ?wait, "renewal of the certificate failed");
        }
    }
}

/// Sleeps by the system's clock, which may be set while we sleep: looks at it every minute.
async fn sleep_until(at: SystemTime) {
    loop {
        let left = until(at);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_mins(1);
