//! What gRPC puts around a message, as far as one call with one message each way needs it.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};

use crate::http::grpc_status;

/// `message` as a call carries it: not compressed, behind its length.
pub(super) fn framed(message: &Bytes) -> Result<Bytes, String> {
    let length = u32::try_from(message.len()).map_err(|_| "it is too long for a message".to_owned())?;
    let mut framed = BytesMut::with_capacity(message.len() + HEAD);
    framed.put_u8(0);
    framed.put_u32(length);
    framed.extend_from_slice(message);
    Ok(framed.freeze())
}

/// What the answer to a call means: its message, or which status it has, and whether it is worth another try in a form that
/// senders over HTTP know.
pub(super) fn understood(answer: Response<Bytes>, trailers: &HeaderMap) -> (Response<Bytes>, Option<String>) {
    let code = grpc_status::of(trailers).or_else(|| grpc_status::of(answer.headers()));
    let (status, why) = match (answer.status(), code) {
        (StatusCode::OK, Some(0)) => (StatusCode::OK, None),
        (StatusCode::OK, Some(code)) => {
            let again = WORTH_ANOTHER_TRY.contains(&code);
            let status = if again { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
            (status, Some(format!("it answers {} of gRPC", name(code))))
        }
        (StatusCode::OK, None) => (StatusCode::BAD_GATEWAY, Some("its answer is none of gRPC".into())),
        (status, _) => (status, Some(format!("it answers {status}, which is none of gRPC"))),
    };
    let message = answer.into_body();
    let mut understood = Response::new(message.slice(HEAD.min(message.len())..));
    *understood.status_mut() = status;
    (understood, why)
}

fn name(code: u32) -> String {
    grpc_status::called(code).map_or_else(|| format!("status {code}"), |name| format!("{name} ({code})"))
}

/// The flag for compression and the length.
const HEAD: usize = 5;
/// `CANCELLED`, `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `ABORTED`, `OUT_OF_RANGE`, `UNAVAILABLE` and `DATA_LOSS`, as OTLP has it.
const WORTH_ANOTHER_TRY: [u32; 7] = [1, 4, 8, 10, 11, 14, 15];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_behind_its_length_and_comes_back_without() {
        let framed = framed(&Bytes::from_static(b"abc")).unwrap();
        assert_eq!(&framed[..], b"\0\0\0\0\x03abc");
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let (answer, why) = understood(Response::new(framed), &trailers);
        assert_eq!((answer.status(), &answer.body()[..], why), (StatusCode::OK, &b"abc"[..], None));
    }

    #[test]
    fn a_status_is_told_by_name_and_some_are_worth_another_try() {
        let of = |code: &str, http: u16| {
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = StatusCode::from_u16(http).unwrap();
            answer.headers_mut().insert("grpc-status", code.parse().unwrap());
            let (answer, why) = understood(answer, &HeaderMap::new());
            (answer.status().as_u16(), why.unwrap_or_default())
        };
        for (code, http, status, why) in [
            ("14", 200, 503, "UNAVAILABLE (14)"),
            ("16", 200, 400, "UNAUTHENTICATED (16)"),
            ("99", 200, 400, "status 99"),
            ("x", 200, 502, "none of gRPC"),
            ("0", 404, 404, "none of gRPC"),
        ] {
            let (answered, told) = of(code, http);
            assert!(answered == status && told.contains(why), "{code}: {answered} {told}");
        }
    }
}
