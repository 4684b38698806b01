//! Which live requests somebody wants to see: one form for the API, the command line and the sidecar's own port, read and
//! decided by the same code.

use std::fmt;
use std::time::Duration;

use crate::identity::SpiffeId;
use crate::name::ServiceName;
use crate::reason::Reason;

/// Which requests, and how many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// As which side a sidecar sees them; both unless said.
    pub side: Option<TapSide>,
    /// Those to this service, by its own name or as the backend of a route.
    pub to: Option<ServiceName>,
    /// Those of this path, in which `*` stands for anything.
    pub path: Option<String>,
    /// Those answered with one of these.
    pub status: Vec<StatusRange>,
    /// Those of this method.
    pub method: Option<String>,
    /// Those refused or failed for this reason.
    pub reason: Option<TapReason>,
    /// So many, then it ends.
    pub limit: Option<u32>,
    /// For so long.
    pub lasts: Option<Duration>,
}

/// As which side a sidecar sees a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapSide {
    /// Its application, or somebody outside, asks.
    Caller,
    /// Its application is asked.
    Service,
}

/// A reason that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapReason {
    /// Whatever it is.
    Any,
    /// This one.
    This(Reason),
}

/// Statuses from the one to the other, both meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(u16, u16);

/// What is known of a request when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct TapFacts<'a> {
    /// As which side this sidecar saw it.
    pub side: TapSide,
    /// The service that was asked.
    pub service: Option<&'a ServiceName>,
    /// Where it went, if to another.
    pub backend: Option<&'a ServiceName>,
    /// Who asked, where somebody proved that.
    pub caller: Option<&'a SpiffeId>,
    /// Its canonical path.
    pub path: Option<&'a str>,
    /// The status of its answer.
    pub status: Option<u16>,
    /// Its method.
    pub method: Option<&'a str>,
    /// Why it was refused, or failed.
    pub reason: Option<Reason>,
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadTap {
    /// Where.
    pub field: String,
    /// What, and what would be right.
    pub why: String,
}

impl TapFilter {
    /// No tap lasts longer: connections of the admin API, and of the sidecar's own, live 5 minutes.
    pub const LONGEST: Duration = Duration::from_secs(240);
    /// None tells more requests.
    pub const MOST: u32 = 10_000;
    /// A path that is longer is no pattern.
    const PATH: usize = 512;

    /// Sets a field from its text, as it stands in a query.
    pub fn set(&mut self, field: &str, text: &str) -> Result<(), BadTap> {
        let bad = |why: String| BadTap { field: field.chars().take(32).collect(), why };
        match field {
            "side" => self.side = Some(side(text).ok_or_else(|| bad("caller or service".into()))?),
            "to" => self.to = Some(text.parse::<ServiceName>().map_err(|e| bad(format!("{e}")))?),
            "path" => self.path = Some(path(text).ok_or_else(|| bad(PATH_IS.into()))?),
            "status" => self.status = statuses(text).ok_or_else(|| bad(STATUS_IS.into()))?,
            "method" => self.method = Some(method(text).ok_or_else(|| bad(METHOD_IS.into()))?),
            "reason" => self.reason = Some(reason(text).ok_or_else(|| bad(REASON_IS.into()))?),
            "limit" => {
                let limit = text.parse::<u32>().ok().filter(|n| (1..=Self::MOST).contains(n));
                self.limit = Some(limit.ok_or_else(|| bad(format!("1 to {}", Self::MOST)))?);
            }
            "for" => self.lasts = Some(lasts(text).ok_or_else(|| bad(FOR_IS.into()))?),
            _ => {
                return Err(bad(
                    "there is no such field; there are side, to, path, status, method, reason, limit, for"
                        .into(),
                ));
            }
        }
        Ok(())
    }

    /// Whether it is one of the requests that are wanted.
    pub fn wants(&self, facts: &TapFacts<'_>) -> bool {
        let service = |wanted: &ServiceName| [facts.service, facts.backend].contains(&Some(wanted));
        let status = |status: u16| self.status.iter().any(|range| (range.0..=range.1).contains(&status));
        self.side.is_none_or(|side| side == facts.side)
            && self.to.as_ref().is_none_or(service)
            && (self.status.is_empty() || facts.status.is_some_and(status))
            && self.method.as_deref().is_none_or(|wanted| facts.method == Some(wanted))
            && match self.reason {
                None => true,
                Some(TapReason::Any) => facts.reason.is_some(),
                Some(TapReason::This(wanted)) => facts.reason == Some(wanted),
            }
            && self
                .path
                .as_deref()
                .is_none_or(|pattern| facts.path.is_some_and(|path| is_like(pattern, path)))
    }

