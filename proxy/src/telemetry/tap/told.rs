//! A request that was tapped as a line of JSON. Names of fields are a contract: docs/observability.md.
//!
//! It has what the mesh itself knows, as [`Record`] does: never a header's value but its host, no query, no body, no token.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_mesh::{EndpointUid, Reason, SpiffeId, Version};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Who;
use crate::telemetry::observe::{By, Caller, Direction, Record};

/// Appends the line of a request; `own` is who asks where that is the own application.
pub(super) fn write(record: &Record, own: Option<&SpiffeId>, out: &mut Vec<u8>) {
    // What has no text is no line: nothing in it can fail.
    out.extend(serde_json::to_vec(&told(record, own)).unwrap_or_default());
    out.push(b'\n');
}

fn told<'a>(record: &'a Record, own: Option<&SpiffeId>) -> Told<'a> {
    let (decision, policy, rule) = match &record.decision {
        None => (None, None, None),
        Some((allowed, by)) => {
            let word = if *allowed { "allowed" } else { "denied" };
            let (policy, rule) = match by {
                By::Rule(rule) => (rule.policy.as_str(), Some(&*rule.name)),
                By::NoneAllows => ("none", None),
                By::Default => ("default", None),
            };
            (Some(word), Some(policy), rule)
        }
    };
    let at = OffsetDateTime::from(record.at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    Told {
        at: at.format(&Rfc3339).unwrap_or_default(),
        direction: record.direction.as_str(),
        kind: if record.opaque { "tcp" } else { "http" },
        from: match &record.caller {
            Caller::Proven(id) => Some(id.to_string()),
            Caller::Nobody => Some("unauthenticated".into()),
            Caller::Unknown if record.direction == Direction::Gateway => Some("outside".into()),
            Caller::Unknown => own.map(ToString::to_string),
        },
        service: record.service.as_ref().map(ToString::to_string),
        backend: record.backend.as_ref().map(ToString::to_string),
        version: record.version.as_ref().map(Version::as_str),
        endpoint: record.endpoint.as_ref().map(EndpointUid::as_str),
        route: record.route.as_ref().map(ToString::to_string),
        method: record.method.as_deref(),
        host: record.host.as_deref(),
        path: record.path.as_deref(),
        path_cut: record.path_cut,
        status: record.status,
        grpc_status: record.grpc_status,
        reason: record.reason.map(Reason::as_str),
        hop: record.hop,
        source: record.who.map(|who| match who {
            Who::Downstream => "caller",
            Who::Upstream => "called",
            Who::Us => "proxy",
        }),
        ended: record.ending(),
        head_ms: record.head.map(millis),
        duration_ms: millis(record.took),
        attempts: record.attempts,
        tried: record
            .tried
            .iter()
            .map(|one| Tried {
                number: one.number,
                service: one.service.to_string(),
                endpoint: one.endpoint.as_str(),
                version: one.version.as_ref().map(Version::as_str),
                address: one.address,
                peer: one.peer.as_ref().map(ToString::to_string),
                began_ms: millis(one.began),
                head_ms: one.head.map(millis),
                status: one.status,
                reason: one.reason.map(Reason::as_str),
                again: one.again,
            })
            .collect(),
        bytes_sent: record.sent,
        bytes_received: record.received,
        decision,
        policy,
        rule,
        trace_id: record.trace_id(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    at: String,
    direction: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
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
    hop: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tried: Vec<Tried<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried<'a> {
    number: u32,
    service: String,
    endpoint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    began_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<&'static str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1_000.0
}
