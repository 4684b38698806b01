//! Families of metrics as `ExportMetricsServiceRequest` of OTLP 1. A handful of fields, so the bytes are written here.
//!
//! A name that is a convention's in the form of Prometheus is written as the convention has it; a label that is empty is not
//! there.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_mesh::{Family, MetricKind, Sample};

/// Of whom and since when.
pub(super) struct Source {
    /// The service whose sidecar it is.
    pub(super) service: String,
    /// When counting began.
    pub(super) began: SystemTime,
}

/// Everything in `families`, as of `now`.
pub(super) fn request(source: &Source, families: &[Family<'_>], now: SystemTime) -> Vec<u8> {
    let times = Times { began: nanos(source.began), now: nanos(now) };
    let mut scope = Message::default();
    scope.message(1, |scope| scope.text(1, "outrigger-proxy").text(2, env!("CARGO_PKG_VERSION")));
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        scope.message(2, |metric| self::metric(metric, family, times));
    }
    let mut request = Message::default();
    request.message(1, |resource_metrics| {
        resource_metrics
            .message(1, |resource| attribute(resource, 1, "service.name", &source.service))
            .message(2, |metrics| metrics.extend(&scope))
    });
    request.0
}

#[derive(Clone, Copy)]
struct Times {
    began: u64,
    now: u64,
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn metric<'m>(out: &'m mut Message, family: &Family<'_>, times: Times) -> &'m mut Message {
    let (name, unit) = name_and_unit(family.name);
    out.text(1, &name).text(2, family.help).text(3, unit);
    match family.kind {
        MetricKind::Counter => {
            out.message(7, |sum| points(sum, family, times).number(2, CUMULATIVE).number(3, 1))
        }
        MetricKind::Gauge | MetricKind::Other => out.message(5, |gauge| points(gauge, family, times)),
        MetricKind::Histogram => out.message(9, |histogram| {
            for (labels, parts) in histograms(family) {
                histogram.message(1, |point| parts.write(point, labels, times));
            }
            histogram.number(2, CUMULATIVE)
        }),
    }
}

fn points<'m>(out: &'m mut Message, family: &Family<'_>, times: Times) -> &'m mut Message {
    for sample in &family.samples {
        let Ok(value) = sample.value.parse::<f64>() else { continue };
        out.message(1, |point| {
            point.fixed(2, times.began).fixed(3, times.now).fixed(4, value.to_bits());
            attributes(point, 7, sample.pairs())
        });
    }
    out
}

/// What belongs to one histogram.
#[derive(Default)]
struct Parts {
    /// Bounds with what is below them.
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

fn histograms<'a>(family: &Family<'a>) -> BTreeMap<&'a str, Parts> {
    let mut all: BTreeMap<&str, Parts> = BTreeMap::new();
    for sample in &family.samples {
        let (labels, bound) = without_bound(sample);
        let parts = all.entry(labels).or_default();
        match (sample.name.rsplit_once('_').map(|(_, part)| part), bound) {
            (Some("bucket"), Some(bound)) => {
                parts.buckets.push((bound, sample.value.parse().unwrap_or_default()));
            }
            (Some("sum"), _) => parts.sum = sample.value.parse().unwrap_or_default(),
            (Some("count"), _) => parts.count = sample.value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    all
}

/// The labels without `le`, which is written last, and what it says.
fn without_bound<'a>(sample: &Sample<'a>) -> (&'a str, Option<f64>) {
    let Some((labels, bound)) = sample.labels.rsplit_once("le=\"") else { return (sample.labels, None) };
    let bound = bound.trim_end_matches('"');
    let bound = if bound == "+Inf" { Some(f64::INFINITY) } else { bound.parse().ok() };
    (labels.trim_end_matches(','), bound)
}

impl Parts {
    fn write<'m>(&self, out: &'m mut Message, labels: &str, times: Times) -> &'m mut Message {
        out.fixed(2, times.began).fixed(3, times.now).fixed(4, self.count).fixed(5, self.sum.to_bits());
        let mut below = 0;
        let counts = self.buckets.iter().map(|(_, count)| {
            let here = count.saturating_sub(below);
            below = *count;
            here
        });
        out.packed(6, counts.collect());
        let bounds = self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        out.packed(7, bounds.map(f64::to_bits).collect());
        let sample = Sample { name: "", labels, value: "", exemplar: None };
        attributes(out, 9, sample.pairs())
    }
}

