//! The keys of WebSocket's opening (RFC 6455, section 4): made where HTTP/2, which has none, meets HTTP/1.1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use sha1::{Digest, Sha1};

/// What a client opens with.
pub const KEY: HeaderName = http::header::SEC_WEBSOCKET_KEY;
/// What only a server that read the key can answer.
pub const ACCEPT: HeaderName = http::header::SEC_WEBSOCKET_ACCEPT;
/// The protocol's name in an Upgrade.
pub const PROTOCOL: &str = "websocket";

/// A key of our own.
pub fn new_key() -> HeaderValue {
    let bytes = fastrand::u128(..).to_ne_bytes();
    HeaderValue::try_from(STANDARD.encode(bytes)).unwrap_or(HeaderValue::from_static(""))
}

/// The answer to `key`.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes().trim_ascii());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::try_from(STANDARD.encode(hash.finalize())).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_holds_and_keys_differ() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (one, other) = (new_key(), new_key());
        assert!(one != other && one.len() == 24);
    }
}
