//! What a traced request becomes: a span of its own, and one for each of its attempts.
//!
//! Names of attributes are those of OpenTelemetry's semantic conventions where they have one, else `outrigger.…`; they are a
//! contract: docs/observability.md. Nothing is told that is not in the [`Record`].

use std::borrow::Cow;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use outrigger_mesh::{Reason, Version};

use super::Place;
use crate::telemetry::observe::{Attempt, By, Caller, Direction, Record};

/// How many spans a traced request becomes.
pub fn count(record: &Record) -> u64 {
    1 + record.tried.len() as u64
}

/// Its spans, its own first. None of one that is not traced.
pub fn of(record: &Record, scope: &InstrumentationScope) -> Vec<SpanData> {
    let Some(place) = &record.place else { return Vec::new() };
    let mut spans = vec![own(record, place, scope)];
    let ends = |at: usize| record.tried.get(at + 1).and(record.tried[at].head).unwrap_or(record.took);
    spans.extend(
        record.tried.iter().enumerate().map(|(at, tried)| attempt(record, place, tried, ends(at), scope)),
    );
    spans
}

fn own(record: &Record, place: &Place, scope: &InstrumentationScope) -> SpanData {
    let kind = match record.direction {
        Direction::Outbound => SpanKind::Client,
        Direction::Inbound | Direction::Gateway => SpanKind::Server,
    };
    let parent = (place.own.span, place.parent, true);
    let mut span = span(record, place, parent, kind, (Duration::ZERO, record.took), scope);
    let mut all = Attributes(asked(record));
    all.text("outrigger.direction", Some(record.direction.as_str()));
    all.text(
        "outrigger.source",
        match &record.caller {
            Caller::Unknown => None,
            Caller::Nobody => Some(Cow::Borrowed("unauthenticated")),
            Caller::Proven(id) => Some(id.to_string().into()),
        },
    );
    all.text("outrigger.service", record.service.as_ref().map(ToString::to_string));
    all.text("outrigger.version", record.version.as_ref().map(Version::as_str).map(str::to_owned));
    all.text("outrigger.route", record.route.as_ref().map(ToString::to_string));
    if record.attempts > 0 {
        all.number("outrigger.attempts", record.attempts.into());
    }
    if let Some(head) = record.head {
        all.float("outrigger.head_ms", head.as_micros() as f64 / 1_000.0);
    }
    all.text("outrigger.hop", record.hop);
    all.text("outrigger.ended", record.ending());
    decided(&mut all, record);
    if let Some(status) = record.grpc_status {
        all.number("rpc.grpc.status_code", status.into());
    }
    span.status = answered(&mut all, kind_fails_at(&span.span_kind), record.status, record.reason);
    if let (Status::Unset, Some(ending)) = (&span.status, record.ending()) {
        span.status = Status::error(ending);
    }
    span.attributes = all.0;
    span
}

/// What the access policies said.
fn decided(all: &mut Attributes, record: &Record) {
    let Some((allowed, by)) = &record.decision else { return };
    all.text("outrigger.decision", Some(if *allowed { "allowed" } else { "denied" }));
    match by {
        By::Rule(rule) => {
            all.text("outrigger.policy", Some(rule.policy.as_str().to_owned()));
            all.text("outrigger.rule", Some(rule.name.to_string()));
        }
        By::NoneAllows => all.text("outrigger.policy", Some("none")),
        By::Default => all.text("outrigger.policy", Some("default")),
    }
}

fn attempt(
    record: &Record,
    place: &Place,
    tried: &Attempt,
    ends: Duration,
    scope: &InstrumentationScope,
) -> SpanData {
    let parent = (tried.span, Some(place.own.span), false);
    let mut span = span(record, place, parent, SpanKind::Client, (tried.began, ends), scope);
    let mut all = Attributes(asked(record));
    all.number("outrigger.attempt", tried.number.into());
    if tried.number > 1 {
        all.number("http.request.resend_count", i64::from(tried.number) - 1);
    }
    all.text("outrigger.service", Some(tried.service.to_string()));
    all.text("outrigger.version", tried.version.as_ref().map(Version::as_str).map(str::to_owned));
    all.text("outrigger.endpoint", Some(tried.endpoint.as_str().to_owned()));
    all.text("outrigger.destination", tried.peer.as_ref().map(ToString::to_string));
    if let Some(address) = tried.address {
        all.text("network.peer.address", Some(address.ip().to_string()));
        all.number("network.peer.port", address.port().into());
    }
    all.text("outrigger.retried_for", tried.again);
    span.status = answered(&mut all, 400, tried.status, tried.reason);
    if tried.status.is_none() && span.status == Status::Unset {
        span.status = Status::error("cut");
    }
    span.attributes = all.0;
    span
}

