//! Uploads: 100-continue, answers that come early, callers that go away, and the order of what is pipelined.

use crate::backend::{Part, Script};
use crate::case::{ALL, Case, EDGES, Gets, Got, Sees, Step, Want, Way};

pub fn cases() -> Vec<Case> {
    let mut all = expectations();
    all.extend(early());
    all.extend(aborted());
    all.extend(pipelined());
    all
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";

fn post(headers: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: cart\r\n{headers}\r\n{body}")
}

fn continued(got: &Got) -> bool {
    let (finals, interim, rest) = got.answers();
    finals.len() == 1
        && finals[0].status() == 200
        && interim.iter().all(|m| m.status() == 100)
        && interim.len() == 1
        && rest.is_none()
}

fn expectations() -> Vec<Case> {
    let want = || Want::of("POST /a").body("abcde");
    let mut all = Vec::new();
    for (at, expect) in ["100-continue", "100-Continue", " 100-CONTINUE "].iter().enumerate() {
        let head = post(&format!("Content-Length: 5\r\nExpect: {expect}\r\n"), "");
        let case =
            Case::h1(format!("H1-EX-{:02}", at + 1), "expect", head).by(ALL).then(Step::Hear).write("abcde");
        all.push(case.passes(want()).gets(Gets::That("100, then 200", continued)));
    }
    let head = post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "");
    let case = Case::h1("H1-EX-04", "expect", head).by(ALL).then(Step::Hear).write("5\r\nabcde\r\n0\r\n\r\n");
    all.push(case.passes(want()).gets(Gets::That("100, then 200", continued)));
    // Who does not wait gets one answer all the same.
    let case = Case::h1("H1-EX-05", "expect", post("Content-Length: 5\r\nExpect: 100-continue\r\n", "abcde"))
        .by(ALL);
    all.push(case.passes(want()).gets(Gets::That("200, perhaps behind 100", |got| {
        let (finals, interim, rest) = got.answers();
        finals.len() == 1 && finals[0].status() == 200 && interim.len() <= 1 && rest.is_none()
    })));
    // Nothing to wait for: 100 would be an answer to nothing.
    let case =
        Case::h1("H1-EX-06", "expect", "GET /a HTTP/1.1\r\nHost: cart\r\nExpect: 100-continue\r\n\r\n");
    all.push(
        case.passes(Want::of("GET /a").body(""))
            .gets(Gets::That("200", |got| got.only().is_some_and(|m| m.status() == 200))),
    );
    // To an HTTP/1.0 client 100 means nothing (RFC 9110, section 10.1.1).
    let old = "POST /a HTTP/1.0\r\nHost: cart\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nabcde";
    all.push(Case::h1("H1-EX-07", "expect", old).passes(want()).gets(Gets::That("200 alone", |got| {
        let (finals, interim, _) = got.answers();
        finals.len() == 1 && finals[0].status() == 200 && interim.is_empty()
    })));
    // What nobody can meet is 417, or not an expectation; the body is the request's in both cases.
    for (at, expect) in
        ["x", "100-continue, x", "100-continue; q=1", "101-continue", "y 100-continue"].iter().enumerate()
    {
        let given = post(&format!("Content-Length: {}\r\nExpect: {expect}\r\n", SMUGGLED.len()), SMUGGLED);
        let once = Sees::Each(vec![Want::of("POST /a").body(SMUGGLED)]);
        let case = Case::h1(format!("H1-EX-{}", 10 + at), "expect-other", given).by(ALL);
        all.push(
            case.sees(Sees::Either(vec![once, Sees::Nothing])).gets(Gets::That("200, 400 or 417", |got| {
                got.answers().0.len() == 1 && matches!(got.answers().0[0].status(), 200 | 400 | 417)
            })),
        );
    }
    // A refusal before the body: what the client sends as body is not the next request.
    let refused = post(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", SMUGGLED.len()), "")
        .replace("/a", "/a%2fb");
    all.push(Case::h1("H1-EX-20", "early-answer", refused).then(Step::Hear).write(SMUGGLED));
    let unknown = post(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", SMUGGLED.len()), "")
        .replace("Host: cart", "Host: nobody");
    all.push(
        Case::h1("H1-EX-21", "early-answer", unknown).by(&[Way::Out]).then(Step::Hear).write(SMUGGLED).gets(
            Gets::That("one 404, nothing else", |got| {
                got.answers().0.len() == 1 && got.answers().0[0].status() == 404
            }),
        ),
    );
    all
}

fn early() -> Vec<Case> {
    let mut all = Vec::new();
    let no = |status: u16| format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno").into_bytes();
    // The application answers at the head; the client goes on with a body that looks like a request.
    for (at, status) in [413, 401, 200, 417].iter().enumerate() {
        for (id, headers, rest) in [
            ("a", format!("Content-Length: {}\r\n", SMUGGLED.len()), SMUGGLED.to_owned()),
            (
                "b",
                "Transfer-Encoding: chunked\r\n".into(),
                format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()),
            ),
            (
                "c",
                format!("Content-Length: {}\r\nExpect: 100-continue\r\n", SMUGGLED.len()),
                SMUGGLED.to_owned(),
            ),
        ] {
            let case = Case::h1(format!("H1-EA-{:02}{id}", at + 1), "early-answer", post(&headers, ""))
                .by(ALL)
                .then(Step::Hear)
                .write(rest)
                .script(Script::Early(vec![Part::Send(no(*status))]))
                .sees(Sees::Either(vec![
                    Sees::NoWhole,
                    Sees::Each(vec![Want::of("POST /a").body(SMUGGLED)]),
                ]));
            all.push(case.gets(Gets::That("one answer", |got| {
                let (finals, _, rest) = got.answers();
                finals.len() == 1 && finals[0].body == b"no" && rest.is_none()
            })));
        }
    }
    // The rest of an unfinished upload is not the beginning of somebody else's request: the probe tells.
    let half = post("Content-Length: 1000\r\n", "GET /smuggled HTTP/1.1\r\n");
    all.push(
        Case::h1("H1-EA-10", "early-answer", half)
            .by(ALL)
            .script(Script::Early(vec![Part::Send(no(200))]))
            .sees(Sees::NoWhole)
            .gets(Gets::That("one answer", |got| got.answers().0.len() == 1)),
    );
    let close = vec![
        Part::Send(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno".to_vec()),
        Part::Close,
    ];
    all.push(
        Case::h1("H1-EA-11", "early-answer", post("Content-Length: 1000\r\n", "half"))
            .by(ALL)
            .script(Script::Early(close))
            .sees(Sees::NoWhole)
            .gets(Gets::That("the answer, or its own refusal", |got| {
                got.answers().0.first().is_some_and(|m| matches!(m.status(), 413 | 502))
            })),
    );
    all
}

fn aborted() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, bytes) in [
        ("H1-UA-01", post("Content-Length: 10\r\n", "abcde")),
        ("H1-UA-02", post("Content-Length: 10\r\n", "")),
        ("H1-UA-03", post("Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n")),
        ("H1-UA-04", post("Transfer-Encoding: chunked\r\n", "5\r\nabc")),
        ("H1-UA-05", post("Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n")),
        ("H1-UA-06", post("Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n0\r\nX: y\r\n")),
        ("H1-UA-07", post("Transfer-Encoding: chunked\r\n", "")),
        ("H1-UA-08", "POST /a HTTP/1.1\r\nHost: cart\r\nContent-Le".into()),
        ("H1-UA-09", "GET /a HTTP/1.1\r\nHost: cart\r\n".into()),
        ("H1-UA-10", "GET /a HTTP/1.1\r\nHost: cart\r\n\r".into()),
    ] {
        for (kind, last) in [("h", Step::HalfClose), ("c", Step::Leave)] {
            let case = Case::h1(format!("{id}{kind}"), "upload-aborted", bytes.clone())
                .by(ALL)
                .then(Step::Pause(60));
            let left = matches!(last, Step::Leave);
            let gets = if left {
                Gets::That("nothing", |_| true)
            } else {
                Gets::That("an end without 200", |got| {
                    got.closed && got.answers().0.iter().all(|m| m.status() >= 400)
                })
            };
            all.push(case.then(last).sees(Sees::NoWhole).gets(gets));
        }
    }
    let slow = post("Content-Length: 10\r\n", "abcde");
    let case = Case::h1("H1-UA-20", "body-idle", slow).by(&[Way::Out]).idle(300).sees(Sees::NoWhole);
    all.push(case.gets(Gets::That("an end without 200", |got| {
        got.answers().0.iter().all(|m| m.status() >= 400) && (got.closed || !got.answers().0.is_empty())
    })));
    all
}

