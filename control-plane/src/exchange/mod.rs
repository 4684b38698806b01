//! The token service: a user's token for a short-lived one of the mesh, that is good at one service alone (the semantics of
//! RFC 8693; the call itself is one of the push port's).
//!
//! Asked by the sidecar of a workload, for a token that its service takes. The caller is who its certificate proves; the
//! token is proven here again, by what the policy of the caller's own service wants: nobody can exchange what was not meant
//! for it. The new token keeps `sub`, is for the destination, says in `act` who called whom, and carries what a denylist
//! may name of the first one.

mod keys; // what signs, and how that changes
mod limit; // how often one identity may ask
mod mint; // what the new token says

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_certs::jwt::{self, Arranged, Fault};
use outrigger_mesh::{AcceptedIssuer, IssuerName, ServiceName, SpiffeId, TokenRules};
use outrigger_wire::rpc::{ExchangeReply, ExchangeRequest, RpcError, RpcErrorKind};

use crate::state::State;
use crate::world::World;

pub use keys::Keys;
use limit::Limits;

/// Exchanges tokens.
pub struct TokenService {
    state: Arc<State>,
    keys: Arc<Keys>,
    limits: Limits,
    believed: Mutex<Option<Believed>>,
    issued: AtomicU64,
    refused: AtomicU64,
}

/// Whom to believe, arranged from one world and one set of keys.
struct Believed {
    world: Arc<World>,
    keys: Arc<keys::InForce>,
    arranged: Arc<Arranged>,
}

