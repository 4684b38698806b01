//! Texts in every manner, edited into every value: the result says it, and is taken back byte for byte.

#![allow(clippy::format_push_string, reason = "these are tests")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::splice::Splice;
use super::{PLACEHOLDER, apply, documents, edit, undo_of};

/// The text after which its first document says `new`; what takes it back has been tried.
fn edited(text: &str, new: &Value) -> String {
    let read = documents(text).unwrap();
    let root = read[0].root.as_ref().unwrap();
    let splices = edit(text, &read[0], root, new).unwrap_or_else(|fault| panic!("{fault}\n{text}\n{new:#}"));
    let done =
        apply(text, &splices).unwrap_or_else(|| panic!("lie over each other: {splices:?}\n{text}\n{new:#}"));
    let again = documents(&done).unwrap_or_else(|fault| panic!("{fault}\n{text}\n->\n{done}\n{new:#}"));
    assert_eq!(again[0].root.as_ref().unwrap().value(), *new, "\n{text}\n->\n{done}");
    let undo = undo_of(text, 0, text.len(), &splices).unwrap();
    assert_eq!(undo.restore(&done).as_deref(), Some(text), "taken back from\n{done}");
    done
}

fn value_of(text: &str) -> Value {
    documents(text).unwrap()[0].root.as_ref().unwrap().value()
}

#[test]
fn what_is_added_comes_behind_its_neighbours_and_before_the_break() {
    let text = "metadata:\n    name: a # its name\n    labels: {app: a}\n# pods\nspec:\n    containers: # one\n    -   name: a\n        ports: []\n        command: |\n            one\n            two\n\n    # volumes\n    volumes: ~";
    let mut new = value_of(text);
    new["metadata"]["labels"]["x/y"] = json!("true");
    new["metadata"]["annotations"] = json!({"outrigger.dev/status": "{\"a\":1}", "m": "1"});
    new["spec"]["containers"].as_array_mut().unwrap().insert(0, json!({"name": "p", "args": ["--a", "yes"]}));
    new["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "z", "env": []}));
    new["spec"]["containers"][1]["ports"] = json!([{"containerPort": 1}]);
    new["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let expected = "metadata:\n    name: a # its name\n    labels: {app: a, \"x/y\": \"true\"}\n    annotations:\n        outrigger.dev/status: '{\"a\":1}'\n        m: \"1\"\n# pods\nspec:\n    containers: # one\n    - name: p\n      args:\n      - --a\n      - \"yes\"\n    -   name: a\n        ports:\n        - containerPort: 1\n        command: |\n            one\n            two\n    - name: z\n      env: []\n\n    # volumes\n    volumes:\n    - name: v\n      emptyDir: {}";
    assert_eq!(edited(text, &new), expected);
    let (crlf, expected) = (text.replace('\n', "\r\n"), expected.replace('\n', "\r\n"));
    let mut again = new.clone();
    again["spec"]["containers"][1]["command"] = value_of(&crlf)["spec"]["containers"][0]["command"].clone();
    assert_eq!(edited(&crlf, &again), expected);
}

#[test]
fn what_changes_keeps_its_quotes_and_what_goes_gives_its_place() {
    let text = "a: \"one\" # first\nb: 'two'\nc:\n  tcpSocket: {port: http} # tcp\n  x: 1\nd:\n- k: 1\n  l: 2\n- m\n";
    let new = json!({"a": "uno", "b": "dos", "c": {"httpGet": {"port": 1}, "x": 2}, "d": [{"l": 2}]});
    let expected = "a: \"uno\" # first\nb: 'dos'\nc:\n  httpGet:\n    port: 1 # tcp\n  x: 2\nd:\n- l: 2\n";
    assert_eq!(edited(text, &new), expected);
}

#[test]
fn json_stays_json() {
    let text = "{\n\t\"kind\": \"Pod\",\n\t\"spec\": {\n\t\t\"containers\": [\n\t\t\t{\"name\": \"a\"}\n\t\t]\n\t}\n}\n";
    let mut new = value_of(text);
    new["spec"]["containers"].as_array_mut().unwrap().insert(0, json!({"name": "p", "x": {}}));
    new["spec"]["volumes"] = json!([{"name": "v"}]);
    let done = edited(text, &new);
    assert_eq!(serde_json::from_str::<Value>(&done).unwrap(), new, "{done}");
    assert_eq!(
        done,
        "{\n\t\"kind\": \"Pod\",\n\t\"spec\": {\n\t\t\"containers\": [\n\t\t\t{\n\t\t\t\t\"name\": \"p\",\n\t\t\t\t\"x\": {}\n\t\t\t},\n\t\t\t{\"name\": \"a\"}\n\t\t],\n\t\t\"volumes\": [\n\t\t\t{\n\t\t\t\t\"name\": \"v\"\n\t\t\t}\n\t\t]\n\t}\n}\n"
    );
}

#[test]
fn what_aliases_stand_for_is_not_changed_behind_their_back() {
    let text = "a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n";
    let refused = |new: Value| {
        let read = documents(text).unwrap();
        edit(text, &read[0], read[0].root.as_ref().unwrap(), &new).unwrap_err()
    };
    let kept = json!({"k": 1, "l": 2});
    assert_eq!(refused(json!({"a": {"k": 2}, "b": {"k": 1}, "c": kept})).line, 1);
    assert_eq!(refused(json!({"a": {"k": 1}, "b": {"k": 2}, "c": kept})).line, 2);
    assert_eq!(refused(json!({"b": {"k": 1}, "c": kept})).line, 1);
    assert!(refused(json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"l": 2}})).message.contains("<<"));
    // What is merged is said anew, where it is to be something else.
    edited(text, &json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 5, "l": 2}}));
}

