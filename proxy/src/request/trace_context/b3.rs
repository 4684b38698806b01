//! B3: trace context as Zipkin has it, in one header (`b3`) or in several (`x-b3-…`).
//!
//! What a request brought is what goes out again, with ids of its own; nothing is written where nothing came. Where both
//! forms came, the single header counts, as its description has it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Context, hex, only, sixteen, thirty_two};
use crate::http::glance::Glance;

/// In which forms B3 came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// In one header.
    pub single: bool,
    /// In several.
    pub multi: bool,
}

impl Forms {
    /// Whether it came in any.
    pub fn any(self) -> bool {
        self.single || self.multi
    }
}

/// What B3 says of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// In which forms.
    pub forms: Forms,
    /// The trace, and the span of whoever sent it.
    pub ids: Option<(u128, u64)>,
    /// Whether it is sampled; `None` where that is left to whoever gets it.
    pub sampled: Option<bool>,
    /// Whether somebody looks for something: it is sampled, whatever is said elsewhere.
    pub debug: bool,
}

/// What the B3 headers of a request say. What is not valid says nothing, and is no form it came in.
pub fn read(headers: &HeaderMap, seen: Glance) -> Said {
    if !seen.saw(Glance::B3) {
        return Said::default();
    }
    let single = only(headers, &B3).and_then(|value| of_single(value.as_bytes()));
    let multi = of_multi(headers);
    let forms = Forms { single: single.is_some(), multi: multi.is_some() };
    Said { forms, ..single.or(multi).unwrap_or_default() }
}

/// Writes `context` in the forms it came in.
pub fn write(headers: &mut HeaderMap, forms: Forms, context: &Context) {
    let sampled: &[u8] = match context {
        Context { debug: true, .. } => b"d",
        Context { sampled: true, .. } => b"1",
        Context { .. } => b"0",
    };
    let (mut trace, mut span) = (Vec::with_capacity(64), Vec::with_capacity(16));
    // Whoever knows 64 bits only would not find its own trace again.
    match u64::try_from(context.trace) {
        Ok(short) => hex(&mut trace, &short.to_be_bytes()),
        Err(_) => hex(&mut trace, &context.trace.to_be_bytes()),
    }
    hex(&mut span, &context.span.to_be_bytes());
    if forms.multi {
        set(headers, TRACE, trace.clone());
        set(headers, SPAN, span.clone());
        headers.remove(PARENT);
        if context.debug {
            headers.remove(SAMPLED);
            headers.insert(FLAGS, HeaderValue::from_static("1"));
        } else {
            headers.remove(FLAGS);
            headers.insert(SAMPLED, HeaderValue::from_static(if context.sampled { "1" } else { "0" }));
        }
    }
    if forms.single {
        set(headers, B3, [&trace, &span, sampled].join(&b'-'));
    }
}

fn of_single(value: &[u8]) -> Option<Said> {
    let mut parts = value.split(|b| *b == b'-');
    let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
    let said = |ids, (sampled, debug)| Said { forms: Forms::default(), ids, sampled, debug };
    match parts {
        [Some(state), None, ..] => Some(said(None, of_state(state)?)),
        [Some(trace), Some(span), state, parent, None] => {
            if let Some(parent) = parent {
                sixteen(parent)?;
            }
            let state = state.map_or(Some((None, false)), of_state)?;
            Some(said(Some((of_trace(trace)?, sixteen(span)?)), state))
        }
        _ => None,
    }
}

fn of_multi(headers: &HeaderMap) -> Option<Said> {
    let trace = only(headers, &TRACE).and_then(|v| of_trace(v.as_bytes()));
    let span = only(headers, &SPAN).and_then(|v| sixteen(v.as_bytes()));
    let debug = only(headers, &FLAGS).is_some_and(|v| v == "1");
    let sampled = only(headers, &SAMPLED).and_then(|v| match v.as_bytes() {
        b"1" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    });
    let sampled = if debug { Some(true) } else { sampled };
    let ids = trace.zip(span);
    (ids.is_some() || sampled.is_some()).then_some(Said { forms: Forms::default(), ids, sampled, debug })
}

/// Whether it is sampled, and whether to look for something.
fn of_state(state: &[u8]) -> Option<(Option<bool>, bool)> {
    match state {
        b"0" => Some((Some(false), false)),
        b"1" => Some((Some(true), false)),
        b"d" => Some((Some(true), true)),
        _ => None,
    }
}

fn of_trace(digits: &[u8]) -> Option<u128> {
    if digits.len() == 16 { sixteen(digits).map(u128::from) } else { thirty_two(digits) }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Vec<u8>) {
    // Digits and dashes, so it is one.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(name, value);
    }
}