    /// The page of a sidecar that it is, as the control plane asks for it: a field a line.
    pub fn page(&self) -> String {
        let fields = self.fields().into_iter().map(|(field, text)| format!("\n{field}={text}"));
        std::iter::once(TAP.to_owned()).chain(fields).collect()
    }

    /// Reads it from the name of a page; `None` where that is another page.
    pub fn of_page(page: &str) -> Option<Result<Self, BadTap>> {
        let mut lines = page.split('\n');
        (lines.next() == Some(TAP)).then(|| {
            let mut filter = Self::default();
            lines.try_for_each(|line| {
                let (field, text) = line.split_once('=').unwrap_or((line, ""));
                filter.set(field, text)
            })?;
            Ok(filter)
        })
    }

    /// Its fields with their texts, in the order of [`set`](Self::set): what it is read from again.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let statuses: Vec<_> = self.status.iter().map(ToString::to_string).collect();
        let side = self.side.map(|side| match side {
            TapSide::Caller => "caller".to_owned(),
            TapSide::Service => "service".to_owned(),
        });
        let reason = self.reason.map(|reason| match reason {
            TapReason::Any => "any".to_owned(),
            TapReason::This(reason) => reason.as_str().to_owned(),
        });
        let all = [
            ("side", side),
            ("to", self.to.as_ref().map(ToString::to_string)),
            ("path", self.path.clone()),
            ("status", (!statuses.is_empty()).then(|| statuses.join(","))),
            ("method", self.method.clone()),
            ("reason", reason),
            ("limit", self.limit.map(|n| n.to_string())),
            ("for", self.lasts.map(|d| format!("{}s", d.as_secs()))),
        ];
        all.into_iter().filter_map(|(field, text)| Some((field, text?))).collect()
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (from, to) if from == to => write!(f, "{from}"),
            (from, _) => write!(f, "{}xx", from / 100),
        }
    }
}

fn side(text: &str) -> Option<TapSide> {
    match text {
        "caller" => Some(TapSide::Caller),
        "service" => Some(TapSide::Service),
        _ => None,
    }
}

fn path(text: &str) -> Option<String> {
    let begins = text.starts_with('/') || text.starts_with('*');
    (begins && text.len() <= TapFilter::PATH && !text.contains(|c: char| c == '?' || c.is_control()))
        .then(|| text.to_owned())
}

fn statuses(text: &str) -> Option<Vec<StatusRange>> {
    let all: Vec<_> = text.split(',').map(status).collect::<Option<_>>()?;
    (all.len() <= 16).then_some(all)
}

fn status(text: &str) -> Option<StatusRange> {
    let bytes = text.as_bytes();
    if !matches!(bytes.first(), Some(b'1'..=b'9')) || bytes.len() != 3 {
        return None;
    }
    if text[1..].eq_ignore_ascii_case("xx") {
        let hundred = u16::from(bytes[0] - b'0') * 100;
        return Some(StatusRange(hundred, hundred + 99));
    }
    let one = text.parse().ok()?;
    Some(StatusRange(one, one))
}

fn method(text: &str) -> Option<String> {
    let sound = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    sound.then(|| text.to_ascii_uppercase())
}

fn reason(text: &str) -> Option<TapReason> {
    if text == "any" { Some(TapReason::Any) } else { Reason::of_code(text).map(TapReason::This) }
}

fn lasts(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => number,
        "m" => number.checked_mul(60)?,
        _ => return None,
    };
    let lasts = Duration::from_secs(seconds);
    (seconds > 0 && lasts <= TapFilter::LONGEST).then_some(lasts)
}

