//! Signing the mesh's own tokens: ES256, one key at a time.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_mesh::{KeyMaterial, TokenAlgorithm, TokenKey};
use zeroize::Zeroizing;

use crate::error::CertError;

/// A key that signs tokens. Never printed.
pub struct TokenSigner {
    pair: EcdsaKeyPair,
    key: TokenKey,
    header: String,
}

impl TokenSigner {
    /// Makes a key, and what is to be kept of it: PKCS#8, DER.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), CertError> {
        let none = |_| unreadable("no key can be made");
        let kept = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let kept = Zeroizing::new(kept.map_err(none)?.as_ref().to_vec());
        Ok((Self::from_pkcs8(&kept)?, kept))
    }

    /// The key that was kept.
    pub fn from_pkcs8(kept: &[u8]) -> Result<Self, CertError> {
        // What the library says may quote the key.
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, kept)
            .map_err(|_| unreadable("it is no PKCS#8 of P-256"))?;
        // An uncompressed point (SEC 1, section 2.3.3).
        let point = pair.public_key().as_ref().get(1..).and_then(|point| point.split_first_chunk::<32>());
        let (x, y) = point.ok_or_else(|| unreadable("its public key is no point"))?;
        let y: [u8; 32] = y.try_into().map_err(|_| unreadable("its public key is no point"))?;
        let kid = thumbprint(x, &y);
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#));
        let material = KeyMaterial::P256(*x, y);
        let key = TokenKey { kid: Some(kid.into()), material, algorithms: vec![TokenAlgorithm::Es256] };
        Ok(Self { pair, key, header })
    }

    /// What verifies its signatures.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// A token that says `claims`, a JSON object.
    pub fn sign(&self, claims: &[u8]) -> Result<Zeroizing<String>, CertError> {
        let mut token = Zeroizing::new(String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 96));
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.map_err(|_| unreadable("it does not sign"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({})", self.key.kid.as_deref().unwrap_or_default())
    }
}

/// The name of a key that follows from it (RFC 7638), so that no two keys have one name.
fn thumbprint(x: &[u8], y: &[u8]) -> String {
    let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

fn unreadable(why: &str) -> CertError {
    CertError::Unreadable { what: "the key that signs tokens", why: why.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use outrigger_mesh::{AcceptedIssuer, Issuer, IssuerKeys, IssuerName};

    use super::*;
    use crate::jwt::{Arranged, Fault, Keys, accept, prove};

    #[test]
    fn what_is_signed_is_proven_with_the_key_that_was_kept_and_with_no_other() {
        let (signer, kept) = TokenSigner::generate().unwrap();
        let again = TokenSigner::from_pkcs8(&kept).unwrap();
        assert_eq!(signer.key(), again.key());
        let name = IssuerName::of_the_mesh();
        let known = |key: &TokenKey| {
            let keys = IssuerKeys::Known(vec![key.clone()]);
            let issuer = Issuer { name: name.clone(), iss: "spiffe://mesh.local".into(), keys }.checked();
            let issuers = HashMap::from([(name.clone(), Arc::new(Keys::new(issuer.unwrap())))]);
            Arranged::new(1, issuers, [].into_iter())
        };
        let token =
            again.sign(br#"{"iss":"spiffe://mesh.local","aud":"shop/cart","sub":"ada","exp":2000}"#).unwrap();
        let known_here = known(signer.key());
        let verified = prove(&known_here, [&name].into_iter(), token.as_bytes(), 8_192).unwrap();
        let max_lifetime = std::time::Duration::from_secs(300);
        let accepted =
            |aud: &str| AcceptedIssuer { issuer: name.clone(), audiences: vec![aud.into()], max_lifetime };
        assert_eq!(accept(&known_here, &verified, Some(&[accepted("shop/cart")]), 1_900), Ok(()));
        assert!(accept(&known_here, &verified, Some(&[accepted("shop/other")]), 1_900).is_err());
        let (other, _) = TokenSigner::generate().unwrap();
        let fault = prove(&known(other.key()), [&name].into_iter(), token.as_bytes(), 8_192).err();
        assert_eq!(fault, Some(Fault::UnknownKey(name)));
        assert!(!format!("{signer:?}").contains("pair") && TokenSigner::from_pkcs8(&kept[1..]).is_err());
    }
}
