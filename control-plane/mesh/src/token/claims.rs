//! What a verified token says, and conditions on it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::IssuerName;
use crate::name::InvalidName;

/// The claims of a token that was verified. Nothing else makes one: whoever holds it may decide by it.
#[derive(Clone, PartialEq)]
pub struct Claims {
    /// Whose token it is.
    pub issuer: IssuerName,
    members: Vec<(Arc<str>, ClaimValue)>,
}

/// The value of a claim.
#[derive(Clone, PartialEq)]
#[allow(missing_docs, reason = "the kinds of JSON")]
pub enum ClaimValue {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Arc<str>),
    List(Vec<Self>),
    Object(Vec<(Arc<str>, Self)>),
}

impl Claims {
    /// The claims of a token of `issuer`. To be called by who has verified it.
    pub fn new(issuer: IssuerName, members: Vec<(Arc<str>, ClaimValue)>) -> Self {
        Self { issuer, members }
    }

    /// The value at `path`, if there is one.
    pub fn get(&self, path: &ClaimPath) -> Option<&ClaimValue> {
        let mut members = &self.members;
        let (last, parents) = path.0.split_last()?;
        for parent in parents {
            let ClaimValue::Object(inner) = member(members, parent)? else { return None };
            members = inner;
        }
        member(members, last)
    }

    /// Everything at the top.
    pub(super) fn all(&self) -> &[(Arc<str>, ClaimValue)] {
        &self.members
    }

    /// The value of a claim at the top.
    pub fn top(&self, name: &str) -> Option<&ClaimValue> {
        member(&self.members, name)
    }

    /// The text of a claim at the top.
    pub fn text(&self, name: &str) -> Option<&str> {
        text_of(&self.members, name)
    }

    /// The number of a claim at the top.
    pub fn integer(&self, name: &str) -> Option<i64> {
        integer_of(&self.members, name)
    }

    /// Whether `test` holds for any of the values at `path`: each of a list by itself, each word of `scope` by itself.
    pub fn any(&self, path: &ClaimPath, mut test: impl FnMut(&str) -> bool) -> bool {
        let Some(value) = self.get(path) else { return false };
        match value {
            ClaimValue::List(values) => values.iter().filter_map(ClaimValue::scalar).any(|v| test(&v)),
            ClaimValue::Text(text) if path.is_scope() => text.split(' ').filter(|w| !w.is_empty()).any(test),
            value => value.scalar().is_some_and(|v| test(&v)),
        }
    }

    /// All values at `path`, as [`Claims::any`] sees them.
    pub fn values(&self, path: &ClaimPath) -> Vec<String> {
        let mut all = vec![];
        self.any(path, |value| {
            all.push(value.to_owned());
            false
        });
        all
    }

    /// The one value at `path`, as a key: of a list or an object there is none.
    pub fn key(&self, path: &ClaimPath) -> Option<Cow<'_, str>> {
        self.get(path)?.scalar()
    }
}

fn member<'a>(members: &'a [(Arc<str>, ClaimValue)], name: &str) -> Option<&'a ClaimValue> {
    members.iter().find(|(own, _)| &**own == name).map(|(_, value)| value)
}

pub(super) fn text_of<'a>(members: &'a [(Arc<str>, ClaimValue)], name: &str) -> Option<&'a str> {
    match member(members, name)? {
        ClaimValue::Text(text) => Some(text),
        _ => None,
    }
}

pub(super) fn integer_of(members: &[(Arc<str>, ClaimValue)], name: &str) -> Option<i64> {
    match member(members, name)? {
        ClaimValue::Integer(number) => Some(*number),
        _ => None,
    }
}

impl ClaimValue {
    /// Its text, where it is a single value. Numbers with a fraction have none: they are not compared.
    pub fn scalar(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Integer(number) => Some(Cow::Owned(number.to_string())),
            Self::Bool(true) => Some(Cow::Borrowed("true")),
            Self::Bool(false) => Some(Cow::Borrowed("false")),
            Self::Null | Self::Float(_) | Self::List(_) | Self::Object(_) => None,
        }
    }
}

impl fmt::Debug for Claims {
    /// What people are said to be is nobody's log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({}, ..)", self.issuer)
    }
}

impl fmt::Debug for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimValue(..)")
    }
}

/// Where a claim stands: `sub`, `realm_access.roles`. A dot that is part of a name is written `\.`, a backslash `\\`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimPath(Arc<[Arc<str>]>);

impl ClaimPath {
    /// No path is deeper.
    pub const MAX_DEPTH: usize = 8;
    /// No path is longer.
    pub const MAX_BYTES: usize = 256;

    /// Proves `text` to be a path.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let bad = |rule| Err(InvalidName::new("the name of a claim", text, rule));
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return bad("it has 1 to 256 characters");
        }
        if text.chars().any(char::is_control) {
            return bad("it has no control characters");
        }
        let mut segments: Vec<Arc<str>> = vec![];
        let (mut segment, mut chars) = (String::new(), text.chars());
        loop {
            match chars.next() {
                Some('\\') => match chars.next() {
                    Some(escaped @ ('.' | '\\')) => segment.push(escaped),
                    _ => return bad("after a backslash stands a dot or a backslash"),
                },
                end @ (None | Some('.')) => {
                    if segment.is_empty() {
                        return bad("one of its parts is empty; write \\. for a dot within a name");
                    }
                    segments.push(std::mem::take(&mut segment).into());
                    if end.is_none() {
                        break;
                    }
                }
                Some(other) => segment.push(other),
            }
        }
        if segments.len() > Self::MAX_DEPTH {
            return bad("it has at most 8 parts");
        }
        Ok(Self(segments.into()))
    }

    /// `scope` and `scp` are lists of words in one text (RFC 8693, section 4.2).
    fn is_scope(&self) -> bool {
        matches!(&*self.0, [one] if matches!(&**one, "scope" | "scp"))
    }
}