/// Whether `text` is what `pattern` says, in which `*` stands for anything. Goes back to the last `*` alone, so it takes
/// at most the product of the two lengths.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut last = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last = Some((p, t));
                p += 1;
            }
            Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((star, from)) = last else { return false };
                last = Some((star, from + 1));
                (p, t) = (star + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// What the page of a tap begins with.
const TAP: &str = "tap";

const PATH_IS: &str =
    "begins with / or *, at most 512 characters, without a query; * stands for anything, like /items*";
const STATUS_IS: &str = "a status or a hundred of them, like 503 or 5xx; several with commas between";
const METHOD_IS: &str = "a method like GET";
const REASON_IS: &str = "a reason of docs/refusals.md like connect_failed, or any for whatever it is";
const FOR_IS: &str = "seconds or minutes, like 30s or 2m; 4m at most";

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(fields: &[(&str, &str)]) -> TapFilter {
        let mut filter = TapFilter::default();
        for (field, text) in fields {
            filter.set(field, text).unwrap();
        }
        filter
    }

    #[test]
    fn a_star_stands_for_anything_and_everything_else_for_itself() {
        for (pattern, path, is) in [
            ("/items*", "/items", true),
            ("/items*", "/items/7/parts", true),
            ("/items*", "/item", false),
            ("*/parts", "/items/7/parts", true),
            ("/a*b*c", "/axxbyyc", true),
            ("/a*b*c", "/axxbyy", false),
            ("/", "/", true),
            ("/", "/x", false),
            ("*", "/whatever", true),
            ("/**", "/", true),
        ] {
            assert_eq!(is_like(pattern, path), is, "{pattern} {path}");
        }
        // Patterns come from people: the worst of them takes no time to speak of.
        let (pattern, path) = ("*a".repeat(256), "a".repeat(1_000) + "b");
        assert!(!is_like(&pattern, &path));
    }

    #[test]
    fn a_request_is_wanted_where_every_field_says_so() {
        let cart: ServiceName = "shop/cart".parse().unwrap();
        let facts = TapFacts {
            side: TapSide::Caller,
            service: Some(&cart),
            backend: None,
            caller: None,
            path: Some("/items/7"),
            status: Some(503),
            method: Some("GET"),
            reason: Some(Reason::ConnectFailed),
        };
        let all = [
            ("side", "caller"),
            ("to", "shop/cart"),
            ("path", "/items*"),
            ("status", "404,5xx"),
            ("method", "get"),
            ("reason", "connect_failed"),
        ];
        assert!(filter(&all).wants(&facts));
        assert!(filter(&[]).wants(&facts) && filter(&[("reason", "any")]).wants(&facts));
        for other in [
            ("side", "service"),
            ("to", "shop/web"),
            ("path", "/orders*"),
            ("status", "200"),
            ("method", "POST"),
            ("reason", "no_route"),
        ] {
            assert!(!filter(&[other]).wants(&facts), "{other:?}");
        }
        let to_backend = TapFacts { service: None, backend: Some(&cart), ..facts };
        assert!(filter(&[("to", "shop/cart")]).wants(&to_backend));
        let unanswered = TapFacts { status: None, reason: None, ..facts };
        assert!(!filter(&[("status", "5xx")]).wants(&unanswered));
        assert!(!filter(&[("reason", "any")]).wants(&unanswered));
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        for (field, text) in [
            ("status", "6"),
            ("status", "xxx"),
            ("status", "5xx,"),
            ("path", "items"),
            ("path", "/items?secret=1"),
            ("path", "/items\nside=service"),
            ("method", "G T"),
            ("reason", "because"),
            ("limit", "0"),
            ("limit", "10001"),
            ("for", "1h"),
            ("for", "5m"),
            ("for", "0s"),
            ("for", ""),
            ("to", "cart"),
            ("side", "left"),
            ("header", "x"),
        ] {
            let bad = TapFilter::default().set(field, text).unwrap_err();
            assert_eq!(bad.field, field);
            assert!(bad.why.len() > 5, "{bad}");
        }
    }

    #[test]
    fn a_filter_reads_back_from_its_fields() {
        let written = filter(&[
            ("side", "service"),
            ("to", "shop/cart"),
            ("path", "/a*"),
            ("status", "404,5xx"),
            ("method", "GET"),
            ("reason", "any"),
            ("limit", "7"),
            ("for", "2m"),
        ]);
        let mut read = TapFilter::default();
        written.fields().iter().for_each(|(field, text)| read.set(field, text).unwrap());
        assert_eq!(read, written);
        assert_eq!(TapFilter::of_page(&written.page()), Some(Ok(written)));
        assert_eq!(TapFilter::of_page("tap"), Some(Ok(TapFilter::default())));
        assert!(TapFilter::of_page("breakers").is_none());
        assert!(TapFilter::of_page("tap\nheader=x").unwrap().is_err());
    }
}