#[test]
fn a_record_is_not_used_on_another_text() {
    let text = "a: 1\nb: 2\n";
    let splices = vec![Splice { at: 4, gone: 0, text: format!("\nx: {PLACEHOLDER}") }];
    let undo = undo_of(text, 0, text.len(), &splices).unwrap();
    assert_eq!(undo.restore("a: 1\nx: anything at all\nb: 2\n").as_deref(), Some(text));
    assert_eq!(undo.restore("a: 1\nx: anything at all\nb: 3\n"), None);
    assert_eq!(undo.restore(""), None);
}

#[test]
fn bounds_are_kept() {
    assert!(documents(&"[".repeat(200)).is_err());
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, inner) in ('b'..='k').zip('a'..) {
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{inner}"); 8].join(", "));
    }
    assert!(documents(&bomb).unwrap_err().message.contains("too large"));
    assert_eq!(documents("a: 1\nb: 2\na: 3\n").unwrap_err().line, 3);
}

/// Values as manifests have them.
fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        "[a-z]{0,4}".prop_map(Value::from),
        prop::sample::select(vec![
            "yes", "1", "#x", "a: b", "- a", "it's", "\"q\"", "a\nb\n", "é", "{x}", "~", " a "
        ])
        .prop_map(Value::from),
        (-5..5_i64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-e]", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Objects, and what they become: mostly alike.
fn pairs() -> impl Strategy<Value = (Value, Value)> {
    let object = || prop::collection::vec(("[a-e]", values()), 1..5);
    let named = |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect());
    (object(), object(), prop::collection::vec(any::<bool>(), 8)).prop_map(move |(old, other, choice)| {
        let (old, other) = (named(old), named(other));
        let mut choice = choice.into_iter().cycle();
        let new = mixed(&old, &other, &mut choice);
        (old, if new.as_object().is_some_and(Map::is_empty) { json!({"a": 1}) } else { new })
    })
}

/// Something of both.
fn mixed(old: &Value, other: &Value, choice: &mut impl Iterator<Item = bool>) -> Value {
    match (old, other) {
        (Value::Object(a), Value::Object(b)) => {
            let mut all = Map::new();
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => drop(all.insert(key.clone(), mixed(value, other, choice))),
                    None if choice.next() == Some(true) => drop(all.insert(key.clone(), value.clone())),
                    None => {}
                }
            }
            for (key, value) in b {
                if choice.next() == Some(true) {
                    all.entry(key.clone()).or_insert(value.clone());
                }
            }
            Value::Object(all)
        }
        (Value::Array(a), Value::Array(b)) => {
            let mut all: Vec<_> = a.iter().filter(|_| choice.next() == Some(true)).cloned().collect();
            for value in b {
                let at = if choice.next() == Some(true) { 0 } else { all.len() };
                all.insert(at, value.clone());
            }
            Value::Array(all)
        }
        (old, other) => {
            if choice.next() == Some(true) {
                old.clone()
            } else {
                other.clone()
            }
        }
    }
}

/// Writes a value in a manner that the numbers choose: blocks or brackets, quotes, comments, blank lines, indentation.
struct Writer {
    choices: Vec<u8>,
    at: usize,
    json: bool,
}