impl FromStr for ClaimPath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            f.write_str(&segment.replace('\\', "\\\\").replace('.', "\\."))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A condition on a claim. It holds only for a verified token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimMatch {
    /// Which claim.
    pub claim: ClaimPath,
    /// What it must be.
    pub test: ClaimTest,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimTest {
    /// There, with any value but null.
    Present,
    /// One of these; of a list claim it is enough that one of its values is. Never none.
    OneOf(Vec<Arc<str>>),
}

impl ClaimMatch {
    /// How many values one condition may list.
    pub const MAX_VALUES: usize = 64;

    /// Whether it holds. Without a verified token it never does.
    pub fn holds(&self, claims: Option<&Claims>) -> bool {
        let Some(claims) = claims else { return false };
        match &self.test {
            ClaimTest::Present => !matches!(claims.get(&self.claim), None | Some(ClaimValue::Null)),
            ClaimTest::OneOf(wanted) => claims.any(&self.claim, |value| wanted.iter().any(|w| &**w == value)),
        }
    }

    /// Refuses a condition that could never hold.
    pub fn check(&self) -> Result<(), String> {
        match &self.test {
            ClaimTest::OneOf(wanted) if !(1..=Self::MAX_VALUES).contains(&wanted.len()) => {
                Err(format!("a condition on the claim {} lists 1 to {} values", self.claim, Self::MAX_VALUES))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> Claims {
        let text = |t: &str| ClaimValue::Text(t.into());
        let list = |all: &[&str]| ClaimValue::List(all.iter().map(|t| text(t)).collect());
        let members = vec![
            ("sub".into(), text("ada")),
            ("groups".into(), list(&["admin", "a b"])),
            ("scope".into(), text("read write")),
            ("note".into(), text("read write")),
            ("level".into(), ClaimValue::Integer(7)),
            ("half".into(), ClaimValue::Float(0.5)),
            ("vip".into(), ClaimValue::Bool(true)),
            ("nothing".into(), ClaimValue::Null),
            (
                "realm".into(),
                ClaimValue::Object(vec![("roles".into(), list(&["ops"])), ("a.b".into(), text("x"))]),
            ),
        ];
        Claims::new("shop/users/login".parse().unwrap(), members)
    }

    fn is(claim: &str, value: &str) -> bool {
        let test = ClaimTest::OneOf(vec![value.into()]);
        ClaimMatch { claim: claim.parse().unwrap(), test }.holds(Some(&claims()))
    }

    #[test]
    fn each_value_of_a_list_and_each_word_of_a_scope_is_matched_by_itself() {
        assert!(is("sub", "ada") && !is("sub", "ad") && !is("sub", "Ada"));
        assert!(
            is("groups", "admin") && is("groups", "a b") && !is("groups", "a") && !is("groups", "admin,a b")
        );
        assert!(
            is("scope", "read") && is("scope", "write") && !is("scope", "read write") && !is("scope", "")
        );
        assert!(is("note", "read write") && !is("note", "read"));
        assert!(is("level", "7") && !is("level", "7.0") && !is("half", "0.5") && is("vip", "true"));
        assert!(is("realm.roles", "ops") && is("realm.a\\.b", "x") && !is("realm.a.b", "x"));
        assert!(!is("realm", "ops") && !is("nothing", "null") && !is("absent", ""));
    }

    #[test]
    fn without_a_verified_token_nothing_holds() {
        for test in [ClaimTest::Present, ClaimTest::OneOf(vec!["".into()])] {
            assert!(!ClaimMatch { claim: "sub".parse().unwrap(), test }.holds(None));
        }
        let present = |claim: &str| ClaimMatch { claim: claim.parse().unwrap(), test: ClaimTest::Present };
        assert!(present("groups").holds(Some(&claims())) && !present("nothing").holds(Some(&claims())));
    }

    #[test]
    fn only_a_single_value_is_a_key_and_nothing_shows_what_claims_say() {
        let all = claims();
        assert_eq!(all.key(&"sub".parse().unwrap()).as_deref(), Some("ada"));
        assert_eq!(all.key(&"level".parse().unwrap()).as_deref(), Some("7"));
        assert_eq!(all.key(&"groups".parse().unwrap()), None);
        assert!(!format!("{all:?} {:?}", all.get(&"sub".parse().unwrap())).contains("ada"));
    }

    proptest! {
        #[test]
        fn a_path_prints_as_it_reads(text in "([a-z:/ ]{1,4}|\\\\\\.|\\\\\\\\|\\.){1,9}") {
            if let Ok(path) = ClaimPath::new(&text) {
                prop_assert_eq!(path.to_string(), text);
            }
        }
    }
}
