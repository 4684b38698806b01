//! An identity from a SPIFFE Workload API, such as a SPIRE agent's: over its Unix socket, followed for as long as the
//! process lives. Certificate, key and bundles are swapped as they come; connections stay open.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::{WorkloadIdentity, roots_from_der};
use outrigger_mesh::{SpiffeId, Trust, TrustDomain};
use outrigger_wire::workload_api::{Workload, WorkloadApi};
use tokio::net::UnixStream;

use super::{IdentityError, Obtained, Origin, RenewalStatus, until};
use crate::config::backoff::Backoff;

/// Waits for the identity for as long as it takes, telling `waiting` why.
pub(super) async fn obtain(
    socket: &Path,
    id: &SpiffeId,
    waiting: impl Fn(&str) + Send,
) -> Result<Obtained, IdentityError> {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let why = match first(socket, id).await {
            Ok((identity, trust)) => {
                return Ok(Obtained { identity: Arc::new(identity), trust, from: Origin::WorkloadApi });
            }
            Err(why) => format!("{}: {why}", socket.display()),
        };
        let wait = backoff.wait();
        tracing::warn!(%why, retry_in = ?wait, "no identity from the Workload API yet");
        waiting(&why);
        tokio::time::sleep(wait).await;
    }
}

async fn first(socket: &Path, id: &SpiffeId) -> Result<(WorkloadIdentity, Trust), String> {
    let mut stream = client(socket).follow().await.map_err(|e| e.message)?;
    let told = stream.next().await.map_err(|e| e.message)?;
    let told = told.ok_or("it closed the stream without a word")?;
    let (identity, trust) = own(&told, id)?;
    take_federated(&identity, &told, &mut BTreeSet::new())?;
    Ok((identity, trust))
}

/// Follows the Workload API for as long as it runs.
#[derive(Debug)]
pub struct WorkloadApiWatch {
    socket: PathBuf,
    identity: Arc<WorkloadIdentity>,
    status: Arc<RenewalStatus>,
    /// The foreign trust domains that it made us believe.
    federated: BTreeSet<TrustDomain>,
}

impl WorkloadApiWatch {
    /// Follows the one at `socket`, from which `obtained` came.
    pub fn new(socket: PathBuf, obtained: &Obtained) -> Self {
        let identity = Arc::clone(&obtained.identity);
        // What was told at the beginning may be gone at the first word.
        let mut federated = identity.trust().domains();
        federated.remove(identity.id().trust_domain());
        Self { socket, identity, status: Arc::default(), federated }
    }

    /// How it is going: a renewal is a certificate that was taken, a failure an answer that was not, or a stream that
    /// ended.
    pub fn status(&self) -> Arc<RenewalStatus> {
        Arc::clone(&self.status)
    }

    /// Follows until it is dropped. What was told last holds while nobody answers.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let why = self.stream(&mut backoff).await;
            self.status.failed();
            let (wait, left) = (backoff.wait(), until(self.identity.expires_at()));
            tracing::warn!(%why, retry_in = ?wait, valid_for = ?left, "no word from the Workload API; what it said last holds");
            tokio::time::sleep(wait).await;
        }
    }

    /// One stream, to its end.
    async fn stream(&mut self, backoff: &mut Backoff) -> String {
        let mut stream = match client(&self.socket).follow().await {
            Ok(stream) => stream,
            Err(error) => return error.message,
        };
        loop {
            match stream.next().await {
                Ok(Some(told)) => {
                    backoff.reset();
                    if let Err(why) = self.take(&told) {
                        self.status.failed();
                        tracing::error!(%why, "what the Workload API says can not be used; what it said before holds");
                    }
                }
                Ok(None) => return "it closed the stream".into(),
                Err(error) => return error.message,
            }
        }
    }

    fn take(&mut self, told: &Workload) -> Result<(), String> {
        let (fresh, trust) = own(told, self.identity.id())?;
        let changed = fresh.certificate_sha256() != self.identity.certificate_sha256();
        self.identity.replace(&fresh, &trust).map_err(|e| e.to_string())?;
        take_federated(&self.identity, told, &mut self.federated)?;
        if changed {
            self.status.renewed();
            let left = until(self.identity.expires_at());
            tracing::info!(id = %self.identity.id(), valid_for = ?left, "another certificate from the Workload API");
        }
        Ok(())
    }
}

/// Our own among the identities.
fn own(told: &Workload, id: &SpiffeId) -> Result<(WorkloadIdentity, Trust), String> {
    let text = id.to_string();
    let Some(svid) = told.svids.iter().find(|svid| svid.id == text) else {
        let all: Vec<_> = told.svids.iter().map(|svid| svid.id.as_str()).collect();
        return Err(format!("it has no certificate for {id}, only for {}", all.join(", ")));
    };
    let (identity, trust) =
        WorkloadIdentity::from_der(&svid.chain, &svid.key, &svid.bundle).map_err(|e| e.to_string())?;
    // What it calls it is one thing, what the certificate says is another.
    if identity.id() != id {
        return Err(format!("the certificate it gives for {id} is for {}", identity.id()));
    }
    Ok((identity, trust))
}

/// Believes the foreign domains that it names and none that it named before. All of them or none.
fn take_federated(
    identity: &WorkloadIdentity,
    told: &Workload,
    known: &mut BTreeSet<TrustDomain>,
) -> Result<(), String> {
    let mut all = Vec::new();
    for (name, roots) in &told.federated {
        let bad = |why: String| format!("the bundle of {name}: {why}");
        let bare = name.strip_prefix("spiffe://").unwrap_or(name);
        let trust_domain = TrustDomain::new(bare).map_err(|e| bad(e.to_string()))?;
        if &trust_domain != identity.id().trust_domain() {
            all.push(Trust { trust_domain, roots: roots_from_der(roots).map_err(|e| bad(e.to_string()))? });
        }
    }
    for trust in &all {
        identity.trust().update(trust).map_err(|e| e.to_string())?;
    }
    let now: BTreeSet<_> = all.into_iter().map(|trust| trust.trust_domain).collect();
    known.difference(&now).for_each(|gone| identity.trust().forget(gone));
    *known = now;
    Ok(())
}

fn client(socket: &Path) -> WorkloadApi {
    let socket = socket.to_path_buf();
    WorkloadApi::new(move || {
        let socket = socket.clone();
        Box::pin(async move {
            let why = |e: io::Error| io::Error::new(e.kind(), format!("can not connect: {e}"));
            UnixStream::connect(socket).await.map_err(why)
        })
    })
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
