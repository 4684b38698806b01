//! The form of a token, judged before anything in it is believed: size, three segments, strict base64url, a header that
//! says nothing that is not understood.

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_mesh::{ClaimValue, TokenAlgorithm};
use zeroize::Zeroizing;

use super::json::{self, Members};
use super::verify::Fault;

/// A token that has the form of one. Nothing it says is proven.
pub struct Parsed<'a> {
    /// What is signed: header and payload as they came.
    pub signed: &'a [u8],
    /// The signature, in base64url.
    pub signature: &'a str,
    /// The algorithm it names. Whether that is one of the key's is another question.
    pub algorithm: TokenAlgorithm,
    /// The key it names.
    pub kid: Option<Box<str>>,
    /// What it says.
    pub claims: Members,
}

/// Reads a token no longer than `max_bytes`.
pub fn parse(token: &[u8], max_bytes: usize) -> Result<Parsed<'_>, Fault> {
    if token.is_empty() || token.len() > max_bytes {
        return Err(Fault::Form("its size is out of bounds"));
    }
    let mut segments = token.split(|b| *b == b'.');
    let (Some(head), Some(body), Some(signature), None) =
        (segments.next(), segments.next(), segments.next(), segments.next())
    else {
        return Err(Fault::Form("it has not three segments"));
    };
    if head.len() > MAX_HEADER || signature.len() > MAX_SIGNATURE {
        return Err(Fault::Form("a segment is too long"));
    }
    let head = decode(head)?;
    let signature = str::from_utf8(signature).ok().filter(|s| decode(s.as_bytes()).is_ok());
    let signature = signature.ok_or(Fault::Form("its signature is no base64url"))?;
    let (algorithm, kid) = header(&head)?;
    let claims = json::object(&decode(body)?).ok_or(Fault::Form("its claims are no sound JSON object"))?;
    let signed = &token[..token.len() - signature.len() - 1];
    Ok(Parsed { signed, signature, algorithm, kid, claims })
}

/// What an unproven token says of its issuer, where it has the form of one at all: to keep it from leaving the mesh.
pub fn claimed_issuer(token: &[u8]) -> Option<Box<str>> {
    if token.len() > MOST_LOOKED_AT {
        return None;
    }
    let mut segments = token.split(|b| *b == b'.');
    let body = segments.nth(1)?;
    // Read more generously than for proof: what another reader may take for the mesh's does not leave either.
    let kept: Vec<u8> = body.iter().copied().filter(|b| *b != b'=').collect();
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(kept).ok()?);
    let value: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    value.get("iss")?.as_str().map(Into::into)
}

fn decode(segment: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // Without padding, without blanks, without bits left over: each text has one spelling.
    let decoded = URL_SAFE_NO_PAD.decode(segment).ok().filter(|bytes| !bytes.is_empty());
    decoded.map(Zeroizing::new).ok_or(Fault::Form("a segment is no base64url"))
}

/// What the header says. `jku`, `x5u`, `jwk` and `x5c` say where keys are: they are not looked at, whatever they are.
fn header(head: &[u8]) -> Result<(TokenAlgorithm, Option<Box<str>>), Fault> {
    let members = json::object(head).ok_or(Fault::Form("its header is no sound JSON object"))?;
    let (mut algorithm, mut kid) = (None, None);
    for (name, value) in &members {
        match (&**name, value) {
            ("alg", ClaimValue::Text(word)) => {
                let known = TokenAlgorithm::parse(word);
                algorithm = Some(known.ok_or(Fault::Refused("its algorithm is not accepted"))?);
            }
            ("kid", ClaimValue::Text(id)) if (1..=MAX_KID).contains(&id.len()) => kid = Some((&**id).into()),
            ("typ" | "cty", ClaimValue::Text(_)) | ("b64", ClaimValue::Bool(true)) => {}
            ("crit", _) => return Err(Fault::Refused("it has critical extensions that are not understood")),
            ("b64", _) => return Err(Fault::Refused("its payload is not encoded as it must be")),
            ("zip" | "enc" | "epk", _) => return Err(Fault::Refused("it is not a signed token")),
            ("alg" | "kid" | "typ" | "cty", _) => {
                return Err(Fault::Form("a member of its header has a wrong type"));
            }
            _ => {}
        }
    }
    let algorithm = algorithm.ok_or(Fault::Form("its header names no algorithm"))?;
    Ok((algorithm, kid))
}

const MAX_HEADER: usize = 4 * 1_024;
/// Of RSA with 8,192 bits.
const MAX_SIGNATURE: usize = 1_400;
const MAX_KID: usize = 256;
const MOST_LOOKED_AT: usize = 64 * 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_nothing_panics_and_what_reads_has_one_spelling(
            token in "[A-Za-z0-9_=.+/ -]{0,200}|ey[A-Za-z0-9_-]{0,40}\\.ey[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}",
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(parse(&bytes, 8_192).is_err());
            let _ = claimed_issuer(&bytes);
            let _ = claimed_issuer(token.as_bytes());
            if let Ok(parsed) = parse(token.as_bytes(), 8_192) {
                prop_assert_eq!([parsed.signed, b".", parsed.signature.as_bytes()].concat(), token.into_bytes());
            }
        }

        #[test]
        fn any_json_in_the_right_form_is_read_or_refused(head in "\\PC{0,60}", body in "\\PC{0,60}") {
            let [head, body] = [head, body].map(|text| URL_SAFE_NO_PAD.encode(text));
            let _ = parse(format!("{head}.{body}.AAAA").as_bytes(), 8_192);
        }
    }
}
