//! Every workload of a stream made a member of the mesh, as far as it may be.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::report::{Outcome, Refusal, Rewritten, Told, Warned};
use super::uninject::{object_range, restored};
use super::workload::{Stream, Workload};
use super::{Failed, UNDO, patch};
use crate::text::{self, Document, Fault, Kind, Node, PLACEHOLDER, Splice};
use crate::{Decision, INJECT_LABEL, NamespaceFacts, ServiceFacts, Settings, decide};

/// What is known beside the stream.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of objects that name none.
    pub namespace: String,
    /// Labels that every namespace has; they win over those of a Namespace object in the stream. A namespace of which
    /// nobody says `outrigger.dev/inject` counts as `enabled`: that this is called is the asking.
    pub namespace_labels: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespace: "default".into(), namespace_labels: BTreeMap::new() }
    }
}

/// Makes every workload of `text` a member of the mesh. What was injected by an earlier version, or with other settings, is
/// taken back first.
pub fn inject(text: &str, settings: &Settings, options: &Options) -> Result<Rewritten, Failed> {
    let (base, before) = taken_back(text)?;
    let documents = text::documents(&base)?;
    let stream = Stream::of(&documents);
    let namespaces = Namespaces::of(&stream, options);

    let mut run = Run { text: &base, splices: vec![], expected: HashMap::new(), told: vec![] };
    for (number, workload) in stream.workloads.iter().enumerate() {
        let namespace = workload.namespace.clone().unwrap_or_else(|| options.namespace.clone());
        let facts = namespaces.facts(&namespace);
        let was = before.get(&number).map(String::as_str);
        let (outcome, warnings) = run.workload(workload, &facts, settings, was)?;
        let line = Fault::at(&base, workload.node.range.start, "").line;
        let (kind, name) = (workload.kind.clone(), workload.name.clone());
        run.told.push(Told { line, kind, namespace, name, outcome, warnings });
    }
    let written = written(&base, run.splices, &documents, &run.expected, &stream)?;
    Ok(Rewritten { text: written, told: run.told, others: stream.others })
}

/// The stream as it was before an earlier injection, and the text of each workload that this changed.
fn taken_back(text: &str) -> Result<(String, HashMap<usize, String>), Failed> {
    let documents = text::documents(text)?;
    let stream = Stream::of(&documents);
    let (mut splices, mut before) = (vec![], HashMap::new());
    for (number, workload) in stream.workloads.iter().enumerate() {
        let Some(original) = restored(text, workload) else { continue };
        let (start, end) = object_range(text, workload.node);
        before.insert(number, text.get(start..end).unwrap_or("").to_owned());
        splices.push(Splice { at: start, gone: end - start, text: original });
    }
    Ok((text::apply(text, &splices).unwrap_or_else(|| text.to_owned()), before))
}

struct Run<'a> {
    text: &'a str,
    splices: Vec<Splice>,
    /// What each changed object is to say, by the document and the byte where it begins.
    expected: HashMap<(usize, usize), Value>,
    told: Vec<Told>,
}

impl Run<'_> {
    fn workload(
        &mut self,
        workload: &Workload<'_>,
        namespace: &NamespaceFacts,
        settings: &Settings,
        was: Option<&str>,
    ) -> Result<(Outcome, Vec<Warned>), Failed> {
        let object = workload.node.value();
        let Some(pod) = object.pointer(workload.pod) else {
            let problem = Refusal {
                pointer: workload.pod.into(),
                code: "no_template".into(),
                message: format!("a {} has the template of its pods here", workload.kind),
                hint: "write metadata and spec of the pod".into(),
            };
            return Ok((Outcome::Refused { problems: vec![problem] }, vec![]));
        };
        let injection = match decide(pod, namespace, settings) {
            Decision::Inject(injection) => injection,
            Decision::Skip(skip) => {
                let reason = skip.reason.code().to_owned();
                return Ok((Outcome::Skipped { reason, message: skip.message }, vec![]));
            }
            Decision::Refuse(problems) => {
                let problems = problems.iter().map(|p| Refusal::of(p, workload.pod)).collect();
                return Ok((Outcome::Refused { problems }, vec![]));
            }
        };
        let warnings = injection.warnings().iter().map(Warned::of).collect();
        if injection.patch().is_empty() {
            return Ok((Outcome::Unchanged, warnings));
        }
        let mut new = object.clone();
        let patched = match new.pointer_mut(workload.pod) {
            Some(pod) => patch::apply(pod, injection.patch()),
            None => Ok(()),
        };
        if let Err(message) = patched {
            return Err(Fault::at(self.text, workload.node.range.start, message).into());
        }
        let edited = self.edited(workload, new)?;
        let same = was.is_some_and(|was| was == edited);
        Ok((if same { Outcome::Unchanged } else { Outcome::Injected }, warnings))
    }

    /// Finds the changes after which the object says `new`; its text then.
    fn edited(&mut self, workload: &Workload<'_>, mut new: Value) -> Result<String, Failed> {
        let (start, end) = object_range(self.text, workload.node);
        let annotations = patch::member(&mut new, "metadata").map(|meta| {
            meta.entry("annotations").or_insert(Value::Null);
        });
        let annotations = annotations.and_then(|()| patch::member(new.get_mut("metadata")?, "annotations"));
        let Some(annotations) = annotations else {
            let message = "metadata and its annotations must be mappings";
            return Err(Fault::at(self.text, start, message).into());
        };
        // What was injected and edited since can only be taken back by its structure.
        let stale = annotations.shift_remove(UNDO).is_some();
        if !stale {
            annotations.insert(UNDO.into(), PLACEHOLDER.into());
        }
        let mut splices = text::edit(self.text, workload.document, workload.node, &new)?;
        if !stale {
            let record = text::record(self.text, start, end, &mut splices);
            if let Some(undo) = new.pointer_mut(&format!("/metadata/annotations/{}", UNDO.replace('/', "~1")))
            {
                *undo = record.into();
            }
        }
        let inside: Vec<_> =
            splices.iter().map(|s| Splice { at: s.at.saturating_sub(start), ..s.clone() }).collect();
        let edited = text::apply(self.text.get(start..end).unwrap_or(""), &inside);
        self.expected.insert((workload.number, workload.node.range.start), new);
        self.splices.append(&mut splices);
        edited.ok_or_else(|| {
            Fault::at(
                self.text,
                start,
                "what would have to change lies over each other: write it out in lines",
            )
            .into()
        })
    }
}

