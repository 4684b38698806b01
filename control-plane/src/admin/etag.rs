//! Versions of objects as entity tags, and what a write says it expects of them (RFC 9110, sections 8.8.3 and 13.1).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::ApiError;
use crate::store::Expect;

/// The strong tag of the version that was last changed at this count.
pub(super) fn of(changed: u64) -> HeaderValue {
    // Digits in quotes are always a header value.
    HeaderValue::from_str(&format!("\"{changed}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// What a write expects. A write that expects nothing is refused: two people who edit one object must not undo each
/// other unseen.
pub(super) fn expectation(headers: &HeaderMap) -> Result<Expect, ApiError> {
    let one = |name| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (value, None) => Ok(value.map(|v| v.as_bytes().trim_ascii())),
            _ => Err(bad("give each of If-Match and If-None-Match once at most")),
        }
    };
    match (one(header::IF_MATCH)?, one(header::IF_NONE_MATCH)?) {
        (None, None) => Err(ApiError::new(
            StatusCode::PRECONDITION_REQUIRED,
            "say what you expect: If-Match with the ETag you read, or If-None-Match: * to create",
        )),
        (Some(b"*"), None) => Ok(Expect::Present),
        (Some(tag), None) => version(tag).map(Expect::Version),
        (None, Some(b"*")) => Ok(Expect::Absent),
        (None, Some(_)) => Err(bad("If-None-Match is only understood as *")),
        (Some(_), Some(_)) => Err(bad("If-Match and If-None-Match contradict each other")),
    }
}

fn version(tag: &[u8]) -> Result<u64, ApiError> {
    let digits = tag.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\""));
    digits
        .filter(|d| !d.is_empty() && d.iter().all(u8::is_ascii_digit))
        .and_then(|d| std::str::from_utf8(d).ok()?.parse().ok())
        .ok_or_else(|| bad("If-Match takes one ETag as this API gave it, such as \"17\""))
}

fn bad(detail: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_says_what_it_expects() {
        for (given, expected) in [
            (&[("if-match", "\"17\"")][..], Some(Expect::Version(17))),
            (&[("if-match", "*")], Some(Expect::Present)),
            (&[("if-none-match", "*")], Some(Expect::Absent)),
            (&[], None),
            (&[("if-match", "17")], None),
            (&[("if-match", "W/\"17\"")], None),
            (&[("if-match", "\"17\", \"18\"")], None),
            (&[("if-match", "\"+17\"")], None),
            (&[("if-match", "\"1\""), ("if-match", "\"2\"")], None),
            (&[("if-match", "\"1\""), ("if-none-match", "*")], None),
            (&[("if-none-match", "\"1\"")], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(expectation(&headers).ok(), expected, "{given:?}");
        }
    }
}