fn attributes<'m, 'a>(
    out: &'m mut Message,
    field: u32,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> &'m mut Message {
    for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
        let known = ATTRIBUTES.iter().find(|(label, _)| *label == name);
        let name = known.map_or_else(|| format!("outrigger.{name}"), |(_, name)| (*name).to_owned());
        let value = value.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\");
        attribute(out, field, &name, &value);
    }
    out
}

fn attribute<'m>(out: &'m mut Message, field: u32, name: &str, value: &str) -> &'m mut Message {
    out.message(field, |pair| pair.text(1, name).message(2, |any| any.text(1, value)))
}

/// The name and unit of a family.
fn name_and_unit(name: &str) -> (String, &'static str) {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    let (stem, unit) = match bare.rsplit_once('_') {
        Some((stem, "seconds")) => (stem, "s"),
        Some((stem, "bytes")) => (stem, "By"),
        _ => (bare, "1"),
    };
    let known = NAMES.iter().find(|(ours, _)| *ours == stem);
    let own = || {
        stem.strip_prefix("outrigger_").map_or_else(|| stem.to_owned(), |rest| format!("outrigger.{rest}"))
    };
    (known.map_or_else(own, |(_, name)| (*name).to_owned()), unit)
}

const NAMES: [(&str, &str); 5] = [
    ("http_client_request_duration", "http.client.request.duration"),
    ("http_server_request_duration", "http.server.request.duration"),
    ("process_cpu", "process.cpu.time"),
    ("process_resident_memory", "process.memory.usage"),
    ("process_virtual_memory", "process.memory.virtual"),
];
const ATTRIBUTES: [(&str, &str); 4] = [
    ("http_request_method", "http.request.method"),
    ("http_response_status_code", "http.response.status_code"),
    ("rpc_response_status_code", "rpc.response.status_code"),
    ("error_type", "error.type"),
];
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;

/// A message of protobuf while it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn tag(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn varint(&mut self, mut value: u64) {
        let low = |value: u64| u8::try_from(value & 0x7f).unwrap_or_default();
        while value >= 0x80 {
            self.0.push(low(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low(value));
    }

    fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.tag(field, 0);
        self.varint(value);
        self
    }

    fn fixed(&mut self, field: u32, value: u64) -> &mut Self {
        self.tag(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Self {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, field: u32, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    fn packed(&mut self, field: u32, values: Vec<u64>) -> &mut Self {
        let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
        self.bytes(field, &bytes)
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0)
    }

    fn extend(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use outrigger_mesh::parse_exposition;

    use super::*;

    #[test]
    fn names_are_those_of_the_conventions_where_there_are_any() {
        for (ours, name, unit) in [
            ("http_server_request_duration_seconds", "http.server.request.duration", "s"),
            ("process_cpu_seconds_total", "process.cpu.time", "s"),
            ("outrigger_opaque_bytes_total", "outrigger.opaque", "By"),
            ("outrigger_retries_total", "outrigger.retries", "1"),
        ] {
            assert_eq!(name_and_unit(ours), (name.to_owned(), unit));
        }
    }

    #[test]
    fn buckets_are_counts_of_their_own_and_their_labels_have_no_bound() {
        let text = "# TYPE h histogram\nh_bucket{a=\"b\",le=\"0.5\"} 1\nh_bucket{a=\"b\",le=\"+Inf\"} 3\n\
                    h_sum{a=\"b\"} 4.5\nh_count{a=\"b\"} 3\n";
        let families = parse_exposition(text);
        let all = histograms(&families[0]);
        let parts = &all["a=\"b\""];
        assert_eq!((all.len(), parts.count, parts.buckets.len()), (1, 3, 2));
        let mut out = Message::default();
        parts.write(&mut out, "a=\"b\"", Times { began: 1, now: 2 });
        let counts = [1_u64, 2].map(u64::to_le_bytes).concat();
        assert!(out.0.windows(16).any(|bytes| bytes == counts), "{:?}", out.0);
        assert!(out.0.windows(11).any(|bytes| bytes == b"outrigger.a"));
    }
}
