//! What can be seen of an answer: its own status and headers, and what the origin says that it was asked.

use outrigger_testkit::Reply;
use serde_json::Value;

#[allow(clippy::needless_pass_by_value, reason = "both are made for it")]
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, wanted: T) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{what} is {seen:?}, not {wanted:?}")) }
}

/// What the origin says that it saw; nothing where no origin answered.
pub(crate) fn echo(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

pub(crate) fn origin_of(reply: &Reply) -> String {
    echo(reply)["origin"].as_str().unwrap_or("nobody").to_owned()
}

/// The path and query that the origin was asked for, whatever the form of its target.
pub(crate) fn target_of(reply: &Reply) -> String {
    let target = echo(reply)["path"].as_str().unwrap_or_default().to_owned();
    let uri: Option<http::Uri> = target.parse().ok();
    uri.and_then(|uri| uri.path_and_query().map(ToString::to_string)).unwrap_or(target)
}

pub(crate) fn sent(reply: &Reply, name: &str) -> Option<String> {
    let echo = echo(reply);
    let own = |pair: &&Value| pair[0] == name;
    let all: Vec<&str> =
        echo["headers"].as_array()?.iter().filter(own).filter_map(|pair| pair[1].as_str()).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// A header of the answer; `:status` is its status.
pub(crate) fn told(reply: &Reply, name: &str) -> Option<String> {
    if name == ":status" {
        return Some(reply.status.as_str().to_owned());
    }
    let all = reply.headers.get_all(name).iter();
    let all: Vec<_> = all.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    (!all.is_empty()).then(|| all.join(","))
}

pub(crate) fn grpc_status(reply: &Reply) -> Option<u16> {
    let status = reply.headers.get("grpc-status").or_else(|| reply.trailers.get("grpc-status"));
    status?.to_str().ok()?.parse().ok()
}

/// Whether so many of a hundred came from `of`, within six standard deviations.
pub(crate) fn share(replies: &[Reply], of: &str, percent: u32) -> Result<(), String> {
    let from = |reply: &&Reply| match of.parse::<u16>() {
        Ok(status) => reply.status.as_u16() == status,
        Err(_) => origin_of(reply) == of,
    };
    let (all, own) = (replies.len() as f64, replies.iter().filter(from).count() as f64);
    let part = f64::from(percent) / 100.0;
    let sigma = (all * part * (1.0 - part)).sqrt();
    if (own - all * part).abs() <= 6.0 * sigma {
        Ok(())
    } else {
        Err(format!("{own} of {all} came from {of}, not {percent} in a hundred"))
    }
}

pub(crate) fn brief(status: &Value) -> String {
    let mut text = status.to_string();
    text.truncate(600);
    text
}
