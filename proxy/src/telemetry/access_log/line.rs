//! A record as a line: of JSON, or by a template. Names of fields are a contract: docs/access.md.
//!
//! Everything that is not plain ASCII is escaped, so that no request can end a line, begin another or move a cursor.

use outrigger_mesh::{EndpointUid, Reason, Version};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::template::{self, Format};
use crate::error::Who;
use crate::telemetry::observe::{By, Caller, Record, Rule};

impl Record {
    /// Appends its line, with the end of the line.
    pub(in crate::telemetry) fn write_to(&self, format: &Format, out: &mut Vec<u8>) {
        let text = match format {
            Format::Json => serde_json::to_string(&self.told()).unwrap_or_default(),
            Format::Template(parts) => {
                let mut text = String::new();
                template::write(parts, &self.fields(), &mut text);
                text
            }
        };
        for c in text.chars() {
            match c {
                ' '..='~' => out.push(c as u8),
                // Only within strings can there be any.
                other => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                    }
                }
            }
        }
        out.push(b'\n');
    }

    /// Its fields by their names.
    pub(in crate::telemetry) fn fields(&self) -> Value {
        serde_json::to_value(self.told()).unwrap_or_default()
    }

    fn told(&self) -> Told<'_> {
        let (decision, policy, rule) = match &self.decision {
            None => (None, None, None),
            Some((allowed, by)) => {
                let word = if *allowed { "allowed" } else { "denied" };
                let (policy, rule) = match by {
                    By::Rule(Rule { policy, name }) => (policy.as_str(), Some(&**name)),
                    By::NoneAllows => ("none", None),
                    By::Default => ("default", None),
                };
                (Some(word), Some(policy), rule)
            }
        };
        Told {
            time: time(self.at),
            direction: self.direction.as_str(),
            kind: if self.opaque { "tcp" } else { "http" },
            method: self.method.as_deref(),
            host: self.host.as_deref(),
            path: self.path.as_deref(),
            path_cut: self.path_cut,
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason.map(Reason::as_str),
            source: self.who.map(|who| match who {
                Who::Downstream => "caller",
                Who::Upstream => "called",
                Who::Us => "proxy",
            }),
            hop: self.hop,
            service: self.service.as_ref().map(ToString::to_string),
            backend: self.backend.as_ref().map(ToString::to_string),
            version: self.version.as_ref().map(Version::as_str),
            endpoint: self.endpoint.as_ref().map(EndpointUid::as_str),
            route: self.route.as_ref().map(ToString::to_string),
            attempts: (self.attempts > 0).then_some(self.attempts),
            duration_ms: self.took.as_micros() as f64 / 1_000.0,
            head_ms: self.head.map(|head| head.as_micros() as f64 / 1_000.0),
            bytes_sent: self.sent,
            bytes_received: self.received,
            ended: self.ending(),
            caller: match &self.caller {
                Caller::Unknown => None,
                Caller::Nobody => Some("unauthenticated".into()),
                Caller::Proven(id) => Some(id.to_string()),
            },
            called: self.called().map(ToString::to_string),
            trace_id: self.trace_id(),
            span_id: self.place.map(|place| format!("{:016x}", place.own.span)),
            decision,
            policy,
            rule,
            audited: self
                .audited
                .iter()
                .map(|rule| Audited { policy: rule.policy.as_str(), rule: &rule.name })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct Told<'a> {
    time: String,
    direction: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    path_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hop: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    called: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audited: Vec<Audited<'a>>,
}

#[derive(Serialize)]
struct Audited<'a> {
    policy: &'a str,
    rule: &'a str,
}

/// To the millisecond.
fn time(at: std::time::SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::observe::Direction;

    #[test]
    fn whatever_a_request_brings_stays_within_its_line() {
        let hostile = "/a\n{\"x\":1}\r\u{1b}[2J\u{7f}\u{85}\u{2028}\"\\ü😀";
        let record = Record { path: Some(hostile.into()), ..Record::for_test(Direction::Inbound) };
        let mut line = Vec::new();
        record.write_to(&Format::Json, &mut line);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["path"], hostile);
    }

    #[test]
    fn whatever_a_request_brings_stays_within_a_line_of_a_template() {
        let hostile = "/a\n\r\u{1b}[2J\u{2028}\"\\ü";
        let record = Record { path: Some(hostile.into()), ..Record::for_test(Direction::Inbound) };
        let mut line = Vec::new();
        record.write_to(&"\"{path}\" {status} ü".parse().unwrap(), &mut line);
        let text = String::from_utf8(line).unwrap();
        let path = r#"/a\n\r\u001b[2J\u2028\"\\\u00fc"#;
        assert_eq!(text, format!("\"{path}\" - \\u00fc\n"));
    }

    #[test]
    fn every_field_of_a_line_can_stand_in_a_template() {
        let filled = Record::filled_for_test();
        let fields = filled.fields();
        let mut named: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = template::FIELDS;
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn times_are_told_to_the_millisecond() {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_500_000_000_123_456);
        assert_eq!(time(at), "2017-07-14T02:40:00.123Z");
    }
}
