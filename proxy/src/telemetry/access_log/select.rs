//! Which of what passes gets a line.

use std::str::FromStr;
use std::time::Duration;

use super::Lines;
use crate::telemetry::observe::Record;
use crate::telemetry::trace::sample::Share;

/// Which records get a line. What access policies refuse always does.
#[derive(Clone, Debug)]
pub struct Select {
    /// Whether anything else does.
    pub lines: Lines,
    /// Only what was answered with one of these; nothing here means no such limit.
    pub statuses: Vec<Statuses>,
    /// Or what took as long as that.
    pub slower: Option<Duration>,
    /// So much of what went well; what failed is not left out.
    pub share: Share,
}

impl From<Lines> for Select {
    fn from(lines: Lines) -> Self {
        Self { lines, statuses: Vec::new(), slower: None, share: Share::ALL }
    }
}

impl Select {
    /// Whether `record` is one of them, refusals left out.
    pub fn takes(&self, record: &Record) -> bool {
        if self.lines != Lines::All {
            return false;
        }
        let limited = !self.statuses.is_empty() || self.slower.is_some();
        let meant = record.status.is_some_and(|status| self.statuses.iter().any(|some| some.has(status)))
            || self.slower.is_some_and(|limit| record.took >= limit);
        if limited && !meant {
            return false;
        }
        failed(record) || self.share.draws()
    }
}

fn failed(record: &Record) -> bool {
    record.reason.is_some() || record.status.is_some_and(|status| status >= 500) || record.ending().is_some()
}

/// Some statuses: `404`, `5xx`, `400-499`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    fn has(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no status: write 404, 5xx or 400-499");
        let number = |text: &str| text.parse().ok().filter(|status| (100..600).contains(status));
        let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => {
                let class: u16 = class.parse().map_err(|_| wrong())?;
                let first = number(&format!("{class}00")).ok_or_else(wrong)?;
                (first, first + 99)
            }
            (None, Some((first, last))) => {
                (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?)
            }
            (None, None) => number(text).map(|one| (one, one)).ok_or_else(wrong)?,
        };
        if first > last { Err(wrong()) } else { Ok(Self { first, last }) }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_mesh::Reason;

    use super::*;
    use crate::telemetry::observe::Direction;

    fn record(status: u16, millis: u64) -> Record {
        let took = Duration::from_millis(millis);
        Record { status: Some(status), took, ..Record::for_test(Direction::Inbound) }
    }

    #[test]
    fn statuses_are_read() {
        for (text, has, has_not) in [("404", 404, 403), ("5xx", 599, 499), ("400-403", 403, 404)] {
            let some: Statuses = text.parse().unwrap();
            assert!(some.has(has) && !some.has(has_not), "{text}");
        }
        for text in ["", "x", "6xx", "0xx", "99", "600", "499-400", "400-", "4x"] {
            assert!(text.parse::<Statuses>().unwrap_err().contains("5xx"), "{text}");
        }
    }

    #[test]
    fn limits_take_what_meets_one_of_them() {
        let select = Select {
            statuses: vec!["5xx".parse().unwrap()],
            slower: Some(Duration::from_millis(100)),
            ..Lines::All.into()
        };
        let taken = [(200, 5), (503, 5), (200, 100), (404, 99)].map(|(s, t)| select.takes(&record(s, t)));
        assert_eq!(taken, [false, true, true, false]);
        assert!(!Select::from(Lines::Denied).takes(&record(503, 5)));
    }

    #[test]
    fn a_share_leaves_out_nothing_that_failed() {
        let select = Select { share: Share::NONE, ..Lines::All.into() };
        assert!(
            !select.takes(&record(200, 1)) && !select.takes(&record(404, 1)) && select.takes(&record(500, 1))
        );
        let refused = Record { reason: Some(Reason::RateLimited), ..record(429, 1) };
        assert!(select.takes(&refused));
        let half = Select { share: "50%".parse().unwrap(), ..Lines::All.into() };
        let count = (0..2_000).filter(|_| half.takes(&record(200, 1))).count();
        assert!((800..1_200).contains(&count), "{count}");
    }
}
