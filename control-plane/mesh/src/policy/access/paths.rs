//! How the path of a request meets the paths of rules: as it stands, or in all the spellings that applications take for the
//! same.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A condition on the canonical path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessPath {
    /// The whole path.
    Exact(Arc<str>),
    /// Leading path segments: `/a` holds for `/a`, `/a/` and `/a/b`, not for `/ab`.
    Prefix(Arc<str>),
    /// The whole path, in which `{name}` stands for one segment of any text.
    Template(Arc<str>),
}

impl AccessPath {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Template(text) => text,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let text = self.as_str();
        if !text.starts_with('/') || text.len() > 1024 {
            return Err(format!(
                "the path {text:?} does not begin with '/', or has more than 1024 characters"
            ));
        }
        if text.contains("//") {
            return Err(format!("the path {text:?} has an empty segment, which no canonical path has"));
        }
        let Self::Template(_) = self else { return Ok(()) };
        let sound = |s: &str| !s.contains(['{', '}']) || is_variable(s);
        if !text.split('/').all(sound) {
            return Err(format!(
                "the template {text:?} has a '{{' or '}}' that is not a whole segment {{name}}"
            ));
        }
        Ok(())
    }
}

fn is_variable(segment: &str) -> bool {
    let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
    name.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
}

/// How the path of a request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Byte for byte.
    Narrow,
    /// In every spelling that some application takes for the same: the case of letters, a trailing slash, what follows a
    /// `;`, and escapes are looked through.
    Wide,
}

impl Reading {
    /// The path in the one spelling in which it is compared.
    pub(super) fn of(self, path: &str) -> Cow<'_, [u8]> {
        match self {
            Self::Narrow => Cow::Borrowed(path.as_bytes()),
            Self::Wide => widely(path),
        }
    }
}

/// One pass without an allocation over what nearly all paths are made of.
fn widely(path: &str) -> Cow<'_, [u8]> {
    let told_apart = |b: u8| b.is_ascii_uppercase() || b == b'%' || b == b';';
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if !trimmed.bytes().any(told_apart) && !trimmed.ends_with('/') {
        return Cow::Borrowed(trimmed.as_bytes());
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in path.split('/') {
        let begin = out.len();
        out.push(b'/');
        let mut rest = segment.as_bytes();
        while let Some((byte, behind)) = next(rest) {
            if byte == b';' {
                break;
            }
            out.push(byte.to_ascii_lowercase());
            rest = behind;
        }
        if out.len() == begin + 1 {
            out.truncate(begin);
        }
    }
    Cow::Owned(out)
}

/// The next byte, with its escape taken off.
fn next(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match bytes {
        [b'%', high, low, rest @ ..] => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => Some((high * 16 + low, rest)),
            _ => Some((b'%', &bytes[1..])),
        },
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

/// The rules of one action that a caller can meet, by their paths. The numbers are those of the rules.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// All of them.
    pub(super) all: Vec<u32>,
    /// Those without a path.
    pub(super) anywhere: Vec<u32>,
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    /// Without a slash at the end: the empty one holds for every path.
    prefix: HashMap<Box<[u8]>, Vec<u32>>,
    /// By their number of segments.
    templates: HashMap<usize, Templates>,
}

#[derive(Debug, Default)]
struct Templates {
    by_first: HashMap<Box<[u8]>, Vec<(Template, u32)>>,
    any_first: Vec<(Template, u32)>,
}

/// `None` stands for any segment.
type Template = Box<[Option<Box<[u8]>>]>;

impl Paths {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the path of a request makes a difference.
    pub(super) fn look_at_paths(&self) -> bool {
        self.all.len() != self.anywhere.len()
    }

    pub(super) fn add(&mut self, rule: u32, paths: &[AccessPath], reading: Reading) {
        self.all.push(rule);
        if paths.is_empty() {
            self.anywhere.push(rule);
        }
        for path in paths {
            match path {
                AccessPath::Exact(text) => {
                    self.exact.entry(reading.of(text).into()).or_default().push(rule);
                }
                AccessPath::Prefix(text) => {
                    let text = text.strip_suffix('/').unwrap_or(text);
                    self.prefix.entry(reading.of(text).into()).or_default().push(rule);
                }
                AccessPath::Template(text) => self.add_template(rule, text, reading),
            }
        }
    }

