//! Which bytes to change so that a value says something else.
//!
//! What is the same on both sides is not touched: mappings are compared key by key, lists item by item, items with a `name` by
//! their names. New entries come behind the last one, new items where they belong, each in the manner of its neighbours. In a
//! block everything is added at the end of a line, before its break, so that a comment behind a value and a missing break at the
//! end of the file stay what they are.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::emit::{Manner, blanks_before, scalar_like};
use super::splice::{Splice, in_order};
use super::tree::{Document, Entry, Kind, Node, dash, merged};
use super::{Fault, line_end, line_start};

/// More pairs of items than this are not compared.
const MAX_PAIRS: usize = 1 << 20;

/// The changes of `text`, in order, after which `node` says `new`.
pub(crate) fn edit(text: &str, document: &Document, node: &Node, new: &Value) -> Result<Vec<Splice>, Fault> {
    let manner = Manner::of(text, document);
    let mut editor = Editor { text, manner, referenced: &document.referenced, splices: vec![] };
    editor.value(node, new, &Holder::Nobody)?;
    Ok(in_order(editor.splices))
}

/// What holds a value, for when the whole of it is replaced.
enum Holder<'a> {
    Nobody,
    /// Behind the colon of a key in a block; the column of the key.
    Entry {
        colon: usize,
        column: usize,
    },
    /// Behind the dash of an item in a block.
    Item {
        dash: usize,
        column: usize,
    },
    /// Between brackets.
    Brackets(&'a Node),
}

struct Editor<'a> {
    text: &'a str,
    manner: Manner,
    referenced: &'a HashSet<usize>,
    splices: Vec<Splice>,
}

