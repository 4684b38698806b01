//! Why a request or an attempt failed: what happened, who failed, and whether it is safe to try again.
//!
//! How an error looks to a caller is decided in `http::reply` and nowhere else.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use outrigger_mesh::Reason;

use crate::telemetry::metrics::requests::Series;

/// A failure on the way of a request.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Error {
    /// What happened, as callers are told.
    pub reason: Reason,
    /// Who failed.
    pub who: Who,
    /// Whether the request was certainly not processed, so that any method may be tried again elsewhere.
    pub unprocessed: bool,
    /// Whether every endpoint failed the same way, so that the service as a whole is away.
    pub everywhere: bool,
    /// Where its request is counted, if that is known better than by the service alone.
    pub counts: Option<Arc<Series>>,
    /// For people. Goes to mesh peers and the own application only.
    pub detail: Cow<'static, str>,
    /// What else the answer says, where there is more to say.
    pub told: Option<Box<Told>>,
}

/// What the answer to a refused request says besides why.
#[derive(Debug, Default)]
pub struct Told {
    /// Which bulkhead was full. As much a detail as the text.
    pub bulkhead: Option<String>,
    /// When it is worth to come back.
    pub retry_after: Option<Duration>,
    /// Fields for whoever asked.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Who asked.
    Downstream,
    /// Who should have answered.
    Upstream,
    /// This proxy: it refused or could not.
    Us,
}

impl Error {
    /// The request itself is at fault.
    pub fn downstream(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            who: Who::Downstream,
            unprocessed: false,
            everywhere: false,
            counts: None,
            detail: detail.into(),
            told: None,
        }
    }

    /// This proxy refuses. Nothing was sent.
    pub fn refused(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            who: Who::Us,
            unprocessed: true,
            everywhere: false,
            counts: None,
            detail: detail.into(),
            told: None,
        }
    }

    /// The upstream failed before it could have seen the request.
    pub fn not_sent(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            who: Who::Upstream,
            unprocessed: true,
            everywhere: false,
            counts: None,
            detail: detail.into(),
            told: None,
        }
    }

    /// The upstream failed and may have done something.
    pub fn upstream(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            who: Who::Upstream,
            unprocessed: false,
            everywhere: false,
            counts: None,
            detail: detail.into(),
            told: None,
        }
    }

    /// Whether who should have answered failed.
    pub fn is_upstream(&self) -> bool {
        self.who == Who::Upstream
    }

    /// What else the answer says.
    pub fn told_mut(&mut self) -> &mut Told {
        self.told.get_or_insert_default()
    }
}
