//! Who issues tokens, and the keys that prove it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{InvalidName, Label};

/// The name of an issuer in the mesh: `namespace/policy/issuer`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerName {
    namespace: Label,
    policy: Label,
    name: Label,
}

impl IssuerName {
    /// The issuer `name` of the policy `policy` in `namespace`.
    pub fn new(namespace: Label, policy: Label, name: Label) -> Self {
        Self { namespace, policy, name }
    }

    /// The namespace of the policy that names it.
    pub fn namespace(&self) -> &Label {
        &self.namespace
    }

    /// The policy that names it.
    pub fn policy(&self) -> &Label {
        &self.policy
    }

    /// Its name in that policy.
    pub fn name(&self) -> &Label {
        &self.name
    }
}

impl FromStr for IssuerName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(policy), Some(name), None) => {
                Ok(Self::new(Label::new(namespace)?, Label::new(policy)?, Label::new(name)?))
            }
            _ => Err(InvalidName::new("an issuer's name", text, "write it as namespace/policy/issuer")),
        }
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.policy, self.name)
    }
}

impl fmt::Debug for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who issues tokens. Every sidecar knows every issuer: their keys are public, and a token must be recognised to be kept
/// from leaving the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its name in the mesh.
    pub name: IssuerName,
    /// The value of `iss` in its tokens, byte for byte.
    pub iss: Arc<str>,
    /// What its signatures are verified with.
    pub keys: IssuerKeys,
}

/// What is known of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerKeys {
    /// None were ever obtained. A state of its own: nothing is verified and nothing passes.
    Missing,
    /// These; never none.
    Known(Vec<TokenKey>),
}

impl IssuerKeys {
    /// The keys there are.
    pub fn all(&self) -> &[TokenKey] {
        match self {
            Self::Missing => &[],
            Self::Known(keys) => keys,
        }
    }
}

impl Issuer {
    /// No issuer has more keys.
    pub const MAX_KEYS: usize = 64;

    /// Proves that the parts agree: an `iss`, keys where there shall be some, algorithms that fit their key.
    pub fn checked(self) -> Result<Self, InvalidIssuer> {
        let fault = |what: String| Err(InvalidIssuer { issuer: self.name.clone(), what });
        if self.iss.is_empty() || self.iss.len() > 1_024 || self.iss.chars().any(char::is_control) {
            return fault("iss has 1 to 1024 characters, and no control characters".into());
        }
        if let IssuerKeys::Known(keys) = &self.keys {
            if keys.is_empty() {
                return fault("it has no key".into());
            }
            if keys.len() > Self::MAX_KEYS {
                return fault(format!("it has more than {} keys", Self::MAX_KEYS));
            }
            if let Some(what) = keys.iter().find_map(|key| key.check().err()) {
                return fault(what);
            }
        }
        Ok(self)
    }
}

/// Parts of an issuer that do not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("issuer {issuer}: {what}")]
pub struct InvalidIssuer {
    issuer: IssuerName,
    what: String,
}

/// A public key, and what it may verify. The key decides the algorithm, never the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// By what tokens name it.
    pub kid: Option<Arc<str>>,
    /// The key itself.
    pub material: KeyMaterial,
    /// The algorithms it may be used with: all of its family, or the one it is meant for.
    pub algorithms: Vec<TokenAlgorithm>,
}

impl TokenKey {
    /// Refuses a key that is weak or of a wrong size, and algorithms that are not of its family.
    pub fn check(&self) -> Result<(), String> {
        if self.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > 256) {
            return Err("a key's id has 1 to 256 characters".into());
        }
        self.material.check()?;
        if self.algorithms.is_empty() {
            return Err("a key has no algorithm".into());
        }
        let family = self.material.algorithms();
        match self.algorithms.iter().find(|a| !family.contains(a)) {
            Some(algorithm) => Err(format!("{algorithm} is no algorithm of that key")),
            None => Ok(()),
        }
    }
}

/// A public key of one of the families that are supported. There is no symmetric one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMaterial {
    /// RSA: modulus and exponent, big-endian without leading zeros. 2,048 to 8,192 bits.
    Rsa {
        /// The modulus.
        n: Arc<[u8]>,
        /// The exponent.
        e: Arc<[u8]>,
    },
    /// A point on P-256.
    P256([u8; 32], [u8; 32]),
    /// A point on P-384.
    P384([u8; 48], [u8; 48]),
    /// Ed25519.
    Ed25519([u8; 32]),
}

impl KeyMaterial {
    /// Every algorithm of its family.
    pub fn algorithms(&self) -> &'static [TokenAlgorithm] {
        use TokenAlgorithm::{EdDSA, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            Self::Rsa { .. } => &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512],
            Self::P256(..) => &[Es256],
            Self::P384(..) => &[Es384],
            Self::Ed25519(_) => &[EdDSA],
        }
    }

    fn check(&self) -> Result<(), String> {
        let Self::Rsa { n, e } = self else { return Ok(()) };
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if n.first() == Some(&0) || !(2_048..=8_192).contains(&bits) {
            return Err(format!("an RSA key has 2048 to 8192 bits, not {bits}"));
        }
        // 65537 and its like: odd, above 2^16, below 2^33.
        let exponent = e.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        if e.len() > 5
            || e.first() == Some(&0)
            || exponent % 2 == 0
            || exponent < 65_537
            || exponent >> 33 != 0
        {
            return Err("an RSA exponent is odd, from 65537 to 2^33".into());
        }
        Ok(())
    }
}

/// The signatures that are accepted (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their own words")]
pub enum TokenAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDSA,
}

impl TokenAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDSA,
    ];

    /// The word in `alg`, in its one spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of a word; `none`, `HS256` and every other spelling are none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }
}

impl fmt::Display for TokenAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(keys: IssuerKeys) -> Issuer {
        Issuer { name: "shop/users/login".parse().unwrap(), iss: "https://login.example".into(), keys }
    }

    fn rsa(bytes: usize, e: &[u8]) -> TokenKey {
        let material = KeyMaterial::Rsa { n: vec![0xff; bytes].into(), e: e.into() };
        let algorithms = material.algorithms().to_vec();
        TokenKey { kid: None, material, algorithms }
    }

    #[test]
    fn no_keys_is_a_state_and_an_empty_set_of_keys_is_none() {
        assert!(issuer(IssuerKeys::Missing).checked().is_ok());
        assert!(issuer(IssuerKeys::Known(vec![])).checked().is_err());
        assert!(issuer(IssuerKeys::Known(vec![rsa(256, &[1, 0, 1])])).checked().is_ok());
    }

    #[test]
    fn weak_keys_and_foreign_algorithms_are_refused() {
        for bad in [
            rsa(128, &[1, 0, 1]),
            rsa(255, &[1, 0, 1]),
            rsa(256, &[3]),
            rsa(256, &[1, 0, 0]),
            rsa(2_000, &[1, 0, 1]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let foreign = TokenKey { algorithms: vec![TokenAlgorithm::Es256], ..rsa(256, &[1, 0, 1]) };
        assert!(foreign.check().is_err());
    }

    #[test]
    fn only_the_exact_words_are_algorithms() {
        for algorithm in TokenAlgorithm::ALL {
            assert_eq!(TokenAlgorithm::parse(algorithm.as_str()), Some(algorithm));
        }
        for bad in [
            "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "rs256", "RS256 ", "eddsa",
            "ES512", "ES256K",
        ] {
            assert_eq!(TokenAlgorithm::parse(bad), None, "{bad}");
        }
    }
}
