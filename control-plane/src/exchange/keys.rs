//! The keys that the mesh signs its own tokens with: made once, kept in the store, changed with overlap.
//!
//! A new key is told to everybody before anything is signed with it, and an old one is told for as long as a token of it
//! can be good. Two control planes that change them at the same time end up with one record.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_certs::jwt::TokenSigner;
use outrigger_mesh::{Issuer, IssuerKeys, IssuerName, Resource, TokenKey, TrustDomain, iss_of_the_mesh};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use crate::audit::{AuditEntry, Author};
use crate::compile::ResourceChange;
use crate::state::Publish;
use crate::store::{CommitError, Expect, Space, Store, StoreError, StoreErrorKind, Transaction, Write};

/// The keys of the moment.
pub struct Keys {
    store: Arc<dyn Store>,
    publish: Arc<dyn Publish>,
    domain: TrustDomain,
    now: Mutex<Arc<InForce>>,
}

/// What signs, and what verifies.
pub struct InForce {
    /// Signs.
    pub(super) signer: TokenSigner,
    /// The mesh as an issuer, with every key that a good token may be signed with.
    pub(super) issuer: Issuer,
}

impl Keys {
    /// The keys of `store`, made if there are none, and told to everybody.
    pub async fn open(
        store: Arc<dyn Store>,
        publish: Arc<dyn Publish>,
        domain: TrustDomain,
    ) -> Result<Self, StoreError> {
        let kept = turned(&*store, OffsetDateTime::now_utc()).await?;
        let in_force = Arc::new(kept.in_force(&domain, OffsetDateTime::now_utc())?);
        publish.publish(0, vec![ResourceChange::Set(Resource::Issuer(in_force.issuer.clone()))]);
        Ok(Self { store, publish, domain, now: Mutex::new(in_force) })
    }

    /// What is in force.
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The set of keys as it is published.
    pub fn jwks(&self) -> serde_json::Value {
        let mut set = crate::jwks::to_json(self.in_force().issuer.keys.all());
        for key in set["keys"].as_array_mut().into_iter().flatten() {
            (key["use"], key["alg"]) = ("sig".into(), "ES256".into());
        }
        set
    }

    /// Changes keys when it is time, until it is dropped.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.turn(OffsetDateTime::now_utc()).await {
                tracing::warn!(%error, "the keys of the mesh's tokens are not changed; those that are known stay");
            }
        }
    }

    async fn turn(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        let next = Arc::new(turned(&*self.store, now).await?.in_force(&self.domain, now)?);
        let before = {
            let mut current = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&next))
        };
        if before.issuer != next.issuer {
            tracing::info!(keys = next.issuer.keys.all().len(), "the keys of the mesh's tokens have changed");
            // No revision counts them: they are not configuration.
            self.publish.publish(0, vec![ResourceChange::Set(Resource::Issuer(next.issuer.clone()))]);
        }
        Ok(())
    }
}

/// The record. It has no `Debug`: it holds private keys.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// The oldest first.
    keys: Vec<KeptKey>,
    /// The version of the record in the store.
    #[serde(skip)]
    version: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptKey {
    /// PKCS#8, DER, in base64.
    pkcs8: String,
    #[serde(with = "time::serde::rfc3339")]
    made: OffsetDateTime,
}

