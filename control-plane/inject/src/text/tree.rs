//! Text to values that know which bytes they came from.
//!
//! One parser reads YAML and JSON. Everything is bounded: bytes, depth, and values, so that aliases can not make a small text
//! large. Merge keys (`<<`) are followed when values are asked for; tags are taken for comments, but for `!!str`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};
use serde_json::{Map, Value};

use super::{Fault, Scalar};

/// The largest text that is read, in bytes.
const MAX_BYTES: usize = 16 << 20;
/// The deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 128;
/// The most values of one text, counted with every alias written out.
const MAX_VALUES: usize = 2_000_000;

/// One document of a stream.
#[derive(Debug)]
pub(crate) struct Document {
    /// What it says; nothing, where it is empty or comments only.
    pub(crate) root: Option<Node>,
    /// Anchors that something refers to.
    pub(crate) referenced: HashSet<usize>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its bytes, without anchor and tag. What is left out is empty and stands behind its `:` or `-`.
    pub(crate) range: Range<usize>,
    /// How far it is from the beginning of its line, in characters.
    pub(crate) column: usize,
    /// The number of its anchor; 0: none.
    pub(crate) anchor: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar {
        style: ScalarStyle,
        value: Value,
    },
    List {
        flow: bool,
        items: Vec<Node>,
    },
    Map {
        flow: bool,
        entries: Vec<Entry>,
    },
    /// What it stands for is written elsewhere.
    Alias(Value),
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_range: Range<usize>,
    pub(crate) key_column: usize,
    /// Behind the `:`; nothing, where there is none beside the key (`? key`, `{key}`).
    pub(crate) colon: Option<usize>,
    pub(crate) value: Node,
}

impl Entry {
    /// Where it ends.
    pub(crate) fn end(&self) -> usize {
        self.value.range.end.max(self.colon.unwrap_or(self.key_range.end))
    }
}

impl Node {
    /// The value of `key`, if this is a mapping that has it itself.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map { entries, .. } => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The entries that it has itself.
    pub(crate) fn entries(&self) -> Vec<(String, &Self)> {
        match &self.kind {
            Kind::Map { entries, .. } => {
                entries.iter().filter(|e| e.key != "<<").map(|e| (e.key.clone(), &e.value)).collect()
            }
            _ => vec![],
        }
    }

    /// Whether it is a list or a mapping between brackets.
    pub(crate) fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::List { flow: true, .. } | Kind::Map { flow: true, .. })
    }

    /// The plain value, with aliases and merge keys followed.
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar { value, .. } | Kind::Alias(value) => value.clone(),
            Kind::List { items, .. } => Value::Array(items.iter().map(Self::value).collect()),
            Kind::Map { entries, .. } => Value::Object(map_value(entries)),
        }
    }
}

/// What is merged into a mapping by its `<<`, as far as it does not say the same keys itself.
pub(crate) fn merged(entries: &[Entry]) -> Map<String, Value> {
    let mut all = Map::new();
    for entry in entries.iter().filter(|e| e.key == "<<") {
        let sources = match entry.value.value() {
            Value::Array(sources) => sources,
            one => vec![one],
        };
        for source in sources {
            let Value::Object(source) = source else { continue };
            for (key, value) in source {
                // Of several sources the first wins.
                all.entry(key).or_insert(value);
            }
        }
    }
    all.retain(|key, _| !entries.iter().any(|e| e.key == *key));
    all
}

fn map_value(entries: &[Entry]) -> Map<String, Value> {
    let own = entries.iter().filter(|e| e.key != "<<").map(|e| (e.key.clone(), e.value.value()));
    let mut all: Map<String, Value> = own.collect();
    if entries.iter().any(|e| e.key == "<<") {
        all.extend(merged(entries));
    }
    all
}

/// Reads every document of `text`.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, Fault> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes, at most {MAX_BYTES} are read", text.len());
        return Err(Fault::at(text, 0, message));
    }
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    Reader { text, events, anchors: HashMap::new(), referenced: HashSet::new(), values: 0 }.documents()
}

struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    /// What an alias stands for, with its depth and number of values.
    anchors: HashMap<usize, (Value, usize, usize)>,
    referenced: HashSet<usize>,
    values: usize,
}

impl<'a> Reader<'a> {
    fn documents(mut self) -> Result<Vec<Document>, Fault> {
        let mut documents = vec![];
        loop {
            let (event, _) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    let root = match event {
                        Event::DocumentEnd => None,
                        event => Some(self.node(event, &span, None, 0)?),
                    };
                    let root = root.filter(|node| {
                        !matches!(&node.kind, Kind::Scalar { value: Value::Null, .. } if node.range.is_empty())
                    });
                    documents.push(Document { root, referenced: std::mem::take(&mut self.referenced) });
                    self.anchors.clear();
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(fault)) => {
                let at = fault.marker().byte_offset().unwrap_or(0);
                Err(Fault::at(self.text, at, fault.info()))
            }
            None => Err(Fault::at(self.text, self.text.len(), "the text ends too early")),
        }
    }

    fn fault(&self, at: usize, message: impl Into<String>) -> Fault {
        Fault::at(self.text, at, message)
    }

    /// `behind`: the end of the colon or the dash that the value stands behind.
    fn node(
        &mut self,
        event: Event<'a>,
        span: &Span,
        behind: Option<usize>,
        depth: usize,
    ) -> Result<Node, Fault> {
        let Some(range) = span.byte_range() else {
            return Err(self.fault(0, "a place in the text is not known"));
        };
        let before = self.values;
        self.count(1, range.start)?;
        if depth >= MAX_DEPTH {
            let message = format!("lists and mappings are nested deeper than {MAX_DEPTH} levels");
            return Err(self.fault(range.start, message));
        }
        let (mut start, mut column) = (range.start, span.start.col());
        let (kind, end, anchor) = match event {
            Event::Alias(id) => return self.alias(id, range, span.start.col(), depth),
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = style != ScalarStyle::Plain
                    || tag.as_deref().map(granit_parser::Tag::core_suffix) == Some(Some("str"));
                let value =
                    if as_text { Value::String(text.into_owned()) } else { Scalar::plain(&text).into() };
                if let (ScalarStyle::Literal | ScalarStyle::Folded, Some(behind)) = (style, behind) {
                    // The parser says where its text is, not where its header is.
                    start = header(self.text, behind).unwrap_or(start);
                }
                let end = self.scalar_end(style, &(start..range.end));
                (Kind::Scalar { style, value }, end, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                // The parser says where the first item is, not where its dash is.
                if let Some(dash) = behind.filter(|_| !flow).and_then(|behind| dash(self.text, behind)) {
                    let line = self.text.get(super::line_start(self.text, dash)..dash).unwrap_or("");
                    (start, column) = (dash, line.chars().count());
                }
                let (items, end) = self.list(start, flow, depth + 1)?;
                let end = if flow { end } else { items.last().map_or(end, |item| item.range.end) };
                (Kind::List { flow, items }, end, anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                let (entries, end) = self.map(depth + 1)?;
                let end = if flow { end } else { entries.last().map_or(end, Entry::end) };
                (Kind::Map { flow, entries }, end, anchor)
            }
            other => return Err(self.fault(range.start, format!("did not expect {other:?} here"))),
        };
        let node = Node { range: start..end.max(start), column, anchor, kind };
        if anchor != 0 {
            let counted = self.values - before;
            self.count(counted, range.start)?;
            self.anchors.insert(anchor, (node.value(), depth_of(&node), counted));
        }
        Ok(node)
    }

    /// Without the blank lines that follow it, unless they belong to it (`|+`).
    fn scalar_end(&self, style: ScalarStyle, range: &Range<usize>) -> usize {
        let written = self.text.get(range.clone()).unwrap_or("");
        let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let kept = if block && written.lines().next().is_some_and(|header| header.contains('+')) {
            let kept = written.strip_suffix('\n').unwrap_or(written);
            kept.strip_suffix('\r').unwrap_or(kept)
        } else {
            written.trim_end()
        };
        range.start + kept.len()
    }

    fn list(&mut self, start: usize, flow: bool, depth: usize) -> Result<(Vec<Node>, usize), Fault> {
        let (mut items, mut end) = (Vec::<Node>::new(), start);
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok((items, span.byte_range().map_or(end, |r| r.end)));
            }
            let behind = if flow { None } else { dash(self.text, end).map(|dash| dash + 1) };
            let mut item = self.node(event, &span, behind, depth)?;
            if let (true, Some(behind)) = (item.range.is_empty(), behind) {
                // Nothing behind a dash: it stands there, not where the next thing begins.
                item.range = behind..behind;
            }
            end = item.range.end;
            items.push(item);
        }
    }

    fn map(&mut self, depth: usize) -> Result<(Vec<Entry>, usize), Fault> {
        let mut entries = Vec::<Entry>::new();
        let mut seen = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let key_range = span.byte_range().unwrap_or_default();
            let key = match event {
                Event::MappingEnd => return Ok((entries, key_range.end)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.fault(key_range.start, "a key must be plain text")),
            };
            if let Some(first) = seen.insert(key.clone(), key_range.start) {
                let line = self.fault(first, "").line;
                let shown: String = key.chars().take(80).collect();
                let message = format!("the key {shown:?} is there twice, first in line {line}");
                return Err(self.fault(key_range.start, message));
            }
            let key_column = span.start.col();
            let colon = colon(self.text, key_range.end);
            let (event, span) = self.next()?;
            let mut value = self.node(event, &span, colon, depth)?;
            if value.range.is_empty() {
                let at = colon.unwrap_or(key_range.end);
                value.range = at..at;
            }
            entries.push(Entry { key, key_range, key_column, colon, value });
        }
    }

    fn alias(&mut self, id: usize, range: Range<usize>, column: usize, depth: usize) -> Result<Node, Fault> {
        let Some((value, height, values)) = self.anchors.get(&id) else {
            return Err(self.fault(range.start, "an alias can not stand inside what it stands for"));
        };
        // Counted before it is copied.
        let (height, values) = (*height, *values);
        let value = if depth + height > MAX_DEPTH { None } else { Some(value) };
        let Some(value) = value.filter(|_| self.values.saturating_add(values) <= MAX_VALUES).cloned() else {
            return Err(self.fault(range.start, "with its aliases written out the text is too large"));
        };
        self.count(values, range.start)?;
        self.referenced.insert(id);
        Ok(Node { range, column, anchor: 0, kind: Kind::Alias(value) })
    }

    fn count(&mut self, values: usize, at: usize) -> Result<(), Fault> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            let message = format!("the text has more than {MAX_VALUES} values, with its aliases written out");
            return Err(self.fault(at, message));
        }
        Ok(())
    }
}

