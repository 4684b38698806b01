//! The mesh's member of W3C trace context: where the request handle travels through the application.
//!
//! Only the two headers are read and written here. What a handle stands for is known in [`handle`](super::handle).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::glance::Glance;

/// Takes every member of ours out of `tracestate`; the handle that the first of them names.
pub fn take(headers: &mut HeaderMap) -> Option<u128> {
    if !headers.get_all(TRACESTATE).iter().any(|value| members(value).any(is_ours)) {
        return None;
    }
    let values = headers.get_all(TRACESTATE);
    let handle = values.iter().flat_map(members).find(|m| is_ours(m)).and_then(handle_of);
    let mut rest = Vec::new();
    for member in values.iter().flat_map(members).filter(|m| !is_ours(m)) {
        join(&mut rest, member);
    }
    headers.remove(TRACESTATE);
    if !rest.is_empty() {
        insert(headers, rest);
    }
    handle
}

/// Puts `handle` in front of the other members, as many of them as the standard's limits leave room for. A request without
/// a trace context gets one, since applications pass on only what belongs to one.
pub fn put(headers: &mut HeaderMap, handle: u128) {
    let known = Glance::at(headers).saw(Glance::TRACE);
    if !(known && has_parent(headers)) {
        if known {
            headers.remove(TRACESTATE);
        }
        let trace = fastrand::u128(1..);
        let parent = fastrand::u64(1..);
        let mut value = Vec::with_capacity(55);
        value.extend_from_slice(b"00-");
        hex(&mut value, &trace.to_be_bytes());
        value.push(b'-');
        hex(&mut value, &parent.to_be_bytes());
        value.extend_from_slice(b"-00");
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            headers.insert(TRACEPARENT, value);
        }
    }
    let others = known.then(|| headers.get_all(TRACESTATE));
    let others = || others.iter().flat_map(http::header::GetAll::iter);
    let length: usize = others().map(|v| v.len() + 1).sum();
    let tight = OWN + length > LONGEST;
    let mut value = Vec::with_capacity(OWN + length.min(LONGEST));
    value.extend_from_slice(b"or=");
    hex(&mut value, &handle.to_be_bytes());
    // Where something must go, it is the long members first, and then those that have not changed for longest.
    let kept = others().flat_map(members).filter(|m| !is_ours(m) && (!tight || m.len() <= LONG));
    for member in kept.take(MOST_MEMBERS - 1) {
        if value.len() + 1 + member.len() > LONGEST {
            break;
        }
        join(&mut value, member);
    }
    insert(headers, value);
}

/// The id of the trace that a request belongs to, where it belongs to one: hex digits, whatever it brought.
pub fn trace_id(headers: &HeaderMap) -> Option<[u8; 32]> {
    let parent = has_parent(headers).then(|| headers.get(TRACEPARENT)).flatten()?;
    parent.as_bytes().get(3..35)?.try_into().ok()
}

fn insert(headers: &mut HeaderMap, value: Vec<u8>) {
    // Made of parts of valid values, so it is one.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(TRACESTATE, value);
    }
}

fn join(value: &mut Vec<u8>, member: &[u8]) {
    if !value.is_empty() {
        value.push(b',');
    }
    value.extend_from_slice(member);
}

fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty())
}

/// Read more generously than the standard has it: what another reader may take for ours is not passed on either.
fn is_ours(member: &[u8]) -> bool {
    let key = member.split(|b| *b == b'=').next().unwrap_or_default();
    key.trim_ascii().eq_ignore_ascii_case(b"or")
}

fn handle_of(member: &[u8]) -> Option<u128> {
    let digits = member.strip_prefix(b"or=").filter(|d| d.len() == 32 && is_lower_hex(d))?;
    u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether there is a valid `traceparent`: without one, `tracestate` means nothing.
fn has_parent(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return false };
    let all = one.as_bytes();
    let Some((first, rest)) = all.split_at_checked(55) else { return false };
    let parts: [&[u8]; 4] = [&first[..2], &first[3..35], &first[36..52], &first[53..]];
    let dashes = [2, 35, 52].iter().all(|at| first[*at] == b'-');
    let zeros = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let ends = if parts[0] == b"00" { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
    let known = parts[0] != b"ff" && !zeros(parts[1]) && !zeros(parts[2]);
    dashes && ends && known && parts.iter().all(|part| is_lower_hex(part))
}

fn is_lower_hex(digits: &[u8]) -> bool {
    digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(value: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    value.extend(bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]));
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `or=` and 32 digits.
const OWN: usize = 35;
const MOST_MEMBERS: usize = 32;
const LONGEST: usize = 512;
const LONG: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_request_without_a_trace_gets_one_and_a_trace_is_kept() {
        let mut headers = HeaderMap::new();
        put(&mut headers, 7);
        assert!(has_parent(&headers) && headers["traceparent"].as_bytes().ends_with(b"-00"));
        assert_eq!(headers["tracestate"], "or=00000000000000000000000000000007");
        let mut headers = map(&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        put(&mut headers, 7);
        assert_eq!(headers["traceparent"], PARENT);
        assert_eq!(headers["tracestate"], "or=00000000000000000000000000000007,a=1,b=2");
    }

    #[test]
    fn a_state_that_belongs_to_no_trace_is_not_passed_on() {
        for parent in ["", "00-0", &PARENT.replace("4bf9", "4BF9"), &format!("{PARENT}-x")] {
            let mut headers = map(&[("traceparent", parent), ("tracestate", "a=1")]);
            put(&mut headers, 7);
            assert!(has_parent(&headers), "{parent}");
            assert_eq!(headers["tracestate"].len(), OWN, "{parent}");
        }
        assert!(!has_parent(&map(&[("traceparent", PARENT), ("traceparent", PARENT)])));
        assert!(has_parent(&map(&[("traceparent", &format!("cc{}-x", &PARENT[2..]))])));
    }

    #[test]
    fn our_member_is_taken_out_however_it_is_spelled() {
        let good = format!("a=1, or={:032x},b=2", 9);
        for (state, handle, rest) in [
            (good.as_str(), Some(9), Some("a=1,b=2")),
            ("or=9", None, None),
            ("a=1,OR = 00000000000000000000000000000009", None, Some("a=1")),
            ("orb=1,x@or=2,or@x=3", None, Some("orb=1,x@or=2,or@x=3")),
            ("or", None, None),
        ] {
            let mut headers = map(&[("tracestate", state)]);
            assert_eq!(take(&mut headers), handle, "{state}");
            assert_eq!(headers.get("tracestate").map(|v| v.to_str().unwrap()), rest, "{state}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken_and_the_limits_hold(
            handle in any::<u128>(),
            states in proptest::collection::vec("((or|[a-z]{1,4}(@[a-z])?)=[a-z0-9 ]{0,140}[a-z0-9],?){0,40}", 0..4),
        ) {
            let mut headers = map(&[("traceparent", PARENT)]);
            for state in &states {
                headers.append("tracestate", state.parse().unwrap());
            }
            put(&mut headers, handle);
            prop_assert_eq!(headers.get_all("tracestate").iter().count(), 1);
            let value = headers["tracestate"].clone();
            prop_assert!(value.len() <= LONGEST && members(&value).count() <= MOST_MEMBERS);
            prop_assert_eq!(members(&value).filter(|m| is_ours(m)).count(), 1, "none of those that came in");
            prop_assert_eq!(take(&mut headers), Some(handle));
            prop_assert!(!headers.get_all("tracestate").iter().flat_map(members).any(is_ours));
            prop_assert_eq!(take(&mut headers), None);
        }
    }
}