/// Carries the changes out, and proves that the text says what it should and nothing else.
pub(super) fn written(
    text: &str,
    mut splices: Vec<Splice>,
    documents: &[Document],
    expected: &HashMap<(usize, usize), Value>,
    stream: &Stream<'_>,
) -> Result<String, Failed> {
    splices.sort_by_key(|splice| splice.at);
    let unequal = |number: usize| {
        let workload = stream.workloads.iter().find(|w| w.number == number);
        let line = workload.map_or(1, |w| Fault::at(text, w.node.range.start, "").line);
        let object = workload.map_or_else(|| "text".to_owned(), Workload::title);
        Failed::Unequal { line, object, unended: !text.ends_with('\n') }
    };
    let done = text::apply(text, &splices).ok_or_else(|| unequal(0))?;
    let read = text::documents(&done).map_err(|_| unequal(0))?;
    for (number, document) in documents.iter().enumerate() {
        let wanted = document.root.as_ref().map(|root| wanted(root, number, expected));
        let is = read.get(number).map(|document| document.root.as_ref().map(Node::value));
        if is != Some(wanted) {
            return Err(unequal(number));
        }
    }
    if read.len() == documents.len() { Ok(done) } else { Err(unequal(0)) }
}

/// What a document is to say.
fn wanted(node: &Node, number: usize, expected: &HashMap<(usize, usize), Value>) -> Value {
    match &node.kind {
        Kind::Map { .. } if expected.contains_key(&(number, node.range.start)) => {
            expected.get(&(number, node.range.start)).cloned().unwrap_or_default()
        }
        Kind::Map { entries, .. } if node.get("items").is_some() => entries
            .iter()
            .map(|entry| {
                let inner = matches!(entry.value.kind, Kind::List { .. });
                let value = if inner { wanted(&entry.value, number, expected) } else { entry.value.value() };
                (entry.key.clone(), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Kind::List { items, .. } => items.iter().map(|item| wanted(item, number, expected)).collect(),
        _ => node.value(),
    }
}

/// What is known of namespaces.
pub(super) struct Namespaces<'a> {
    known: HashMap<String, NamespaceFacts>,
    options: &'a Options,
}

impl<'a> Namespaces<'a> {
    pub(super) fn of(stream: &Stream<'_>, options: &'a Options) -> Self {
        let facts = stream.namespaces.iter().filter_map(NamespaceFacts::from_object);
        let mut known: HashMap<_, _> = facts.map(|facts| (facts.name.clone(), facts)).collect();
        for service in &stream.services {
            let Some(facts) = ServiceFacts::from_object(service) else { continue };
            let namespace = service.pointer("/metadata/namespace").and_then(Value::as_str);
            let name = namespace.unwrap_or(&options.namespace).to_owned();
            let of = known.entry(name.clone());
            of.or_insert_with(|| NamespaceFacts { name, ..NamespaceFacts::default() }).services.push(facts);
        }
        Self { known, options }
    }

    /// What is known of it, and no more.
    pub(super) fn known(&self, name: &str) -> NamespaceFacts {
        let unknown = || NamespaceFacts { name: name.to_owned(), ..NamespaceFacts::default() };
        self.known.get(name).cloned().unwrap_or_else(unknown)
    }

    fn facts(&self, name: &str) -> NamespaceFacts {
        let mut facts = self.known(name);
        facts.labels.extend(self.options.namespace_labels.clone());
        facts.labels.entry(INJECT_LABEL.into()).or_insert_with(|| "enabled".into());
        facts
    }
}