impl Writer {
    fn choose(&mut self, of: u8) -> u8 {
        self.at += 1;
        self.choices[self.at % self.choices.len()] % of
    }

    fn object(&mut self, value: &Value) -> String {
        if self.json {
            return if self.choose(2) == 0 { value.to_string() } else { format!("{value:#}\n") };
        }
        let mut text = if self.choose(3) == 0 { "--- # begins\n".to_owned() } else { String::new() };
        for (key, value) in value.as_object().unwrap() {
            self.entry(key, value, 0, &mut text);
        }
        if self.choose(4) == 0 && !text.contains('|') {
            text.pop();
        }
        text
    }

    fn entry(&mut self, key: &str, value: &Value, column: usize, text: &mut String) {
        let key = if self.choose(4) == 0 { format!("\"{key}\"") } else { key.to_owned() };
        text.push_str(&key);
        text.push(':');
        self.behind(value, column, false, text);
    }

    /// Behind a colon or a dash.
    fn behind(&mut self, value: &Value, column: usize, dash: bool, text: &mut String) {
        match value {
            Value::Object(map) if !map.is_empty() && self.choose(3) > 0 => {
                let inner = column + [2, 4, 3][usize::from(self.choose(3))];
                let compact = dash && self.choose(2) == 0;
                if compact {
                    text.push_str(&" ".repeat(inner - column - 1));
                } else {
                    self.end(text);
                }
                for (n, (key, value)) in map.iter().enumerate() {
                    if n > 0 || !compact {
                        self.lead(inner, text);
                    }
                    self.entry(key, value, inner, text);
                }
            }
            Value::Array(items) if !items.is_empty() && self.choose(3) > 0 => {
                self.end(text);
                let inner = column + if dash { 2 } else { [0, 2][usize::from(self.choose(2))] };
                for item in items {
                    self.lead(inner, text);
                    text.push('-');
                    self.behind(item, inner, true, text);
                }
            }
            Value::Null if self.choose(2) == 0 => self.end(text),
            Value::String(s) if s == "a\nb\n" => {
                let inner = " ".repeat(column + 2);
                *text += &format!(" |\n{inner}a\n{inner}b\n");
            }
            value => {
                text.push(' ');
                self.inline(value, column, text);
                self.end(text);
            }
        }
    }

    fn inline(&mut self, value: &Value, column: usize, text: &mut String) {
        let broken = |writer: &mut Self| {
            if writer.choose(4) == 0 { format!("\n{}", " ".repeat(column + 4)) } else { String::new() }
        };
        match value {
            Value::Object(map) => {
                text.push('{');
                for (n, (key, value)) in map.iter().enumerate() {
                    text.push_str(if n > 0 { ", " } else { "" });
                    text.push_str(&broken(self));
                    *text += &format!("{key}: ");
                    self.inline(value, column, text);
                }
                text.push('}');
            }
            Value::Array(items) => {
                text.push('[');
                for (n, value) in items.iter().enumerate() {
                    text.push_str(if n > 0 { ", " } else { "" });
                    text.push_str(&broken(self));
                    self.inline(value, column, text);
                }
                text.push_str(if !items.is_empty() && self.choose(4) == 0 { ", ]" } else { "]" });
            }
            Value::String(s) if !s.contains('\n') && self.choose(2) == 0 => {
                *text += &format!("'{}'", s.replace('\'', "''"));
            }
            value => text.push_str(&value.to_string()),
        }
    }

    fn end(&mut self, text: &mut String) {
        text.push_str(["\n", " # why\n", "\n\n", "\n"][usize::from(self.choose(4))]);
    }

    fn lead(&mut self, column: usize, text: &mut String) {
        if self.choose(5) == 0 {
            *text += &format!("{}# of the next\n", " ".repeat(column));
        }
        text.push_str(&" ".repeat(column));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_text_looks_like_it_says_what_it_should_and_is_taken_back(
        (old, new) in pairs(),
        choices in prop::collection::vec(any::<u8>(), 16..64),
        json: bool,
        windows: bool,
    ) {
        let text = Writer { choices, at: 0, json }.object(&old);
        let text = if windows { text.replace('\n', "\r\n") } else { text };
        // A writer's mistake is not the editor's.
        prop_assert_eq!(&value_of(&text), &old, "written wrongly: {}", text);
        edited(&text, &new);
    }
}
