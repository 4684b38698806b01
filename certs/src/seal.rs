//! Seals: what a proxy gives to callers to keep, it knows again when it comes back.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A key that seals texts by HMAC-SHA256 (RFC 2104). Never shown.
pub struct Seal(hmac::Key);

impl Seal {
    /// The seal of a secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// What proves that `text` was sealed here: 43 letters, digits, `-` and `_`.
    pub fn of(&self, text: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, text))
    }

    /// Whether `proof` is that of `text`. Takes as long for a wrong one as for the right one.
    pub fn holds(&self, text: &[u8], proof: &str) -> bool {
        let mut tag = [0; 36];
        match URL_SAFE_NO_PAD.decode_slice(proof, &mut tag) {
            Ok(length) => hmac::verify(&self.0, text, &tag[..length]).is_ok(),
            Err(_) => false,
        }
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_text_and_its_key_only() {
        let (seal, other) = (Seal::new(&[7; 32]), Seal::new(&[8; 32]));
        let proof = seal.of(b"cart-1");
        assert_eq!(proof.len(), 43);
        assert!(seal.holds(b"cart-1", &proof));
        assert!(!seal.holds(b"cart-2", &proof) && !other.holds(b"cart-1", &proof));
        for forged in ["", "A", &proof[1..], &format!("{proof}AA"), &"A".repeat(500), "ä"] {
            assert!(!seal.holds(b"cart-1", forged), "{forged}");
        }
    }

    #[test]
    fn the_code_is_the_one_of_rfc_4231() {
        // Test case 1 has a key of 20 bytes; HMAC pads with zeros, so that of 32 with zeros behind is the same key.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let tag = URL_SAFE_NO_PAD.decode(Seal::new(&key).of(b"Hi There")).unwrap();
        assert_eq!(tag[..6], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb]);
    }
}
