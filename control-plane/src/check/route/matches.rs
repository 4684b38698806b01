//! What a request must look like: the written conditions as those that are looked at.

use std::collections::HashSet;

use http::{HeaderName, Method};
use outrigger_mesh::{HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, ValueMatch};

use crate::check::Found;
use crate::spec::{self, Code, PathMatchType, Problem, ValueMatchType};

/// A match that has passed its check.
pub(crate) fn read_match(written: &spec::Match) -> Option<RouteMatch> {
    conditions("", written, &mut Found::default())
}

/// The conditions that are written at `pointer`.
pub(crate) fn conditions(pointer: &str, written: &spec::Match, found: &mut Found) -> Option<RouteMatch> {
    let before = found.problems.len();
    let path = written.path.as_ref().and_then(|p| path(&format!("{pointer}/path/value"), p, found));
    let method = written.method.as_ref().and_then(|m| method(&format!("{pointer}/method"), m, found));
    let headers = metadata(pointer, &written.headers, found);
    let mut query = vec![];
    for (i, param) in written.query_params.iter().enumerate() {
        let value = value(&format!("{pointer}/queryParams/{i}/value"), param.kind, &param.value, found);
        query.extend(value.map(|value| QueryMatch { name: param.name.as_str().into(), value }));
    }
    no_name_twice(
        &format!("{pointer}/queryParams"),
        written.query_params.iter().map(|q| q.name.clone()),
        found,
    );
    let sound = found.problems.len() == before;
    sound.then(|| RouteMatch { path, method, headers, query, ..RouteMatch::default() })
}

/// The conditions on headers.
pub(super) fn metadata(pointer: &str, written: &[spec::ValueMatch], found: &mut Found) -> Vec<HeaderMatch> {
    let mut headers = vec![];
    for (i, header) in written.iter().enumerate() {
        let at = format!("{pointer}/headers/{i}");
        let value = value(&format!("{at}/value"), header.kind, &header.value, found);
        match HeaderName::from_bytes(header.name.as_bytes()) {
            Ok(name) => headers.extend(value.map(|value| HeaderMatch { name, value })),
            Err(e) => found.add(Problem::error(format!("{at}/name"), Code::BadValue, e.to_string())),
        }
    }
    no_name_twice(&format!("{pointer}/headers"), written.iter().map(|h| h.name.to_ascii_lowercase()), found);
    headers
}

fn path(pointer: &str, written: &spec::PathMatch, found: &mut Found) -> Option<PathMatch> {
    if written.kind == PathMatchType::RegularExpression {
        return pattern(pointer, &written.value, found).map(PathMatch::Regex);
    }
    if let Err(message) = spec::path(&written.value) {
        found.add(Problem::error(pointer, Code::BadValue, message));
        return None;
    }
    if let Err(message) = is_path_of_uri(&written.value) {
        let hint = "write other characters as %XX, the way a canonical path has them";
        found.add(Problem::error(pointer, Code::BadValue, message).hint(hint));
        return None;
    }
    let value = written.value.as_str().into();
    Some(match written.kind {
        PathMatchType::Exact => PathMatch::Exact(value),
        _ => PathMatch::Prefix(value),
    })
}

/// The characters of a path (RFC 3986, section 3.3, as HTTPPathMatch takes them). An escaped slash would be two readings of
/// one path.
fn is_path_of_uri(text: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&b);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let hex = bytes.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
            match hex {
                None => return Err(format!("the path {text:?} has a '%' that begins no escaped character")),
                Some(b"2f" | b"2F") => return Err(format!("the path {text:?} has an escaped slash")),
                Some(_) => at += 3,
            }
        } else if plain(*byte) {
            at += 1;
        } else {
            return Err(format!("the path {text:?} has a character that no path has"));
        }
    }
    Ok(())
}

fn method(pointer: &str, written: &str, found: &mut Found) -> Option<Method> {
    Method::from_bytes(written.as_bytes())
        .map_err(|e| found.add(Problem::error(pointer, Code::BadValue, e.to_string())))
        .ok()
}

/// A condition on a value.
pub(in crate::check) fn value(
    pointer: &str,
    kind: ValueMatchType,
    text: &str,
    found: &mut Found,
) -> Option<ValueMatch> {
    match kind {
        ValueMatchType::Exact => Some(text.into()),
        ValueMatchType::RegularExpression => pattern(pointer, text, found).map(ValueMatch::Regex),
    }
}

/// An expression, compiled. Beyond what the expressions of one object may be together none is any more: changes are proven
/// one after the other.
pub(super) fn pattern(pointer: &str, text: &str, found: &mut Found) -> Option<Pattern> {
    if found.expressions.spent {
        return None;
    }
    let wrong = |e: outrigger_mesh::InvalidPattern| {
        let problem = Problem::error(pointer, Code::BadValue, format!("it is no regular expression: {e}"));
        found.add(problem.hint("the syntax is that of RE2; an expression must match the whole value"));
    };
    let pattern = Pattern::new(text).map_err(wrong).ok()?;
    // What was in force before there was this bound stays in force.
    if found.stored {
        return Some(pattern);
    }
    if let Err(message) = found.expressions.add(&pattern) {
        let problem = Problem::error(pointer, Code::TooLarge, message);
        found.add(
            problem
                .hint("write prefixes or exact values where they do, repeat less, or make two routes of it"),
        );
        return None;
    }
    Some(pattern)
}

/// What the expressions of one object take.
#[derive(Debug, Default)]
pub(in crate::check) struct Expressions {
    number: usize,
    size: usize,
    spent: bool,
}

impl Expressions {
    const MOST: usize = 64;
    const LARGEST: usize = 2 << 20;

    fn add(&mut self, pattern: &Pattern) -> Result<(), String> {
        self.number += 1;
        self.size += pattern.size();
        let (most, mib) = (Self::MOST, Self::LARGEST >> 20);
        let why = if self.number > most {
            format!("there are more than {most} regular expressions")
        } else if self.size > Self::LARGEST {
            format!("compiled, its regular expressions would take more than {mib} MiB together")
        } else {
            return Ok(());
        };
        self.spent = true;
        Err(why)
    }
}

/// The Gateway API ignores the second condition on one name; here it is a mistake.
pub(super) fn no_name_twice(pointer: &str, names: impl Iterator<Item = String>, found: &mut Found) {
    let mut seen = HashSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name.clone()) {
            let message = format!("there are two conditions on {name:?}");
            found.add(Problem::error(format!("{pointer}/{i}/name"), Code::Duplicate, message));
        }
    }
}
