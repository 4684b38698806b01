//! The certificate service: who gets a certificate for which identity.
//!
//! Attestation comes first: a join token, used up by this, or the certificate of the connection (renewal). The identity
//! is what was attested; the request contributes its public key and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_certs::{Authority, JoinToken, LeafLifetime, Peer};
use outrigger_mesh::SpiffeId;
use outrigger_wire::rpc::{RpcError, RpcErrorKind, SignReply, SignRequest};

use crate::audit::Author;
use crate::state::{Refusal, RefusalKind, State};

/// Signs for those who prove who they are.
pub struct CertificateService {
    authority: Arc<Authority>,
    state: Arc<State>,
    lifetime: LeafLifetime,
}

impl CertificateService {
    /// Signs with `authority` certificates of this `lifetime`.
    pub fn new(authority: Arc<Authority>, state: Arc<State>, lifetime: LeafLifetime) -> Self {
        Self { authority, state, lifetime }
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
        let id = match (peer, &request.join_token) {
            (Some(peer), _) => peer.id().clone(),
            (None, Some(token)) => self.attest_token(token, from).await?,
            (None, None) => {
                let what = "give a join token, or connect with the certificate that is to be renewed";
                return Err(RpcError::new(RpcErrorKind::Unauthenticated, what));
            }
        };
        let leaf = self
            .authority
            .sign(&request.csr_der, &id, self.lifetime, SystemTime::now())
            .map_err(|e| RpcError::new(RpcErrorKind::Invalid, e.to_string()))?;
        Ok((id, SignReply { chain: leaf.chain, trust: self.authority.trust() }))
    }

    async fn attest_token(&self, text: &str, from: SocketAddr) -> Result<SpiffeId, RpcError> {
        let token: JoinToken =
            text.parse().map_err(|e| RpcError::new(RpcErrorKind::Unauthenticated, format!("{e}")))?;
        let author = Author::new(format!("join token {}", token.id()), from.to_string());
        let (namespace, account) =
            self.state.consume_join_token_from(&token, &author).await.map_err(|refusal| refused(&refusal))?;
        Ok(SpiffeId::new(self.authority.trust_domain().clone(), namespace, account))
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
