//! The text in which both programs tell what they count.
//!
//! Everything is written once, in the text form of Prometheus (0.0.4); the other forms are made from that text, so that they
//! can not say anything else. An exemplar stands behind its sample as OpenMetrics has it, and is left out of 0.0.4.
//! Deliberately elsewhere: what is counted, and who may read it.

mod accept;
mod forms;
mod parse;
mod process;

pub use accept::ExpositionForm;
pub use forms::{exposition_as, merged_exposition};
pub use parse::{Family, MetricKind, Sample, parse_exposition};
pub use process::{ProcessFigures, write_process};

/// Writes the head of a family: what it is, in words and in kind.
pub fn write_family(out: &mut String, name: &str, kind: MetricKind, help: &str) {
    for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind.as_str(), "\n"] {
        out.push_str(part);
    }
}

/// `text` as the value of a label, with what would end it escaped.
pub fn label_value(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        text.into()
    }
}
