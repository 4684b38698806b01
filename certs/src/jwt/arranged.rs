//! Whom to believe, and what is revoked, at one moment: arranged for proving tokens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use outrigger_mesh::{
    Claims, DeniedToken, Denylist, Issuer, IssuerName, KeyMaterial, SpiffeId, TokenAlgorithm,
};

/// What is known at one moment.
#[derive(Debug, Default)]
pub struct Arranged {
    /// Moves with every change: what was proven before has to be proven again.
    pub generation: u64,
    issuers: HashMap<IssuerName, Arc<Keys>>,
    denied: Denied,
    identities: HashSet<SpiffeId>,
}

/// An issuer with its keys, ready to verify.
#[derive(Debug)]
pub struct Keys {
    /// The issuer.
    pub issuer: Issuer,
    /// Its keys, in their order; none where they were never obtained.
    pub keys: Vec<Key>,
}

/// A key, ready to verify.
pub struct Key {
    /// By what tokens name it.
    pub kid: Option<Arc<str>>,
    /// What it may be used with.
    pub algorithms: Vec<TokenAlgorithm>,
    material: DecodingKey,
}

/// The revoked tokens, by what is looked up first.
#[derive(Debug, Default)]
struct Denied {
    by_jti: HashMap<Arc<str>, Vec<DeniedToken>>,
    by_sub: HashMap<Arc<str>, Vec<DeniedToken>>,
    rest: Vec<DeniedToken>,
}

impl Arranged {
    /// From these issuers and lists. `generation` tells it from others.
    pub fn new<'a>(
        generation: u64,
        issuers: HashMap<IssuerName, Arc<Keys>>,
        lists: impl Iterator<Item = &'a Denylist>,
    ) -> Self {
        let mut arranged = Self { generation, issuers, ..Self::default() };
        for list in lists {
            arranged.identities.extend(list.identities.iter().cloned());
            list.tokens.iter().for_each(|denied| arranged.denied.add(denied));
        }
        arranged
    }

    /// Whether the identity of a workload is revoked.
    pub fn is_revoked(&self, identity: &SpiffeId) -> bool {
        !self.identities.is_empty() && self.identities.contains(identity)
    }

    /// An issuer with its keys, if it is known at all.
    pub fn issuer(&self, name: &IssuerName) -> Option<&Arc<Keys>> {
        self.issuers.get(name)
    }

    /// Every revoked identity.
    pub fn revoked(&self) -> impl Iterator<Item = &SpiffeId> {
        self.identities.iter()
    }

    /// Every issuer.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Keys>> {
        self.issuers.values()
    }

    /// Whether somebody in the mesh takes tokens of this `iss`.
    pub fn knows_iss(&self, iss: &str) -> bool {
        self.issuers.values().any(|keys| &*keys.issuer.iss == iss)
    }

    /// Whether a token is revoked, by itself or by the one that it was exchanged for.
    pub fn is_denied(&self, claims: &Claims) -> bool {
        let Denied { by_jti, by_sub, rest } = &self.denied;
        let listed = |map: &HashMap<Arc<str>, Vec<DeniedToken>>, value: Option<&str>| {
            let found = value.filter(|_| !map.is_empty()).and_then(|value| map.get(value));
            found.is_some_and(|all| all.iter().any(|denied| denied.is_meant(claims)))
        };
        listed(by_jti, claims.text("jti"))
            || listed(by_jti, claims.jti_of_origin())
            || listed(by_sub, claims.text("sub"))
            || rest.iter().any(|denied| denied.is_meant(claims))
    }
}

impl Denied {
    fn add(&mut self, denied: &DeniedToken) {
        let place = match (&denied.jti, &denied.sub) {
            (Some(jti), _) => self.by_jti.entry(Arc::clone(jti)).or_default(),
            (None, Some(sub)) => self.by_sub.entry(Arc::clone(sub)).or_default(),
            (None, None) => &mut self.rest,
        };
        place.push(denied.clone());
    }
}

impl Keys {
    /// Makes the keys of an issuer ready.
    pub fn new(issuer: Issuer) -> Self {
        let keys = issuer.keys.all().iter().map(|key| Key {
            kid: key.kid.clone(),
            algorithms: key.algorithms.clone(),
            material: material(&key.material),
        });
        Self { keys: keys.collect(), issuer }
    }
}

impl Key {
    /// Whether `signature` (base64url) is this key's, over `message`. The algorithm must be one of its own.
    pub fn verifies(&self, algorithm: TokenAlgorithm, message: &[u8], signature: &str) -> bool {
        self.algorithms.contains(&algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.material, of(algorithm))
                .unwrap_or(false)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

fn material(material: &KeyMaterial) -> DecodingKey {
    /// An uncompressed point (SEC 1, section 2.3.3).
    fn point(x: &[u8], y: &[u8]) -> DecodingKey {
        DecodingKey::from_ec_der(&[&[4], x, y].concat())
    }
    match material {
        KeyMaterial::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
        KeyMaterial::P256(x, y) => point(x, y),
        KeyMaterial::P384(x, y) => point(x, y),
        KeyMaterial::Ed25519(x) => DecodingKey::from_ed_der(x),
    }
}

fn of(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::Rs256 => Algorithm::RS256,
        TokenAlgorithm::Rs384 => Algorithm::RS384,
        TokenAlgorithm::Rs512 => Algorithm::RS512,
        TokenAlgorithm::Ps256 => Algorithm::PS256,
        TokenAlgorithm::Ps384 => Algorithm::PS384,
        TokenAlgorithm::Ps512 => Algorithm::PS512,
        TokenAlgorithm::Es256 => Algorithm::ES256,
        TokenAlgorithm::Es384 => Algorithm::ES384,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
