//! Issuers that others wrote: PyJWT and jwcrypto, in every algorithm.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, header};
use outrigger_mesh::{KeyMaterial, TokenAlgorithm, TokenKey, TokenNeed};
use outrigger_testkit::{Client, Origin, real, request};
use serde_json::Value;

use crate::mint::{AUD, ISS};
use crate::support::Mesh;
use crate::{issuer, login, pair, rules};

const PACKAGES: [&str; 3] = ["PyJWT==2.10.1", "jwcrypto==1.5.6", "cryptography==44.0.0"];

#[tokio::test]
async fn tokens_of_pyjwt_and_jwcrypto_pass_in_every_algorithm_and_none_with_anothers_key() {
    let issued = tokio::task::spawn_blocking(|| {
        let python = real::venv(&PACKAGES)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokens/issuers.py");
        let ran = real::run(Command::new(python).arg(script).args([ISS, AUD]), Duration::from_secs(60));
        assert!(ran.ok, "{}", ran.stderr);
        Some(serde_json::from_str::<Vec<Value>>(&ran.stdout).unwrap())
    });
    let Some(issued) = issued.await.unwrap() else { return };
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let (client, server) = pair(&mesh, origin.addr(), Some(rules(TokenNeed::Required)));
    server.set(issuer(login(), ISS, issued.iter().map(|one| key(&one["key"], &one["alg"])).collect()));
    let send = async |token: &str| {
        let mut asked = request(Method::GET, "cart", "/", "".into());
        asked.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        Client::h1(client.outbound).await.send(asked).await.unwrap().status.as_u16()
    };
    assert_eq!(issued.len(), TokenAlgorithm::ALL.len());
    for one in &issued {
        for library in ["pyjwt", "jwcrypto"] {
            let token = one[library].as_str().unwrap();
            assert_eq!(send(token).await, 200, "{library} {}", one["alg"]);
        }
    }
    // The keys of the same names, each another's.
    let turned = issued.iter().zip(issued.iter().skip(1).chain(&issued[..1]));
    let turned = turned.map(|(one, next)| TokenKey {
        kid: key(&one["key"], &one["alg"]).kid,
        ..key(&next["key"], &next["alg"])
    });
    server.set(issuer(login(), ISS, turned.collect()));
    for one in &issued {
        assert_eq!(send(one["pyjwt"].as_str().unwrap()).await, 401, "{}", one["alg"]);
    }
}

fn key(jwk: &Value, alg: &Value) -> TokenKey {
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let material = match (jwk["kty"].as_str().unwrap(), jwk["crv"].as_str()) {
        ("RSA", _) => KeyMaterial::Rsa { n: bytes("n").into(), e: bytes("e").into() },
        (_, Some("P-256")) => {
            KeyMaterial::P256(bytes("x").try_into().unwrap(), bytes("y").try_into().unwrap())
        }
        (_, Some("P-384")) => {
            KeyMaterial::P384(bytes("x").try_into().unwrap(), bytes("y").try_into().unwrap())
        }
        _ => KeyMaterial::Ed25519(bytes("x").try_into().unwrap()),
    };
    let algorithms = vec![TokenAlgorithm::parse(alg.as_str().unwrap()).unwrap()];
    TokenKey { kid: jwk["kid"].as_str().map(Into::into), material, algorithms }
}
