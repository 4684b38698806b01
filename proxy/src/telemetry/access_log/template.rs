//! Lines as an operator wants them: `{time} {caller} "{method} {path}" {status} {duration_ms}`.
//!
//! A field stands in braces, by the name that it has in a line of JSON; where there is nothing to tell, `-` stands in its
//! place. `{{` and `}}` are braces. What a request brought is escaped as in JSON, so that no value can end a line or look
//! like another.

use std::fmt::Write;
use std::str::FromStr;

use serde_json::Value;

/// How a line is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As JSON, with every field.
    #[default]
    Json,
    /// By a template.
    Template(Vec<Part>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Text(String),
    /// The field of this name.
    Field(&'static str),
}

/// Appends a line of `parts` with what `told`, the same line as JSON, has.
pub fn write(parts: &[Part], told: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Field(name) => value(told.get(name), out),
        }
    }
}

fn value(value: Option<&Value>, out: &mut String) {
    match value {
        // Without its quotes.
        Some(Value::String(text)) if !text.is_empty() => {
            let quoted = Value::from(text.as_str()).to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
        None | Some(Value::Null | Value::String(_)) => out.push('-'),
        Some(Value::Array(rules)) => {
            for (at, rule) in rules.iter().enumerate() {
                let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
                let comma = if at > 0 { "," } else { "" };
                let _never = write!(out, "{comma}{}/{}", text("policy"), text("rule"));
            }
        }
        Some(other) => {
            let _never = write!(out, "{other}");
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let (mut parts, mut literal, mut mistakes) = (Vec::new(), String::new(), Vec::new());
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '{' | '}' if chars.next_if(|(_, next)| *next == c).is_some() => literal.push(c),
                '{' => {
                    let name: String = std::iter::from_fn(|| chars.next_if(|(_, c)| *c != '}' && *c != '{'))
                        .map(|(_, c)| c)
                        .collect();
                    if chars.next_if(|(_, c)| *c == '}').is_none() {
                        mistakes.push(format!("character {}: {{ without }}; {{{{ is a brace", at + 1));
                        continue;
                    }
                    match FIELDS.into_iter().find(|field| *field == name) {
                        Some(field) => {
                            parts.push(Part::Text(std::mem::take(&mut literal)));
                            parts.push(Part::Field(field));
                        }
                        None => {
                            mistakes.push(format!("character {}: no field {name:?}{}", at + 1, meant(&name)));
                        }
                    }
                }
                '}' => mistakes.push(format!("character {}: }} without {{; }}}} is a brace", at + 1)),
                c if c.is_control() => {
                    mistakes.push(format!("character {}: a line has no control characters", at + 1));
                }
                c => literal.push(c),
            }
        }
        parts.push(Part::Text(literal));
        parts.retain(|part| *part != Part::Text(String::new()));
        if !parts.iter().any(|part| matches!(part, Part::Field(_))) && mistakes.is_empty() {
            mistakes.push(format!("no field in it; the fields are {}", FIELDS.join(", ")));
        }
        if mistakes.is_empty() { Ok(Self::Template(parts)) } else { Err(mistakes.join("; ")) }
    }
}

/// The field that somebody may have meant, else all of them.
fn meant(name: &str) -> String {
    let near = |field: &&&str| {
        let (mut a, mut b): (Vec<char>, Vec<char>) = (name.chars().collect(), field.chars().collect());
        a.sort_unstable();
        b.sort_unstable();
        a == b || field.starts_with(name) || (name.len() > 3 && name.starts_with(**field))
    };
    match FIELDS.iter().find(near).filter(|_| !name.is_empty()) {
        Some(field) => format!(", is it {field}?"),
        None => format!("; the fields are {}", FIELDS.join(", ")),
    }
}

/// The fields of a line, as in JSON.
pub const FIELDS: [&str; 31] = [
    "time",
    "direction",
    "kind",
    "method",
    "host",
    "path",
    "path_cut",
    "status",
    "grpc_status",
    "reason",
    "source",
    "hop",
    "service",
    "backend",
    "version",
    "endpoint",
    "route",
    "attempts",
    "duration_ms",
    "head_ms",
    "bytes_sent",
    "bytes_received",
    "ended",
    "caller",
    "called",
    "trace_id",
    "span_id",
    "decision",
    "policy",
    "rule",
    "audited",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(template: &str, told: &Value) -> String {
        let Ok(Format::Template(parts)) = template.parse() else { panic!("{template}") };
        let mut out = String::new();
        write(&parts, told, &mut out);
        out
    }

    #[test]
    fn fields_stand_in_their_places() {
        let told = json!({"method": "GET", "path": "/a\" b\n", "status": 200, "duration_ms": 1.5,
            "audited": [{"policy": "shop/p", "rule": "0"}, {"policy": "shop/q", "rule": "r"}]});
        assert_eq!(line("\"{method} {path}\" {status}", &told), r#""GET /a\" b\n" 200"#);
        assert_eq!(line("{reason} {{{duration_ms}}} {audited}", &told), "- {1.5} shop/p/0,shop/q/r");
    }

    #[test]
    fn what_is_wrong_with_a_template_is_told_all_at_once_with_its_place() {
        let why = "{statsu} {nothing} {path".parse::<Format>().unwrap_err();
        for told in [
            "character 1: no field \"statsu\", is it status?",
            "character 10: no field \"nothing\"; the fields",
            "character 20: { without }",
        ] {
            assert!(why.contains(told), "{why}");
        }
        assert!("}".parse::<Format>().unwrap_err().contains("character 1: } without {"));
        assert!("hello".parse::<Format>().unwrap_err().contains("no field in it; the fields are time, "));
        assert!("{path}\n".parse::<Format>().unwrap_err().contains("character 7: a line has no control"));
        assert_eq!("json".parse(), Ok(Format::Json));
    }
}