    fn add_template(&mut self, rule: u32, text: &str, reading: Reading) {
        // Segment by segment: the name of a variable is no text.
        let text = if reading == Reading::Wide { text.strip_suffix('/').unwrap_or(text) } else { text };
        let segments = text.split('/').skip(1).map(|segment| {
            let read = |s: &str| reading.of(&format!("/{s}")).get(1..).unwrap_or_default().into();
            (!is_variable(segment)).then(|| read(segment))
        });
        let template: Template = segments.collect();
        let of = self.templates.entry(template.len()).or_default();
        let same = match template.first() {
            Some(Some(first)) => of.by_first.entry(first.clone()).or_default(),
            _ => &mut of.any_first,
        };
        same.push((template, rule));
    }

    /// Offers the rules whose paths hold for `path`, the most exact first, until `look` has seen enough.
    pub(super) fn visit(
        &self,
        path: &[u8],
        look: &mut impl FnMut(u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(rules) = self.exact.get(path).filter(|_| !self.exact.is_empty()) {
            rules.iter().try_for_each(|rule| look(*rule))?;
        }
        if !self.templates.is_empty() {
            self.visit_templates(path, look)?;
        }
        if !self.prefix.is_empty() {
            let mut prefix = path.strip_suffix(b"/").unwrap_or(path);
            loop {
                self.prefix.get(prefix).into_iter().flatten().try_for_each(|rule| look(*rule))?;
                if prefix.is_empty() {
                    break;
                }
                prefix = &prefix[..prefix.iter().rposition(|b| *b == b'/').unwrap_or(0)];
            }
        }
        self.anywhere.iter().try_for_each(|rule| look(*rule))
    }

    fn visit_templates(&self, path: &[u8], look: &mut impl FnMut(u32) -> ControlFlow<()>) -> ControlFlow<()> {
        let Some(path) = path.strip_prefix(b"/") else { return ControlFlow::Continue(()) };
        let segments = || path.split(|b| *b == b'/');
        let Some(of) = self.templates.get(&segments().count()) else { return ControlFlow::Continue(()) };
        let first = segments().next().and_then(|first| of.by_first.get(first));
        for (template, rule) in first.into_iter().flatten().chain(&of.any_first) {
            let holds = template.iter().zip(segments()).all(|(wanted, given)| match wanted {
                Some(wanted) => **wanted == *given,
                None => !given.is_empty(),
            });
            if holds {
                look(*rule)?;
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_widely_all_spellings_of_a_path_are_one() {
        for (path, read) in [
            ("/", ""),
            ("/admin", "/admin"),
            ("/admin/", "/admin"),
            ("/Admin", "/admin"),
            ("/admin;v=1", "/admin"),
            ("/admin%3Bv=1/x;y", "/admin/x"),
            ("/;x/admin", "/admin"),
            ("/admin%40me", "/admin@me"),
            ("/ADMIN%c3%84", "/admin\u{c4}"),
            ("/a%2", "/a%2"),
            ("/a%zz", "/a%zz"),
            ("*", "*"),
        ] {
            let expected: Vec<u8> = read.bytes().collect();
            let got = Reading::Wide.of(path);
            let lossy = String::from_utf8_lossy(&got).into_owned();
            assert!(*got == *expected || lossy == read, "{path}: {lossy}");
            assert_eq!(&*Reading::Narrow.of(path), path.as_bytes());
        }
    }

    #[test]
    fn what_no_canonical_path_can_be_is_refused() {
        for good in ["/", "/users/{id}/orders", "/{a}"] {
            assert_eq!(AccessPath::Template(good.into()).check(), Ok(()), "{good}");
        }
        for bad in ["", "users", "/a//b", "/users/{id", "/users/x{id}", "/users/{}", "/users/{a b}"] {
            assert!(AccessPath::Template(bad.into()).check().is_err(), "{bad}");
        }
    }
}
