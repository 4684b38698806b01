//! What was proven, remembered by each worker, so that a token costs its signature once.
//!
//! Found by the whole token, under a hash that nobody can aim at. What is remembered is only that a key of the issuer
//! signed it: times, audience and revocation are looked at with every request. A change of keys or lists moves the
//! generation, and with it everything remembered is forgotten.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use outrigger_mesh::IssuerName;

use super::{Fault, Verified, verify};
use outrigger_certs::jwt::Arranged;

/// A proven token: remembered from before, or proven now.
pub fn prove<'a>(
    known: &Arranged,
    issuers: impl Iterator<Item = &'a IssuerName> + Clone,
    token: &[u8],
    max_bytes: usize,
    now: u64,
) -> Result<Arc<Verified>, Fault> {
    let is_for = |found: &Verified| issuers.clone().any(|name| *name == found.claims().issuer);
    let found = CACHE.with_borrow_mut(|cache| cache.find(known.generation, token));
    if let Some(found) = found.filter(|found| token.len() <= max_bytes && is_for(found)) {
        HITS.fetch_add(1, Relaxed);
        return Ok(found);
    }
    MISSES.fetch_add(1, Relaxed);
    let proven = Arc::new(verify::prove(known, issuers, token, max_bytes)?);
    if proven.is_in_time(now) {
        CACHE.with_borrow_mut(|cache| cache.keep(Arc::clone(&proven), now));
    }
    Ok(proven)
}

/// The metrics as text for Prometheus.
pub fn write(out: &mut String) {
    let (hits, misses) = (HITS.load(Relaxed), MISSES.load(Relaxed));
    let _ = writeln!(
        out,
        "# HELP outrigger_token_proofs_total Tokens that came, by whether their proof was remembered.\n\
         # TYPE outrigger_token_proofs_total counter\n\
         outrigger_token_proofs_total{{outcome=\"remembered\"}} {hits}\n\
         outrigger_token_proofs_total{{outcome=\"computed\"}} {misses}"
    );
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache::default());
}

static HITS: AtomicU64 = AtomicU64::new(0);
static MISSES: AtomicU64 = AtomicU64::new(0);

/// The tokens of one worker.
#[derive(Default)]
struct Cache {
    generation: u64,
    tokens: HashMap<Key, Arc<Verified>>,
    bytes: usize,
}

/// Finds itself by its token, which it shares with what was proven.
struct Key(Arc<Verified>);

impl Cache {
    fn find(&mut self, generation: u64, token: &[u8]) -> Option<Arc<Verified>> {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
            return None;
        }
        self.tokens.get(token).cloned()
    }

    fn keep(&mut self, token: Arc<Verified>, now: u64) {
        let size = token.secret().len();
        if self.tokens.len() >= MOST_TOKENS || self.bytes + size > MOST_BYTES {
            self.tokens.retain(|_, kept| kept.is_in_time(now));
            self.bytes = self.tokens.values().map(|kept| kept.secret().len()).sum();
        }
        if self.tokens.len() >= MOST_TOKENS || self.bytes + size > MOST_BYTES {
            // All are in use: beginning anew costs less than knowing which was used last.
            self.tokens.clear();
            self.bytes = 0;
        }
        if self.tokens.insert(Key(Arc::clone(&token)), token).is_none() {
            self.bytes += size;
        }
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.secret()
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.secret().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.secret() == other.0.secret()
    }
}

impl Eq for Key {}

const MOST_TOKENS: usize = 4_096;
const MOST_BYTES: usize = 4 * 1_024 * 1_024;
