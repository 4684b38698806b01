//! What reads names, certificates, key sets and tokens of strangers, before inputs that nobody thought of.
//!
//! `make fuzz` searches for a minute each. An input that is not survived is told in hex; it becomes a test of its own where
//! the reader is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod mutate;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use mutate::search;
use outrigger_certs::jwt::{Arranged, Keys, TokenSigner, prove};
use outrigger_certs::{
    Authority, JoinToken, LeafLifetime, Role, RootHash, TrustBundle, WorkloadKey, peer_from_chain,
};
use outrigger_control::jwks::{read_keys, to_json};
use outrigger_mesh::{Issuer, IssuerKeys, IssuerName, SpiffeId, TrustDomain};
use rustls::pki_types::{CertificateDer, UnixTime};

/// The words of an error without what varies in it: the input itself comes before "is not".
fn kind(error: &str) -> String {
    let rule = error.rsplit(" is not ").next().unwrap_or_default();
    rule.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(80).collect()
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A name that is read is the one that is written: no two spellings of one identity, nothing that hides in it.
#[test]
fn a_name_is_read_as_it_is_written_or_refused() {
    let seeds = [
        "spiffe://mesh.local/ns/shop/sa/cart",
        "spiffe://a-b_c.example/ns/x/sa/y-1",
        "spiffe://m/ns//sa/",
        "x",
    ];
    let words: &[&[u8]] = &[
        b"%2f",
        b"%00",
        b"\0",
        b"..",
        b"//",
        b"/ns/",
        b"/sa/",
        b"spiffe://",
        b"SPIFFE://",
        b"?",
        b"#",
        b"@",
        b":80",
    ];
    let found = search("names", bytes(&seeds), words, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "not text".into() };
        match text.parse::<SpiffeId>() {
            Err(e) => kind(&e.to_string()),
            Ok(id) => {
                assert_eq!(id.to_string(), text);
                let path = format!("/ns/{}/sa/{}", id.namespace(), id.service_account());
                assert_eq!(
                    text.strip_prefix("spiffe://").unwrap().strip_suffix(&path).unwrap(),
                    id.trust_domain().to_string()
                );
                "read".into()
            }
        }
    });
    assert!(found.outcomes["read"] > 10 && found.outcomes.len() > 3, "{:?}", found.outcomes);
}

/// A certificate that was changed in any way proves nobody.
#[test]
fn a_changed_certificate_proves_nobody() {
    let domain = TrustDomain::new("mesh.local").unwrap();
    let now = SystemTime::now();
    let (authority, _) = Authority::create(&domain, now).unwrap();
    let bundle = TrustBundle::new(&[authority.trust()]).unwrap();
    let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let signed = authority.sign(&csr, &id, LeafLifetime::default(), now).unwrap();
    let (leaf, intermediate) = (signed.chain[0].clone(), signed.chain[1].clone());
    let at = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let words: &[&[u8]] = &[
        b"spiffe://mesh.local/ns/shop/sa/web",
        b"/sa/web",
        b"\x00",
        b"%2e",
        // subjectAltName, a URI, a DNS name, basicConstraints, keyUsage, extendedKeyUsage.
        b"\x06\x03\x55\x1d\x11",
        b"\x86\x23",
        b"\x82\x23",
        b"\x06\x03\x55\x1d\x13",
        b"\x06\x03\x55\x1d\x0f",
        b"\x06\x03\x55\x1d\x25",
        b"\x01\x01\xff",
        b"\x30\x80",
        b"\x84\xff\xff\xff\xff",
    ];
    let seeds = vec![leaf.clone(), intermediate.clone()];
    let found = search("certificates", seeds, words, |input| {
        let chain = [CertificateDer::from(input), CertificateDer::from(intermediate.as_slice())];
        let mut told = String::new();
        for role in [Role::Client, Role::Server] {
            match peer_from_chain(&chain, &bundle, role, at) {
                Err(e) => told = kind(&e.to_string()),
                Ok(peer) => {
                    assert_eq!((input, peer.id()), (leaf.as_slice(), &id), "who signed this?");
                    told = "proven".into();
                }
            }
        }
        told
    });
    assert!(found.outcomes.contains_key("proven") && found.outcomes.len() > 15, "{:?}", found.outcomes);
}

