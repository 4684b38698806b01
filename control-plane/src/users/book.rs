//! The tokens of the admin API in the store: by id, hashed, with what they may.
//!
//! The store is asked at every request. It answers from its own memory, and what was revoked a moment ago is then refused
//! now, by every control plane that shares it.

use std::time::Duration;

use outrigger_certs::{ApiToken, ApiTokenHash, CertError, RootHash};
use outrigger_mesh::Label;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::{Grant, Role};
use crate::audit::{AuditEntry, Author};
use crate::store::{
    CommitError, Expect, Record, Space, Store, StoreError, StoreErrorKind, Transaction, Write,
};

/// What is kept of a token, but for its hash.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: Label,
    /// What it may.
    pub grant: Grant,
    /// By whom it was made.
    pub created_by: String,
    /// When.
    pub created: OffsetDateTime,
    /// Until when it is good.
    pub expires: OffsetDateTime,
    /// Since when it is no longer good, where it was revoked.
    pub revoked: Option<OffsetDateTime>,
    /// When it was last used, to within an hour.
    pub last_used: Option<OffsetDateTime>,
}

impl Card {
    /// Whether it is good at `now`.
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        self.revoked.is_none() && now < self.expires
    }
}

/// Why a token is not taken. Only whoever has its secret is told more than that it is not known.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// There is no such token, or not with this secret.
    #[error("the token is not known here")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired")]
    Expired {
        /// Its id.
        id: String,
    },
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked {
        /// Its id.
        id: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be made.
    #[error("no token could be made: {0}")]
    Made(#[from] CertError),
    /// There are too many already.
    #[error("there are {MAX_TOKENS} tokens already: revoke those that nobody uses")]
    TooMany,
}

/// Makes a token. It is told once, by whoever gets it from here; only its hash is kept.
pub async fn create(
    store: &dyn Store,
    root: RootHash,
    name: Label,
    grant: Grant,
    ttl: Duration,
    author: &Author,
) -> Result<(ApiToken, Card), NotMade> {
    let token = ApiToken::generate(root)?;
    let card = keep(store, &token, name, grant, ttl, author).await?;
    Ok((token, card))
}

/// Keeps a token that was made before.
pub async fn keep(
    store: &dyn Store,
    token: &ApiToken,
    name: Label,
    grant: Grant,
    ttl: Duration,
    author: &Author,
) -> Result<Card, NotMade> {
    let now = OffsetDateTime::now_utc();
    let (mut forgotten, mut live) = (vec![], 0);
    for card in list(store).await? {
        if card.is_live(now) {
            live += 1;
        } else if card.revoked.map_or(card.expires, |at| at.min(card.expires)) + REMEMBERED < now {
            forgotten.push(write(&card.id, None, Expect::Anything));
        }
    }
    if live >= MAX_TOKENS {
        return Err(NotMade::TooMany);
    }
    let kept = Kept {
        hash: token.hash().to_hex(),
        name: name.to_string(),
        role: grant.role().to_string(),
        namespaces: grant.bound_to().map(|some| some.iter().map(ToString::to_string).collect()),
        created_by: author.who.clone(),
        created: now,
        expires: now + ttl,
        revoked: None,
        last_used: None,
    };
    let card = kept.card(&token.id())?;
    let mut writes = vec![write(&card.id, Some(kept.to_json()?), Expect::Absent)];
    writes.extend(forgotten);
    let audit = vec![AuditEntry::new(author, "create-api-token", object(&card))];
    commit(store, author, writes, audit).await?;
    Ok(card)
}

/// Every token that is remembered, also those that are no longer good.
pub async fn list(store: &dyn Store) -> Result<Vec<Card>, StoreError> {
    let listed = store.list(Space::Tokens, PREFIX).await?;
    listed
        .records
        .iter()
        .map(|(key, record)| read(record)?.card(key.get(PREFIX.len()..).unwrap_or_default()))
        .collect()
}

/// Ends a token at once. `None` when there is none of that id.
pub async fn revoke(store: &dyn Store, id: &str, author: &Author) -> Result<Option<Card>, StoreError> {
    let Some(record) = store.get(Space::Tokens, &key(id)).await? else { return Ok(None) };
    let mut kept = read(&record)?;
    if kept.revoked.is_none() {
        kept.revoked = Some(OffsetDateTime::now_utc());
        let audit = vec![AuditEntry::new(author, "revoke-api-token", object(&kept.card(id)?))];
        // Whatever else was written of it meanwhile, it is revoked after this.
        commit(store, author, vec![write(id, Some(kept.to_json()?), Expect::Present)], audit).await?;
    }
    kept.card(id).map(Some)
}

/// Whose token it is, if it is good now.
pub async fn verify(store: &dyn Store, token: &ApiToken) -> Result<Card, NotTaken> {
    let id = token.id();
    let record = store.get(Space::Tokens, &key(&id)).await?;
    let kept = record.as_ref().map(read).transpose()?;
    let (Some(kept), Some(record)) = (kept, record) else { return Err(NotTaken::Unknown) };
    // In constant time; that an id exists is no secret, it stands in the audit log.
    if ApiTokenHash::from_hex(&kept.hash) != Some(token.hash()) {
        return Err(NotTaken::Unknown);
    }
    let card = kept.card(&id)?;
    let now = OffsetDateTime::now_utc();
    if card.revoked.is_some() {
        return Err(NotTaken::Revoked { id });
    }
    if !card.is_live(now) {
        return Err(NotTaken::Expired { id });
    }
    if card.last_used.is_none_or(|at| at + COARSE < now) {
        note_use(store, &id, kept, record.changed, now).await;
    }
    Ok(card)
}

/// Writes down when a token was used. Not more often than once an hour, since it is a write to disk; and never over what
/// somebody else wrote meanwhile, such as that it is revoked.
async fn note_use(store: &dyn Store, id: &str, mut kept: Kept, changed: u64, now: OffsetDateTime) {
    kept.last_used = Some(now);
    let Ok(value) = kept.to_json() else { return };
    let writes = vec![write(id, Some(value), Expect::Version(changed))];
    let author = Author::system("a token was used");
    if let Err(CommitError::Store(e)) = store.commit(Transaction { author, writes, audit: vec![] }).await {
        tracing::warn!(error = %e, token = id, "when the token was last used is not written down");
    }
}

/// As the audit log calls it.
fn object(card: &Card) -> String {
    format!("api token {} ({}) as {}", card.name, card.id, card.grant)
}

async fn commit(
    store: &dyn Store,
    author: &Author,
    writes: Vec<Write>,
    audit: Vec<AuditEntry>,
) -> Result<(), StoreError> {
    match store.commit(Transaction { author: author.clone(), writes, audit }).await {
        Ok(_) => Ok(()),
        Err(CommitError::Store(e)) => Err(e),
        Err(e @ CommitError::Conflict { .. }) => Err(StoreError::new(StoreErrorKind::Locked, OF, e)),
    }
}

fn write(id: &str, value: Option<Json>, expect: Expect) -> Write {
    Write { space: Space::Tokens, key: key(id), value, expect }
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn read(record: &Record) -> Result<Kept, StoreError> {
    Kept::deserialize(&record.value).map_err(corrupt)
}

fn corrupt(e: impl std::fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, OF, e)
}

/// What the store keeps of a token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    hash: String,
    name: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespaces: Option<Vec<String>>,
    created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires: OffsetDateTime,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    revoked: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    last_used: Option<OffsetDateTime>,
}

