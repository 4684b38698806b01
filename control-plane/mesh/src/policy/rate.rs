//! Rate limits: token buckets at the sidecar of the service.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{InvalidPolicy, counted, positive};
use crate::route::RouteMatch;
use crate::token::ClaimPath;

/// How often something may be asked of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Its name, in metrics and in the `RateLimit-Policy` field of answers.
    pub name: Arc<str>,
    /// Which requests it counts; it is enough that one of these holds. Empty: all.
    pub matches: Vec<RouteMatch>,
    /// What has a bucket of its own.
    pub key: RateKey,
    /// So many requests...
    pub requests: u32,
    /// ...in this time.
    pub per: Duration,
    /// How many may come at once when the bucket is full. Default: `requests`.
    pub burst: u32,
}

/// What has a bucket of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// The service as a whole.
    Service,
    /// Each caller identity. Callers that proved none share one.
    Caller,
    /// Each value of a header, such as an API key. Requests without it share one.
    Header(HeaderName),
    /// Each value of a claim of the verified token. Requests without it share one.
    Claim(ClaimPath),
}

impl RateLimit {
    pub(crate) fn check(&self) -> Result<(), InvalidPolicy> {
        counted("requests", self.requests)?;
        counted("burst", self.burst)?;
        positive("per", self.per)?;
        let named = (1..=63).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named {
            return Err(InvalidPolicy::new("name", "is 1 to 63 of a-z, 0-9 and '-'"));
        }
        if self.per > Duration::from_hours(24) {
            return Err(InvalidPolicy::new("per", "is at most a day"));
        }
        Ok(())
    }
}
