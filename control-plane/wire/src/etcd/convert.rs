//! Between our types and etcd's messages.

use tonic::{Code, Status};

use super::{EtcdError, EtcdErrorKind, Event, Found, Op, Order, Pair, Range, Txn};
use crate::pb::etcd as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request as AnyRequest;
use pb::response_op::Response as AnyResponse;

pub(super) fn range_to_pb(range: &Range) -> pb::RangeRequest {
    let (order, target) = match range.order {
        Order::Keys => (SortOrder::None, SortTarget::Key),
        Order::KeysBackwards => (SortOrder::Descend, SortTarget::Key),
        Order::Created => (SortOrder::Ascend, SortTarget::Create),
    };
    pb::RangeRequest {
        key: range.keys.from.clone(),
        range_end: range.keys.end.clone().unwrap_or_default(),
        limit: range.limit,
        revision: range.revision,
        sort_order: order.into(),
        sort_target: target.into(),
        keys_only: false,
    }
}

pub(super) fn txn_to_pb(txn: Txn) -> pb::TxnRequest {
    let compare = txn.expect.into_iter().map(|(key, revision)| pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
    });
    pb::TxnRequest {
        compare: compare.collect(),
        success: txn.then.into_iter().map(op_to_pb).collect(),
        failure: txn.otherwise.into_iter().map(op_to_pb).collect(),
    }
}

fn op_to_pb(op: Op) -> pb::RequestOp {
    let request = match op {
        Op::Range(range) => AnyRequest::RequestRange(range_to_pb(&range)),
        Op::Put { key, value, lease } => AnyRequest::RequestPut(pb::PutRequest { key, value, lease }),
        Op::Delete(keys) => AnyRequest::RequestDeleteRange(pb::DeleteRangeRequest {
            key: keys.from,
            range_end: keys.end.unwrap_or_default(),
        }),
        Op::Txn(txn) => AnyRequest::RequestTxn(txn_to_pb(txn)),
    };
    pb::RequestOp { request: Some(request) }
}

pub(super) fn found_from_pb(reply: pb::RangeResponse) -> Found {
    let revision = reply.header.map_or(0, |h| h.revision);
    Found { revision, pairs: reply.kvs.into_iter().map(pair_from_pb).collect(), more: reply.more }
}

/// What the ranges among the answers found, those of transactions within included.
pub(super) fn ops_from_pb(answers: Vec<pb::ResponseOp>) -> Vec<Found> {
    let mut found = vec![];
    for answer in answers {
        match answer.response {
            Some(AnyResponse::ResponseRange(range)) => found.push(found_from_pb(range)),
            Some(AnyResponse::ResponseTxn(txn)) => found.extend(ops_from_pb(txn.responses)),
            _ => {}
        }
    }
    found
}

pub(super) fn events_from_pb(events: Vec<pb::Event>) -> Vec<Event> {
    let event = |event: pb::Event| {
        let gone = event.r#type() == pb::event::EventType::Delete;
        event.kv.map(|kv| Event { pair: pair_from_pb(kv), gone })
    };
    events.into_iter().filter_map(event).collect()
}

fn pair_from_pb(kv: pb::KeyValue) -> Pair {
    let pb::KeyValue { key, create_revision, mod_revision, value, lease } = kv;
    Pair { key, value, created: create_revision, changed: mod_revision, lease }
}

/// etcd tells its errors apart by their texts more than by their codes.
pub(super) fn error_of(status: &Status) -> EtcdError {
    let text = status.message();
    let says = |what: &str| text.contains(what);
    let kind = match status.code() {
        _ if says("database space exceeded") => EtcdErrorKind::Full,
        _ if says("request is too large") || says("too many operations") || says("larger than max") => {
            EtcdErrorKind::TooLarge
        }
        _ if says("has been compacted") => EtcdErrorKind::Compacted,
        _ if says("invalid auth token") => EtcdErrorKind::LoggedOut,
        _ if says("requested lease not found") => EtcdErrorKind::NoLease,
        _ if says("user name is empty") || says("authentication is not enabled") => EtcdErrorKind::Denied,
        Code::PermissionDenied | Code::Unauthenticated => EtcdErrorKind::Denied,
        _ if says("authentication failed") => EtcdErrorKind::Denied,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Aborted => {
            EtcdErrorKind::Unavailable
        }
        // "too many requests": it can not keep up.
        Code::ResourceExhausted => EtcdErrorKind::Unavailable,
        _ => EtcdErrorKind::Other,
    };
    EtcdError::new(kind, text_of(status))
}

/// With what the transport said, which names the reason of "transport error".
fn text_of(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        for (code, text, kind) in [
            (Code::InvalidArgument, "etcdserver: request is too large", EtcdErrorKind::TooLarge),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                EtcdErrorKind::TooLarge,
            ),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", EtcdErrorKind::Full),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                EtcdErrorKind::Compacted,
            ),
            (Code::Unauthenticated, "etcdserver: invalid auth token", EtcdErrorKind::LoggedOut),
            (Code::PermissionDenied, "etcdserver: permission denied", EtcdErrorKind::Denied),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                EtcdErrorKind::Denied,
            ),
            (Code::NotFound, "etcdserver: requested lease not found", EtcdErrorKind::NoLease),
            (Code::Unavailable, "etcdserver: no leader", EtcdErrorKind::Unavailable),
            (Code::Internal, "whatever", EtcdErrorKind::Other),
        ] {
            assert_eq!(error_of(&Status::new(code, text)).kind, kind, "{text}");
        }
    }
}
