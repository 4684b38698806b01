//! The shape of what may be written, as tables, and the walk that finds every departure from it.
//!
//! serde stops at the first mistake and does not know lines; so a tree is walked against its table first, and what
//! passes is certain to deserialize.

mod json;

use super::forms::Form;
use super::hint::nearest;
use super::hundredths::Hundredths;
use super::problem::{Code, Problem};
use super::tree::{Node, Value};

pub(super) use json::Words;
#[cfg(test)]
pub(super) use json::unknown_to_types;

/// What a value may be.
pub(super) enum Shape {
    /// Text that a rule accepts; the rule says what is wrong with what it does not.
    Text(fn(&str) -> Result<(), String>),
    /// The same, and what to write instead of what the rule does not accept.
    Like(fn(&str) -> Result<(), String>, &'static str),
    /// The same, of a form that can be told.
    Formed(fn(&str) -> Result<(), String>, &'static Form),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// One of a few words; the second list is real, but not supported yet.
    WordSoFar(&'static [&'static str], &'static [&'static str]),
    /// A whole number within bounds, both included.
    Integer(i64, i64),
    /// A number with at most two decimals, within bounds in hundredths, both included.
    Decimal(i32, i32),
    /// `true` or `false`.
    Bool,
    /// A list of at most so many.
    List(&'static Shape, usize),
    /// Text by text of the writer's choice.
    Labels,
    /// A mapping with these fields and no others.
    Object(&'static [Field]),
    /// Real, but not supported yet: refused with this reason, never ignored.
    Later(&'static str),
    /// Not looked at.
    Anything,
}

/// A field of a mapping.
pub(super) struct Field {
    name: &'static str,
    shape: &'static Shape,
    required: bool,
}

impl Field {
    /// A field that may be left out.
    pub(super) const fn new(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, shape, required: false }
    }

    /// A field that must be there.
    pub(super) const fn required(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, shape, required: true }
    }
}

/// Walks `node` and adds every mistake to `found`. `pointer` is where the node is; it comes back as it was.
pub(super) fn walk(node: &Node, shape: &Shape, pointer: &mut String, found: &mut Vec<Problem>) {
    let mut report = |code, message: String| found.push(Problem::error(pointer.clone(), code, message));
    match (shape, &node.value) {
        (Shape::Anything, _) | (Shape::Bool, Value::Bool(_)) => {}
        (Shape::Later(reason), _) => report(Code::Unsupported, (*reason).to_owned()),
        (Shape::Text(rule) | Shape::Formed(rule, _), Value::Text(text)) => {
            if let Err(message) = rule(text) {
                report(Code::BadValue, message);
            }
        }
        (Shape::Like(rule, hint), Value::Text(text)) => {
            if let Err(message) = rule(text) {
                found.push(Problem::error(pointer.clone(), Code::BadValue, message).hint(*hint));
            }
        }
        (Shape::Word(words), Value::Text(text)) => word(text, words, &[], pointer, found),
        (Shape::WordSoFar(words, later), Value::Text(text)) => word(text, words, later, pointer, found),
        (Shape::Integer(min, max), Value::Number(n)) => {
            if !n.as_i64().is_some_and(|n| (*min..=*max).contains(&n)) {
                report(Code::BadValue, format!("{n} is not a whole number from {min} to {max}"));
            }
        }
        (Shape::Decimal(min, max), Value::Number(n)) => {
            let read = n.as_f64().and_then(Hundredths::of);
            if !read.is_some_and(|n| (*min..=*max).contains(&n.get())) {
                let (min, max) = (Hundredths::new(*min), Hundredths::new(*max));
                let message = format!("{n} is not a number from {min} to {max} with at most two decimals");
                report(Code::BadValue, message);
            }
        }
        (Shape::List(of, max), Value::List(items)) => {
            if items.len() > *max {
                report(Code::TooLarge, format!("{} are too many, at most {max} are allowed", items.len()));
            }
            for (i, item) in items.iter().enumerate().take(*max) {
                within(pointer, &i.to_string(), |pointer| walk(item, of, pointer, found));
            }
        }
        (Shape::Labels, Value::Map(entries)) => {
            for entry in entries.iter().filter(|e| !matches!(e.value.value, Value::Text(_))) {
                within(pointer, &entry.key, |pointer| wrong_type("text", &entry.value, pointer, found));
            }
        }
        (Shape::Object(fields), Value::Map(_)) => object(node, fields, pointer, found),
        (_, _) => wrong_type(expected(shape), node, pointer, found),
    }
}

fn object(node: &Node, fields: &[Field], pointer: &mut String, found: &mut Vec<Problem>) {
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        within(pointer, &entry.key, |pointer| {
            match fields.iter().find(|f| f.name == entry.key) {
                None => found.push(unknown_field(&entry.key, fields, pointer)),
                // As in Kubernetes, a field that is null is one that is not there.
                Some(_) if matches!(entry.value.value, Value::Null) => {}
                Some(field) => walk(&entry.value, field.shape, pointer, found),
            }
        });
    }
    for field in fields.iter().filter(|f| f.required) {
        if node.get(field.name).is_none_or(|n| matches!(n.value, Value::Null)) {
            let message = format!("the field {:?} is missing", field.name);
            let hint = format!("add {}: {}", field.name, expected(field.shape));
            found.push(Problem::error(pointer.clone(), Code::MissingField, message).hint(hint));
        }
    }
}

