//! Who issues tokens, with what keys, and what is revoked: as it was pushed, arranged for requests.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, DecodingKey};
use outrigger_mesh::{
    Claims, DeniedToken, Denylist, Issuer, IssuerName, KeyMaterial, ServiceName, SpiffeId, TokenAlgorithm,
};
use tokio::sync::watch;

/// What is known of tokens. Changed as a whole; requests read the value they took.
#[derive(Debug)]
pub struct Known {
    now: ArcSwap<Arranged>,
    pushed: Mutex<Pushed>,
    changed: watch::Sender<u64>,
    /// Issuers of which a token named a key that is not known: the control plane is told with the next report.
    wanted: Mutex<BTreeSet<IssuerName>>,
}

/// What was pushed.
#[derive(Debug, Default)]
struct Pushed {
    issuers: HashMap<IssuerName, Arc<Keys>>,
    lists: HashMap<ServiceName, Denylist>,
}

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

impl Default for Known {
    fn default() -> Self {
        let (pushed, wanted) = (Mutex::default(), Mutex::default());
        Self { now: ArcSwap::default(), pushed, changed: watch::Sender::new(0), wanted }
    }
}

impl Known {
    /// What is known now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Arranged>> {
        self.now.load()
    }

    /// Wakes on every change: whoever has connections of revoked workloads looks through them.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the identity of a workload is revoked.
    pub fn is_revoked(&self, identity: &SpiffeId) -> bool {
        let now = self.now.load();
        !now.identities.is_empty() && now.identities.contains(identity)
    }

    /// Puts an issuer in place of the one of its name.
    pub fn set_issuer(&self, issuer: Issuer) {
        self.change(|pushed| drop(pushed.issuers.insert(issuer.name.clone(), Arc::new(Keys::new(issuer)))));
    }

    /// Takes an issuer away.
    pub fn remove_issuer(&self, name: &IssuerName) {
        self.change(|pushed| drop(pushed.issuers.remove(name)));
    }

    /// Puts a list of what is revoked in place of the one of its name.
    pub fn set_denylist(&self, list: Denylist) {
        self.change(|pushed| drop(pushed.lists.insert(list.name.clone(), list)));
    }

    /// Takes a list of what is revoked away.
    pub fn remove_denylist(&self, name: &ServiceName) {
        self.change(|pushed| drop(pushed.lists.remove(name)));
    }

    /// Notes that newer keys of an issuer are wanted.
    pub fn want_keys(&self, name: &IssuerName) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        // There are as many as this sidecar was told of.
        if !wanted.contains(name) {
            wanted.insert(name.clone());
        }
    }

    /// The issuers whose newer keys are wanted since the last time.
    pub fn take_wanted(&self) -> Vec<IssuerName> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wanted).into_iter().collect()
    }

    fn change(&self, change: impl FnOnce(&mut Pushed)) {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pushed);
        let generation = self.now.load().generation + 1;
        let mut arranged = Arranged { generation, issuers: pushed.issuers.clone(), ..Arranged::default() };
        for list in pushed.lists.values() {
            arranged.identities.extend(list.identities.iter().cloned());
            list.tokens.iter().for_each(|denied| arranged.denied.add(denied));
        }
        self.now.store(Arc::new(arranged));
        drop(pushed);
        self.changed.send_replace(generation);
    }
}

impl Arranged {
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

    /// Whether a token is revoked.
    pub fn is_denied(&self, claims: &Claims) -> bool {
        let Denied { by_jti, by_sub, rest } = &self.denied;
        let listed = |map: &HashMap<Arc<str>, Vec<DeniedToken>>, name| {
            let found = claims.text(name).and_then(|value| map.get(value));
            found.is_some_and(|all| all.iter().any(|denied| denied.is_meant(claims)))
        };
        listed(by_jti, "jti") || listed(by_sub, "sub") || rest.iter().any(|denied| denied.is_meant(claims))
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
