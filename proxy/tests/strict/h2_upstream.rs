//! A backend that speaks HTTP/2: what HTTP/1.1 requests become on the way to it, and answers that lie.

use crate::backend::{Part, Script};
use crate::case::{Case, Gets, Got, Sees, Want, Way};
use crate::frames::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, data, frame, headers};
use crate::hpack;

const TO: &[Way] = &[Way::ToH2];

pub fn cases() -> Vec<Case> {
    let mut all = requests();
    all.extend(answers());
    all
}

fn requests() -> Vec<Case> {
    let get = |headers: &str| format!("GET /a HTTP/1.1\r\nHost: cart\r\n{headers}\r\n");
    let want = || Want::of("GET /a").has("host: cart");
    let post = |headers: &str, body: &str| format!("POST /a HTTP/1.1\r\nHost: cart\r\n{headers}\r\n{body}");
    vec![
        Case::h1("H2-UP-01", "to-http2", get("")).by(TO).passes(want()),
        Case::h1("H2-UP-02", "to-http2", get("Connection: x-a, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\n"))
            .by(TO)
            .passes(want().lacks("x-a").lacks("keep-alive")),
        Case::h1("H2-UP-03", "to-http2", get("Connection: upgrade\r\nUpgrade: websocket2\r\n"))
            .by(TO)
            .passes(want()),
        Case::h1("H2-UP-04", "to-http2", get("TE: gzip, trailers\r\nProxy-Connection: close\r\n"))
            .by(TO)
            .passes(want()),
        Case::h1("H2-UP-05", "to-http2", get("X-UPPER: Value\r\nCookie: a=1\r\n"))
            .by(TO)
            .passes(want().has("x-upper: Value").has("cookie: a=1")),
        Case::h1("H2-UP-06", "to-http2", post("Content-Length: 5\r\n", "abcde"))
            .by(TO)
            .passes(Want::of("POST /a").has("content-length: 5").body("abcde")),
        Case::h1(
            "H2-UP-07",
            "to-http2",
            post("Transfer-Encoding: chunked\r\n", "5;x\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n"),
        )
        .by(TO)
        .passes(Want::of("POST /a").lacks("transfer-encoding").body("abcde").trailers(&["x-sum: 1"])),
        Case::h1(
            "H2-UP-08",
            "to-http2",
            post("Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n:path: /smuggled\r\n\r\n"),
        )
        .by(TO)
        .sees(Sees::NoWhole)
        .gets(Gets::Either(vec![Gets::Refused(400, "bad_request"), Gets::Cut])),
        Case::h1("H2-UP-09", "upload-aborted", post("Transfer-Encoding: chunked\r\n", "5\r\nabcdeX"))
            .by(TO)
            .sees(Sees::NoWhole)
            .gets(Gets::Either(vec![Gets::Refused(400, "bad_request"), Gets::Cut])),
        Case::h1("H2-UP-10", "absolute-host", "GET http://cart/a HTTP/1.1\r\nHost: other\r\n\r\n")
            .by(TO)
            .passes(want()),
        Case::h1(
            "H2-UP-11",
            "identity-alias",
            get("X_Outrigger_Attempt: 1\r\nX-Forwarded-Client-Cert: forged\r\n"),
        )
        .by(TO)
        .passes(want()),
        Case::h1("H2-UP-12", "host-one", get("Connection: host\r\n")).by(TO).passes(want()),
    ]
}

fn bad_gateway(got: &Got) -> bool {
    got.only().is_some_and(|m| m.status() == 502 && m.get("x-outrigger-reason").is_some())
}

fn at_path(m: &crate::reading::Message) -> bool {
    m.get("x-path").is_some() && m.headers.iter().all(|(name, _)| !name.starts_with(':'))
}

fn cut(got: &Got) -> bool {
    bad_gateway(got) || (got.closed && got.answers().0.is_empty())
}

fn ok<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![(":status", "200")];
    fields.extend_from_slice(more);
    fields
}

