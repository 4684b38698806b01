//! Text to a tree that remembers where everything stood.
//!
//! One parser reads YAML and JSON, since every JSON text is a YAML text. What the tree can hold is what JSON can hold:
//! tags, keys that are not text and merge keys are refused. Everything is bounded: bytes, depth, documents, and nodes,
//! so that aliases can not make a small text large.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};
use outrigger_inject::Scalar;

use super::problem::{Code, Problem};

/// The largest text that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// The deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 64;
/// The most documents of one text.
pub const MAX_DOCUMENTS: usize = 10_000;
/// The most nodes of one text, counted with every alias written out.
const MAX_NODES: usize = 500_000;

/// A position in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// A value and where it began.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// The value of `key`, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.value)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Where the thing at a JSON pointer stands; where that does not exist, its nearest ancestor that does.
    pub(crate) fn locate(&self, pointer: &str) -> Place {
        let mut node = self;
        let mut place = self.place;
        for segment in pointer.split('/').skip(1) {
            let key = segment.replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Value::Map(_) => node.entry(&key).map(|e| (e.key_place, &e.value)),
                Value::List(items) => {
                    key.parse().ok().and_then(|i: usize| items.get(i)).map(|n| (n.place, n))
                }
                _ => None,
            };
            let Some((found, inner)) = next else { break };
            (place, node) = (found, inner);
        }
        place
    }

    /// The plain JSON value, without what is null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(n.clone()),
            Value::Text(t) => Json::String(t.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .filter(|e| !matches!(e.value.value, Value::Null))
                    .map(|e| (e.key.clone(), e.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// Reads every document of `text`. The first fault of syntax ends the reading: what follows it could mean anything.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Located> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes, at most {MAX_BYTES} are read", text.len());
        return Err(Located::new(START, Code::TooLarge, message));
    }
    let mut options = granit_parser::options! { disallow_directives: true };
    options.set_emit_comments(false);
    Builder { events: Parser::new_from_str_with_options(text, options), anchors: HashMap::new(), nodes: 0 }
        .documents()
}

/// A fault with its place, before it has a file.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) problem: Box<Problem>,
}

impl Located {
    fn new(place: Place, code: Code, message: impl Into<String>) -> Self {
        Self { place, problem: Box::new(Problem::error("", code, message)) }
    }
}

const START: Place = Place { line: 1, column: 1 };

fn place_of(mark: &Marker) -> Place {
    // The parser counts lines from 1 and columns from 0.
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: narrow(mark.line().max(1)), column: narrow(mark.col() + 1) }
}

struct Builder<'a> {
    events: Parser<'a, StrInput<'a>>,
    /// What an alias stands for, with its depth and its number of nodes.
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
}

#[derive(Clone)]
struct Anchored {
    node: Node,
    height: usize,
    nodes: usize,
}

/// A node just read, with how many levels are below it.
struct Built {
    node: Node,
    height: usize,
}

impl<'a> Builder<'a> {
    fn documents(mut self) -> Result<Vec<Node>, Located> {
        let mut documents = vec![];
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::DocumentStart(..) => {
                    if documents.len() == MAX_DOCUMENTS {
                        let message = format!("at most {MAX_DOCUMENTS} documents are read from one text");
                        return Err(Located::new(place_of(&span.start), Code::TooLarge, message));
                    }
                    let (event, span) = self.next()?;
                    if matches!(event, Event::DocumentEnd) {
                        continue;
                    }
                    let node = self.node(event, span, 0)?.node;
                    // An empty document (a lone `---`, a file of comments) is nothing, not a mistake.
                    if !matches!(node.value, Value::Null) {
                        documents.push(node);
                    }
                    self.anchors.clear();
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Located> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(e)) => Err(Located::new(place_of(e.marker()), Code::Syntax, e.info())),
            None => Err(Located::new(START, Code::Syntax, "the text ends too early")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Built, Located> {
        let place = place_of(&span.start);
        self.count(1, place)?;
        let before = self.nodes - 1;
        let (value, anchor, height) = match event {
            Event::Alias(id) => return self.alias(id, place, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = match tag.as_deref().map(granit_parser::Tag::core_suffix) {
                    None => style != ScalarStyle::Plain,
                    Some(Some("str")) => true,
                    Some(_) => return Err(no_tags(place)),
                };
                let value = if as_text { Value::Text(text.into_owned()) } else { plain(&text) };
                (value, anchor, 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                enter(depth, tag.is_some(), place)?;
                let (items, height) = self.list(depth + 1)?;
                (Value::List(items), anchor, height)
            }
            Event::MappingStart(_, anchor, tag) => {
                enter(depth, tag.is_some(), place)?;
                let (entries, height) = self.map(depth + 1)?;
                (Value::Map(entries), anchor, height)
            }
            other => {
                return Err(Located::new(place, Code::Syntax, format!("did not expect {other:?} here")));
            }
        };
        let node = Node { place, value };
        if anchor != 0 {
            let anchored = Anchored { node: node.clone(), height, nodes: self.nodes - before };
            self.count(anchored.nodes, place)?;
            self.anchors.insert(anchor, anchored);
        }
        Ok(Built { node, height })
    }

    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, usize), Located> {
        let (mut items, mut height) = (vec![], 1);
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok((items, height));
            }
            let item = self.node(event, span, depth)?;
            height = height.max(item.height + 1);
            items.push(item.node);
        }
    }

