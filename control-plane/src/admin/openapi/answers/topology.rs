//! Who calls whom, as it is told.

use serde_json::{Value as Json, json};

use super::{count, list, moment, nullable, object, record, text, text_of};

pub(super) fn all() -> Json {
    let kinds = ["service", "gateway", "outside", "workload", "unauthenticated"];
    let node = with_figures(vec![
        ("namespace", text()),
        ("name", text()),
        ("kind", text_of(&kinds)),
        ("versions", list(text())),
    ]);
    record(&[&window()[..], &[("nodes", list(node)), ("edges", list(edge()))]].concat(), &replicas())
}

pub(super) fn of_service() -> Json {
    let of = [
        ("service", name()),
        ("kind", text_of(&["service", "gateway", "outside"])),
        ("step", count()),
        ("now", with_figures(vec![])),
        ("points", list(with_figures(vec![("at", moment())]))),
        ("versions", list(with_figures(vec![("version", text())]))),
        ("callers", list(edge())),
        ("callees", list(edge())),
        ("refusals", list(record(&[("reason", text()), ("count", count())], &[]))),
    ];
    record(&[&window()[..], &of].concat(), &replicas())
}

fn edge() -> Json {
    let from = record(&[("identity", text())], &[("namespace", text()), ("name", text())]);
    with_figures(vec![("from", from), ("to", name())])
}

fn name() -> Json {
    record(&[("namespace", text()), ("name", text())], &[])
}

fn window() -> [(&'static str, Json); 3] {
    [("window", text()), ("asOf", moment()), ("seconds", number())]
}

fn replicas() -> [(&'static str, Json); 1] {
    [("replicas", object())]
}

fn with_figures(mut of: Vec<(&'static str, Json)>) -> Json {
    of.extend([
        ("rps", number()),
        ("success", nullable(number())),
        ("p50Ms", nullable(number())),
        ("p99Ms", nullable(number())),
        ("refused", count()),
    ]);
    record(&of, &[])
}

fn number() -> Json {
    json!({ "type": "number" })
}
