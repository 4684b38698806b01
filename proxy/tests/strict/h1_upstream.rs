//! Answers that lie: framing in two forms, statuses that are none, interim answers without end, bytes behind the end,
//! bodies that break off. The client never gets something that looks whole and is not, and nobody else gets the rest.

use crate::backend::{Part, Script};
use crate::case::{ALL, Case, Gets, Got, Sees, Want};
use crate::reading::Message;

pub fn cases() -> Vec<Case> {
    let mut all = framing();
    all.extend(chunks());
    all.extend(heads());
    all.extend(interim());
    all.extend(surplus());
    all.extend(short());
    all.extend(kept());
    all
}

const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nX-Smuggled: yes\r\nContent-Length: 8\r\n\r\nsmuggled";

/// A GET that is answered with `answer`, after which the backend keeps the connection open.
fn answered(id: &str, clause: &'static str, answer: impl Into<Vec<u8>>) -> Case {
    let get = "GET /a HTTP/1.1\r\nHost: cart\r\n\r\n";
    Case::h1(id, clause, get)
        .script(Script::Then(vec![Part::Send(answer.into())]))
        .sees(Sees::Each(vec![Want::of("GET /a")]))
        .gets(Gets::That("502 with its reason, and nothing else", bad_gateway))
        .fresh()
}

/// The same, and then the backend closes.
fn answered_and_closed(id: &str, clause: &'static str, answer: impl Into<Vec<u8>>) -> Case {
    answered(id, clause, "").script(Script::Then(vec![Part::Send(answer.into()), Part::Close]))
}

fn bad_gateway(got: &Got) -> bool {
    got.only().is_some_and(|m| m.status() == 502 && m.get("x-outrigger-reason").is_some())
}

/// For what shows only when the head of the answer has gone on: the connection ends, and the answer is not whole.
fn cut(got: &Got) -> bool {
    bad_gateway(got) || (got.closed && got.answers().0.is_empty())
}

fn is(m: &Message, status: u16, body: &str) -> bool {
    m.status() == status && m.body == body.as_bytes()
}