impl Editor<'_> {
    fn put(&mut self, from: usize, to: usize, text: impl Into<String>) {
        self.splices.push(Splice { at: from, gone: to.saturating_sub(from), text: text.into() });
    }

    fn fault<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::at(self.text, at, message))
    }

    fn value(&mut self, node: &Node, new: &Value, holder: &Holder<'_>) -> Result<(), Fault> {
        if node.value() == *new {
            return Ok(());
        }
        if self.referenced.contains(&node.anchor) {
            let message = "this would have to change, and aliases elsewhere stand for it: write them out";
            return self.fault(node.range.start, message);
        }
        let in_brackets = matches!(holder, Holder::Brackets(_));
        match (&node.kind, new) {
            (Kind::Alias(_), _) => {
                let message = "this alias would have to change: write out what it stands for";
                self.fault(node.range.start, message)
            }
            (Kind::Map { flow, entries }, Value::Object(new))
                if matches!(holder, Holder::Nobody)
                    || !new.is_empty() && (in_brackets || !(*flow && entries.is_empty())) =>
            {
                self.map(node, entries, new)
            }
            (Kind::List { flow, items }, Value::Array(new))
                if !new.is_empty() && (in_brackets || !(*flow && items.is_empty())) =>
            {
                self.list(node, items, new, holder)
            }
            (
                Kind::Scalar { style, .. },
                Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null,
            ) if !node.range.is_empty() => {
                self.put(node.range.start, node.range.end, scalar_like(new, *style, in_brackets));
                Ok(())
            }
            _ => self.whole(node, new, holder),
        }
    }

    /// The whole value is replaced.
    fn whole(&mut self, node: &Node, new: &Value, holder: &Holder<'_>) -> Result<(), Fault> {
        match holder {
            Holder::Nobody => {
                return self.fault(node.range.start, "the whole of an object can not be replaced");
            }
            Holder::Entry { colon, column } => {
                let text = self.manner.after_colon(new, *column);
                self.put(*colon, node.range.end, text);
            }
            Holder::Item { dash, column } => {
                let text = self.manner.after_dash(new, *column);
                self.put(dash + 1, node.range.end, text);
            }
            Holder::Brackets(outer) => {
                let text = self.manner.bracketed(new, self.blanks(outer));
                let between = if node.range.is_empty() { " " } else { "" };
                self.put(node.range.start, node.range.end, format!("{between}{text}"));
            }
        }
        Ok(())
    }

    /// The blanks before the lines of what is between these brackets, where each has a line of its own.
    fn blanks(&self, brackets: &Node) -> Option<&str> {
        let first = match &brackets.kind {
            Kind::Map { entries, .. } => entries.first()?.key_range.start,
            Kind::List { items, .. } => items.first()?.range.start,
            _ => return None,
        };
        blanks_before(self.text, first)
    }

    fn map(&mut self, node: &Node, entries: &[Entry], new: &Map<String, Value>) -> Result<(), Fault> {
        let inherited = merged(entries);
        if let Some(key) = inherited.keys().find(|key| !new.contains_key(*key)) {
            let message = format!("{key:?} comes from a merge key (<<) and would have to go: write it out");
            return self.fault(node.range.start, message);
        }
        let mut added: Vec<_> = new
            .iter()
            .filter(|(key, value)| {
                !entries.iter().any(|e| e.key == **key && e.key != "<<") && inherited.get(*key) != Some(value)
            })
            .collect();
        added.reverse();
        let mut kept = false;
        for (number, entry) in entries.iter().enumerate() {
            if entry.key == "<<" {
                kept = true;
            } else if let Some(value) = new.get(&entry.key) {
                self.entry_value(node, entry, value)?;
                kept = true;
            } else {
                self.may_go(&entry.value)?;
                if let Some((key, value)) = added.pop() {
                    let text = self.entry_text(node, key, value);
                    self.put(entry.key_range.start, entry.end(), text);
                    kept = true;
                } else {
                    let places: Vec<_> = entries.iter().map(|e| (e.key_range.start, e.end())).collect();
                    self.cut(node, &places, number, kept)?;
                }
            }
        }
        added.reverse();
        self.append(node, entries, &added);
        Ok(())
    }

    fn entry_text(&self, node: &Node, key: &str, value: &Value) -> String {
        if node.is_flow() {
            self.manner.pair(key, value, self.blanks(node))
        } else {
            self.manner.entry(key, value, keys_of(node))
        }
    }

    fn entry_value(&mut self, node: &Node, entry: &Entry, value: &Value) -> Result<(), Fault> {
        if entry.value.value() == *value {
            return Ok(());
        }
        let holder = match entry.colon {
            _ if node.is_flow() => Holder::Brackets(node),
            Some(colon) => Holder::Entry { colon, column: entry.key_column },
            None => {
                let message = format!("{:?} is written as `? key` and would have to change", entry.key);
                return self.fault(entry.key_range.start, message);
            }
        };
        self.value(&entry.value, value, &holder)
    }

    fn append(&mut self, node: &Node, entries: &[Entry], added: &[(&String, &Value)]) {
        if added.is_empty() {
            return;
        }
        let texts: Vec<_> = added.iter().map(|(key, value)| self.entry_text(node, key, value)).collect();
        let Some(last) = entries.last() else {
            self.put(node.range.start + 1, node.range.start + 1, texts.join(", "));
            return;
        };
        if node.is_flow() {
            let between = self.comma(node);
            let text = prefixed(&texts, &between);
            self.put(last.end(), last.end(), text);
        } else {
            let at = line_end(self.text, last.end());
            let line = self.manner.line(keys_of(node));
            let text = prefixed(&texts, &line);
            self.put(at, at, text);
        }
    }

    /// What stands between two things in these brackets.
    fn comma(&self, brackets: &Node) -> String {
        match self.blanks(brackets) {
            Some(blanks) => format!(",{}{blanks}", self.manner.newline),
            None => ", ".into(),
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], new: &[Value], holder: &Holder<'_>) -> Result<(), Fault> {
        let old: Vec<_> = items.iter().map(Node::value).collect();
        let Some(pairs) = pairs(&old, new) else {
            return self.fault(node.range.start, "the list is too long to be edited");
        };
        let (mut i, mut j) = (0, 0);
        for (to_i, to_j) in pairs.into_iter().chain([(items.len(), new.len())]) {
            self.gap(node, items, (i, to_i), new.get(j..to_j).unwrap_or(&[]), holder)?;
            if let (Some(item), Some(value)) = (items.get(to_i), new.get(to_j)) {
                self.item(node, items, to_i, item, value)?;
            }
            (i, j) = (to_i + 1, to_j + 1);
        }
        Ok(())
    }

    /// Between two items that stay: some go, some come. Where one goes and one comes, it takes its place.
    fn gap(
        &mut self,
        node: &Node,
        items: &[Node],
        (from, to): (usize, usize),
        new: &[Value],
        holder: &Holder<'_>,
    ) -> Result<(), Fault> {
        let mut new = new.iter();
        let mut kept = from > 0;
        for number in from..to {
            let Some(item) = items.get(number) else { break };
            if let Some(value) = new.next() {
                self.item(node, items, number, item, value)?;
                kept = true;
            } else {
                self.may_go(item)?;
                let places = self.places(node, items)?;
                self.cut(node, &places, number, kept)?;
            }
        }
        let rest: Vec<_> = new.collect();
        if rest.is_empty() { Ok(()) } else { self.insert(node, items, to, &rest, holder) }
    }

    fn item(
        &mut self,
        node: &Node,
        items: &[Node],
        number: usize,
        item: &Node,
        value: &Value,
    ) -> Result<(), Fault> {
        let holder = if node.is_flow() {
            Holder::Brackets(node)
        } else {
            Holder::Item { dash: self.dash_of(node, items, number)?, column: node.column }
        };
        self.value(item, value, &holder)
    }

    /// The dash of an item of a block.
    fn dash_of(&self, node: &Node, items: &[Node], number: usize) -> Result<usize, Fault> {
        let before = number.checked_sub(1).and_then(|n| items.get(n));
        let from = before.map_or(node.range.start, |item| item.range.end);
        match dash(self.text, from) {
            Some(dash) => Ok(dash),
            None => self.fault(from, "the dash of the next item is not found"),
        }
    }

    /// New items before the item of this number, behind the one before it.
    fn insert(
        &mut self,
        node: &Node,
        items: &[Node],
        number: usize,
        new: &[&Value],
        holder: &Holder<'_>,
    ) -> Result<(), Fault> {
        let before = number.checked_sub(1).and_then(|n| items.get(n));
        if node.is_flow() {
            let blanks = self.blanks(node);
            let texts: Vec<_> = new.iter().map(|value| self.manner.bracketed(value, blanks)).collect();
            let between = self.comma(node);
            match (before, items.get(number)) {
                (Some(before), _) => {
                    let text = prefixed(&texts, &between);
                    self.put(before.range.end, before.range.end, text);
                }
                (None, Some(next)) => {
                    let text = texts.join(&between) + &between;
                    self.put(next.range.start, next.range.start, text);
                }
                (None, None) => self.put(node.range.start + 1, node.range.start + 1, texts.join(&between)),
            }
            return Ok(());
        }
        let column = node.column;
        let texts: Vec<_> = new.iter().map(|v| format!("-{}", self.manner.after_dash(v, column))).collect();
        let line = self.manner.line(column);
        let behind = match (before, holder) {
            (Some(before), _) => Some(before.range.end),
            (None, Holder::Entry { colon, .. }) => Some(*colon),
            (None, _) => None,
        };
        if let Some(behind) = behind {
            let at = line_end(self.text, behind);
            self.put(at, at, prefixed(&texts, &line));
        } else {
            let at = self.dash_of(node, items, 0)?;
            self.put(at, at, texts.join(&line) + &line);
        }
        Ok(())
    }

    /// What other places stand for can not go.
    fn may_go(&self, node: &Node) -> Result<(), Fault> {
        if self.referenced.contains(&node.anchor) {
            return self.fault(node.range.start, "this would have to go, and aliases elsewhere stand for it");
        }
        match &node.kind {
            Kind::List { items, .. } => items.iter().try_for_each(|item| self.may_go(item)),
            Kind::Map { entries, .. } => entries.iter().try_for_each(|entry| self.may_go(&entry.value)),
            Kind::Scalar { .. } | Kind::Alias(_) => Ok(()),
        }
    }

    /// Where each item begins, with its dash, and ends.
    fn places(&self, node: &Node, items: &[Node]) -> Result<Vec<(usize, usize)>, Fault> {
        let start = |n: usize, item: &Node| {
            if node.is_flow() { Ok(item.range.start) } else { self.dash_of(node, items, n) }
        };
        items.iter().enumerate().map(|(n, item)| Ok((start(n, item)?, item.range.end))).collect()
    }

    /// Cuts one of several things out, with its line or its comma. `kept`: whether something before it stays.
    fn cut(
        &mut self,
        node: &Node,
        places: &[(usize, usize)],
        number: usize,
        kept: bool,
    ) -> Result<(), Fault> {
        let Some(&(start, end)) = places.get(number) else { return Ok(()) };
        let own_line = |at: usize| !node.is_flow() && blanks_before(self.text, at).is_some();
        let first_is = places.first().is_some_and(|&(first, _)| own_line(first));
        let before = number.checked_sub(1).and_then(|n| places.get(n));
        match (before, places.get(number + 1)) {
            // A line of its own goes with the break before it, and with the comment behind it.
            _ if own_line(start) && (kept || first_is) => {
                self.put(break_before(self.text, start), line_end(self.text, end), "");
            }
            (Some(&(_, before)), _) if node.is_flow() && kept => self.put(before, end, ""),
            (_, Some(&(next, _))) => self.put(start, next, ""),
            _ => return self.fault(start, "this would have to go, and can not be cut out of its line"),
        }
        Ok(())
    }
}

