//! How long things may take.

use std::time::Duration;

use super::{InvalidPolicy, positive};

/// How long things may take. `None` means the default named at each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request's body to the head of the response, all attempts included. Default 15 s; none by
    /// default for gRPC, where only the caller's `grpc-timeout` counts.
    pub request: Option<Duration>,
    /// The same of a single attempt. Default: what is left of the request.
    pub per_try: Option<Duration>,
    /// How long a stream may be silent in both directions. Default 300 s.
    pub idle: Option<Duration>,
    /// How long a connection may take to be made, TLS included. Default 1 s.
    pub connect: Option<Duration>,
    /// How long an answer may take after its head, whatever passes. Default: no limit, so that no download and no event
    /// stream is cut by a default.
    pub stream: Option<Duration>,
}

impl Timeouts {
    /// The default of `request`.
    pub const REQUEST: Duration = Duration::from_secs(15);
    /// The default of `idle`.
    pub const IDLE: Duration = Duration::from_mins(5);
    /// The default of `connect`.
    pub const CONNECT: Duration = Duration::from_secs(1);

    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        let all = [
            ("timeouts.request", self.request),
            ("timeouts.perTry", self.per_try),
            ("timeouts.idle", self.idle),
            ("timeouts.connect", self.connect),
            ("timeouts.stream", self.stream),
        ];
        all.into_iter()
            .filter_map(|(name, d)| Some((name, d?)))
            .try_for_each(|(name, d)| positive(name, d))?;
        match (self.per_try, self.request) {
            (Some(per_try), Some(request)) if per_try >= request => Err(InvalidPolicy::new(
                "timeouts.perTry",
                format!(
                    "{per_try:?} must be shorter than request ({request:?}), else no second attempt fits"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// These, with what is not said here taken from `base`.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        Self {
            request: self.request.or(base.request),
            per_try: self.per_try.or(base.per_try),
            idle: self.idle.or(base.idle),
            connect: self.connect.or(base.connect),
            stream: self.stream.or(base.stream),
        }
    }
}
