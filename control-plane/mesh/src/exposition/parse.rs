//! The text of Prometheus, read again. It is for text of our own: what does not hold together is left out.

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A sum that only grows.
    Counter,
    /// A value of this moment.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Nothing that we write.
    Other,
}

impl MetricKind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Other => "untyped",
        }
    }

    fn of(word: &str) -> Self {
        [Self::Counter, Self::Gauge, Self::Histogram]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .unwrap_or(Self::Other)
    }
}

/// A metric with all its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family<'a> {
    /// Its name, with the `_total` of a counter.
    pub name: &'a str,
    /// What it is, in words.
    pub help: &'a str,
    /// What it is.
    pub kind: MetricKind,
    /// Its samples in the order in which they were written.
    pub samples: Vec<Sample<'a>>,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Its name: the family's, or that with the part of a histogram.
    pub name: &'a str,
    /// The labels as they are written, without braces.
    pub labels: &'a str,
    /// The value as it is written.
    pub value: &'a str,
    /// The exemplar as it is written, without the `# ` before it.
    pub exemplar: Option<&'a str>,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let named = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(named);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_at_checked(end_of_labels(rest)?)?,
            None => ("", rest),
        };
        let rest = rest.strip_prefix('}').unwrap_or(rest).trim_start();
        let (value, exemplar) = match rest.split_once(" # ") {
            Some((value, exemplar)) => (value, Some(exemplar)),
            None => (rest, None),
        };
        (!value.is_empty()).then_some(Self { name, labels, value, exemplar })
    }

    /// The labels by name, as they are: with what is escaped in them.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.labels;
        std::iter::from_fn(move || {
            let (name, after) = rest.split_once("=\"")?;
            let mut escaped = false;
            let end = after.find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            rest = after[end + 1..].trim_start_matches(',');
            Some((name, &after[..end]))
        })
    }
}

/// Where the labels end: at the first brace that is in no value.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.find(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '}' => return !quoted,
            _ => {}
        }
        false
    })
}

/// The families of `text`, each once, in the order in which they begin. What is written of one in two places is put
/// together.
pub fn parse_exposition(text: &str) -> Vec<Family<'_>> {
    let mut all: Vec<Family<'_>> = vec![];
    let mut places = std::collections::HashMap::new();
    let mut at = None;
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(what @ ("HELP" | "TYPE")), Some(name)) = (words.next(), words.next()) else { continue };
            let place = *places.entry(name).or_insert_with(|| {
                all.push(Family { name, help: "", kind: MetricKind::Other, samples: vec![] });
                all.len() - 1
            });
            let rest = words.next().unwrap_or_default();
            if what == "HELP" {
                all[place].help = rest;
            } else {
                all[place].kind = MetricKind::of(rest);
            }
            at = Some(place);
        } else if let (Some(sample), Some(place)) = (Sample::read(line), at)
            && is_of(sample.name, &all[place])
        {
            all[place].samples.push(sample);
        }
    }
    all
}

fn is_of(name: &str, family: &Family<'_>) -> bool {
    match name.strip_prefix(family.name) {
        Some("") => true,
        Some("_bucket" | "_sum" | "_count") => family.kind == MetricKind::Histogram,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = "# HELP a_total What a is.\n# TYPE a_total counter\n\
                    a_total{x=\"}\\\"{,\",y=\"\"} 1\na_total 2\n\
                    # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3 # {trace_id=\"ab\"} 0.5 1.0\nh_sum 4.5\n\
                    # TYPE a_total counter\na_total{x=\"z\"} 5\nstray 1\n";
        let families = parse_exposition(text);
        assert_eq!(families.iter().map(|f| f.name).collect::<Vec<_>>(), ["a_total", "h"]);
        let a = &families[0];
        assert_eq!((a.help, a.kind, a.samples.len()), ("What a is.", MetricKind::Counter, 3));
        assert_eq!(a.samples[0].pairs().collect::<Vec<_>>(), [("x", "}\\\"{,"), ("y", "")]);
        assert_eq!((a.samples[1].labels, a.samples[1].value), ("", "2"));
        let bucket = families[1].samples[0];
        assert_eq!((bucket.value, bucket.exemplar), ("3", Some("{trace_id=\"ab\"} 0.5 1.0")));
    }
}
