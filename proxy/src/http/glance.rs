//! Which of the headers that the mesh asks for a message has.
//!
//! Most messages have none of most of them, and asking a map costs a hash each time. So each name is looked at once, and
//! what was not seen is not asked for.

use http::{HeaderMap, HeaderName};

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance(u16);

impl Glance {
    /// `accept`.
    pub const ACCEPT: Self = Self(1);
    /// What says where a body ends, and whether it is waited for: `content-length`, `transfer-encoding`, `expect`.
    pub const BODY: Self = Self(1 << 1);
    /// `content-type`.
    pub const CONTENT_TYPE: Self = Self(1 << 2);
    /// `cookie`.
    pub const COOKIE: Self = Self(1 << 3);
    /// `idempotency-key`.
    pub const IDEMPOTENCY_KEY: Self = Self(1 << 4);
    /// Any that only the mesh may set, however it is spelled.
    pub const OURS: Self = Self(1 << 5);
    /// `traceparent` or `tracestate`.
    pub const TRACE: Self = Self(1 << 6);
    /// `upgrade`.
    pub const UPGRADE: Self = Self(1 << 7);
    /// Trace context as B3 has it: `b3`, `x-b3-…`.
    pub const B3: Self = Self(1 << 8);
    /// Nothing that is there: it belongs to no trace and begins none that is kept, which no header says yet.
    pub const UNTRACED: Self = Self(1 << 9);

    /// Looks at the names of a message.
    pub fn at(headers: &HeaderMap) -> Self {
        Self(headers.keys().map(|name| of(name).0).fold(0, |seen, one| seen | one))
    }

    /// The same, and what `other` stands for.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The same, but for what `other` stands for.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is anything of what `wanted` stands for.
    pub fn saw(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }
}

fn of(name: &HeaderName) -> Glance {
    match name.as_str() {
        "accept" => Glance::ACCEPT,
        "b3" => Glance::B3,
        "content-length" | "transfer-encoding" | "expect" => Glance::BODY,
        "content-type" => Glance::CONTENT_TYPE,
        "cookie" => Glance::COOKIE,
        "idempotency-key" => Glance::IDEMPOTENCY_KEY,
        "traceparent" | "tracestate" => Glance::TRACE,
        "upgrade" => Glance::UPGRADE,
        // More than are ours: whoever then looks closer decides.
        name if matches!(name.as_bytes(), [b'x', b'-' | b'_', b'o' | b'f', ..]) => Glance::OURS,
        name if name.starts_with("x-b3-") => Glance::B3,
        _ => Glance(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers;

    #[test]
    fn what_is_there_is_seen_and_nothing_else_is() {
        for (name, seen) in [
            ("accept", Glance::ACCEPT),
            ("content-length", Glance::BODY),
            ("transfer-encoding", Glance::BODY),
            ("expect", Glance::BODY),
            ("content-type", Glance::CONTENT_TYPE),
            ("cookie", Glance::COOKIE),
            (headers::IDEMPOTENCY_KEY.as_str(), Glance::IDEMPOTENCY_KEY),
            (headers::ATTEMPT.as_str(), Glance::OURS),
            (headers::CLIENT_CERT.as_str(), Glance::OURS),
            ("x_outrigger-deadline_ms", Glance::OURS),
            ("x_forwarded_client_cert", Glance::OURS),
            ("traceparent", Glance::TRACE),
            ("tracestate", Glance::TRACE),
            ("upgrade", Glance::UPGRADE),
            ("b3", Glance::B3),
            ("x-b3-traceid", Glance::B3),
            ("host", Glance(0)),
        ] {
            let mut all = HeaderMap::new();
            assert_eq!(Glance::at(&all), Glance(0));
            all.insert(name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
            assert_eq!(Glance::at(&all), seen, "{name}");
            all.append("user-agent", "1".parse().unwrap());
            all.append("cookie", "1".parse().unwrap());
            assert!(
                Glance::at(&all).saw(seen) == (seen != Glance(0)) && Glance::at(&all).saw(Glance::COOKIE)
            );
        }
    }
}
