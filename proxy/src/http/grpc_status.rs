//! The status that a gRPC call ends with: a number in trailers or, where nothing but a status comes, in headers.
//!
//! Source: the gRPC project's "Status codes and their use in gRPC".

use http::{HeaderMap, HeaderValue};

/// The header, or the trailer.
pub const NAME: &str = "grpc-status";

/// The status that `headers` or trailers name, if they name one that is a number.
pub fn of(headers: &HeaderMap) -> Option<u32> {
    headers.get(NAME).and_then(read)
}

/// The status that a value stands for, if it is a number.
pub fn read(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}

/// What a status is called; `None` for a number that stands for nothing.
pub fn called(status: u32) -> Option<&'static str> {
    NAMES.get(usize::try_from(status).ok()?).copied()
}

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_with_a_name() {
        let told = |text: &str| of(&HeaderMap::from_iter([(NAME.parse().unwrap(), text.parse().unwrap())]));
        assert_eq!((told("14"), told("99"), told("-1"), told("OK")), (Some(14), Some(99), None, None));
        assert_eq!(
            (called(0), called(14), called(16)),
            (Some("OK"), Some("UNAVAILABLE"), Some("UNAUTHENTICATED"))
        );
        assert_eq!(called(17), None);
    }
}