impl TokenService {
    /// Exchanges by what `state` says, signed with `keys`.
    pub fn new(state: Arc<State>, keys: Arc<Keys>) -> Self {
        let limits = Limits::default();
        Self {
            state,
            keys,
            limits,
            believed: Mutex::default(),
            issued: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A token of the mesh for the caller. Every refusal is logged here with what the caller was told.
    pub fn exchange(
        &self,
        caller: &SpiffeId,
        from: SocketAddr,
        request: &ExchangeRequest,
    ) -> Result<ExchangeReply, RpcError> {
        let exchanged = self.exchanged(caller, request);
        match &exchanged {
            Ok(_) => {
                self.issued.fetch_add(1, Relaxed);
                tracing::debug!(%caller, service = %request.service, "exchanged a token");
            }
            Err(refusal) => {
                self.refused.fetch_add(1, Relaxed);
                let service = &request.service;
                tracing::info!(%caller, %from, %service, reason = %refusal, "refused to exchange a token");
            }
        }
        exchanged
    }

    /// The mesh as an issuer, for operators.
    pub fn to_json(&self) -> serde_json::Value {
        let issuer = &self.keys.in_force().issuer;
        serde_json::json!({
            "name": issuer.name.to_string(),
            "issuer": &*issuer.iss,
            "keys": issuer.keys.all().len(),
            "state": "ok",
            "source": "this control plane",
        })
    }

    /// The metrics as text for Prometheus.
    pub fn metrics(&self) -> String {
        let (issued, refused) = (self.issued.load(Relaxed), self.refused.load(Relaxed));
        format!(
            "# HELP outrigger_control_token_exchanges_total Tokens that were to be exchanged.\n\
             # TYPE outrigger_control_token_exchanges_total counter\n\
             outrigger_control_token_exchanges_total{{outcome=\"issued\"}} {issued}\n\
             outrigger_control_token_exchanges_total{{outcome=\"refused\"}} {refused}\n"
        )
    }

    fn exchanged(&self, caller: &SpiffeId, request: &ExchangeRequest) -> Result<ExchangeReply, RpcError> {
        // Before a byte of the token is looked at.
        if !self.limits.take(caller) {
            return Err(RpcError::new(RpcErrorKind::Exhausted, "this identity exchanges too many tokens"));
        }
        let (world, keys) = (self.state.world(), self.keys.in_force());
        let policy = policy_of(&world, &request.service)?;
        let arranged = self.arranged(&world, &keys);
        let accepted = accepted(&world, caller);
        let now = now();
        let verified = prove(&arranged, &accepted, request.token.as_bytes(), now)?;
        let wanted = mint::Wanted {
            subject: verified.claims(),
            expires: verified.expires(),
            of_the_mesh: verified.claims().issuer == keys.issuer.name,
            caller,
            service: &request.service,
            policy: &policy,
            iss: &keys.issuer.iss,
            jti: new_jti()?,
            now,
        };
        let (claims, expires) = mint::claims(&wanted).map_err(denied)?;
        let claims = zeroize::Zeroizing::new(claims.to_string());
        let token = keys.signer.sign(claims.as_bytes());
        let token = token.map_err(|e| RpcError::new(RpcErrorKind::Internal, e.to_string()))?;
        Ok(ExchangeReply { token, expires })
    }

    fn arranged(&self, world: &Arc<World>, keys: &Arc<keys::InForce>) -> Arc<Arranged> {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*believed
            && Arc::ptr_eq(&known.world, world)
            && Arc::ptr_eq(&known.keys, keys)
        {
            return Arc::clone(&known.arranged);
        }
        let mut issuers =
            HashMap::from([(keys.issuer.name.clone(), Arc::new(jwt::Keys::new(keys.issuer.clone())))]);
        for issuer in world.issuers().filter_map(|named| world.issuer(&named.name)) {
            issuers.insert(issuer.name.clone(), Arc::new(jwt::Keys::new(issuer)));
        }
        let arranged = Arc::new(Arranged::new(0, issuers, world.denylists()));
        let (world, keys) = (Arc::clone(world), Arc::clone(keys));
        *believed = Some(Believed { world, keys, arranged: Arc::clone(&arranged) });
        arranged
    }
}

/// What goes on to a service, if it wants exchanged tokens at all.
fn policy_of(world: &World, service: &ServiceName) -> Result<crate::check::CheckedExchange, RpcError> {
    if world.service(service).is_none() {
        return Err(RpcError::new(RpcErrorKind::NotFound, format!("there is no service {service}")));
    }
    let policy = world.token_policy_of(service).and_then(|entry| entry.checked.exchange.clone());
    policy.ok_or_else(|| denied(&format!("{service} wants no exchanged tokens")))
}

/// Whose tokens the services of a workload take. A token that is for none of them was not meant for it.
fn accepted(world: &World, caller: &SpiffeId) -> Vec<AcceptedIssuer> {
    let mut all: Vec<AcceptedIssuer> = vec![];
    for service in world.served_by(caller) {
        let name = service.checked.name();
        let Some(policy) = world.token_policy_of(name) else { continue };
        for issuer in policy.checked.rules_of(name).rules.into_iter().flat_map(|rule| rule.issuers) {
            if !all.contains(&issuer) {
                all.push(issuer);
            }
        }
    }
    all
}

fn prove(
    arranged: &Arranged,
    accepted: &[AcceptedIssuer],
    token: &[u8],
    now: u64,
) -> Result<jwt::Verified, RpcError> {
    let names: Vec<&IssuerName> = accepted.iter().map(|a| &a.issuer).collect();
    let verified = jwt::prove(arranged, names.into_iter(), token, TokenRules::LONGEST as usize);
    let verified = verified.and_then(|verified| {
        jwt::accept(arranged, &verified, Some(accepted), now)?;
        Ok(verified)
    });
    verified.map_err(|fault| match fault {
        Fault::Form(what) | Fault::Refused(what) => denied(&format!("the token is refused: {what}")),
        Fault::Expired => denied("the token is refused: its time is over"),
        Fault::UnknownKey(issuer) => denied(&format!("the token is refused: its key is not one of {issuer}")),
        Fault::NoKeys(issuer) => {
            RpcError::new(RpcErrorKind::Unavailable, format!("the keys of {issuer} were never obtained"))
        }
    })
}

fn denied(why: &str) -> RpcError {
    RpcError::new(RpcErrorKind::Denied, why)
}

fn new_jti() -> Result<String, RpcError> {
    let random = outrigger_certs::random_secret();
    let random = random.map_err(|e| RpcError::new(RpcErrorKind::Internal, e.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(&random[..16]))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
