//! Faults that are put in on purpose, to see what callers make of them. They are no evidence of anything: neither breakers
//! nor the balance of endpoints hear of them.

use std::sync::atomic::Ordering::Relaxed;

use http::{Response, StatusCode};
use outrigger_mesh::{Abort, Fault, RequestHead, Timeouts};
use tokio::time::{Instant, sleep_until};

use super::Counts;
use crate::error::Error;
use crate::http::body::{Replay, ResponseBody};
use crate::http::reply;
use crate::request::deadline::Deadline;
use crate::request::handle::Sake;

/// Marks an answer that is none: the stream, or the connection, ends where it would begin.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("reset on purpose")]
pub struct Broken;

/// The fault that happens to a request, if one does.
pub(super) fn drawn<'a>(faults: &'a [Fault], head: &RequestHead<'_>) -> Option<&'a Fault> {
    let holds = |fault: &&Fault| fault.matches.is_empty() || fault.matches.iter().any(|m| m.holds(head));
    faults.iter().find(|fault| holds(fault) && fault.share.takes(fastrand::u64(..)))
}

/// Lets it happen: waits, within the time that the request has, and then gives the answer, if it is to have one.
pub(super) async fn happen(
    fault: &Fault,
    timeouts: &Timeouts,
    sake: &Sake,
    grpc: bool,
    counts: &Counts,
) -> Result<Option<Response<ResponseBody>>, Error> {
    if let Some(delay) = fault.delay {
        counts.faults[0].fetch_add(1, Relaxed);
        let until = Instant::now() + delay;
        match Deadline::new(timeouts, grpc, sake).whole(None::<&Replay>) {
            Some((end, reason)) if end < until => {
                sleep_until(end).await;
                return Err(Error::refused(reason, "delayed on purpose for longer than it has time"));
            }
            _ => sleep_until(until).await,
        }
    }
    let Some(abort) = fault.abort else { return Ok(None) };
    counts.faults[1 + usize::from(abort == Abort::Reset)].fetch_add(1, Relaxed);
    Ok(Some(match abort {
        Abort::Reset => {
            let mut answer = Response::new(ResponseBody::Empty);
            answer.extensions_mut().insert(Broken);
            answer
        }
        Abort::Http(status) if grpc => reply::injected_grpc(grpc_of(status)),
        Abort::Http(status) => reply::injected(StatusCode::from_u16(status).unwrap_or_default()),
        Abort::Grpc(status) if grpc => reply::injected_grpc(status),
        Abort::Grpc(status) => reply::injected(http_of(status)),
    }))
}

/// The status of gRPC that a status of HTTP stands for (gRPC, "HTTP to gRPC Status Code Mapping"). A success is one.
fn grpc_of(status: u16) -> u8 {
    match status {
        200..=299 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The status of HTTP that a status of gRPC stands for (google.rpc.Code). CANCELLED has none that servers may send to
/// whoever still waits.
fn http_of(status: u8) -> StatusCode {
    match status {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