impl Drop for KeptKey {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

/// The record as it shall be now; written where that differs.
async fn turned(store: &dyn Store, now: OffsetDateTime) -> Result<Kept, StoreError> {
    for _ in 0..MAX_TRIES {
        let mut kept = Kept::read(store).await?;
        let plan = Plan::of(&kept.made(), now);
        if plan.gone == 0 && !plan.make {
            return Ok(kept);
        }
        kept.keys.drain(..plan.gone);
        if plan.make {
            let (_, pkcs8) = TokenSigner::generate().map_err(|e| fault(&e.to_string()))?;
            kept.keys.push(KeptKey { pkcs8: STANDARD.encode(&*pkcs8), made: now });
        }
        match kept.commit(store).await {
            Ok(()) => return Ok(kept),
            Err(CommitError::Store(error)) => return Err(error),
            // Another control plane was faster: its keys are the mesh's.
            Err(CommitError::Conflict { .. }) => {}
        }
    }
    Err(fault("it changes all the time"))
}

impl Kept {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let Some(record) = store.get(Space::Certificates, KEY).await? else { return Ok(Self::default()) };
        // What serde says may quote the value.
        let kept = Self::deserialize(&record.value).map_err(|_| fault("it is not what was written"))?;
        Ok(Self { version: Some(record.changed), ..kept })
    }

    async fn commit(&self, store: &dyn Store) -> Result<(), CommitError> {
        let value = serde_json::to_value(self).map_err(|_| fault("it can not be written"))?;
        let expect = self.version.map_or(Expect::Absent, Expect::Version);
        let write = Write { space: Space::Certificates, key: KEY.into(), value: Some(value), expect };
        let author = Author::system("it was time");
        let audit = vec![AuditEntry::new(&author, "rotate", "the keys of the mesh's tokens")];
        store.commit(Transaction { author, writes: vec![write], audit }).await.map(drop)
    }

    fn made(&self) -> Vec<OffsetDateTime> {
        self.keys.iter().map(|key| key.made).collect()
    }

    fn in_force(&self, domain: &TrustDomain, now: OffsetDateTime) -> Result<InForce, StoreError> {
        let mut signers = vec![];
        for key in &self.keys {
            let pkcs8 = STANDARD.decode(&key.pkcs8).map(Zeroizing::new);
            let pkcs8 = pkcs8.map_err(|_| fault("a key in it is not what was written"))?;
            signers.push(TokenSigner::from_pkcs8(&pkcs8).map_err(|e| fault(&e.to_string()))?);
        }
        let keys: Vec<TokenKey> = signers.iter().map(|signer| signer.key().clone()).collect();
        let signs = Plan::of(&self.made(), now).signs;
        if signs >= signers.len() {
            return Err(fault("it has no key"));
        }
        let (name, iss) = (IssuerName::of_the_mesh(), iss_of_the_mesh(domain));
        let issuer = Issuer { name, iss, keys: IssuerKeys::Known(keys) }.checked();
        Ok(InForce { signer: signers.swap_remove(signs), issuer: issuer.map_err(|e| fault(&e.to_string()))? })
    }
}

/// What is to become of keys that were made at these moments, the oldest first.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The first so many are no longer needed.
    gone: usize,
    /// Another one is due.
    make: bool,
    /// This one signs; an index into all of them.
    signs: usize,
}

impl Plan {
    fn of(made: &[OffsetDateTime], now: OffsetDateTime) -> Self {
        let signs = made.iter().rposition(|made| *made + ANNOUNCED <= now).unwrap_or(0);
        // The one that signs has been signing for so long that nothing of those before it is still good.
        let settled = made.get(signs).is_some_and(|made| *made + ANNOUNCED + OVERLAP <= now);
        let make = made.last().is_none_or(|made| *made + ROTATE <= now);
        Self { gone: if settled { signs } else { 0 }, make, signs }
    }
}

fn fault(detail: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "of the keys of the mesh's tokens", detail)
}

