//! Join tokens in the store: by id, hashed, used once.

use std::time::Duration;

use outrigger_certs::{CertError, JoinToken, JoinTokenHash, RootHash};
use outrigger_mesh::Label;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::instances::{Refusal, RefusalKind};
use crate::audit::{AuditEntry, Author};
use crate::secret::is_secret;
use crate::store::{CommitError, Expect, Space, Store, StoreError, StoreErrorKind, Transaction, Write};

/// What the store keeps of a token.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    hash: String,
    namespace: String,
    service_account: String,
    #[serde(with = "time::serde::rfc3339")]
    expires: OffsetDateTime,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    used: Option<OffsetDateTime>,
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be made.
    #[error("no token could be made: {0}")]
    Made(#[from] CertError),
    /// There are too many that nobody has used.
    #[error("there are {MAX_TOKENS} unused join tokens already; wait until some expire")]
    TooMany,
}

/// As many tokens can be unused and unexpired at a time.
const MAX_TOKENS: usize = 10_000;
/// Used and expired tokens are remembered for so long, to tell them from those that never were.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn create(
    store: &dyn Store,
    root: RootHash,
    namespace: Label,
    service_account: Label,
    ttl: Duration,
    author: &Author,
) -> Result<JoinToken, TokenError> {
    let (forgotten, live) = sweep(store).await?;
    if live >= MAX_TOKENS {
        return Err(TokenError::TooMany);
    }
    let token = JoinToken::generate(root)?;
    let kept = Kept {
        hash: token.hash().to_hex(),
        namespace: namespace.to_string(),
        service_account: service_account.to_string(),
        expires: OffsetDateTime::now_utc() + ttl,
        used: None,
    };
    let object = format!("join token {} for {namespace}/{service_account}", token.id());
    let audit = vec![AuditEntry::new(author, "create-token", object)];
    let mut writes = vec![write(token.id(), Some(to_json(&kept)?), Expect::Absent)];
    writes.extend(forgotten.into_iter().map(|id| write(id, None, Expect::Anything)));
    match store.commit(Transaction { author: author.clone(), writes, audit }).await {
        Ok(_) => Ok(token),
        Err(CommitError::Store(e)) => Err(e.into()),
        Err(e @ CommitError::Conflict { .. }) => {
            Err(StoreError::new(StoreErrorKind::Locked, "of join tokens", e).into())
        }
    }
}

pub(super) async fn consume(
    store: &dyn Store,
    token: &JoinToken,
    author: &Author,
) -> Result<(Label, Label), Refusal> {
    let id = token.id();
    let refuse = |kind, what: &str| Err(Refusal::new(kind, format!("the join token {id} {what}")));
    let Some(record) = store.get(Space::Tokens, &id).await? else {
        return refuse(RefusalKind::TokenUnknown, "is not known");
    };
    let mut kept = from_json(&record.value)?;
    // Whoever knows an id but not the secret learns nothing of the token.
    if JoinTokenHash::from_hex(&kept.hash) != Some(token.hash()) {
        return refuse(RefusalKind::TokenUnknown, "has another secret");
    }
    if let Some(used) = kept.used {
        return refuse(RefusalKind::TokenUsed, &format!("was used at {used}"));
    }
    if kept.expires <= OffsetDateTime::now_utc() {
        return refuse(RefusalKind::TokenExpired, &format!("expired at {}", kept.expires));
    }
    let label = |text: &str| Label::new(text).map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()));
    let attested = (label(&kept.namespace)?, label(&kept.service_account)?);
    kept.used = Some(OffsetDateTime::now_utc());
    let object = format!("join token {id} for {}/{}", attested.0, attested.1);
    let transaction = Transaction {
        author: author.clone(),
        audit: vec![AuditEntry::new(author, "use-token", object)],
        writes: vec![write(id.clone(), Some(to_json(&kept)?), Expect::Version(record.changed))],
    };
    match store.commit(transaction).await {
        Ok(_) => Ok(attested),
        Err(CommitError::Store(e)) => Err(e.into()),
        Err(CommitError::Conflict { .. }) => refuse(RefusalKind::TokenUsed, "was used in this very moment"),
    }
}

/// The tokens that need not be remembered any more, and how many can still be used.
async fn sweep(store: &dyn Store) -> Result<(Vec<String>, usize), StoreError> {
    let now = OffsetDateTime::now_utc();
    let (mut forgotten, mut live) = (vec![], 0);
    let all = store.list(Space::Tokens, "").await?.records;
    for (id, record) in all.into_iter().filter(|(key, _)| !is_secret(key)) {
        let kept = from_json(&record.value)?;
        let ended = kept.used.map_or(kept.expires, |used| used.min(kept.expires));
        if ended + REMEMBERED < now {
            forgotten.push(id);
        } else if kept.used.is_none() && kept.expires > now {
            live += 1;
        }
    }
    Ok((forgotten, live))
}

fn write(key: String, value: Option<Json>, expect: Expect) -> Write {
    Write { space: Space::Tokens, key, value, expect }
}

fn to_json(kept: &Kept) -> Result<Json, StoreError> {
    serde_json::to_value(kept).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, "of join tokens", e))
}

fn from_json(value: &Json) -> Result<Kept, StoreError> {
    Kept::deserialize(value).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, "of join tokens", e))
}
