//! New values in the manner of the text around them: its indentation, its line breaks, its brackets.

use granit_parser::ScalarStyle;
use serde_json::{Map, Value};

use super::tree::{Document, Kind, Node};

/// How a text is written.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Its line break.
    pub(crate) newline: &'static str,
    /// How many columns a mapping is further in than the mapping that holds it.
    step: usize,
    /// How many columns the dashes of a list are further in than the key of the list.
    dash: usize,
    /// What one level of brackets is further in, where they go over several lines.
    indent: String,
}

impl Manner {
    /// The manner of a document.
    pub(crate) fn of(text: &str, document: &Document) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut found = Found::default();
        if let Some(root) = &document.root {
            found.look(text, root);
        }
        let indent = found.indent.unwrap_or_else(|| "  ".into());
        Self { newline, step: found.step.unwrap_or(2), dash: found.dash.unwrap_or(2), indent }
    }

    /// A break, and the blanks before what comes in this column.
    pub(crate) fn line(&self, column: usize) -> String {
        format!("{}{}", self.newline, " ".repeat(column))
    }

    /// An entry of a block mapping whose keys stand in `column`, without the break before it.
    pub(crate) fn entry(&self, key: &str, value: &Value, column: usize) -> String {
        format!("{}:{}", scalar_text(key), self.after_colon(value, column))
    }

    /// What stands behind the colon of a key in `column`.
    pub(crate) fn after_colon(&self, value: &Value, column: usize) -> String {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let column = column + self.step;
                map.iter().map(|(k, v)| self.line(column) + &self.entry(k, v, column)).collect()
            }
            Value::Array(items) if !items.is_empty() => {
                let column = column + self.dash;
                items.iter().map(|item| self.line(column) + "-" + &self.after_dash(item, column)).collect()
            }
            other => format!(" {}", inline(other)),
        }
    }

    /// What stands behind a dash in `column`.
    pub(crate) fn after_dash(&self, value: &Value, column: usize) -> String {
        let inner = column + 2;
        match value {
            Value::Object(map) if !map.is_empty() => {
                let entries: Vec<_> = map.iter().map(|(k, v)| self.entry(k, v, inner)).collect();
                format!(" {}", entries.join(&self.line(inner)))
            }
            Value::Array(items) if !items.is_empty() => {
                let items: Vec<_> = items.iter().map(|i| format!("-{}", self.after_dash(i, inner))).collect();
                format!(" {}", items.join(&self.line(inner)))
            }
            other => format!(" {}", inline(other)),
        }
    }

    /// Between brackets. `blanks`: those before the line, where the brackets go over several.
    pub(crate) fn bracketed(&self, value: &Value, blanks: Option<&str>) -> String {
        let Some(blanks) = blanks else { return inline_inner(value) };
        let inner = format!("{blanks}{}", self.indent);
        let joined = |open: char, parts: Vec<String>, close: char| {
            let between = format!(",{}{inner}", self.newline);
            format!("{open}{0}{inner}{1}{0}{blanks}{close}", self.newline, parts.join(&between))
        };
        match value {
            Value::Object(map) if !map.is_empty() => {
                joined('{', map.iter().map(|(k, v)| self.pair(k, v, Some(&inner))).collect(), '}')
            }
            Value::Array(items) if !items.is_empty() => {
                joined('[', items.iter().map(|item| self.bracketed(item, Some(&inner))).collect(), ']')
            }
            other => inline_inner(other),
        }
    }

    /// A key and its value between brackets.
    pub(crate) fn pair(&self, key: &str, value: &Value, blanks: Option<&str>) -> String {
        format!("{}: {}", json_text(key), self.bracketed(value, blanks))
    }
}

/// A scalar in the style of the one that it replaces.
pub(crate) fn scalar_like(value: &Value, style: ScalarStyle, flow: bool) -> String {
    match (value, style) {
        (Value::String(text), ScalarStyle::DoubleQuoted) => json_text(text),
        (Value::String(text), ScalarStyle::SingleQuoted) if single_line(text) => single_quoted(text),
        (value, _) if flow => inline_inner(value),
        (value, _) => inline(value),
    }
}