const KEY: &str = "token-keys";
const MAX_TRIES: usize = 8;
const LOOK: Duration = Duration::from_secs(30);
/// How long a key is in use before there is another.
const ROTATE: Duration = Duration::from_hours(24);
/// How long a key is told before anything is signed with it: sidecars that were away for that long have missed it, and ask
/// for it at the first token they meet.
const ANNOUNCED: Duration = Duration::from_mins(10);
/// As long as a token is good, with what clocks may differ, twice.
const OVERLAP: Duration = Duration::from_mins(12);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    #[test]
    fn a_key_is_told_before_it_signs_and_after_it_signed_for_as_long_as_its_tokens_are_good() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let at = |minutes: u64| start + Duration::from_mins(minutes);
        let plan =
            |made: &[u64], now: u64| Plan::of(&made.iter().map(|m| at(*m)).collect::<Vec<_>>(), at(now));
        let is = |gone, make, signs| Plan { gone, make, signs };
        assert_eq!(plan(&[], 0), is(0, true, 0));
        assert_eq!(plan(&[0], 0), is(0, false, 0), "the first signs at once: nobody waits for another");
        assert_eq!(plan(&[0], 1_439), is(0, false, 0));
        assert_eq!(plan(&[0], 1_440), is(0, true, 0));
        assert_eq!(plan(&[0, 1_440], 1_449), is(0, false, 0));
        assert_eq!(plan(&[0, 1_440], 1_450), is(0, false, 1));
        assert_eq!(plan(&[0, 1_440], 1_461), is(0, false, 1));
        assert_eq!(plan(&[0, 1_440], 1_462), is(1, false, 1));
        // A control plane that was off for days, and a clock that went back.
        assert_eq!(plan(&[0], 10_000), is(0, true, 0));
        assert_eq!(plan(&[500], 0), is(0, false, 0));
    }

    #[derive(Default)]
    struct Told(Mutex<Vec<usize>>);

    impl Publish for Told {
        fn publish(&self, _: u64, changes: Vec<ResourceChange>) {
            for change in changes {
                let ResourceChange::Set(Resource::Issuer(issuer)) = change else { panic!("an issuer") };
                self.0.lock().unwrap().push(issuer.keys.all().len());
            }
        }
    }

    #[tokio::test]
    async fn every_change_of_the_keys_is_told_and_published_without_their_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let (store, told) =
            (Arc::new(EmbeddedStore::open(folder.path()).await.unwrap()), Arc::new(Told::default()));
        let keys = Keys::open(store, told.clone(), "mesh.local".parse().unwrap()).await.unwrap();
        let (now, first) = (OffsetDateTime::now_utc(), keys.jwks());
        keys.turn(now).await.unwrap();
        let later = now + Duration::from_hours(25);
        for moment in [later, later, later + ANNOUNCED, later + ANNOUNCED + OVERLAP] {
            keys.turn(moment).await.unwrap();
        }
        assert_eq!(*told.0.lock().unwrap(), [1, 2, 1], "only what changes is told");
        let last = keys.jwks();
        assert!(last["keys"][0]["kid"] != first["keys"][0]["kid"]);
        let mut members: Vec<_> = last["keys"][0].as_object().unwrap().keys().cloned().collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    }

    #[tokio::test]
    async fn keys_outlive_the_process_and_two_that_make_them_end_up_with_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).await.unwrap();
        let now = OffsetDateTime::now_utc();
        let both = tokio::join!(turned(&store, now), turned(&store, now));
        let domain = "mesh.local".parse().unwrap();
        let [one, other] =
            [both.0.unwrap(), both.1.unwrap()].map(|kept| kept.in_force(&domain, now).unwrap());
        assert_eq!(one.issuer, other.issuer);
        assert_eq!(one.issuer.keys.all().len(), 1);
        let later = now + Duration::from_hours(25);
        let next = turned(&store, later).await.unwrap().in_force(&domain, later).unwrap();
        assert_eq!(next.issuer.keys.all().len(), 2);
        assert_eq!(next.signer.key(), one.signer.key(), "the new one is told first");
        let then = later + ANNOUNCED + OVERLAP;
        let last = turned(&store, then).await.unwrap().in_force(&domain, then).unwrap();
        assert_eq!(last.issuer.keys.all(), &next.issuer.keys.all()[1..]);
        assert_eq!(last.signer.key(), &last.issuer.keys.all()[0]);
    }
}