/// Keys that are read are good for verifying, and are the same when they are written and read again.
#[test]
fn a_set_of_keys_gives_usable_keys_or_is_refused() {
    let (signer, _) = TokenSigner::generate().unwrap();
    let made = to_json(std::slice::from_ref(signer.key())).to_string();
    let seeds = [
        &made,
        r#"{"keys":[{"kty":"RSA","n":"u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyehkd3qqGElvW_VDL5AaWTg0nLVkjRo9z-40RQzuVaE8AkAFmxZzow3x-VJYKdjykkJ0iT9wCS0DRTXu269V264Vf_3jvredZiKRkgwlL9xNAwxXFg0x_XFw005UWVRIkdgcKWTjpBP2dPwVZ4WWC-9aGVd-Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbcmw","e":"AQAB","alg":"RS256","use":"sig","kid":"r"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["verify"]}]}"#,
        r#"{"keys":[]}"#,
    ];
    let words: &[&[u8]] = &[
        b"\"kty\":\"oct\"",
        b"\"k\":\"AAAA\"",
        b"\"d\":\"AAAA\"",
        b"\"alg\":\"none\"",
        b"\"alg\":\"HS256\"",
        b"\"crv\":\"P-384\"",
        b"\"use\":\"enc\"",
        b"\"kid\":",
        b"null",
        b"[[[[",
        b"{}",
        b"\\u0000",
        b"AAAAAAAAAAAAAAAA",
        b"1e999",
    ];
    let found = search("key sets", bytes(&seeds), words, |input| match read_keys(input) {
        Err(why) => kind(&why),
        Ok(keys) => {
            assert!(!keys.is_empty());
            for key in &keys {
                key.check().unwrap();
            }
            assert_eq!(read_keys(to_json(&keys).to_string().as_bytes()).as_ref(), Ok(&keys));
            "read".into()
        }
    });
    assert!(found.outcomes["read"] > 10 && found.outcomes.len() > 15, "{:?}", found.outcomes);
}

/// A token that was changed in any way is not its issuer's.
#[test]
fn a_changed_token_is_nobodys() {
    let name: IssuerName = "shop/users/login".parse().unwrap();
    let (signer, _) = TokenSigner::generate().unwrap();
    let keys = IssuerKeys::Known(vec![signer.key().clone()]);
    let issuer = Issuer { name: name.clone(), iss: "https://i".into(), keys };
    let known = Arranged::new(1, HashMap::from([(name.clone(), Arc::new(Keys::new(issuer)))]), [].iter());
    let seeds: Vec<Vec<u8>> = [
        r#"{"iss":"https://i","aud":"shop","sub":"ada","exp":4102444800,"scope":"read write","act":{"sub":"x","act":{"sub":"y"}}}"#,
        r#"{"iss":"https://i","aud":["shop","bank"],"sub":"ada","exp":4102444800,"nbf":1,"iat":1,"jti":"1","n":[1,2.5,-3,true,null]}"#,
    ]
    .iter()
    .map(|claims| signer.sign(claims.as_bytes()).unwrap().as_bytes().to_vec())
    .collect();
    let signed: BTreeSet<Vec<u8>> = seeds.iter().cloned().collect();
    let words: &[&[u8]] = &[
        b".",
        b"..",
        b"=",
        b"==",
        b"eyJhbGciOiJub25lIn0",
        b"eyJhbGciOiJIUzI1NiJ9",
        b"eyJhbGciOiJFUzI1NiIsImNyaXQiOlsiYjY0Il0sImI2NCI6ZmFsc2V9",
        b"\"",
        b" ",
        b"\n",
        b"W10",
        b"e30",
        b"bnVsbA",
        b"AAAA",
    ];
    let found =
        search("tokens", seeds, words, |input| match prove(&known, [&name].into_iter(), input, 8_192) {
            Err(fault) => kind(&format!("{fault:?}")),
            Ok(token) => {
                assert!(signed.contains(input), "nobody signed this: {}", String::from_utf8_lossy(input));
                assert_eq!(token.secret(), input);
                "proven".into()
            }
        });
    assert!(found.outcomes.contains_key("proven") && found.outcomes.len() > 5, "{:?}", found.outcomes);
}

/// A join token that is read is the one that is written.
#[test]
fn a_join_token_is_read_as_it_is_written_or_refused() {
    let made = |root: &[u8]| JoinToken::generate(RootHash::of(root)).unwrap().expose().as_bytes().to_vec();
    let found = search(
        "join tokens",
        vec![made(b"a"), made(b"b")],
        &[b".", b"_", b"-", b" ", b"\0", b"A"],
        |input| {
            let Ok(text) = std::str::from_utf8(input) else { return "not text".into() };
            match text.parse::<JoinToken>() {
                Err(e) => kind(&e.to_string()),
                Ok(token) => {
                    assert_eq!(token.expose().as_str(), text.trim(), "two spellings of one token");
                    "read".into()
                }
            }
        },
    );
    assert!(found.outcomes["read"] > 1, "{:?}", found.outcomes);
}
