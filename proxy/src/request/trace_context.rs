//! The trace context of a request: what it brought of it, and what goes on. The mesh's member of it is where the request
//! handle travels through the application.
//!
//! Only headers are read and written here. What a handle stands for is known in [`handle`](super::handle), and what is
//! sampled in [`trace`](crate::telemetry::trace).

pub mod b3;

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::glance::Glance;

/// The place of a request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace; not 0.
    pub trace: u128,
    /// The span of whoever sends the request; not 0.
    pub span: u64,
    /// Whether its spans are kept.
    pub sampled: bool,
    /// Whether B3 said that somebody looks for something.
    pub debug: bool,
}

impl Context {
    /// That of a trace that begins here.
    pub fn begun(sampled: bool) -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..), sampled, debug: false }
    }
}

/// What W3C trace context says of a request, where it is valid.
pub fn read(headers: &HeaderMap) -> Option<Context> {
    let value = only(headers, &TRACEPARENT)?;
    let (first, rest) = value.as_bytes().split_at_checked(55)?;
    let dashes = [2, 35, 52].iter().all(|at| first[*at] == b'-');
    let (version, flags) = (digits(&first[..2])?, digits(&first[53..])?);
    let ends = if version == 0 { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
    if !dashes || !ends || version == 0xff {
        return None;
    }
    let (trace, span) = (thirty_two(&first[3..35])?, sixteen(&first[36..52])?);
    Some(Context { trace, span, sampled: flags & 1 == 1, debug: false })
}

/// Writes `context` as W3C trace context. Whatever state belongs to it stays.
pub fn write(headers: &mut HeaderMap, context: &Context) {
    if let Ok(value) = HeaderValue::from_maybe_shared(traceparent(context)) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Takes all out of `tracestate` but our member: without a valid `traceparent` the rest means nothing.
pub fn drop_state(headers: &mut HeaderMap) {
    let handle = take(headers);
    headers.remove(TRACESTATE);
    if let Some(handle) = handle {
        let mut value = Vec::with_capacity(OWN);
        value.extend_from_slice(b"or=");
        hex(&mut value, &handle.to_be_bytes());
        insert(headers, value);
    }
}

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
        write(headers, &Context::begun(false));
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

/// Gives a request that belongs to no trace a context that says so.
pub fn ensure(headers: &mut HeaderMap) {
    if !has_parent(headers) {
        headers.remove(TRACESTATE);
        write(headers, &Context::begun(false));
    }
}

/// The id of the trace that a request belongs to, where it belongs to one: hex digits, whatever it brought.
pub fn trace_id(headers: &HeaderMap) -> Option<[u8; 32]> {
    let parent = has_parent(headers).then(|| headers.get(TRACEPARENT)).flatten()?;
    parent.as_bytes().get(3..35)?.try_into().ok()
}

/// The id of the trace that a request belongs to, where that trace is kept by somebody.
pub fn sampled(headers: &HeaderMap) -> Option<u128> {
    // Most are not, and one digit says so.
    let flag = only(headers, &TRACEPARENT)?.as_bytes().get(FLAG)?;
    if VALUES[usize::from(*flag)] & 1 == 0 {
        return None;
    }
    read(headers).filter(|context| context.sampled).map(|context| context.trace)
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
    read(headers).is_some()
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    // Where each name is there once there is nothing to go through.
    if headers.len() == headers.keys_len() {
        return headers.get(name);
    }
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

/// A number of 32 digits that is not 0.
fn thirty_two(text: &[u8]) -> Option<u128> {
    let (upper, lower) = text.split_at_checked(16)?;
    let number = (u128::from(whole(upper)?) << 64) | u128::from(whole(lower)?);
    (number != 0).then_some(number)
}

/// A number of 16 digits that is not 0.
fn sixteen(text: &[u8]) -> Option<u64> {
    whole(text).filter(|number| *number != 0)
}

fn whole(text: &[u8]) -> Option<u64> {
    let (upper, lower) = (text.first_chunk()?, text.last_chunk()?);
    let both = || Some(u64::from(eight(*upper)?) << 32 | u64::from(eight(*lower)?));
    (text.len() == 16).then(both).flatten()
}

/// A number of eight small hex digits, all read and judged at once: this is done for each request.
fn eight(text: [u8; 8]) -> Option<u32> {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    const TOP: u64 = each(0x80);
    let text = u64::from_be_bytes(text);
    // The top bit of each byte says whether it is at least that; no sum carries over while all are below 0x80.
    let from = |least: u8| text.wrapping_add(each(0x80 - least));
    let is_digit = from(b'0') & !from(b'9' + 1) | from(b'a') & !from(b'f' + 1);
    if text & TOP != 0 || is_digit & TOP != TOP {
        return None;
    }
    // Letters have the bit 0x40, and are 9 more than their lower half.
    let halves = (text & each(0x0f)) + 9 * ((text >> 6) & each(1));
    let pairs = (halves | halves >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    u32::try_from((fours | fours >> 16) & 0xffff_ffff).ok()
}

/// A number written in small hex digits, 16 at most.
fn digits(text: &[u8]) -> Option<u64> {
    // Every digit is looked up and judged at the end: that is quicker than to stop at one, and few are wrong.
    let (number, wrong) = text.iter().fold((0, 0), |(number, wrong), digit| {
        let value = VALUES[usize::from(*digit)];
        (number << 4 | u64::from(value & 15), wrong | value)
    });
    (wrong & NONE == 0).then_some(number)
}

fn is_lower_hex(digits: &[u8]) -> bool {
    digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The value of the header, cut from a piece of memory that serves many requests: one allocation for dozens of them.
fn traceparent(context: &Context) -> Bytes {
    thread_local! {
        static PIECE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }
    let mut text = [0; PARENT];
    text.copy_from_slice(b"00-00000000000000000000000000000000-0000000000000000-00");
    digits_into(&mut text[3..35], &context.trace.to_be_bytes());
    digits_into(&mut text[36..52], &context.span.to_be_bytes());
    text[54] = if context.sampled { b'1' } else { b'0' };
    PIECE.with_borrow_mut(|piece| {
        if piece.capacity() < PARENT {
            *piece = BytesMut::with_capacity(AT_ONCE * PARENT);
        }
        piece.extend_from_slice(&text);
        piece.split().freeze()
    })
}

fn digits_into(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

fn hex(value: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        value.extend_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};
/// What each small hex digit stands for, and [`NONE`] for what is none.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < 16 {
        values[PAIRS[value as usize][1] as usize] = value;
        value += 1;
    }
    values
};
const NONE: u8 = 0x80;
/// Where in a `traceparent` the digit is that says whether it is sampled.
const FLAG: usize = 54;
/// How long a `traceparent` of ours is.
const PARENT: usize = 55;
/// How many of them are cut from one piece of memory.
const AT_ONCE: usize = 64;
/// `or=` and 32 digits.
const OWN: usize = 35;
const MOST_MEMBERS: usize = 32;
const LONGEST: usize = 512;
const LONG: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BROUGHT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn eight_digits_are_read_as_one_by_one() {
        for text in [*b"00000000", *b"ffffffff", *b"0a9f3c7e", *b"89abcdef"] {
            let one_by_one = u32::from_str_radix(std::str::from_utf8(&text).unwrap(), 16).unwrap();
            assert_eq!(eight(text), Some(one_by_one));
            for at in 0..8 {
                for byte in 0..=u8::MAX {
                    let mut other = text;
                    other[at] = byte;
                    let small = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                    let expected =
                        small.then(|| u32::from_str_radix(std::str::from_utf8(&other).unwrap(), 16).unwrap());
                    assert_eq!(eight(other), expected, "{other:?}");
                }
            }
        }
    }

    #[test]
    fn a_request_without_a_trace_gets_one_and_a_trace_is_kept() {
        let mut headers = HeaderMap::new();
        put(&mut headers, 7);
        assert!(has_parent(&headers) && headers["traceparent"].as_bytes().ends_with(b"-00"));
        assert_eq!(headers["tracestate"], "or=00000000000000000000000000000007");
        let mut headers = map(&[("traceparent", BROUGHT), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        put(&mut headers, 7);
        assert_eq!(headers["traceparent"], BROUGHT);
        assert_eq!(headers["tracestate"], "or=00000000000000000000000000000007,a=1,b=2");
    }

    #[test]
    fn a_state_that_belongs_to_no_trace_is_not_passed_on() {
        for parent in ["", "00-0", &BROUGHT.replace("4bf9", "4BF9"), &format!("{BROUGHT}-x")] {
            let mut headers = map(&[("traceparent", parent), ("tracestate", "a=1")]);
            put(&mut headers, 7);
            assert!(has_parent(&headers), "{parent}");
            assert_eq!(headers["tracestate"].len(), OWN, "{parent}");
        }
        assert!(!has_parent(&map(&[("traceparent", BROUGHT), ("traceparent", BROUGHT)])));
        assert!(has_parent(&map(&[("traceparent", &format!("cc{}-x", &BROUGHT[2..]))])));
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

    #[test]
    fn what_is_said_of_a_trace_is_read_as_the_standard_has_it() {
        let ids = Context {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
            debug: false,
        };
        let read = |value: &str| read(&map(&[("traceparent", value)]));
        assert_eq!(read(BROUGHT), Some(ids));
        assert_eq!(read(&BROUGHT.replace("-01", "-02")), Some(Context { sampled: false, ..ids }));
        assert_eq!(read(&BROUGHT.replace("-01", "-ff")), Some(ids), "flags nobody knows yet");
        assert_eq!(read(&format!("cc{}-more", &BROUGHT[2..])), Some(ids), "a version nobody knows yet");
        for wrong in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., sampled in any::<bool>()) {
            let context = Context { trace, span, sampled, debug: false };
            let mut headers = HeaderMap::new();
            write(&mut headers, &context);
            prop_assert_eq!(read(&headers), Some(context));
            prop_assert_eq!(headers["traceparent"].len(), PARENT);
        }

        #[test]
        fn nothing_that_comes_breaks_the_reader(value in "[0-9a-f-]{50,60}|[ -~]{0,70}") {
            let said = read(&map(&[("traceparent", &value)]));
            prop_assert!(said.is_none_or(|said| said.trace != 0 && said.span != 0));
        }

        #[test]
        fn what_is_put_is_taken_and_the_limits_hold(
            handle in any::<u128>(),
            states in proptest::collection::vec("((or|[a-z]{1,4}(@[a-z])?)=[a-z0-9 ]{0,140}[a-z0-9],?){0,40}", 0..4),
        ) {
            let mut headers = map(&[("traceparent", BROUGHT)]);
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