/// A span of `record`'s trace: its id, its parent's with whether that was elsewhere, its kind, and from when to when it
/// was, counted from when the request came.
fn span(
    record: &Record,
    place: &Place,
    (id, parent, remote): (u64, Option<u64>, bool),
    kind: SpanKind,
    (from, to): (Duration, Duration),
    scope: &InstrumentationScope,
) -> SpanData {
    let id_of = |span: u64| SpanId::from_bytes(span.to_be_bytes());
    let trace = TraceId::from_bytes(place.own.trace.to_be_bytes());
    SpanData {
        span_context: SpanContext::new(trace, id_of(id), TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent.map_or(SpanId::INVALID, id_of),
        parent_span_is_remote: remote && parent.is_some(),
        span_kind: kind,
        name: name(record).into(),
        start_time: record.at + from,
        end_time: record.at + to.max(from),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

/// The method and the service: few of each, whatever is asked for.
fn name(record: &Record) -> String {
    let method = if known(record.method.as_deref()) { record.method.as_deref() } else { None };
    let method = method.unwrap_or("HTTP");
    record.service.as_ref().map_or_else(|| method.to_owned(), |service| format!("{method} {service}"))
}

/// What was asked for.
fn asked(record: &Record) -> Vec<KeyValue> {
    let mut all = Attributes(Vec::with_capacity(16));
    if known(record.method.as_deref()) {
        all.text("http.request.method", record.method.as_deref().map(str::to_owned));
    } else if let Some(method) = &record.method {
        all.text("http.request.method", Some("_OTHER"));
        all.text("http.request.method_original", Some(method.to_string()));
    }
    all.text("url.path", record.path.as_deref().map(str::to_owned));
    let (host, port) = record.host.as_deref().map_or((None, None), |host| match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => {
            (Some(name), port.parse().ok())
        }
        _ => (Some(host), None),
    });
    all.text("server.address", host.map(str::to_owned));
    if let Some(port) = port {
        all.number("server.port", port);
    }
    all.0
}

/// Tells how it was answered, and whether that is an error: it is from `fails_at` on.
fn answered(all: &mut Attributes, fails_at: u16, status: Option<u16>, reason: Option<Reason>) -> Status {
    if let Some(status) = status {
        all.number("http.response.status_code", status.into());
    }
    all.text("outrigger.reason", reason.map(Reason::as_str));
    let failed = status.is_some_and(|status| status >= fails_at) || (status.is_none() && reason.is_some());
    if !failed {
        return Status::Unset;
    }
    let kind = reason.map(|reason| reason.as_str().to_owned()).or(status.map(|status| status.to_string()));
    all.text("error.type", kind);
    Status::Error { description: reason.map_or(Cow::Borrowed(""), |reason| reason.as_str().into()) }
}

/// From which status on an answer is an error: what callers did wrong is none of a server.
fn kind_fails_at(kind: &SpanKind) -> u16 {
    if *kind == SpanKind::Server { 500 } else { 400 }
}

fn known(method: Option<&str>) -> bool {
    method.is_some_and(|method| METHODS.contains(&method))
}

/// Attributes as they come together.
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &'static str, value: Option<impl Into<Cow<'static, str>>>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(key, Value::from(value.into())));
        }
    }

    fn number(&mut self, key: &'static str, value: i64) {
        self.0.push(KeyValue::new(key, value));
    }

    fn float(&mut self, key: &'static str, value: f64) {
        self.0.push(KeyValue::new(key, value));
    }
}

/// The methods that attributes and names tell.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys(span: &SpanData) -> Vec<&str> {
        span.attributes.iter().map(|attribute| attribute.key.as_str()).collect()
    }

    #[test]
    fn every_attribute_is_told_once_and_in_the_documentation() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut record = Record::filled_for_test();
        (record.tried[0].number, record.tried[0].again) = (2, Some("answer"));
        let spans = of(&record, &InstrumentationScope::builder("test").build());
        assert_eq!(spans.len() as u64, count(&record));
        for span in &spans {
            let told = keys(span);
            assert_eq!(told.len(), told.iter().collect::<BTreeSet<_>>().len(), "{told:?}");
            for key in told {
                assert!(page.contains(&format!("`{key}`")), "{key}");
            }
        }
        assert_eq!(spans[1].parent_span_id, spans[0].span_context.span_id());
        assert!(keys(&spans[0]).contains(&"server.port") && keys(&spans[1]).contains(&"network.peer.port"));
    }

    #[test]
    fn what_is_asked_makes_no_new_names() {
        let odd = Record { method: Some("BREW".into()), ..Record::filled_for_test() };
        let spans = of(&odd, &InstrumentationScope::builder("test").build());
        assert_eq!(spans[0].name, "HTTP shop/cart");
        assert!(keys(&spans[0]).contains(&"http.request.method_original"));
    }

    #[test]
    fn what_callers_did_wrong_is_an_error_of_theirs() {
        let not_found = |direction| {
            let record = Record { direction, status: Some(404), reason: None, ..Record::filled_for_test() };
            let record =
                Record { body: crate::telemetry::observe::BodyEnd::Whole, tried: Vec::new(), ..record };
            of(&record, &InstrumentationScope::builder("test").build()).remove(0).status
        };
        assert_eq!(not_found(Direction::Inbound), Status::Unset);
        assert!(matches!(not_found(Direction::Outbound), Status::Error { .. }));
    }
}
