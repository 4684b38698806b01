//! Where a request ends: Content-Length and Transfer-Encoding in every form that two parties could read differently.

use crate::case::{ALL, Case, Gets, Sees, Want};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";

pub fn cases() -> Vec<Case> {
    let mut all = both();
    all.extend(lengths());
    all.extend(codings());
    all.extend(reframed());
    all
}

/// A POST with `headers` and `body`.
fn post(headers: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: cart\r\n{headers}\r\n{body}")
}

/// What may follow where the parser below us has settled on one reading: that reading, framed anew, and the end of the
/// connection; or a refusal.
fn one_reading(case: Case, body: &str) -> Case {
    let once = Want::of("POST /a").body(body).lacks("x-smuggled");
    case.sees(Sees::Either(vec![Sees::Nothing, Sees::Each(vec![once])])).gets(Gets::Either(vec![
        Gets::Refused(400, "bad_request"),
        Gets::That("one answer, and the end", |got| {
            got.closed && got.only().is_some_and(|m| m.status() == 200)
        }),
    ]))
}

fn both() -> Vec<Case> {
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let mut all = Vec::new();
    for (at, headers) in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\ncontent-length: 99\r\n",
        "CONTENT-LENGTH: 5\r\ntransfer-encoding: Chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5, 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: Content-Length\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        all.push(Case::h1(format!("H1-CLTE-{:02}", at + 1), "framing-both", post(headers, &chunked)));
    }
    all
}

fn lengths() -> Vec<Case> {
    let mut all = Vec::new();
    let body = format!("abcde{SMUGGLED}");
    for (id, clause, headers) in [
        ("H1-CL-01", "length-list", "Content-Length: 5, 5\r\n"),
        ("H1-CL-02", "length-list", "Content-Length: 5,6\r\n"),
        ("H1-CL-03", "length-list", "Content-Length: 5,\r\n"),
        ("H1-CL-04", "length-list", "Content-Length: ,5\r\n"),
        ("H1-CL-05", "length-list", "Content-Length: 5;5\r\n"),
        ("H1-CL-06", "length-duplicate", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("H1-CL-07", "length-duplicate", "Content-Length: 6\r\nContent-Length: 5\r\n"),
        ("H1-CL-08", "length-duplicate", "Content-Length: 0\r\nContent-Length: 5\r\n"),
        ("H1-CL-09", "length-duplicate", "Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 50\r\n"),
        ("H1-CL-10", "length-duplicate", "Content-Length: 5\r\nContent-Length: \r\n"),
        ("H1-CL-11", "length-sign", "Content-Length: +5\r\n"),
        ("H1-CL-12", "length-sign", "Content-Length: -5\r\n"),
        ("H1-CL-13", "length-sign", "Content-Length: -0\r\n"),
        ("H1-CL-14", "length-blank", "Content-Length: 5 0\r\n"),
        ("H1-CL-15", "length-blank", "Content-Length: 5\t0\r\n"),
        ("H1-CL-16", "length-blank", "Content-Length: \u{b}5\r\n"),
        ("H1-CL-17", "length-blank", "Content-Length: 5\u{c}\r\n"),
        ("H1-CL-18", "length-empty", "Content-Length:\r\n"),
        ("H1-CL-19", "length-empty", "Content-Length: \t \r\n"),
        ("H1-CL-20", "length-overflow", "Content-Length: 18446744073709551616\r\n"),
        ("H1-CL-21", "length-overflow", "Content-Length: 18446744073709551621\r\n"),
        ("H1-CL-22", "length-overflow", "Content-Length: 18446744073709551615\r\n"),
        ("H1-CL-23", "length-overflow", "Content-Length: 99999999999999999999999999999999999999999\r\n"),
        ("H1-CL-24", "length-digits", "Content-Length: 0x5\r\n"),
        ("H1-CL-25", "length-digits", "Content-Length: 5.0\r\n"),
        ("H1-CL-26", "length-digits", "Content-Length: 5e0\r\n"),
        ("H1-CL-27", "length-digits", "Content-Length: five\r\n"),
        ("H1-CL-28", "length-digits", "Content-Length: 5_0\r\n"),
        ("H1-CL-29", "length-digits", "Content-Length: \"5\"\r\n"),
        ("H1-CL-30", "length-digits", "Content-Length: \u{665}\r\n"),
    ] {
        all.push(Case::h1(id, clause, post(headers, &body)));
    }
    let twice = post("Content-Length: 5\r\nContent-Length: 5\r\n", "abcde");
    all.push(one_reading(Case::h1("H1-CL-31", "one-reading", twice), "abcde"));
    let zeros = post("Content-Length: 00005\r\n", "abcde");
    let want = Want::of("POST /a").has("content-length: 5").body("abcde");
    all.push(Case::h1("H1-CL-32", "framing-ours", zeros).by(ALL).passes(want));
    let padded = post("Content-Length: \t 5 \t\r\n", "abcde");
    let want = Want::of("POST /a").has("content-length: 5").body("abcde");
    let passed = Sees::Each(vec![want]);
    all.push(
        Case::h1("H1-CL-33", "length-blank", padded)
            .sees(Sees::Either(vec![passed, Sees::Nothing]))
            .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::Refused(400, "bad_request")])),
    );
    all
}