/// In one line: between brackets, text in JSON's quotes.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar_text(text),
        Value::Object(map) if !map.is_empty() => inline_map(map),
        Value::Array(items) if !items.is_empty() => {
            format!("[{}]", items.iter().map(inline_inner).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn inline_map(map: &Map<String, Value>) -> String {
    let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", json_text(k), inline_inner(v))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn inline_inner(value: &Value) -> String {
    match value {
        Value::String(text) => json_text(text),
        other => inline(other),
    }
}

/// In JSON's quotes, which YAML reads the same way.
pub(crate) fn json_text(text: &str) -> String {
    Value::from(text).to_string()
}

/// Text of a block: plain where no reader of YAML, of 1.1 or 1.2, could take it for something else.
fn scalar_text(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else if text.contains(['"', '\\']) && single_line(text) {
        single_quoted(text)
    } else {
        json_text(text)
    }
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn single_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))
}

fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let flag = text.strip_prefix("--").filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    let mut letters = flag.unwrap_or(text).chars();
    let first = letters.next();
    let begins = first.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    let ends = text.chars().last().is_some_and(word);
    let quantity = || {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or("");
        matches!(unit, "m" | "Ki" | "Mi" | "Gi")
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
    };
    (begins && ends && letters.all(|c| word(c) || matches!(c, ':' | '=' | ',')) && !is_reserved(text))
        || quantity()
}

/// What some reader takes for a truth value or for nothing.
fn is_reserved(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    matches!(lower.as_str(), "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null")
}

/// What is seen of a document's manner: the first of each.
#[derive(Default)]
struct Found {
    step: Option<usize>,
    dash: Option<usize>,
    indent: Option<String>,
}

impl Found {
    fn look(&mut self, text: &str, node: &Node) {
        match &node.kind {
            Kind::Map { flow, entries } => {
                for entry in entries {
                    let (key, value) = (entry.key_column, &entry.value);
                    match (&value.kind, flow) {
                        (Kind::Map { flow: false, .. }, false) if self.step.is_none() => {
                            self.step = value.column.checked_sub(key).filter(|step| *step > 0);
                        }
                        (Kind::List { flow: false, .. }, false) if self.dash.is_none() => {
                            self.dash = value.column.checked_sub(key);
                        }
                        _ => {}
                    }
                    self.look(text, value);
                }
                if let (true, Some(first)) = (*flow, entries.first()) {
                    self.brackets(text, node, first.key_range.start);
                }
            }
            Kind::List { flow, items } => {
                for item in items {
                    self.look(text, item);
                }
                if let (true, Some(first)) = (*flow, items.first()) {
                    self.brackets(text, node, first.range.start);
                }
            }
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }

    fn brackets(&mut self, text: &str, node: &Node, first: usize) {
        let (Some(outer), Some(inner)) = (blanks_of_line(text, node.range.start), blanks_before(text, first))
        else {
            return;
        };
        if let Some(more) = inner.strip_prefix(outer).filter(|more| !more.is_empty()) {
            self.indent.get_or_insert_with(|| more.to_owned());
        }
    }
}

/// The blanks before this byte, where nothing else is before it in its line.
pub(crate) fn blanks_before(text: &str, byte: usize) -> Option<&str> {
    let before = text.get(super::line_start(text, byte)..byte)?;
    (byte > before.len() && before.bytes().all(|b| matches!(b, b' ' | b'\t'))).then_some(before)
}

/// The blanks at the beginning of the line of this byte.
fn blanks_of_line(text: &str, byte: usize) -> Option<&str> {
    let line = text.get(super::line_start(text, byte)..byte)?;
    line.get(..line.len() - line.trim_start_matches([' ', '\t']).len())
}
