//! An issuer of tokens, good and bad ones.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_mesh::{KeyMaterial, TokenAlgorithm, TokenKey};
use serde_json::{Value, json};

pub(crate) const ISS: &str = "https://login.example";
pub(crate) const AUD: &str = "shop";

/// Keys of each family, known by the ids `ec`, `ed` and `rsa`.
pub(crate) struct Mint {
    pub(crate) ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Mint {
    pub(crate) fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            rsa: RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap(),
        }
    }

    /// Its public keys. That of RSA is for RS256 alone.
    pub(crate) fn keys(&self) -> Vec<TokenKey> {
        let point = self.ec.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(32);
        let ec = KeyMaterial::P256(x.try_into().unwrap(), y.try_into().unwrap());
        let ed = KeyMaterial::Ed25519(self.ed.public_key().as_ref().try_into().unwrap());
        // RSAPublicKey (RFC 8017, A.1.1) of 2,048 bits: two heads and a zero, the modulus, a head, the exponent 65537.
        let der = self.rsa.public_key().as_ref();
        let rsa = KeyMaterial::Rsa { n: der[9..265].into(), e: der[267..].into() };
        let key = |kid: &str, material, algorithms: &[TokenAlgorithm]| TokenKey {
            kid: Some(kid.into()),
            material,
            algorithms: algorithms.to_vec(),
        };
        vec![
            key("ec", ec, &[TokenAlgorithm::Es256]),
            key("ed", ed, &[TokenAlgorithm::EdDSA]),
            key("rsa", rsa, &[TokenAlgorithm::Rs256]),
        ]
    }

    /// The signature of a text by the key of that id; RSA as `alg` says.
    pub(crate) fn sign(&self, kid: &str, alg: &str, text: &str) -> Vec<u8> {
        let rng = SystemRandom::new();
        match kid {
            "ed" => self.ed.sign(text.as_bytes()).as_ref().to_vec(),
            "rsa" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                    if alg.starts_with("PS") { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                self.rsa.sign(padding, &rng, text.as_bytes(), &mut signature).unwrap();
                signature
            }
            _ => self.ec.sign(&rng, text.as_bytes()).unwrap().as_ref().to_vec(),
        }
    }

    /// A token of a header and claims as they are written, byte for byte.
    pub(crate) fn raw(&self, header: &str, claims: &str) -> String {
        self.raw_with("ec", "ES256", header, claims)
    }

    pub(crate) fn raw_with(&self, kid: &str, alg: &str, header: &str, claims: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(kid, alg, &text);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A good token of ES256 with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.raw(&json!({"alg": "ES256", "kid": "ec", "typ": "JWT"}).to_string(), &claims.to_string())
    }
}

/// What a good token says, with some of it otherwise; `null` takes a claim out.
pub(crate) fn claims(other: Value) -> Value {
    let now = now();
    let mut all = json!({
        "iss": ISS, "aud": AUD, "sub": "ada", "jti": "t-1", "iat": now, "nbf": now, "exp": now + 600,
        "scope": "read write", "groups": ["admin", "ops"],
    });
    if let Value::Object(other) = other {
        for (name, value) in other {
            if value.is_null() {
                all.as_object_mut().unwrap().remove(&name);
            } else {
                all[name] = value;
            }
        }
    }
    all
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}
