//! A set of keys (RFC 7517), as text.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_mesh::{Issuer, KeyMaterial, TokenAlgorithm, TokenKey};
use serde_json::{Map, Value, json};

/// Reads the keys that verify tokens. What is no such key is passed over, as the standard wants it: other families, keys to
/// encrypt with, symmetric ones. Where none is left, that is an error that says why.
pub fn keys(text: &[u8]) -> Result<Vec<TokenKey>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("a set of keys has at most {MAX_BYTES} bytes"));
    }
    let set: Value = serde_json::from_slice(text).map_err(|e| format!("it is not JSON: {e}"))?;
    let all =
        set.get("keys").and_then(Value::as_array).ok_or("it is no set of keys: it has no list \"keys\"")?;
    if all.len() > MAX_LISTED {
        return Err(format!("it lists more than {MAX_LISTED} keys"));
    }
    let (mut good, mut faults) = (vec![], vec![]);
    for (i, key) in all.iter().enumerate() {
        match key.as_object().ok_or("it is no object".to_owned()).and_then(one) {
            Ok(key) => good.push(key),
            Err(why) => faults.push(format!("key {i}: {why}")),
        }
    }
    good.truncate(Issuer::MAX_KEYS);
    match (good.is_empty(), faults.is_empty()) {
        (false, _) => Ok(good),
        (true, true) => Err("it lists no key".into()),
        (true, false) => Err(format!("it has no usable key: {}", faults.join("; "))),
    }
}

fn one(key: &Map<String, Value>) -> Result<TokenKey, String> {
    let text = |name: &str| match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("{name} is no text")),
    };
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("it is not for signatures".into());
    }
    let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
    if key.get("key_ops").is_some_and(|ops| !verifies(ops)) {
        return Err("it is not to verify with".into());
    }
    if ["d", "p", "q", "k"].iter().any(|secret| key.contains_key(*secret)) {
        return Err("it holds a secret, and what is published here must be public".into());
    }
    let material = material(key)?;
    let algorithms = match text("alg")? {
        None => material.algorithms().to_vec(),
        Some(word) => {
            // The fully specified name (RFC 9864) of the one curve there is here.
            let word = if word == "Ed25519" { "EdDSA" } else { word };
            vec![TokenAlgorithm::parse(word).ok_or("its algorithm is not supported")?]
        }
    };
    let key = TokenKey { kid: text("kid")?.map(Arc::from), material, algorithms };
    key.check()?;
    Ok(key)
}

fn material(key: &Map<String, Value>) -> Result<KeyMaterial, String> {
    let word = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    let bytes = |name: &str| -> Result<Vec<u8>, String> {
        let bytes = URL_SAFE_NO_PAD.decode(word(name)).ok().filter(|bytes| !bytes.is_empty());
        bytes.ok_or_else(|| format!("{name} is no base64url"))
    };
    match (word("kty"), word("crv")) {
        ("RSA", _) => {
            let number = |name| {
                let bytes = bytes(name)?;
                let zeros = bytes.iter().take_while(|b| **b == 0).count();
                Ok::<Arc<[u8]>, String>(bytes[zeros..].into())
            };
            Ok(KeyMaterial::Rsa { n: number("n")?, e: number("e")? })
        }
        ("EC", "P-256") => Ok(KeyMaterial::P256(sized(bytes("x")?)?, sized(bytes("y")?)?)),
        ("EC", "P-384") => Ok(KeyMaterial::P384(sized(bytes("x")?)?, sized(bytes("y")?)?)),
        ("OKP", "Ed25519") => Ok(KeyMaterial::Ed25519(sized(bytes("x")?)?)),
        ("oct", _) => Err("it is a symmetric key, which is never taken".into()),
        _ => Err("its family is not supported".into()),
    }
}

fn sized<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| "a coordinate has the wrong size".into())
}

/// Keys as a set again, in which [`keys`] finds them as they were.
pub fn to_json(keys: &[TokenKey]) -> Value {
    let text = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
    let one = |key: &TokenKey| {
        let mut written = match &key.material {
            KeyMaterial::Rsa { n, e } => json!({"kty": "RSA", "n": text(n), "e": text(e)}),
            KeyMaterial::P256(x, y) => json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)}),
            KeyMaterial::P384(x, y) => json!({"kty": "EC", "crv": "P-384", "x": text(x), "y": text(y)}),
            KeyMaterial::Ed25519(x) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(x)}),
        };
        if let Some(kid) = &key.kid {
            written["kid"] = (&**kid).into();
        }
        // One is said; several are all of the family.
        if let ([one], true) = (&key.algorithms[..], key.material.algorithms().len() > 1) {
            written["alg"] = one.as_str().into();
        }
        written
    };
    json!({ "keys": keys.iter().map(one).collect::<Vec<_>>() })
}

/// Of a set that is fetched or written.
pub(super) const MAX_BYTES: usize = 256 * 1_024;
const MAX_LISTED: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ec(other: &Value) -> Value {
        let coordinate = URL_SAFE_NO_PAD.encode([7; 32]);
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": coordinate, "y": coordinate, "kid": "a"});
        for (name, value) in other.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn read(all: &[Value]) -> Result<Vec<TokenKey>, String> {
        keys(json!({ "keys": all }).to_string().as_bytes())
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken_and_others_are_passed_over() {
        assert_eq!(read(&[ec(&json!({}))]).unwrap()[0].algorithms, [TokenAlgorithm::Es256]);
        for bad in [
            json!({"use": "enc"}),
            json!({"key_ops": ["sign"]}),
            json!({"d": "AAAA"}),
            json!({"alg": "HS256"}),
            json!({"alg": "none"}),
            json!({"alg": "RS256"}),
            json!({"alg": 7}),
            json!({"kid": 7}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"crv": "P-521"}),
            json!({"x": "AAAA"}),
            json!({"x": "===="}),
        ] {
            assert!(read(&[ec(&bad)]).is_err(), "{bad}");
            assert_eq!(read(&[ec(&bad), ec(&json!({}))]).unwrap().len(), 1, "{bad}");
        }
    }

    #[test]
    fn nothing_usable_is_an_error_and_never_an_empty_set() {
        for text in ["", "{}", "[]", "null", "{\"keys\":[]}", "{\"keys\":{}}", "{\"keys\":[7]}", "<html>"] {
            assert!(keys(text.as_bytes()).is_err(), "{text}");
        }
        assert!(keys(" ".repeat(MAX_BYTES + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(
            text in "\\PC{0,80}",
            kty in "RSA|EC|OKP|oct", crv in "P-256|P-384|Ed25519|x", n in "[A-Za-z0-9_=-]{0,60}",
        ) {
            let _ = keys(text.as_bytes());
            let key = json!({"kty": kty, "crv": crv, "n": n, "e": n, "x": n, "y": n, "alg": text});
            for key in read(&[key]).unwrap_or_default() {
                prop_assert!(key.check().is_ok());
                let again = keys(to_json(std::slice::from_ref(&key)).to_string().as_bytes());
                prop_assert_eq!(again, Ok(vec![key]));
            }
        }
    }
}