fn pipelined() -> Vec<Case> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: cart\r\n\r\n");
    let mut all = Vec::new();
    let three =
        [get("/1"), "POST /2 HTTP/1.1\r\nHost: cart\r\nContent-Length: 3\r\n\r\nabc".into(), get("/3")]
            .concat();
    let wants =
        || vec![Want::of("GET /1").body(""), Want::of("POST /2").body("abc"), Want::of("GET /3").body("")];
    let ordered = Gets::That("three answers in order", |got| {
        let bodies: Vec<Vec<u8>> = got.answers().0.into_iter().map(|m| m.body).collect();
        bodies == [b"/1".to_vec(), b"/2".to_vec(), b"/3".to_vec()]
    });
    all.push(
        Case::h1("H1-PI-01", "pipelined", three.clone())
            .by(ALL)
            .sees(Sees::Each(wants()))
            .gets(ordered.clone()),
    );
    // Byte by byte it is the same.
    let mut slow = Case::h1("H1-PI-02", "pipelined", "").by(EDGES).sees(Sees::Each(wants())).gets(ordered);
    slow.steps = three.bytes().map(|b| Step::Write(vec![b])).collect();
    all.push(slow);
    // Behind a refusal that closes nothing is served.
    let bad = format!("{}{}{}", get("/1"), get("/a%00"), SMUGGLED);
    all.push(Case::h1("H1-PI-03", "pipelined", bad).sees(Sees::Each(vec![Want::of("GET /1")])).gets(
        Gets::That("200, 400 and the end", |got| {
            let (finals, _, rest) = got.answers();
            let statuses: Vec<u16> = finals.iter().map(crate::reading::Message::status).collect();
            statuses == [200, 400] && got.closed && rest.is_none()
        }),
    ));
    let close = format!("GET /1 HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n{SMUGGLED}");
    all.push(
        Case::h1("H1-PI-04", "pipelined", close).by(ALL).sees(Sees::Each(vec![Want::of("GET /1")])).gets(
            Gets::That("one answer and the end", |got| {
                got.closed && got.only().is_some_and(|m| m.status() == 200)
            }),
        ),
    );
    let old = format!("GET /1 HTTP/1.0\r\nHost: cart\r\n\r\n{SMUGGLED}");
    all.push(Case::h1("H1-PI-05", "pipelined", old).by(ALL).sees(Sees::Each(vec![Want::of("GET /1")])).gets(
        Gets::That("one answer and the end", |got| {
            got.closed && got.only().is_some_and(|m| m.status() == 200)
        }),
    ));
    // The cut of an answer cuts what is pipelined behind it.
    let short = vec![Part::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()), Part::Close];
    all.push(
        Case::h1("H1-PI-06", "answer-short", format!("{}{SMUGGLED}", get("/1")))
            .by(ALL)
            .script(Script::Then(short))
            .sees(Sees::Each(vec![Want::of("GET /1")]))
            .gets(Gets::Cut),
    );
    all
}