fn codings() -> Vec<Case> {
    let mut all = Vec::new();
    let body = format!("5\r\nabcde\r\n0\r\n\r\n{SMUGGLED}");
    for (at, headers) in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: x\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunke\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: , chunked ,\r\n",
        "Transfer-Encoding: chunked \u{b}\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: \u{c}chunked\r\n",
        "Transfer-Encoding: chunked\u{a0}\r\n",
        "Transfer-Encoding: chun\tked\r\n",
        "Transfer-Encoding: chunked chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: cow\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        all.push(Case::h1(format!("H1-TE-{:02}", at + 1), "coding-chunked", post(headers, &body)));
    }
    // Names that a lenient reader takes for the coding. Here the length counts, and what looks like chunks is its body.
    for (at, name) in ["Transfer_Encoding", "X-Transfer-Encoding", "Transfer-Encodin", "TransferEncoding"]
        .iter()
        .enumerate()
    {
        let headers = format!("Content-Length: 4\r\n{name}: chunked\r\n");
        let want = Want::of("POST /a").has("content-length: 4").body("5\r\na").lacks("transfer-encoding");
        all.push(
            Case::h1(format!("H1-TE-{}", 40 + at), "framing-alias", post(&headers, "5\r\na")).passes(want),
        );
    }
    for (at, line) in [
        "HTTP/1.0\r\nTransfer-Encoding: chunked",
        "HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    ]
    .iter()
    .enumerate()
    {
        let bytes = format!("POST /a {line}\r\nHost: cart\r\n\r\n{body}");
        all.push(Case::h1(format!("H1-TE-{}", 50 + at), "coding-http10", bytes));
    }
    let kept = format!(
        "POST /a HTTP/1.0\r\nConnection: keep-alive\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    );
    all.push(Case::h1("H1-TE-52", "coding-http10", kept));
    all
}

fn reframed() -> Vec<Case> {
    let chunked = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let odd = "000003\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n";
    let want = || Want::of("POST /a").has("host: cart");
    vec![
        Case::h1("H1-FR-01", "framing-ours", post("Content-Length: 5\r\n", "abcde"))
            .by(ALL)
            .passes(want().has("content-length: 5").lacks("transfer-encoding").body("abcde")),
        Case::h1("H1-FR-02", "framing-ours", post("Transfer-Encoding: chunked\r\n", chunked))
            .by(ALL)
            .passes(want().has("transfer-encoding: chunked").lacks("content-length").body("abcde")),
        Case::h1("H1-FR-03", "framing-ours", post("transfer-encoding: CHUNKED\r\n", odd))
            .by(ALL)
            .passes(want().has("transfer-encoding: chunked").body("abc0123456789")),
        Case::h1("H1-FR-04", "framing-ours", "GET /a HTTP/1.1\r\nHost: cart\r\n\r\n")
            .by(ALL)
            .passes(Want::of("GET /a").lacks("content-length").lacks("transfer-encoding").body("")),
        Case::h1("H1-FR-05", "framing-ours", post("Content-Length: 0\r\n", ""))
            .by(ALL)
            .passes(want().has("content-length: 0").body("")),
        Case::h1("H1-FR-06", "framing-ours", "GET /a HTTP/1.1\r\nHost: cart\r\nContent-Length: 3\r\n\r\nabc")
            .by(ALL)
            .passes(Want::of("GET /a").has("content-length: 3").body("abc")),
        // CL.0: an application that ignores the body of a GET must still not find a request in it.
        Case::h1(
            "H1-FR-07",
            "framing-ours",
            format!("GET /a HTTP/1.1\r\nHost: cart\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        )
        .by(ALL)
        .passes(Want::of("GET /a").has(&format!("content-length: {}", SMUGGLED.len())).body(SMUGGLED)),
        Case::h1(
            "H1-FR-11",
            "framing-ours",
            format!("GET /a HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()),
        )
        .by(ALL)
        .passes(Want::of("GET /a").body(SMUGGLED)),
        // 0.CL: bytes behind a request without a body are the next request, whatever they look like.
        Case::h1("H1-FR-08", "request-end", "GET /a HTTP/1.1\r\nHost: cart\r\n\r\nabcde\r\n\r\n")
            .sees(Sees::Each(vec![Want::of("GET /a").body("")]))
            .gets(Gets::That("an answer, then 400 and the end", |got| {
                let (finals, _, rest) = got.answers();
                let statuses: Vec<u16> = finals.iter().map(crate::reading::Message::status).collect();
                got.closed && rest.is_none() && (statuses == [200, 400] || statuses == [200])
            })),
        Case::h1("H1-FR-09", "request-end", post("Content-Length: 3\r\n", "abcde\r\n\r\n"))
            .sees(Sees::Each(vec![want().body("abc")]))
            .gets(Gets::That("an answer, then 400 and the end", |got| {
                let (finals, _, rest) = got.answers();
                let statuses: Vec<u16> = finals.iter().map(crate::reading::Message::status).collect();
                got.closed && rest.is_none() && (statuses == [200, 400] || statuses == [200])
            })),
        Case::h1(
            "H1-FR-10",
            "request-end",
            "POST /a HTTP/1.1\r\nHost: cart\r\nContent-Length: 1\r\n\r\naGET /b HTTP/1.1\r\nHost: cart\r\n\r\n",
        )
        .by(ALL)
        .sees(Sees::Each(vec![Want::of("POST /a").body("a"), Want::of("GET /b").body("")]))
        .gets(Gets::That("both answers in order", |got| {
            let bodies: Vec<Vec<u8>> = got.answers().0.into_iter().map(|m| m.body).collect();
            bodies == [b"/a".to_vec(), b"/b".to_vec()]
        })),
    ]
}
