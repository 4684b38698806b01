//! The secret of the mesh, from which the keys are derived that sidecars sign with. It is made once, at random, and kept
//! in the store apart from everything that people write, read, compare or dump.

use std::fmt;

use outrigger_certs::{CertError, random_secret};
use outrigger_mesh::SigningKey;
use sha2::{Digest, Sha256};

use crate::audit::Author;
use crate::store::{CommitError, Expect, Space, Store, StoreError, StoreErrorKind, Transaction, Write};

/// The secret of the mesh. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshSecret([u8; 32]);

impl MeshSecret {
    /// A new one.
    pub fn random() -> Result<Self, CertError> {
        random_secret().map(Self)
    }

    /// The one that is kept in `store`; it is made when there is none.
    pub async fn of(store: &dyn Store) -> Result<Self, StoreError> {
        if let Some(kept) = Self::read(store).await? {
            return Ok(kept);
        }
        let made = Self::random().map_err(|e| fault(e.to_string()))?;
        let write = Write {
            space: Space::Tokens,
            key: KEY.into(),
            value: Some(hex(&made.0).into()),
            expect: Expect::Absent,
        };
        let author = Author::system("the mesh had no secret");
        match store.commit(Transaction { author, writes: vec![write], audit: vec![] }).await {
            Ok(_) => Ok(made),
            Err(CommitError::Store(e)) => Err(e),
            // Another control plane was faster.
            Err(CommitError::Conflict { .. }) => {
                Self::read(store).await?.ok_or_else(|| fault("it came and went".into()))
            }
        }
    }

    async fn read(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let Some(record) = store.get(Space::Tokens, KEY).await? else { return Ok(None) };
        let bytes = record.value.as_str().and_then(bytes);
        bytes.map(|bytes| Some(Self(bytes))).ok_or_else(|| fault("it is not what was written".into()))
    }

    /// A key for one purpose and one owner, which tells nothing of any other.
    pub(crate) fn key_for(&self, purpose: &str, owner: &str) -> SigningKey {
        let mut hash = Sha256::new();
        // The secret and each part have a length that is fixed or told, so no two derivations meet.
        hash.update(self.0);
        for part in [purpose, owner] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        SigningKey::new(hash.finalize().into())
    }
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshSecret(..)")
    }
}

/// Beside the join tokens, whose ids have no slash.
const KEY: &str = "secret/mesh";

/// Whether a record among the tokens holds a key: whatever is not known to hold none.
pub(crate) fn is_key(key: &str) -> bool {
    is_secret(key) && !["secret/api-token/", "secret/jwks/"].iter().any(|open| key.starts_with(open))
}

/// Whether a record among the join tokens is none.
pub(crate) fn is_secret(key: &str) -> bool {
    key.starts_with("secret/")
}

fn fault(detail: String) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "of the mesh's secret", detail)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut all = [0; 32];
    for (i, byte) in all.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_owners_differ_and_none_is_shown() {
        let secret = MeshSecret::random().unwrap();
        let key = secret.key_for("sticky", "shop/cart");
        assert_eq!(key, secret.key_for("sticky", "shop/cart"));
        for (purpose, owner) in [("sticky", "shop/web"), ("stick", "yshop/cart")] {
            assert_ne!(key, secret.key_for(purpose, owner));
        }
        assert_ne!(key, MeshSecret::random().unwrap().key_for("sticky", "shop/cart"));
        assert_eq!(format!("{secret:?} {key:?}"), "MeshSecret(..) SigningKey(..)");
    }

    #[test]
    fn a_secret_reads_back_and_half_of_one_does_not() {
        let secret = MeshSecret::random().unwrap();
        let text = hex(&secret.0);
        assert_eq!(bytes(&text), Some(secret.0));
        assert_eq!(bytes(&text[1..]), None);
        assert_eq!(bytes(&text.replace(&text[..1], "g")), None);
    }
}
