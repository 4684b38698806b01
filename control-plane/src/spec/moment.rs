//! A moment, as RFC 3339 writes it: `2026-03-01T12:00:00Z`.

use std::fmt;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::written::as_text;

/// A moment, in whole seconds of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(OffsetDateTime);

impl Time {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(40).collect();
        let read = OffsetDateTime::parse(text, &Rfc3339).ok().map(|at| at.to_offset(time::UtcOffset::UTC));
        // What can be read in another zone can lie beyond the years that can be written.
        let whole =
            read.filter(|at| (1970..9999).contains(&at.year())).and_then(|at| at.replace_nanosecond(0).ok());
        whole
            .map(Self)
            .ok_or_else(|| format!("{shown:?} is not a moment; write one like 2026-03-01T12:00:00Z"))
    }

    /// The moment `later` than now, rounded up to a second.
    pub fn after_now(later: std::time::Duration) -> Option<Self> {
        let at = OffsetDateTime::now_utc().checked_add(later.try_into().ok()?)?;
        let at = at.checked_add(time::Duration::milliseconds(999))?;
        (at.year() < 9999).then(|| at.replace_nanosecond(0).ok().map(Self)).flatten()
    }

    /// The second that it is.
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now.replace_nanosecond(0).unwrap_or(now))
    }

    /// The value.
    pub fn get(self) -> SystemTime {
        self.0.into()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

as_text!(Time);
