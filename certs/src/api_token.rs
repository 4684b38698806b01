//! Tokens of the admin API: how a person or a program proves who it is to the control plane.
//!
//! Here are the token's form and its hash. Whose it is, what it may do and until when is kept by the control plane.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::error::CertError;
use crate::token::{RootHash, hex, sha256, unhex};

/// A token of the admin API: an id, a secret of 256 bits, and the hash of the mesh's root certificate, so that whoever
/// logs in with it knows which server to believe.
#[derive(Clone)]
pub struct ApiToken {
    id: [u8; ID],
    secret: Zeroizing<[u8; SECRET]>,
    root: RootHash,
}

impl ApiToken {
    /// A new token for the mesh with this root.
    pub fn generate(root: RootHash) -> Result<Self, CertError> {
        let mut token = Self { id: [0; ID], secret: Zeroizing::new([0; SECRET]), root };
        let none = |_| CertError::Token("the system gives no random numbers");
        rand::fill(&mut token.id).map_err(none)?;
        rand::fill(&mut token.secret[..]).map_err(none)?;
        Ok(token)
    }

    /// The token's public name, in hex: what logs, the audit log and the store call it.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// What the control plane keeps instead of the secret.
    pub fn hash(&self) -> ApiTokenHash {
        ApiTokenHash(sha256(&self.secret[..]))
    }

    /// The root certificate of the mesh that made it.
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// The token as one line of text. Whoever has it may do what its role may: it is shown once.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.secret[..]);
        bytes.extend_from_slice(self.root.as_bytes());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..])))
    }
}

impl FromStr for ApiToken {
    type Err = CertError;

    fn from_str(text: &str) -> Result<Self, CertError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(CertError::Token("it begins with oat1."))?;
        // Before anything is allocated by its length.
        if body.len() > 2 * LENGTH {
            return Err(CertError::Token("its length is wrong; was it copied whole?"));
        }
        let decoded = URL_SAFE_NO_PAD.decode(body).map_err(|_| CertError::Token("it is not base64url"))?;
        let bytes = Zeroizing::new(decoded);
        let (id, rest) = bytes.split_at_checked(ID).unwrap_or_default();
        let (secret, root) = rest.split_at_checked(SECRET).unwrap_or_default();
        let wrong = |_| CertError::Token("its length is wrong; was it copied whole?");
        Ok(Self {
            id: id.try_into().map_err(wrong)?,
            secret: Zeroizing::new(secret.try_into().map_err(wrong)?),
            root: RootHash::from_bytes(root.try_into().map_err(wrong)?),
        })
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, …)", self.id())
    }
}

/// The SHA-256 of a token's secret. A slow hash, as for passwords, would protect nothing more: nobody guesses 256 random
/// bits, and who asks often would make the control plane work.
#[derive(Clone, Copy)]
pub struct ApiTokenHash([u8; 32]);

impl ApiTokenHash {
    /// As kept in the store, in hex.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads [`ApiTokenHash::to_hex`] back.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl PartialEq for ApiTokenHash {
    /// In constant time, so that how long a refusal takes tells nothing.
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for ApiTokenHash {}

impl fmt::Debug for ApiTokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiTokenHash(…)")
    }
}

const PREFIX: &str = "oat1.";
const ID: usize = 8;
const SECRET: usize = 32;
const LENGTH: usize = ID + SECRET + 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_reads_back_and_its_secret_shows_nowhere() {
        let token = ApiToken::generate(RootHash::of(b"root")).unwrap();
        let text = token.expose();
        let back: ApiToken = text.parse().unwrap();
        assert_eq!((back.id(), back.hash(), back.root()), (token.id(), token.hash(), token.root()));
        assert!(!format!("{token:?} {:?}", token.hash()).contains(&text[20..50]));
        assert_eq!(ApiTokenHash::from_hex(&token.hash().to_hex()), Some(token.hash()));
    }

    #[test]
    fn half_a_token_and_one_and_a_half_are_none() {
        let text = ApiToken::generate(RootHash::of(b"root")).unwrap().expose().to_string();
        for wrong in
            [&text[..text.len() - 4], &format!("{text}AAAA"), &text[5..], "", "oat1.", &text.repeat(9)]
        {
            assert!(wrong.parse::<ApiToken>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn another_token_has_another_id_and_hash() {
        let root = RootHash::of(b"root");
        let (a, b) = (ApiToken::generate(root).unwrap(), ApiToken::generate(root).unwrap());
        assert!(a.hash() != b.hash() && a.id() != b.id());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(oat1\\.)?\\PC{0,160}") {
            let _ = text.parse::<ApiToken>();
            let _ = ApiTokenHash::from_hex(&text);
        }
    }
}