    fn map(&mut self, depth: usize) -> Result<(Vec<Entry>, usize), Located> {
        let (mut entries, mut height) = (Vec::<Entry>::new(), 1);
        let mut seen = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let key_place = place_of(&span.start);
            let key = match event {
                Event::MappingEnd => return Ok((entries, height)),
                Event::Scalar(text, _, 0, None) => text.into_owned(),
                _ => {
                    let message = "a key must be plain text, without tag or anchor";
                    return Err(Located::new(key_place, Code::Syntax, message));
                }
            };
            if let Some(first) = seen.insert(key.clone(), key_place.line) {
                let shown: String = key.chars().take(80).collect();
                let message = format!("the key {shown:?} is there twice, first in line {first}");
                return Err(Located::new(key_place, Code::Duplicate, message));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth)?;
            height = height.max(value.height + 1);
            entries.push(Entry { key, key_place, value: value.node });
        }
    }

    /// An alias is what it stands for, written out here.
    fn alias(&mut self, id: usize, place: Place, depth: usize) -> Result<Built, Located> {
        let Some(anchored) = self.anchors.get(&id) else {
            let message = "an alias can not stand inside what it stands for";
            return Err(Located::new(place, Code::Syntax, message));
        };
        if depth + anchored.height > MAX_DEPTH {
            return Err(too_deep(place));
        }
        // Counted before it is copied.
        let total = self.nodes.saturating_add(anchored.nodes);
        if total > MAX_NODES {
            return Err(too_many_nodes(place));
        }
        self.nodes = total;
        let mut node = anchored.node.clone();
        node.place = place;
        Ok(Built { node, height: anchored.height })
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Located> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES { Err(too_many_nodes(place)) } else { Ok(()) }
    }
}

fn enter(depth: usize, tagged: bool, place: Place) -> Result<(), Located> {
    if tagged {
        return Err(no_tags(place));
    }
    if depth >= MAX_DEPTH { Err(too_deep(place)) } else { Ok(()) }
}

/// A plain scalar.
fn plain(text: &str) -> Value {
    match Scalar::plain(text) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Number(number) => Value::Number(number),
        Scalar::Text(text) => Value::Text(text),
    }
}

fn no_tags(place: Place) -> Located {
    Located::new(place, Code::Unsupported, "tags are not supported")
}

fn too_deep(place: Place) -> Located {
    let message = format!("lists and mappings are nested deeper than {MAX_DEPTH} levels");
    Located::new(place, Code::TooLarge, message)
}

fn too_many_nodes(place: Place) -> Located {
    let message = format!("the text has more than {MAX_NODES} values, with its aliases written out");
    Located::new(place, Code::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        parse(text).unwrap()[0].to_json()
    }

    #[test]
    fn scalars_are_what_yaml_says() {
        let value = json(
            "a: 1\nb: '1'\nc: true\nd: yes\ne: 1.5\nf: 1.0.0\ng: ~\nh: !!str 2\ni: -3\nj: \"\\ud83d\\ude00\"",
        );
        let expected = serde_json::json!({
            "a": 1, "b": "1", "c": true, "d": "yes", "e": 1.5, "f": "1.0.0", "h": "2", "i": -3, "j": "😀"
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn everything_knows_its_place() {
        let tree = &parse("# one\na:\n  - b: 1\n    c: {d: 2}\n").unwrap()[0];
        let at = |pointer: &str| (tree.locate(pointer).line, tree.locate(pointer).column);
        assert_eq!(at("/a"), (2, 1));
        assert_eq!(at("/a/0/c"), (4, 5));
        assert_eq!(at("/a/0/c/d"), (4, 9));
        assert_eq!(at("/a/0/missing"), (3, 5), "what is not there is located by what holds it");
    }

    #[test]
    fn aliases_are_written_out_and_bounded() {
        assert_eq!(json("a: &x [1, 2]\nb: *x"), serde_json::json!({"a": [1, 2], "b": [1, 2]}));
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, inner) in ('b'..='k').zip('a'..) {
            let many = vec![format!("*{inner}"); 6].join(", ");
            bomb.push_str(&["", &name.to_string(), ": &", &name.to_string(), " [", &many, "]\n"].concat());
        }
        assert_eq!(parse(&bomb).unwrap_err().problem.code, Code::TooLarge);
        assert!(parse("a: &a [*a]").is_err());
    }

    #[test]
    fn depth_size_and_documents_are_bounded() {
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        assert_eq!(parse(&deep).unwrap_err().problem.code, Code::TooLarge);
        assert!(parse(&("[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH))).is_ok());
        assert_eq!(parse(&" ".repeat(MAX_BYTES + 1)).unwrap_err().problem.code, Code::TooLarge);
        assert_eq!(parse(&"---\na\n".repeat(MAX_DOCUMENTS + 1)).unwrap_err().problem.code, Code::TooLarge);
        assert_eq!(parse(&"---\na\n".repeat(3)).unwrap().len(), 3);
        assert!(parse("# nothing\n---\n").unwrap().is_empty());
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_both_lines() {
        let fault = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((fault.problem.code, fault.place.line), (Code::Duplicate, 3));
        assert!(fault.problem.message.contains("line 1"), "{}", fault.problem.message);
    }
}