const B3: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    fn said(pairs: &[(&'static str, &str)]) -> Said {
        let headers = map(pairs);
        read(&headers, Glance::at(&headers))
    }

    const SINGLE: Forms = Forms { single: true, multi: false };
    const MULTI: Forms = Forms { single: false, multi: true };
    const IDS: Option<(u128, u64)> = Some((0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7, 0xe457_b5a2_e4d8_6bd1));

    #[test]
    fn one_header_says_all() {
        let ids = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1";
        for (value, ids, sampled, debug) in [
            (format!("{ids}-1-05e3ac9a4f6e3b90"), IDS, Some(true), false),
            (format!("{ids}-1"), IDS, Some(true), false),
            (format!("{ids}-0"), IDS, Some(false), false),
            (format!("{ids}-d"), IDS, Some(true), true),
            (ids.to_owned(), IDS, None, false),
            (
                "64fe8b2a57d3eff7-e457b5a2e4d86bd1".into(),
                IDS.map(|(t, s)| (t & u128::from(u64::MAX), s)),
                None,
                false,
            ),
            ("0".into(), None, Some(false), false),
        ] {
            assert_eq!(said(&[("b3", &value)]), Said { forms: SINGLE, ids, sampled, debug }, "{value}");
        }
    }

    #[test]
    fn what_is_no_b3_says_nothing() {
        for value in [
            "",
            "-",
            "2",
            "80f198ee56343ba864fe8b2a57d3eff7",
            "80F198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1",
            "00000000000000000000000000000000-e457b5a2e4d86bd1-1",
            "80f198ee56343ba864fe8b2a57d3eff7-0000000000000000-1",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-x",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-zz",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-1",
        ] {
            assert_eq!(said(&[("b3", value)]), Said::default(), "{value}");
        }
        let mut twice = map(&[("b3", "0")]);
        twice.append("b3", "1".parse().unwrap());
        assert_eq!(read(&twice, Glance::at(&twice)), Said::default());
    }

    #[test]
    fn several_headers_say_it_too_and_the_single_one_counts_first() {
        let ids = [("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"), ("x-b3-spanid", "e457b5a2e4d86bd1")];
        let with = |more: &[(&'static str, &'static str)]| said(&[&ids[..], more].concat());
        assert_eq!(with(&[]), Said { forms: MULTI, ids: IDS, sampled: None, debug: false });
        assert_eq!(with(&[("x-b3-sampled", "1")]).sampled, Some(true));
        assert_eq!(with(&[("x-b3-sampled", "true")]).sampled, Some(true));
        assert_eq!(with(&[("x-b3-sampled", "0")]).sampled, Some(false));
        let debug = with(&[("x-b3-flags", "1"), ("x-b3-sampled", "0")]);
        assert_eq!((debug.sampled, debug.debug), (Some(true), true));
        assert_eq!(
            said(&[("x-b3-sampled", "0")]),
            Said { forms: MULTI, sampled: Some(false), ..Said::default() }
        );
        assert_eq!(said(&[ids[0]]), Said::default());
        let both = with(&[("b3", "0")]);
        assert_eq!(
            (both.ids, both.sampled, both.forms),
            (None, Some(false), Forms { single: true, multi: true })
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            trace in 1u128.., span in 1u64.., sampled in any::<bool>(), debug in any::<bool>(),
            short in any::<bool>(), single in any::<bool>(), multi in any::<bool>(),
        ) {
            let trace = if short { (trace & u128::from(u64::MAX)).max(1) } else { trace };
            let context = Context { trace, span, sampled: sampled || debug, debug };
            let forms = Forms { single, multi };
            let mut headers = map(&[("x-b3-flags", "1"), ("x-b3-parentspanid", "05e3ac9a4f6e3b90")]);
            write(&mut headers, forms, &context);
            if !multi {
                headers.remove(FLAGS);
            }
            let said = read(&headers, Glance::at(&headers));
            prop_assert_eq!(said.forms, forms);
            if forms.any() {
                prop_assert_eq!(said.ids, Some((trace, span)));
                prop_assert_eq!((said.sampled, said.debug), (Some(context.sampled), debug));
            }
        }

        #[test]
        fn nothing_that_comes_breaks_the_reader(single in "[0-9a-fd-]{0,90}", multi in "[0-9a-fA-F]{0,40}") {
            let said = said(&[("b3", &single), ("x-b3-traceid", &multi), ("x-b3-spanid", "e457b5a2e4d86bd1")]);
            prop_assert!(said.ids.is_none_or(|(trace, span)| trace != 0 && span != 0));
        }
    }
}
