//! How an endpoint is chosen for an attempt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{InvalidPolicy, percent};
use crate::token::ClaimPath;

/// How an endpoint is chosen. Weights are honoured by every algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Among those that may be chosen.
    pub algorithm: Algorithm,
    /// Whether the own zone comes first. Default: yes, where zones are known.
    pub locality: Locality,
    /// When fewer endpoints than this share are well, all of them are chosen from: better some answer than none. In
    /// percent; 0: never. Default 50.
    pub panic_percent: u32,
    /// Whether callers stay where they were.
    pub sticky: Option<Sticky>,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            locality: Locality::default(),
            panic_percent: 50,
            sticky: None,
        }
    }
}

impl Balance {
    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        percent("balance.panicPercent", self.panic_percent, 0)?;
        match &self.sticky {
            Some(Sticky { by: StickyBy::Cookie { name, .. }, .. }) if !is_token(name) => Err(
                InvalidPolicy::new("balance.sticky.cookie.name", format!("{name:?} is no name of a cookie")),
            ),
            _ => match &self.algorithm {
                Algorithm::Maglev(HashKey::Cookie(name)) if !is_token(name) => {
                    let what = format!("{name:?} is no name of a cookie");
                    Err(InvalidPolicy::new("balance.hash.cookie", what))
                }
                _ => Ok(()),
            },
        }
    }
}

/// A token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let special = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || special(b))
}

/// Among the endpoints that may be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The better of two drawn by weight: peak-EWMA latency times requests under way.
    #[default]
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// The one of two drawn by weight with fewer requests under way.
    LeastRequest,
    /// Drawn by weight.
    Random,
    /// By a key, so that the same key goes to the same endpoint and few keys move when one comes or goes. Requests without
    /// the key are drawn by weight.
    Maglev(HashKey),
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The first value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
    /// The first value of a query parameter.
    Query(Arc<str>),
    /// A claim of the verified token, where it is a single value.
    Claim(ClaimPath),
    /// Who the calling workload is: at a gateway and at a sidecar the own identity.
    SourceIdentity,
    /// The address the request came from.
    SourceAddress,
}

/// Whether the own zone comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Locality {
    /// The own zone takes what its healthy share carries, the rest spills over to the others.
    #[default]
    PreferZone,
    /// Zones do not count.
    Off,
}

/// Keeps callers where they were. It wins over weights until that endpoint is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// What names the place.
    pub by: StickyBy,
    /// What the place is.
    pub to: StickyTo,
    /// When a caller may go elsewhere.
    pub end: SessionEnd,
    /// Signs the name, so that callers can not choose their endpoints.
    pub key: SigningKey,
}

/// What names the place where a caller was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// A cookie, set with the first answer.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// How long it lives. None: as long as the browser's session.
        ttl: Option<Duration>,
    },
    /// A header: given with every answer, to be sent with the next request.
    Header(HeaderName),
}

/// When what keeps a caller at a place is over, and the next request is drawn anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionEnd {
    /// So long after it began, whatever happens. None: never.
    pub absolute: Option<Duration>,
    /// So long after the last answer. None: never.
    pub idle: Option<Duration>,
}

/// Where a caller stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StickyTo {
    /// At one endpoint.
    #[default]
    Endpoint,
    /// In one subset.
    Subset,
}

/// A secret of 32 bytes that signs what callers keep for us. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// The key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to sign with or to send to a sidecar of the mesh.
    pub fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}
