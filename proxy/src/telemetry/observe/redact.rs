//! What of a path is told to nobody: segments that look like secrets, and those an operator names.
//!
//! It is done once, where a path is noted, so that lines, spans and taps tell the same.

use std::borrow::Cow;
use std::str::FromStr;

/// What stands in the place of a segment.
pub const INSTEAD: &str = "[redacted]";

/// What is told of paths.
#[derive(Clone, Debug)]
pub struct Redaction {
    rules: Vec<Rule>,
    /// Whether segments that look like secrets are hidden, too.
    by_look: bool,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { rules: Vec::new(), by_look: true }
    }
}

impl Redaction {
    /// By these rules, and by the look of segments unless that is not wanted.
    pub fn new(rules: Vec<Rule>, by_look: bool) -> Self {
        Self { rules, by_look }
    }

    /// `path` as it may be told.
    pub fn apply<'a>(&self, path: &'a str) -> Cow<'a, str> {
        let hides = |at: usize, segment: &str| {
            !segment.is_empty()
                && ((self.by_look && looks_secret(segment))
                    || self.rules.iter().any(|rule| rule.hides(at, path)))
        };
        let mut segments = path.split('/').enumerate();
        if !segments.any(|(at, segment)| hides(at, segment)) {
            return Cow::Borrowed(path);
        }
        let told = path
            .split('/')
            .enumerate()
            .map(|(at, segment)| if hides(at, segment) { INSTEAD } else { segment });
        Cow::Owned(told.collect::<Vec<_>>().join("/"))
    }
}

/// Which segments of which paths are hidden: `/users/{}/orders/*`, where `{}` is one that is hidden, `*` one that is not, and
/// `{**}` at the end all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Is(String),
    Any,
    Hidden,
    HiddenRest,
}

impl Rule {
    /// Whether the segment number `at` of `path` is one that this hides. The segment before the first slash is number 0.
    fn hides(&self, at: usize, path: &str) -> bool {
        let hidden = match self.0.get(at) {
            Some(Segment::Hidden | Segment::HiddenRest) => true,
            Some(_) => false,
            None => self.0.last() == Some(&Segment::HiddenRest),
        };
        // What comes behind the last segment of a rule may be anything, also nothing.
        hidden && path.split('/').zip(&self.0).all(|(segment, wanted)| wanted.matches(segment)) && {
            path.split('/').count() >= self.0.len()
        }
    }
}

impl Segment {
    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Is(text) => text == segment,
            Self::Any | Self::Hidden | Self::HiddenRest => !segment.is_empty(),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint =
            "write it like /users/{}/orders/*: {} is hidden, * is not, {**} at the end hides all that follow";
        let wrong = |at: usize, why: &str| format!("{text:?}, segment {at}: {why}; {hint}");
        if !text.starts_with('/') {
            return Err(wrong(0, "it does not begin with /"));
        }
        let segments: Vec<Segment> = text
            .split('/')
            .map(|segment| match segment {
                "*" => Segment::Any,
                "{}" => Segment::Hidden,
                "{**}" => Segment::HiddenRest,
                text => Segment::Is(text.to_owned()),
            })
            .collect();
        for (at, segment) in segments.iter().enumerate().skip(1) {
            match segment {
                Segment::Is(text) if text.is_empty() => return Err(wrong(at, "it is empty")),
                Segment::Is(text) if text.contains(['*', '{', '}']) => {
                    return Err(wrong(at, "* and {} stand for whole segments"));
                }
                Segment::HiddenRest if at + 1 < segments.len() => {
                    return Err(wrong(at, "{**} is not the last"));
                }
                _ => {}
            }
        }
        if !segments.iter().any(|segment| matches!(segment, Segment::Hidden | Segment::HiddenRest)) {
            return Err(wrong(segments.len() - 1, "it hides nothing"));
        }
        Ok(Self(segments))
    }
}

/// Whether a segment looks like something that opens doors or names people: an address of mail, the number of a card, a
/// signed token, or a long random one. Names of things, numbers and UUIDs do not.
fn looks_secret(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    segment.contains('@')
        || contains_ignoring_case(bytes, b"%40")
        || is_card(bytes)
        || segment.starts_with("eyJ")
        || is_random(bytes)
}

fn contains_ignoring_case(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window.eq_ignore_ascii_case(what))
}

/// 13 to 19 digits whose check digit fits.
fn is_card(bytes: &[u8]) -> bool {
    if !(13..=19).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = bytes
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0') * if at % 2 == 1 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

/// 32 letters and digits or more that are neither words nor a UUID.
fn is_random(bytes: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'~' | b'.');
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    bytes.len() >= 32 && bytes.iter().all(plain) && digits >= 4 && digits < bytes.len() && !is_uuid(bytes)
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden_unless_that_is_not_wanted() {
        let by_look = Redaction::default();
        for (path, told) in [
            ("/users/ann@example.com/cart", "/users/[redacted]/cart"),
            ("/users/ann%40example.com", "/users/[redacted]"),
            ("/pay/4111111111111111", "/pay/[redacted]"),
            ("/reset/eyJhbGciOi.eyJzdWIi.c2ln", "/reset/[redacted]"),
            ("/reset/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "/reset/[redacted]"),
        ] {
            assert_eq!(by_look.apply(path), told);
            assert_eq!(Redaction::new(Vec::new(), false).apply(path), path);
        }
        for path in [
            "/",
            "/items/7",
            "/orders/0d4c2a5e-6f1b-4a9e-8b7a-2f1f0d9c3e55",
            "/orders/20261122000000001",
            "/a-long-name-of-a-thing-that-somebody-sells-here",
            "/grpc.health.v1.Health/Check",
            "",
        ] {
            assert!(matches!(by_look.apply(path), Cow::Borrowed(same) if same == path), "{path}");
        }
    }

    #[test]
    fn named_segments_are_hidden() {
        let rules = ["/users/{}/orders/*", "/files/{**}", "/{}/x"].map(|rule| rule.parse().unwrap());
        let named = Redaction::new(rules.into(), false);
        for (path, told) in [
            ("/users/ann/orders/7", "/users/[redacted]/orders/7"),
            ("/users/ann/orders/7/lines", "/users/[redacted]/orders/7/lines"),
            ("/users/ann/orders", "/users/ann/orders"),
            ("/users/ann/carts/7", "/users/ann/carts/7"),
            ("/files/a/b/c", "/files/[redacted]/[redacted]/[redacted]"),
            ("/files", "/files"),
            ("/ann/x", "/[redacted]/x"),
            ("/ann/y", "/ann/y"),
        ] {
            assert_eq!(named.apply(path), told);
        }
    }

    #[test]
    fn rules_that_mean_nothing_are_refused_with_their_place() {
        for (rule, why) in [
            ("users/{}", "segment 0: it does not begin"),
            ("/users/*", "segment 2: it hides nothing"),
            ("/users/{}x", "segment 2: * and {} stand for whole"),
            ("/{**}/x", "segment 1: {**} is not the last"),
            ("/users//{}", "segment 2: it is empty"),
        ] {
            let told = rule.parse::<Rule>().unwrap_err();
            assert!(told.contains(why) && told.contains("/users/{}/orders/*"), "{told}");
        }
    }
}