fn unknown_field(key: &str, fields: &[Field], pointer: &str) -> Problem {
    let problem = Problem::error(pointer, Code::UnknownField, format!("unknown field {:?}", shown(key)));
    let known = || fields.iter().filter(|f| !matches!(f.shape, Shape::Later(_))).map(|f| f.name);
    match nearest(key, known()) {
        Some(name) => problem.hint(format!("did you mean {name:?}?")),
        None => problem.hint(format!("known here: {}", known().collect::<Vec<_>>().join(", "))),
    }
}

fn word(text: &str, words: &[&str], later: &[&str], pointer: &str, found: &mut Vec<Problem>) {
    if words.contains(&text) {
        return;
    }
    if later.contains(&text) {
        let message = format!("{text} is not supported yet");
        found.push(
            Problem::error(pointer, Code::Unsupported, message)
                .hint(format!("supported: {}", words.join(", "))),
        );
        return;
    }
    let problem = Problem::error(pointer, Code::BadValue, format!("{:?} is not allowed here", shown(text)));
    found.push(match nearest(text, words.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean {near:?}?")),
        None => problem.hint(format!("write one of: {}", words.join(", "))),
    });
}

fn wrong_type(wanted: &str, node: &Node, pointer: &str, found: &mut Vec<Problem>) {
    let (given, hint) = match &node.value {
        Value::Null => ("nothing".to_owned(), None),
        Value::Bool(b) => (format!("the truth value {b}"), Some(b.to_string())),
        Value::Number(n) => (format!("the number {n}"), Some(n.to_string())),
        Value::Text(t) => (format!("the text {:?}", shown(t)), None),
        Value::List(_) => ("a list".to_owned(), None),
        Value::Map(_) => ("a mapping".to_owned(), None),
    };
    let problem = Problem::error(pointer, Code::WrongType, format!("expected {wanted}, found {given}"));
    found.push(match hint {
        Some(value) if wanted.starts_with("text") => problem.hint(format!("write it in quotes: \"{value}\"")),
        _ => problem,
    });
}

fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text(_) | Shape::Formed(..) | Shape::Like(..) | Shape::Word(_) | Shape::WordSoFar(..) => {
            "text"
        }
        Shape::Integer(..) => "a whole number",
        Shape::Decimal(..) => "a number",
        Shape::Bool => "true or false",
        Shape::List(..) => "a list",
        Shape::Labels => "a mapping of text to text",
        Shape::Object(_) | Shape::Later(_) | Shape::Anything => "a mapping",
    }
}

/// Does `inner` one step deeper.
pub(super) fn within(pointer: &mut String, segment: &str, inner: impl FnOnce(&mut String)) {
    let length = pointer.len();
    pointer.push('/');
    for c in segment.chars().take(256) {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
    inner(pointer);
    pointer.truncate(length);
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
