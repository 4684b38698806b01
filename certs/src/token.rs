//! Join tokens: how a workload without a certificate proves once who it is.
//!
//! Here are the token's form and its hash. When it expires, whom it names and that it is used once is kept by the
//! control plane's store.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::error::CertError;

const PREFIX: &str = "ojt1.";
const ID: usize = 16;
const SECRET: usize = 32;

/// A join token: an id, a secret of 256 bits, and the hash of the mesh's root certificate, so that its holder knows
/// which control plane to believe before it has any certificate.
#[derive(Clone)]
pub struct JoinToken {
    id: [u8; ID],
    secret: Zeroizing<[u8; SECRET]>,
    root: RootHash,
}

impl JoinToken {
    /// A new token for the mesh with this root.
    pub fn generate(root: RootHash) -> Result<Self, CertError> {
        let mut bytes = Zeroizing::new([0_u8; ID + SECRET]);
        rand::fill(&mut bytes[..]).map_err(|_| CertError::Token("the system gives no random numbers"))?;
        let mut token = Self { id: [0; ID], secret: Zeroizing::new([0; SECRET]), root };
        token.id.copy_from_slice(&bytes[..ID]);
        token.secret.copy_from_slice(&bytes[ID..]);
        Ok(token)
    }

    /// The token's public name, in hex: what logs and the store call it.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// What the control plane keeps instead of the secret.
    pub fn hash(&self) -> JoinTokenHash {
        JoinTokenHash(sha256(&self.secret[..]))
    }

    /// The root certificate the holder must find at the control plane.
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// The token as one line of text. Whoever has it can join: it is shown once, to the person who asked for it.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ID + SECRET + 32));
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.secret[..]);
        bytes.extend_from_slice(&self.root.0);
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..])))
    }
}

impl FromStr for JoinToken {
    type Err = CertError;

    fn from_str(text: &str) -> Result<Self, CertError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(CertError::Token("it begins with ojt1."))?;
        let decoded = URL_SAFE_NO_PAD.decode(body).map_err(|_| CertError::Token("it is not base64url"))?;
        let bytes = Zeroizing::new(decoded);
        if bytes.len() != ID + SECRET + 32 {
            return Err(CertError::Token("its length is wrong; was it copied whole?"));
        }
        let mut token = Self { id: [0; ID], secret: Zeroizing::new([0; SECRET]), root: RootHash([0; 32]) };
        token.id.copy_from_slice(&bytes[..ID]);
        token.secret.copy_from_slice(&bytes[ID..ID + SECRET]);
        token.root.0.copy_from_slice(&bytes[ID + SECRET..]);
        Ok(token)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, …)", self.id())
    }
}

/// The SHA-256 of a token's secret.
#[derive(Clone, Copy)]
pub struct JoinTokenHash([u8; 32]);

impl JoinTokenHash {
    /// As kept in the store, in hex.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads [`JoinTokenHash::to_hex`] back.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl PartialEq for JoinTokenHash {
    /// In constant time, so that how long a refusal takes tells nothing.
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for JoinTokenHash {}

impl fmt::Debug for JoinTokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokenHash(…)")
    }
}

/// The SHA-256 of a mesh's root certificate, DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash([u8; 32]);

impl RootHash {
    /// Of a certificate, DER.
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(der))
    }

    /// Reads the text form, 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_reads_back_and_its_secret_shows_nowhere() {
        let token = JoinToken::generate(RootHash::of(b"root")).unwrap();
        let text = token.expose();
        let back: JoinToken = text.parse().unwrap();
        assert_eq!((back.id(), back.hash(), back.root()), (token.id(), token.hash(), token.root()));
        assert!(!format!("{token:?} {:?}", token.hash()).contains(&text[30..60]));
        assert_eq!(JoinTokenHash::from_hex(&token.hash().to_hex()), Some(token.hash()));
    }

    #[test]
    fn another_token_has_another_hash() {
        let root = RootHash::of(b"root");
        let (a, b) = (JoinToken::generate(root).unwrap(), JoinToken::generate(root).unwrap());
        assert!(a.hash() != b.hash());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(ojt1\\.)?\\PC{0,120}") {
            let _ = text.parse::<JoinToken>();
            let _ = RootHash::from_hex(&text);
        }
    }
}
