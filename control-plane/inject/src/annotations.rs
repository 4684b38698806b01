//! What annotations say, those of the namespace first, those of the pod over them; and every mistake in them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::{escape, texts};
use crate::values::{self, Wrong};
use crate::{ANNOTATION_PREFIX, NamespaceFacts, Problem};

/// An annotation, and where it stands.
struct Written<'a> {
    value: &'a str,
    pointer: String,
}

/// The annotations of ours that hold for a pod.
pub(crate) struct Annotations<'a> {
    found: BTreeMap<&'a str, Written<'a>>,
    problems: Vec<Problem>,
}

impl<'a> Annotations<'a> {
    pub(crate) fn of(metadata: &'a Value, namespace: &'a NamespaceFacts) -> Self {
        let mut found = BTreeMap::new();
        let inherited =
            namespace.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str(), true));
        let own = texts(metadata, "annotations").map(|(name, value)| (name, value, false));
        for (name, value, of_namespace) in inherited.chain(own) {
            let Some(short) = name.strip_prefix(ANNOTATION_PREFIX) else { continue };
            let at = format!("/metadata/annotations/{}", escape(name));
            let pointer = if of_namespace { format!("namespace {}: {at}", namespace.name) } else { at };
            found.insert(short, Written { value, pointer });
        }
        Self { found, problems: Vec::new() }
    }

    /// The value of an annotation, by its name without the prefix; `None` where there is none, or a bad one.
    pub(crate) fn read<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let Written { value, pointer } = self.found.get(name)?;
        match values::plain(value).and_then(|value| parse(value.trim())) {
            Ok(good) => Some(good),
            Err(Wrong { message, hint }) => {
                let (pointer, hint) = (pointer.clone(), hint.to_owned());
                self.problems.push(Problem { pointer, code: "invalid_annotation", message, hint });
                None
            }
        }
    }

    /// Something that is wrong with a good value, beside others.
    pub(crate) fn object(&mut self, name: &str, message: String, hint: &str) {
        let unwritten = || format!("{ANNOTATION_PREFIX}{name}");
        let pointer = self.found.get(name).map_or_else(unwritten, |written| written.pointer.clone());
        self.problems.push(Problem { pointer, code: "invalid_annotation", message, hint: hint.into() });
    }

    /// Names, without the prefix.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.found.keys().copied().collect()
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