fn framing() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, clause, headers) in [
        ("H1-UF-01", "answer-both", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("H1-UF-02", "answer-both", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("H1-UF-03", "answer-both", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ("H1-UF-04", "answer-both", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
        ("H1-UF-05", "answer-both", "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n"),
        ("H1-UF-10", "answer-length", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("H1-UF-11", "answer-length", "Content-Length: 5, 6\r\n"),
        ("H1-UF-12", "answer-length", "Content-Length: 5,\r\n"),
        ("H1-UF-13", "answer-length", "Content-Length: +5\r\n"),
        ("H1-UF-14", "answer-length", "Content-Length: -5\r\n"),
        ("H1-UF-15", "answer-length", "Content-Length: 5 5\r\n"),
        ("H1-UF-16", "answer-length", "Content-Length: 0x5\r\n"),
        ("H1-UF-17", "answer-length", "Content-Length:\r\n"),
        ("H1-UF-18", "answer-length", "Content-Length: 18446744073709551621\r\n"),
        ("H1-UF-19", "answer-length", "Content-Length: five\r\n"),
        ("H1-UF-20", "answer-coding", "Transfer-Encoding: gzip\r\n"),
        ("H1-UF-21", "answer-coding", "Transfer-Encoding: chunked, identity\r\n"),
        ("H1-UF-22", "answer-coding", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("H1-UF-23", "answer-coding", "Transfer-Encoding: xchunked\r\n"),
        ("H1-UF-24", "answer-coding", "Transfer-Encoding: chunked, chunked\r\n"),
        ("H1-UF-25", "answer-coding", "Transfer-Encoding:\r\n"),
        ("H1-UF-26", "answer-coding", "Transfer-Encoding: \u{b}chunked\r\n"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\n5\r\nabcde\r\n0\r\n\r\n");
        all.push(answered(id, clause, answer));
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    all.push(answered_and_closed("H1-UF-27", "answer-coding", old));
    // Equal ones have one reading.
    let twice = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde";
    let mut once = answered("H1-UF-28", "answer-length", twice);
    once.fresh = false;
    all.push(once.gets(Gets::That("502, or the one reading", |got| {
        bad_gateway(got) || got.only().is_some_and(|m| is(&m, 200, "abcde"))
    })));
    all
}

fn chunks() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, chunks) in [
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5 \r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde\r\n0\n\n",
        "\r\nabcde\r\n0\r\n\r\n",
        "5;a\nbcde\r\n0\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX : y\r\n\r\n",
        "5\r\nabcde\r\n0\r\nno colon\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        all.push(
            answered_and_closed(&format!("H1-UC-{:02}", at + 1), "answer-chunks", answer)
                .gets(Gets::That("502, or an end before the end of the answer", cut)),
        );
    }
    all
}

fn heads() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, clause, head) in [
        ("H1-US-01", "answer-status", "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n"),
        ("H1-US-02", "answer-status", "HTTP/1.1 600 High\r\nContent-Length: 0\r\n"),
        ("H1-US-03", "answer-status", "HTTP/1.1 999 High\r\nContent-Length: 0\r\n"),
        ("H1-US-04", "answer-status", "HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n"),
        ("H1-US-05", "answer-status", "HTTP/1.1 20 Short\r\nContent-Length: 0\r\n"),
        ("H1-US-06", "answer-status", "HTTP/1.1 2000 Long\r\nContent-Length: 0\r\n"),
        ("H1-US-07", "answer-status", "HTTP/1.1 abc Word\r\nContent-Length: 0\r\n"),
        ("H1-US-08", "answer-status", "HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-09", "answer-status", "HTTP/1.1 0200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-10", "answer-line", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-11", "answer-line", "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-12", "answer-line", "ICY 200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-13", "answer-line", "200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-14", "answer-line", "http/1.1 200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-15", "answer-line", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n"),
        ("H1-US-16", "answer-line", "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n"),
        ("H1-US-17", "answer-line", "HTTP/1.1 200 OK\rX: y\r\nContent-Length: 0\r\n"),
        ("H1-US-20", "answer-header", "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n"),
        ("H1-US-21", "answer-header", "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 0\r\n"),
        ("H1-US-22", "answer-header", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n"),
        ("H1-US-23", "answer-header", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n"),
        ("H1-US-24", "answer-header", "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n"),
        ("H1-US-25", "answer-header", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n"),
        ("H1-US-26", "answer-header", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n"),
        ("H1-US-27", "answer-header", "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n"),
    ] {
        all.push(answered(id, clause, format!("{head}\r\n")));
    }
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(300_000));
    all.push(answered("H1-US-30", "answer-bound", large));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(5_000));
    all.push(answered("H1-US-31", "answer-bound", many));
    all.push(answered_and_closed("H1-US-32", "answer-line", "SSH-2.0-OpenSSH_9.9\r\n"));
    all.push(answered_and_closed("H1-US-33", "answer-line", "\x15\x03\x01\x00\x02\x02\x46"));
    all
}

fn interim() -> Vec<Case> {
    let mut all = Vec::new();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (at, one) in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "HTTP/1.1 199 What\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let flood = format!("{}{ok}", one.repeat(5_000));
        all.push(answered(&format!("H1-UI-{:02}", at + 1), "answer-interim", flood).gets(Gets::That(
            "502 behind a few",
            |got| {
                let (finals, interim, rest) = got.answers();
                finals.len() == 1 && finals[0].status() == 502 && interim.len() < 100 && rest.is_none()
            },
        )));
        let mut few = answered(&format!("H1-UI-{:02}", at + 5), "answer-interim", format!("{one}{one}{ok}"));
        few.fresh = false;
        all.push(few.gets(Gets::That("200, perhaps behind two", |got| {
            let (finals, interim, rest) = got.answers();
            finals.len() == 1 && is(&finals[0], 200, "ok") && interim.len() <= 2 && rest.is_none()
        })));
    }
    let framed =
        format!("HTTP/1.1 103 Early Hints\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{ok}", SMUGGLED.len());
    all.push(answered("H1-UI-10", "answer-interim", framed).gets(Gets::That(
        "502, or an answer that is none of that",
        |got| {
            let said = String::from_utf8_lossy(&got.bytes).contains("103");
            bad_gateway(got) || (!said && got.answers().0.len() <= 1)
        },
    )));
    // Nobody asked for another protocol.
    for (id, head) in [
        ("H1-UI-20", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ("H1-UI-21", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        ("H1-UI-22", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ("H1-UI-23", "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 2\r\n\r\nok"),
    ] {
        all.push(answered(id, "answer-101", format!("{head}{SMUGGLED}")));
    }
    // An upgrade that was asked for, answered with another.
    let asked = "GET /a HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let mut case = Case::h1("H1-UI-24", "answer-101", asked).upgrade().fresh();
    case.script = Script::Then(vec![Part::Send(other.into())]);
    all.push(case.sees(Sees::Each(vec![Want::of("GET /a")])).gets(Gets::That("502", bad_gateway)));
    all
}

/// Bytes behind the end of an answer are nobody's answer.
fn surplus() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, answer) in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{SMUGGLED}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{SMUGGLED}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{SMUGGLED}"),
        format!("HTTP/1.1 304 Not Modified\r\n\r\n{SMUGGLED}"),
        format!("HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nsmuggled{SMUGGLED}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nsmuggled{SMUGGLED}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{SMUGGLED}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX".into(),
    ]
    .into_iter()
    .enumerate()
    {
        all.push(answered(&format!("H1-UX-{:02}", at + 1), "answer-surplus", answer).by(ALL).gets(
            Gets::That("502, or the one answer", |got| {
                let whole =
                    |m: Message| is(&m, 200, "ok") || is(&m, 200, "") || is(&m, 204, "") || is(&m, 304, "");
                bad_gateway(got) || got.only().is_some_and(whole)
            }),
        ));
    }
    // A HEAD is answered without a body, and one that comes all the same is not the next answer.
    let head = Case::h1("H1-UX-20", "answer-surplus", "HEAD /a HTTP/1.1\r\nHost: cart\r\n\r\n")
        .by(ALL)
        .script(Script::Then(vec![Part::Send(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()).into(),
        )]))
        .sees(Sees::Each(vec![Want::of("HEAD /a")]))
        .fresh();
    all.push(head.gets(Gets::That("502, or a head", |got| {
        bad_gateway(got) || got.only().is_some_and(|m| m.status() == 200 && m.body.is_empty())
    })));
    // The surplus comes later, when the connection idles.
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let later = vec![Part::Send(ok.into()), Part::Pause(30), Part::Send(SMUGGLED.into())];
    all.push(answered("H1-UX-21", "answer-surplus", "").by(ALL).script(Script::Then(later)).gets(
        Gets::That("the answer, or 502", |got| {
            bad_gateway(got) || got.only().is_some_and(|m| is(&m, 200, "ok"))
        }),
    ));
    // An application that answers before it is asked.
    all.push(
        Case::h1("H1-UX-22", "answer-surplus", "POST /a HTTP/1.1\r\nHost: cart\r\nContent-Length: 4\r\n\r\n")
            .write("body")
            .script(Script::Early(vec![Part::Send(format!("{ok}{SMUGGLED}").into())]))
            .sees(Sees::Either(vec![Sees::Each(vec![Want::of("POST /a")]), Sees::NoWhole]))
            .gets(Gets::That("502, or the one answer", |got| {
                bad_gateway(got) || got.only().is_some_and(|m| is(&m, 200, "ok"))
            }))
            .fresh(),
    );
    all
}

/// An answer that was cut short cuts the client.
fn short() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, answer) in [
        ("H1-SH-01", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde"),
        ("H1-SH-02", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ("H1-SH-03", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        ("H1-SH-04", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"),
        ("H1-SH-05", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n"),
        ("H1-SH-06", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX: y\r\n"),
        ("H1-SH-07", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("H1-SH-08", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5"),
    ] {
        let case = answered_and_closed(id, "answer-short", answer).by(ALL);
        all.push(case.gets(Gets::That("an end before the end", cut)));
    }
    for (id, answer) in [
        ("H1-SH-10", ""),
        ("H1-SH-11", "HTTP/1.1 200 OK\r\n"),
        ("H1-SH-12", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
        ("H1-SH-13", "HT"),
        ("H1-SH-14", "HTTP/1.1 100 Continue\r\n\r\n"),
    ] {
        all.push(answered_and_closed(id, "answer-short", answer).by(ALL));
    }
    for (id, answer) in [
        ("H1-SH-20", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde"),
        ("H1-SH-21", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        ("H1-SH-22", "HTTP/1.1 200 OK\r\n\r\nabcde"),
    ] {
        let reset = Script::Then(vec![Part::Send(answer.into()), Part::Pause(30), Part::Reset]);
        all.push(
            answered(id, "answer-short", "")
                .by(ALL)
                .script(reset)
                .gets(Gets::That("an end before the end", cut)),
        );
    }
    // Silence in the middle ends as well.
    let silent =
        answered("H1-SH-30", "body-idle", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde").idle(300);
    all.push(silent.by(&[crate::case::Way::Out]).gets(Gets::That("an end before the end", cut)));
    all
}

/// What is allowed must go through.
fn kept() -> Vec<Case> {
    let plain = |id, answer: &str, so: fn(&Got) -> bool| {
        let mut case = answered(id, "answer-kept", answer).by(ALL).gets(Gets::That("the answer", so));
        case.fresh = false;
        case
    };
    vec![
        plain("H1-UK-01", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", |g| {
            g.only().is_some_and(|m| is(&m, 200, "ok"))
        }),
        plain(
            "H1-UK-02",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
            |g| g.only().is_some_and(|m| is(&m, 200, "ok")),
        ),
        plain("H1-UK-08", "HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nok", |g| {
            g.only().is_some_and(|m| is(&m, 200, "ok") && m.get("content-length").is_none_or(|n| n == "2"))
        }),
        plain("H1-UK-03", "HTTP/1.1 204 No Content\r\n\r\n", |g| g.only().is_some_and(|m| is(&m, 204, ""))),
        plain("H1-UK-04", "HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", |g| {
            g.only().is_some_and(|m| is(&m, 599, ""))
        }),
        plain("H1-UK-05", "HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\nETag: \"x\"\r\n\r\n", |g| {
            g.only().is_some_and(|m| is(&m, 304, "") && m.get("etag") == Some("\"x\""))
        }),
        answered_and_closed("H1-UK-06", "answer-kept", "HTTP/1.1 200 OK\r\n\r\nto the end")
            .gets(Gets::That("the answer", |g| g.only().is_some_and(|m| is(&m, 200, "to the end")))),
        answered_and_closed("H1-UK-07", "answer-kept", "HTTP/1.0 200 OK\r\n\r\nto the end")
            .gets(Gets::That("the answer", |g| g.only().is_some_and(|m| is(&m, 200, "to the end")))),
    ]
}
