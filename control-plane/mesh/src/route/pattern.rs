//! Regular expressions of routes: compiled once, matched in linear time, bounded in size.

use std::fmt;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

/// A regular expression that must match the whole of a value.
///
/// The syntax is that of the `regex` crate (RE2-like: no look-around, no back references), over bytes: classes like `\d`
/// and the flag `(?i)` mean ASCII. Matching takes time linear in the value, whatever the expression.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
    size: usize,
}

impl Pattern {
    /// The longest expression, in bytes.
    pub const LONGEST: usize = 1024;

    /// Compiles `text`. The error says what is wrong with it, in words for who wrote it.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > Self::LONGEST {
            let why = format!("it is {} bytes long, at most {} are allowed", text.len(), Self::LONGEST);
            return Err(InvalidPattern(why));
        }
        let mut too_big = None;
        for size in SIZES {
            // By itself first: what closes a group of ours would be an expression only with it.
            match compile(text, size).and_then(|_| compile(&whole(text), size)) {
                Ok(regex) => return Ok(Self { text: text.into(), regex, size }),
                Err(error @ regex::Error::CompiledTooBig(_)) => too_big = Some(error),
                Err(error) => return Err(InvalidPattern(said(&error))),
            }
        }
        Err(InvalidPattern(too_big.as_ref().map(said).unwrap_or_default()))
    }

    /// A bound of its compiled form, in bytes: the least one of a few that it keeps.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches the whole of `value`.
    pub fn holds(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// The expression that this one stands for among others.
    pub(super) fn anchored(&self) -> String {
        whole(&self.text)
    }
}

fn whole(text: &str) -> String {
    format!("\\A(?:{text})\\z")
}

fn compile(text: &str, size: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).unicode(false).size_limit(size).dfa_size_limit(SIZE).nest_limit(32).build()
}

/// The last line of what the library says: the lines before draw the expression once more.
fn said(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            format!("compiled it would take more than {SIZE} bytes; repeat less or split the rule")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// The bound of an expression's compiled form, in bytes.
pub(super) const SIZE: usize = 256 * 1024;
/// The bounds that are tried one after the other, up to that one.
const SIZES: [usize; 3] = [SIZE / 16, SIZE / 4, SIZE];

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", &*self.text)
    }
}

/// A text that is no regular expression, or one that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let holds = |text: &str, value: &str| Pattern::new(text).unwrap().holds(value.as_bytes());
        assert!(holds("/a|/b", "/b"));
        assert!(!holds("/a|/b", "/ab"));
        assert!(!holds("/a", "/a\n"));
        assert!(holds("/v[0-9]+/.*", "/v12/x/y"));
        assert!(holds("(?i)beta", "BETA"));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused_in_words() {
        for (text, word) in [
            ("a)|(b", "unopened"),
            ("(", "unclosed"),
            ("(a{1,200}){1,200}", "bytes"),
            ("(?=a)", "look-around"),
        ] {
            let error = Pattern::new(text).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{text}: {error}");
        }
        assert!(Pattern::new(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn an_expression_says_how_large_it_is() {
        let size = |text: &str| Pattern::new(text).unwrap().size();
        assert_eq!(size("/v[0-9]+/items/.*"), SIZES[0]);
        assert_eq!(size("([a-z]{1,40}){1,40}"), SIZE);
    }

    #[test]
    fn an_expression_that_costs_others_dearly_takes_linear_time() {
        let evil = Pattern::new("(a+)+b").unwrap();
        assert!(!evil.holds("a".repeat(100_000).as_bytes()));
    }
}