fn depth_of(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 0,
        Kind::List { items, .. } => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Kind::Map { entries, .. } => 1 + entries.iter().map(|e| depth_of(&e.value)).max().unwrap_or(0),
        Kind::Alias(value) => depth_of_value(value),
    }
}

fn depth_of_value(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth_of_value).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth_of_value).max().unwrap_or(0),
        _ => 0,
    }
}

/// Behind the `:` that follows a key.
fn colon(text: &str, key_end: usize) -> Option<usize> {
    let rest = text.get(key_end..)?;
    let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    rest.get(blank..)?.starts_with(':').then_some(key_end + blank + 1)
}

/// The next dash of a list, over blanks, comments, anchors and tags.
pub(crate) fn dash(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        let blank = rest.len() - rest.trim_start().len();
        at += blank;
        match rest.get(blank..)?.chars().next()? {
            '#' => at = super::line_end(text, at),
            '-' => return Some(at),
            '&' | '!' => at += rest.get(blank..)?.find(char::is_whitespace)?,
            _ => return None,
        }
    }
}

/// The header of a block scalar (`|`, `>-`), behind anchors and tags.
fn header(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        let blank = rest.len() - rest.trim_start().len();
        at += blank;
        match rest.get(blank..)?.chars().next()? {
            '|' | '>' => return Some(at),
            '&' | '!' => at += rest.get(blank..)?.find(char::is_whitespace)?,
            _ => return None,
        }
    }
}