/// Each of the texts with the same thing before it.
fn prefixed(texts: &[String], before: &str) -> String {
    texts.iter().fold(String::new(), |all, text| all + before + text)
}

/// The column of a mapping's keys.
fn keys_of(node: &Node) -> usize {
    match &node.kind {
        Kind::Map { entries, .. } => entries.first().map_or(node.column, |first| first.key_column),
        _ => node.column,
    }
}

/// Where the line before the one of this byte ends.
fn break_before(text: &str, byte: usize) -> usize {
    let before = text.get(..line_start(text, byte)).unwrap_or("");
    let before = before.strip_suffix('\n').unwrap_or(before);
    before.strip_suffix('\r').unwrap_or(before).len()
}

/// Which items are the same on both sides, in order: the longest common sequence. Nothing, where there are too many.
fn pairs(old: &[Value], new: &[Value]) -> Option<Vec<(usize, usize)>> {
    let same = |a: &Value, b: &Value| match (a.get("name"), b.get("name")) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    let head = old.iter().zip(new).take_while(|(a, b)| same(a, b)).count();
    let (old_rest, new_rest) = (old.get(head..)?, new.get(head..)?);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| same(a, b)).count();
    let (old_rest, new_rest) =
        (old_rest.get(..old_rest.len() - tail)?, new_rest.get(..new_rest.len() - tail)?);
    if old_rest.len().checked_mul(new_rest.len())? > MAX_PAIRS {
        return None;
    }
    let mut found: Vec<_> = (0..head).map(|n| (n, n)).collect();
    found.extend(common(old_rest, new_rest, same).into_iter().map(|(i, j)| (i + head, j + head)));
    let (old_tail, new_tail) = (old.len() - tail, new.len() - tail);
    found.extend((0..tail).map(|n| (old_tail + n, new_tail + n)));
    Some(found)
}

fn common(old: &[Value], new: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Vec<(usize, usize)> {
    // The length of the longest common sequence of what follows, for each pair of places.
    let width = new.len() + 1;
    let mut best = vec![0_usize; (old.len() + 1) * width];
    let at = |best: &[usize], i: usize, j: usize| best.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let length = if same(a, b) {
                at(&best, i + 1, j + 1) + 1
            } else {
                at(&best, i + 1, j).max(at(&best, i, j + 1))
            };
            if let Some(slot) = best.get_mut(i * width + j) {
                *slot = length;
            }
        }
    }
    let (mut i, mut j, mut found) = (0, 0, vec![]);
    while let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
        if same(a, b) {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if at(&best, i + 1, j) >= at(&best, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}
