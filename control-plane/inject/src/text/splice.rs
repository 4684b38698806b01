//! Changes of a text, carried out and taken back.
//!
//! What takes changes back travels inside the changed text, as the value of one of the things added. So the text that is
//! added there has a length that is known only when everything is written: it is left out of the record, and found again
//! as what remains.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What stands in a change for the record of all changes.
pub(crate) const PLACEHOLDER: &str = "outrigger-undo-record";

/// Text put in place of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    /// The first byte.
    pub(crate) at: usize,
    /// How many bytes go.
    pub(crate) gone: usize,
    /// What comes.
    pub(crate) text: String,
}

/// What takes the changes of a text back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    /// How many bytes there were.
    length: usize,
    /// The checksum of them (FNV-1a), in hexadecimal digits. It guards against accidents, not against anybody.
    sum: String,
    /// For each change the byte where it was, what was there, and how long what came is; nothing for the one that holds
    /// this record.
    edits: Vec<(usize, String, Option<usize>)>,
}

/// Brings changes into the order of the text; those at the same place stay in theirs.
pub(crate) fn in_order(mut splices: Vec<Splice>) -> Vec<Splice> {
    splices.sort_by_key(|splice| splice.at);
    let mut ordered = Vec::<Splice>::new();
    for splice in splices {
        match ordered.last_mut() {
            Some(last) if last.at + last.gone == splice.at => {
                last.gone += splice.gone;
                last.text.push_str(&splice.text);
            }
            _ => ordered.push(splice),
        }
    }
    ordered
}

/// Carries out changes that are in order; nothing, if they lie over each other or outside the text.
pub(crate) fn apply(text: &str, splices: &[Splice]) -> Option<String> {
    let (mut done, mut at) = (String::with_capacity(text.len()), 0);
    for splice in splices {
        done.push_str(text.get(at..splice.at)?);
        done.push_str(&splice.text);
        at = splice.at.checked_add(splice.gone)?;
    }
    done.push_str(text.get(at..)?);
    Some(done)
}

/// What takes these changes of `text` back, all of which are between the bytes `start` and `end`.
pub(crate) fn undo_of(text: &str, start: usize, end: usize, splices: &[Splice]) -> Option<Undo> {
    let original = text.get(start..end)?;
    let edits = splices.iter().map(|splice| {
        let was = text.get(splice.at..splice.at.checked_add(splice.gone)?)?.to_owned();
        let length = (!splice.text.contains(PLACEHOLDER)).then_some(splice.text.len());
        Some((splice.at.checked_sub(start)?, was, length))
    });
    Some(Undo { length: original.len(), sum: sum(original), edits: edits.collect::<Option<_>>()? })
}

/// What takes these changes back, as the text that stands in place of the placeholder from now on.
pub(crate) fn record(text: &str, start: usize, end: usize, splices: &mut [Splice]) -> String {
    let undo = undo_of(text, start, end, splices);
    let record = undo.map(|undo| ascii(&serde_json::json!(undo).to_string())).unwrap_or_default();
    let in_brackets = serde_json::Value::from(&*record).to_string();
    let in_block = format!("'{}'", record.replace('\'', "''"));
    for splice in splices {
        splice.text = splice.text.replace(&format!("\"{PLACEHOLDER}\""), &in_brackets);
        splice.text = splice.text.replace(PLACEHOLDER, &in_block);
    }
    record
}

/// JSON with everything beyond ASCII escaped, so that no reader of YAML can take it for a break.
fn ascii(json: &str) -> String {
    let (mut escaped, mut units) = (String::with_capacity(json.len()), [0; 2]);
    for letter in json.chars() {
        if letter.is_ascii() {
            escaped.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut units) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

impl Undo {
    /// The text as it was; nothing, if this is not what became of it.
    pub(crate) fn restore(&self, changed: &str) -> Option<String> {
        let (mut gone, mut known) = (0_usize, 0_usize);
        for (_, was, came) in &self.edits {
            gone = gone.checked_add(was.len())?;
            known = known.checked_add(came.unwrap_or(0))?;
        }
        let kept = self.length.checked_sub(gone)?;
        let rest = changed.len().checked_sub(known.checked_add(kept)?)?;

        let (mut original, mut at, mut from) = (String::new(), 0_usize, 0_usize);
        for (place, was, came) in &self.edits {
            let until = from.checked_add(place.checked_sub(at)?)?;
            original.push_str(changed.get(from..until)?);
            original.push_str(was);
            at = place.checked_add(was.len())?;
            from = until.checked_add(came.unwrap_or(rest))?;
        }
        original.push_str(changed.get(from..)?);
        (original.len() == self.length && sum(&original) == self.sum).then_some(original)
    }
}

/// FNV-1a, 64 bits.
fn sum(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
