//! The service `login`: plays the issuer of tokens that a real shop has elsewhere. It believes every
//! name, so it is for trying things out and for nothing else. Its key is gone with the process.
//!
//! The only service that knows of tokens: the others neither read nor carry them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cart::User;
use crate::refusal::Refusal;

/// Who issues, as it stands in `iss`.
pub const ISSUER: &str = "https://login.shop.example";
/// For whom, as it stands in `aud`.
pub const AUDIENCE: &str = "shop";
/// What users may be given.
pub const SCOPES: [&str; 3] = ["cart", "prices", "admin"];

/// A user who logs in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The name.
    pub user: String,
    /// What the user may do: words of [`SCOPES`].
    #[serde(default)]
    pub scope: String,
}

/// What a user gets.
#[derive(Serialize, Deserialize)]
pub struct LoggedIn {
    /// To be sent as `Authorization: Bearer`.
    pub token: String,
    /// How long it is good, in seconds.
    pub expires_in: u64,
}

/// `POST /login`, `GET /.well-known/jwks.json` and `GET /healthz`.
pub fn router() -> anyhow::Result<Router> {
    let key = Arc::new(Key::new()?);
    Ok(Router::new()
        .route("/login", post(login))
        .route("/.well-known/jwks.json", get(keys))
        .with_state(key)
        .route("/healthz", get(async || "ok\n")))
}

async fn login(
    State(key): State<Arc<Key>>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Json<LoggedIn>, Refusal> {
    let Login { user, scope } = body?.0;
    let user = User::try_from(user)?;
    if let Some(unknown) = scope.split_whitespace().find(|word| !SCOPES.contains(word)) {
        let error = format!("{unknown:?} is nothing that a user may be given: {}", SCOPES.join(", "));
        return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
    }
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "no token can be made");
    let token = key.token(&user, &scope).map_err(failed)?;
    Ok(Json(LoggedIn { token, expires_in: LIFETIME }))
}

async fn keys(State(key): State<Arc<Key>>) -> Json<Value> {
    Json(key.published())
}

struct Key {
    pair: EcdsaKeyPair,
    id: String,
}

impl Key {
    fn new() -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.map_err(|_| anyhow!("no key can be made"))?;
        Ok(Self { pair, id: random()? })
    }

    fn token(&self, user: &User, scope: &str) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.id});
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": user.as_str(), "scope": scope,
            "iat": now, "exp": now + LIFETIME, "jti": random()?,
        });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes());
        let signature = signature.map_err(|_| anyhow!("the key does not sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn published(&self) -> Value {
        // An uncompressed point: a byte that says so, then both halves.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y}]})
    }
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

const LIFETIME: u64 = 3_600;
