//! The certificate service: who gets a certificate for which identity.
//!
//! Attestation comes first: a join token, used up by this, a token of Kubernetes, of which `kubernetes` asks the API server,
//! or the certificate of the connection (renewal). The identity is what was attested; the request contributes its public key and nothing else.
//!
//! What signs, and the account of what was signed, is in `keeper` and `ledger`; what a company gives in `company`; the change of the root in `rotation`
//! (what may happen) and `turn` (what does).

mod company;
mod follow;
mod keeper;
mod kept;
pub mod kubernetes;
pub mod ledger;
#[cfg(test)]
mod replica_tests;
pub mod rotation;
mod status;
#[cfg(test)]
mod tests;
mod turn;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_certs::{JoinToken, LeafLifetime, Peer, control_plane_id};
use outrigger_mesh::SpiffeId;
use outrigger_wire::rpc::{Attestation, RpcError, RpcErrorKind, SignReply, SignRequest};

use crate::audit::Author;
use crate::state::{Refusal, RefusalKind, State};

pub use company::Given;
pub use keeper::{Fleet, Holding, Keeper, NotIssued, Wanted};
pub use kubernetes::{KubernetesSettings, NotAttested, TokenReviews};
pub use ledger::Attested;
pub use turn::{NotTurned, Place, Turner, Turning, Wish, open};

/// Signs for those who prove who they are.
pub struct CertificateService {
    keeper: Arc<Keeper>,
    state: Arc<State>,
    lifetime: LeafLifetime,
    kubernetes: Option<TokenReviews>,
}

impl CertificateService {
    /// Hands out certificates of this `lifetime`.
    pub fn new(keeper: Arc<Keeper>, state: Arc<State>, lifetime: LeafLifetime) -> Self {
        Self { keeper, state, lifetime, kubernetes: None }
    }

    /// Believes the API server of a Kubernetes cluster, too.
    #[must_use]
    pub fn with_kubernetes(self, kubernetes: Option<TokenReviews>) -> Self {
        Self { kubernetes, ..self }
    }

    /// A certificate for the caller. Every refusal is logged here with what the caller was told.
    pub async fn sign(
        &self,
        peer: Option<&Peer>,
        from: SocketAddr,
        request: SignRequest,
    ) -> Result<SignReply, RpcError> {
        let signed = self.attest_and_sign(peer, from, &request).await;
        match &signed {
            Ok((id, _)) => tracing::info!(%id, %from, renewal = peer.is_some(), "signed a certificate"),
            Err(refusal) => {
                let peer = peer.map(|p| p.id().to_string());
                tracing::warn!(%from, peer, reason = %refusal, "refused a certificate");
            }
        }
        signed.map(|(_, reply)| reply)
    }

    async fn attest_and_sign(
        &self,
        peer: Option<&Peer>,
        from: SocketAddr,
        request: &SignRequest,
    ) -> Result<(SpiffeId, SignReply), RpcError> {
        let (id, by) = match (peer, &request.attestation) {
            (Some(peer), _) => (peer.id().clone(), Attested::Renewal),
            (None, Some(Attestation::JoinToken(token))) => {
                (self.attest_token(token, from).await?, Attested::JoinToken)
            }
            (None, Some(Attestation::Kubernetes(token))) => {
                (self.attest_account(token).await?, Attested::Kubernetes)
            }
            (None, None) => {
                let what = "give a join token, or connect with the certificate that is to be renewed";
                return Err(RpcError::new(RpcErrorKind::Unauthenticated, what));
            }
        };
        if control_plane_id(self.keeper.trust_domain()).is_ok_and(|own| own == id) {
            return Err(RpcError::new(RpcErrorKind::Denied, format!("{id} is the control plane itself")));
        }
        let wanted = Wanted {
            id: &id,
            by,
            before: peer.map(Peer::certificate_sha256),
            from: from.to_string(),
            lifetime: self.lifetime,
            audit: None,
        };
        let issued = self.keeper.issue(&request.csr_der, wanted).await;
        let (leaf, trust) = issued.map_err(|why| RpcError::new(kind_of(&why), why.to_string()))?;
        Ok((id, SignReply { chain: leaf.chain, trust }))
    }

    async fn attest_account(&self, token: &str) -> Result<SpiffeId, RpcError> {
        let Some(kubernetes) = &self.kubernetes else {
            let what = "this control plane does not ask Kubernetes (--kubernetes-api); use a join token";
            return Err(RpcError::new(RpcErrorKind::Unauthenticated, what));
        };
        let attested = kubernetes.review(token).await.map_err(|why| {
            let kind = match why {
                NotAttested::Refused(_) => RpcErrorKind::Unauthenticated,
                NotAttested::Unknown(_) => RpcErrorKind::Unavailable,
                NotAttested::Busy => RpcErrorKind::Exhausted,
            };
            RpcError::new(kind, why.to_string())
        });
        let (namespace, account) = attested?;
        Ok(SpiffeId::new(self.keeper.trust_domain().clone(), namespace, account))
    }

    async fn attest_token(&self, text: &str, from: SocketAddr) -> Result<SpiffeId, RpcError> {
        let token: JoinToken =
            text.parse().map_err(|e| RpcError::new(RpcErrorKind::Unauthenticated, format!("{e}")))?;
        let author = Author::new(format!("join token {}", token.id()), from.to_string());
        let (namespace, account) =
            self.state.consume_join_token_from(&token, &author).await.map_err(|refusal| refused(&refusal))?;
        Ok(SpiffeId::new(self.keeper.trust_domain().clone(), namespace, account))
    }
}

fn kind_of(why: &NotIssued) -> RpcErrorKind {
    match why {
        NotIssued::Certificate(_) => RpcErrorKind::Invalid,
        NotIssued::Revoked(_) | NotIssued::Own(_) => RpcErrorKind::Denied,
        NotIssued::Full(_) => RpcErrorKind::Exhausted,
        NotIssued::Store(_) => RpcErrorKind::Unavailable,
    }
}

/// What the holder of a token is told. Whoever has the secret may know that it was used or has expired; whoever has not
/// learns nothing of it.
fn refused(refusal: &Refusal) -> RpcError {
    let unauthenticated = |what: &str| RpcError::new(RpcErrorKind::Unauthenticated, what);
    match refusal.kind {
        RefusalKind::TokenUsed => {
            unauthenticated("the join token was used before: each works once; make a new one")
        }
        RefusalKind::TokenExpired => unauthenticated("the join token has expired; make a new one"),
        RefusalKind::Unavailable => RpcError::new(RpcErrorKind::Unavailable, refusal.told()),
        _ => unauthenticated(refusal.told()),
    }
}
