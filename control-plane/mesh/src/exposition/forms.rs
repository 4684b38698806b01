//! The text of Prometheus made into the form that was asked for.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::accept::ExpositionForm;
use super::parse::{Family, MetricKind, parse_exposition};

/// `text` in `form`. Families are put together, and exemplars are left where they are understood.
pub fn exposition_as(form: ExpositionForm, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for family in parse_exposition(text) {
        write(&mut out, form, &family);
    }
    if form == ExpositionForm::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// Our own `text` together with what an application wrote, in the form of Prometheus: what both have is the
/// application's, since it is asked for in its name.
pub fn merged_exposition(text: &str, others: &str) -> String {
    let taken: HashSet<&str> = parse_exposition(others).into_iter().map(|family| family.name).collect();
    let mut out = String::with_capacity(text.len() + others.len());
    for family in parse_exposition(text).iter().filter(|family| !taken.contains(family.name)) {
        write(&mut out, ExpositionForm::Prometheus, family);
    }
    out.push_str(others);
    out
}

fn write(out: &mut String, form: ExpositionForm, family: &Family<'_>) {
    let open = form == ExpositionForm::OpenMetrics;
    let (name, kind) = match (open, family.kind) {
        // There a counter is named without what its samples end in.
        (true, MetricKind::Counter) => {
            (family.name.strip_suffix("_total").unwrap_or(family.name), family.kind.as_str())
        }
        (true, MetricKind::Other) => (family.name, "unknown"),
        _ => (family.name, family.kind.as_str()),
    };
    let _never = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
    for sample in &family.samples {
        out.push_str(sample.name);
        if !sample.labels.is_empty() {
            for part in ["{", sample.labels, "}"] {
                out.push_str(part);
            }
        }
        out.push(' ');
        out.push_str(sample.value);
        if let (true, Some(exemplar)) = (open, sample.exemplar) {
            let _never = write!(out, " # {exemplar}");
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total 2\n\
                        # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1 # {trace_id=\"ab\"} 0.5 1.0\nh_count 1\n";

    #[test]
    fn exemplars_and_the_end_are_for_open_metrics_alone() {
        assert_eq!(
            exposition_as(ExpositionForm::OpenMetrics, TEXT),
            "# HELP a A.\n# TYPE a counter\na_total 2\n\
             # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1 # {trace_id=\"ab\"} 0.5 1.0\nh_count 1\n# EOF\n"
        );
        let plain = exposition_as(ExpositionForm::Prometheus, TEXT);
        assert_eq!(plain, TEXT.replace(" # {trace_id=\"ab\"} 0.5 1.0", ""));
    }

    #[test]
    fn what_an_application_says_too_is_said_once() {
        let others = "# TYPE a_total counter\na_total{of=\"it\"} 7\n";
        let merged = merged_exposition(TEXT, others);
        assert_eq!(merged.matches("a_total").count(), 2, "{merged}");
        assert!(merged.contains("h_count 1\n") && merged.ends_with(others) && !merged.contains("trace_id"));
    }
}