impl Kept {
    fn to_json(&self) -> Result<Json, StoreError> {
        serde_json::to_value(self).map_err(corrupt)
    }

    /// What can not be read is nobody's token: it is never taken for one that may more.
    fn card(&self, id: &str) -> Result<Card, StoreError> {
        let role: Role = self.role.parse().map_err(corrupt)?;
        let namespaces = match &self.namespaces {
            None => super::Namespaces::All,
            Some(names) => {
                let names: Result<_, _> = names.iter().map(|name| Label::new(name)).collect();
                super::Namespaces::Only(names.map_err(corrupt)?)
            }
        };
        Ok(Card {
            id: id.to_owned(),
            name: Label::new(&self.name).map_err(corrupt)?,
            grant: Grant::new(role, namespaces).map_err(corrupt)?,
            created_by: self.created_by.clone(),
            created: self.created,
            expires: self.expires,
            revoked: self.revoked,
            last_used: self.last_used,
        })
    }
}

/// Apart from the join tokens, whose ids have no slash (`crate::secret`).
const PREFIX: &str = "secret/api-token/";
const OF: &str = "of api tokens";
/// As many can be good at a time.
const MAX_TOKENS: usize = 1_000;
/// Those that are no longer good are remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How coarse the time of the last use is.
const COARSE: Duration = Duration::from_secs(3600);