fn answers() -> Vec<Case> {
    let answered = |id: String, clause: &'static str, frames: Vec<u8>| {
        Case::h1(id, clause, "GET /a HTTP/1.1\r\nHost: cart\r\n\r\n")
            .by(TO)
            .script(Script::Then(vec![Part::Send(frames)]))
            .sees(Sees::Either(vec![Sees::Each(vec![Want::of("GET /a")]), Sees::NoWhole]))
    };
    let mut all = Vec::new();
    for (at, fields) in [
        vec![("x-a", "b")],
        vec![(":status", "200"), (":status", "201")],
        vec![(":status", "abc")],
        vec![(":status", "99")],
        vec![(":status", "600")],
        vec![(":status", "101")],
        vec![("x-a", "b"), (":status", "200")],
        ok(&[(":path", "/a"), ("x-path", "1")]),
        ok(&[("X-Upper", "1")]),
        ok(&[("x-a\r\nset-cookie", "1")]),
        ok(&[("x-a", "b\r\nset-cookie: c")]),
        ok(&[("x-a", "b\0c")]),
        ok(&[("connection", "close")]),
        ok(&[("transfer-encoding", "chunked")]),
        ok(&[("upgrade", "h2c")]),
        ok(&[("keep-alive", "5")]),
    ]
    .into_iter()
    .enumerate()
    {
        let frames = [headers(1, false, &fields), data(1, true, "smuggled")].concat();
        let case = answered(format!("H2-UA-{:02}", at + 1), "h2-answer", frames);
        all.push(case.gets(Gets::That("502 with its reason", |got| {
            // A pseudo header of requests may also end here: it says nothing to anybody.
            bad_gateway(got)
                || got.only().is_some_and(|m| m.status() == 200 && m.body == b"smuggled" && at_path(&m))
        })));
    }
    for (at, (length, body)) in
        [("5", "abc"), ("5", "abcdefg"), ("x", "abc"), ("5, 5", "abcde")].into_iter().enumerate()
    {
        let frames = [headers(1, false, &ok(&[("content-length", length)])), data(1, true, body)].concat();
        let case = answered(format!("H2-UA-{}", 20 + at), "h2-answer-length", frames);
        all.push(case.gets(Gets::That("502, or an end before the end", cut)));
    }
    // What lies beyond a length of zero goes nowhere.
    let none = [headers(1, false, &ok(&[("content-length", "0")])), data(1, true, "abc")].concat();
    all.push(
        answered("H2-UA-29".into(), "h2-answer-length", none)
            .gets(Gets::That("502, or nothing of it", |got| {
                cut(got) || got.only().is_some_and(|m| m.status() == 200 && m.body.is_empty())
            })),
    );
    let reset = frame(RST_STREAM, 0, 1, 2_u32.to_be_bytes());
    let half = [headers(1, false, &ok(&[])), data(1, false, "abc"), reset.clone()].concat();
    all.push(
        answered("H2-UA-30".into(), "answer-short", half).gets(Gets::That("an end before the end", cut)),
    );
    let half =
        [headers(1, false, &ok(&[("content-length", "10")])), data(1, false, "abc"), reset.clone()].concat();
    all.push(
        answered("H2-UA-31".into(), "answer-short", half).gets(Gets::That("an end before the end", cut)),
    );
    all.push(answered("H2-UA-32".into(), "answer-short", reset).gets(Gets::That("502", bad_gateway)));
    let trailing =
        [headers(1, false, &ok(&[])), data(1, false, "abc"), headers(1, true, &[(":status", "200")])]
            .concat();
    all.push(answered("H2-UA-33".into(), "h2-answer", trailing).gets(Gets::That(
        "an end, or nothing of it",
        |got| {
            cut(got)
                || got.only().is_some_and(|m| m.status() == 200 && m.body == b"abc" && m.trailers.is_empty())
        },
    )));
    let interim: Vec<u8> =
        (0..2_000).flat_map(|_| headers(1, false, &[(":status", "103"), ("link", "</x>")])).collect();
    let flood = [interim, headers(1, true, &ok(&[]))].concat();
    all.push(answered("H2-UA-34".into(), "answer-interim", flood).gets(Gets::That(
        "a final answer behind a few",
        |got| {
            let (finals, interim, _) = got.answers();
            finals.len() == 1 && matches!(finals[0].status(), 200 | 502) && interim.len() < 100
        },
    )));
    let ended = frame(HEADERS, END_HEADERS | END_STREAM, 1, hpack::encode(&[(":status", "103")]));
    all.push(answered("H2-UA-35".into(), "h2-answer", ended).gets(Gets::That("502", bad_gateway)));
    let foreign = [headers(1, false, &ok(&[])), data(1, true, "ok"), headers(3, true, &ok(&[]))].concat();
    all.push(answered("H2-UA-36".into(), "answer-surplus", foreign).gets(Gets::That("200, or 502", |got| {
        cut(got) || got.only().is_some_and(|m| m.status() == 200 && m.body == b"ok")
    })));
    all
}
