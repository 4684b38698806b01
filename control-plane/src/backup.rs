//! A backup: the image of a store as lines of text that say when they are not what was written.
//!
//! ```text
//! SUM {"outrigger":"backup","format":1,"from":"0.1.0","domain":"mesh.local","at":"…","keys":false,"counts":{…}}
//! SUM {"record":["config","services/shop/cart",{"created":1,"changed":7,"value":{…}}]}
//! SUM {"revision":{…}}
//! SUM {"line":[1,{…}]}
//! SUM {"end":{"lines":1234,"sha256":"…"}}
//! ```
//!
//! Each line begins with the first 64 bits of the SHA-256 of the rest, so that damage has a place; the last one has the
//! number of lines before it, and the hash of them all. What is cut off, added, put elsewhere or changed is refused, and so is
//! what a later version wrote.
//!
//! What is in it is decided here ([`of`]); how a store is read whole, and made of an image, is the stores' matter.

use std::fmt;

use outrigger_mesh::TrustDomain;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::audit::AuditEntry;
use crate::secret;
use crate::store::{AuditLine, Committed, Image, Record, Revision, Space};

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of the control plane that made it.
    pub from: String,
    /// The trust domain of its mesh.
    pub domain: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whether the keys of the mesh are in it.
    pub keys: bool,
}

/// Why something is no backup, and where that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The line, the first being 1.
    pub line: usize,
    what: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Damaged {}

/// What is backed up of a store: everything that people wrote, with its history; tokens, by their hash; how far rollouts
/// have come; the audit log. Not what registers itself again; and the keys of the mesh only when they are asked for.
pub fn of(mut image: Image, keys: bool) -> Image {
    image.records.retain(|(space, key, record)| match space {
        Space::Instances => record.value.pointer("/status/registeredBy").is_none(),
        Space::Certificates => keys,
        Space::Tokens => keys || !secret::is_key(key),
        Space::Config | Space::Rollouts | Space::Status => true,
    });
    image
}

/// The text of a backup.
pub fn write(image: &Image, domain: &TrustDomain, keys: bool, at: OffsetDateTime) -> Vec<u8> {
    let from = env!("CARGO_PKG_VERSION").to_owned();
    let about = About { from, domain: domain.to_string(), at, keys };
    let mut lines = Lines::default();
    lines.add(&Line::Begin(Begin {
        outrigger: KIND.into(),
        format: FORMAT,
        about,
        counts: Counts::of(&image.counts),
    }));
    for (space, key, record) in &image.records {
        lines.add(&Line::Record { record: (space.as_str().into(), key.clone(), record.clone()) });
    }
    for revision in &image.revisions {
        lines.add(&Line::Revision { revision: revision.clone() });
    }
    for AuditLine { line, entry } in &image.audit {
        lines.add(&Line::Audit { line: (*line, entry.clone()) });
    }
    let sha256 = hex(&Sha256::digest(&lines.text));
    lines.add(&Line::End { end: End { lines: lines.count, sha256 } });
    lines.text
}

/// All of a backup, or where it is damaged.
pub fn read(text: &[u8]) -> Result<(About, Image), Damaged> {
    let mut reading = Reading { text, at: 0, line: 0 };
    let Some(Line::Begin(Begin { outrigger, format, about, counts })) = reading.next()? else {
        return Err(reading.damaged("a backup does not begin so"));
    };
    if outrigger != KIND || format == 0 {
        return Err(reading.damaged("this is no backup"));
    }
    if format > FORMAT {
        let what = format!("a later version wrote it: its format is {format}, this version knows {FORMAT}");
        return Err(reading.damaged(&what));
    }
    let mut image = Image { counts: counts.committed(), ..Image::default() };
    loop {
        let (before, lines) = (reading.at, reading.line);
        match reading.next()? {
            Some(Line::Record { record: (space, key, record) }) => {
                let space = Space::ALL.into_iter().find(|known| known.as_str() == space);
                let space = space.ok_or_else(|| reading.damaged("it is of a space that is not known"))?;
                image.records.push((space, key, record));
            }
            Some(Line::Revision { revision }) => image.revisions.push(revision),
            Some(Line::Audit { line: (line, entry) }) => image.audit.push(AuditLine { line, entry }),
            Some(Line::End { end }) => {
                if end.lines != lines || end.sha256 != hex(&Sha256::digest(&text[..before])) {
                    return Err(reading.damaged("lines are missing, or not where they were"));
                }
                if reading.at != text.len() {
                    reading.line += 1;
                    return Err(reading.damaged("there is something behind the end"));
                }
                return Ok((about, image));
            }
            Some(Line::Begin(_)) => return Err(reading.damaged("it begins a second time")),
            None => {
                reading.line += 1;
                return Err(reading.damaged("the end is missing: it is cut off"));
            }
        }
    }
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Begin(Begin),
    Record { record: (String, String, Record) },
    Revision { revision: Revision },
    Audit { line: (u64, AuditEntry) },
    End { end: End },
}

#[derive(Serialize, Deserialize)]
struct Begin {
    outrigger: String,
    format: u64,
    #[serde(flatten)]
    about: About,
    counts: Counts,
}

#[derive(Serialize, Deserialize)]
struct End {
    lines: usize,
    sha256: String,
}

/// The count of each space.
#[derive(Serialize, Deserialize)]
struct Counts {
    config: u64,
    instances: u64,
    tokens: u64,
    certificates: u64,
    rollouts: u64,
    status: u64,
}

impl Counts {
    fn of(counts: &Committed) -> Self {
        Self {
            config: counts.revision,
            instances: counts.generation,
            tokens: counts.tokens,
            certificates: counts.certificates,
            rollouts: counts.rollouts,
            status: counts.status,
        }
    }

    fn committed(&self) -> Committed {
        Committed {
            revision: self.config,
            generation: self.instances,
            tokens: self.tokens,
            certificates: self.certificates,
            rollouts: self.rollouts,
            status: self.status,
        }
    }
}

#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    count: usize,
}

impl Lines {
    fn add(&mut self, line: &Line) {
        // Text, numbers and moments: there is nothing that JSON could not say.
        let json = serde_json::to_value(line).as_ref().map(Json::to_string).unwrap_or_default();
        self.text.extend_from_slice(sum(json.as_bytes()).as_bytes());
        self.text.push(b' ');
        self.text.extend_from_slice(json.as_bytes());
        self.text.push(b'\n');
        self.count += 1;
    }
}

struct Reading<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Reading<'_> {
    fn next(&mut self) -> Result<Option<Line>, Damaged> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let end = rest.iter().position(|b| *b == b'\n').ok_or_else(|| self.damaged("it is cut off"))?;
        let line = &rest[..end];
        let (written, json) = line.split_at_checked(SUM).ok_or_else(|| self.damaged(CHANGED))?;
        let json = json.strip_prefix(b" ").ok_or_else(|| self.damaged(CHANGED))?;
        if sum(json).as_bytes() != written {
            return Err(self.damaged(CHANGED));
        }
        self.at += end + 1;
        // What serde says may quote what is there.
        serde_json::from_slice(json)
            .map(Some)
            .map_err(|_| self.damaged("it says what this version can not read"))
    }

    fn damaged(&self, what: &str) -> Damaged {
        Damaged { line: self.line, what: what.into() }
    }
}

fn sum(json: &[u8]) -> String {
    hex(&Sha256::digest(json)[..SUM / 2])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

const KIND: &str = "backup";
const FORMAT: u64 = 1;
/// Digits before each line.
const SUM: usize = 16;
const CHANGED: &str = "it is not what was written";

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
