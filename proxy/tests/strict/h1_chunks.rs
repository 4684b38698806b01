//! Chunks: sizes, ends, extensions and what may stand behind the last.

use crate::case::{ALL, Case, Gets, Sees, Want};

pub fn cases() -> Vec<Case> {
    let mut all = broken();
    all.extend(extensions());
    all.extend(trailers());
    all
}

/// A chunked POST with these chunks.
fn post(chunks: impl AsRef<[u8]>) -> Vec<u8> {
    let head = b"POST /a HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n";
    [&head[..], chunks.as_ref()].concat()
}

/// Its head may be on its way already when the fault shows; then it never becomes whole, and the connection ends.
fn never_whole(case: Case) -> Case {
    case.sees(Sees::NoWhole).gets(Gets::Either(vec![Gets::Refused(400, "bad_request"), Gets::Cut]))
}

fn broken() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, clause, chunks) in [
        ("H1-CH-01", "chunk-sign", "+5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-02", "chunk-sign", "-5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-03", "chunk-sign", "5\r\nabcde\r\n-0\r\n\r\n"),
        ("H1-CH-04", "chunk-0x", "0x5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-05", "chunk-0x", "0X5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-06", "chunk-0x", "5h\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-07", "chunk-0x", "\\x5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-08", "chunk-blank", " 5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-09", "chunk-blank", "5 \r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-10", "chunk-blank", "5\t\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-11", "chunk-blank", "5 5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-12", "chunk-blank", "\r\n5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-13", "chunk-blank", "5\u{b}\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-14", "chunk-blank", "5_0\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-15", "chunk-overflow", "10000000000000005\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-16", "chunk-overflow", "ffffffffffffffffff5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-17", "chunk-overflow", "fffffffffffffff5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-18", "chunk-overflow", "FFFFFFFFFFFFFFFF\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-19", "chunk-end", "5\r\nabcdef\r\n0\r\n\r\n"),
        ("H1-CH-20", "chunk-end", "5\r\nabcde0\r\n\r\n"),
        ("H1-CH-21", "chunk-end", "5\r\nabcde\r0\r\n\r\n"),
        ("H1-CH-22", "chunk-end", "5\r\nabcdeXX0\r\n\r\n"),
        ("H1-CH-23", "chunk-end", "3\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-24", "chunk-end", "5\r\nabcde \r\n0\r\n\r\n"),
        ("H1-CH-25", "chunk-lf", "5\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-26", "chunk-lf", "5\r\nabcde\n0\r\n\r\n"),
        ("H1-CH-27", "chunk-lf", "5\r\nabcde\r\n0\n\r\n"),
        ("H1-CH-28", "chunk-lf", "5\r\nabcde\r\n0\r\n\n"),
        ("H1-CH-29", "chunk-lf", "5\rabcde\r\n0\r\n\r\n"),
        ("H1-CH-30", "chunk-lf", "5;a\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-31", "chunk-size", "\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-32", "chunk-size", ";x\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-33", "chunk-size", "g\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-34", "chunk-size", "5,5\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-35", "chunk-size", "5.\r\nabcde\r\n0\r\n\r\n"),
        ("H1-CH-36", "chunk-size", "5\0\r\nabcde\r\n0\r\n\r\n"),
    ] {
        all.push(never_whole(Case::h1(id, clause, post(chunks))));
    }
    // What lies behind the last chunk is the next request, and this is none.
    all.push(
        Case::h1("H1-CH-37", "request-end", post("1\r\na\r\n0\r\n\r\nXGET /smuggled HTTP/1.1 x\r\n\r\n"))
            .sees(Sees::Each(vec![Want::of("POST /a").body("a")]))
            .gets(Gets::That("an answer, then the end", |got| {
                let (finals, _, rest) = got.answers();
                got.closed && rest.is_none() && finals.first().is_some_and(|m| m.status() == 200)
            })),
    );
    all
}

fn extensions() -> Vec<Case> {
    let with = |extension: &str| post(format!("5{extension}\r\nabcde\r\n0\r\n\r\n"));
    let want = || Want::of("POST /a").body("abcde");
    let long = format!(";x={}", "y".repeat(70_000));
    let many = format!("{}0\r\n\r\n", "1;aaaaaaaaaaaaaaaa\r\na\r\n".repeat(5_000));
    vec![
        // The judge refuses extensions: what is sent on has none.
        Case::h1("H1-CX-01", "chunk-extension", with(";name=value")).passes(want()),
        Case::h1("H1-CX-02", "chunk-extension", with(";name=\"quoted; value\"")).passes(want()),
        never_whole(Case::h1("H1-CX-03", "chunk-extension", with(&long))),
        never_whole(Case::h1("H1-CX-04", "chunk-extension", post(many))),
        never_whole(Case::h1("H1-CX-05", "chunk-extension", with(";a\rb"))),
        never_whole(Case::h1("H1-CX-06", "chunk-extension", with(";a\0b"))),
        never_whole(Case::h1("H1-CX-07", "chunk-extension", post("5;x\n0\r\nabcde\r\n0\r\n\r\n"))),
    ]
}

fn trailers() -> Vec<Case> {
    let with = |trailers: &str| post(format!("1\r\na\r\n0\r\n{trailers}\r\n"));
    let told = |trailers: &str| {
        let text = String::from_utf8(with(trailers)).unwrap();
        text.replacen("\r\n\r\n", "\r\nTrailer: X-Sum\r\n\r\n", 1)
    };
    let want = || Want::of("POST /a").body("a");
    let mut all = vec![
        Case::h1("H1-TR-01", "trailer-kept", told("X-Sum: 7\r\n"))
            .by(ALL)
            .passes(want().trailers(&["x-sum: 7"])),
        Case::h1("H1-TR-02", "trailer-kept", told("X-Sum: 7\r\nX-Sum: 8\r\n"))
            .passes(want().trailers(&["x-sum: 7", "x-sum: 8"])),
        // What was not announced may be dropped on the way (RFC 9110, section 6.5.1), and nothing else.
        Case::h1("H1-TR-03", "trailer-kept", with("X-Sum: 7\r\n")).by(ALL).passes(want()),
    ];
    // What frames, routes or identifies must not come in by the back door: dropped or refused, never passed on.
    for (at, name) in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: other",
        "Connection: close",
        "X-Outrigger-Attempt: 9",
        "x_outrigger_reason: x",
        "X-Forwarded-Client-Cert: forged",
        "Authorization: Bearer x",
        "Upgrade: h2c",
        "TE: gzip",
        "Trailer: x",
        "Keep-Alive: 5",
        "Cookie: a=b",
        "Content-Type: text/html",
        "Expect: 100-continue",
    ]
    .iter()
    .enumerate()
    {
        let clean = want().trailers(&[]);
        all.push(
            Case::h1(format!("H1-TR-{:02}", at + 10), "trailer-forbidden", with(&format!("{name}\r\n")))
                .by(ALL)
                .sees(Sees::Either(vec![Sees::NoWhole, Sees::Each(vec![clean])]))
                .gets(Gets::Either(vec![
                    Gets::Answers(vec![200]),
                    Gets::Refused(400, "bad_request"),
                    Gets::Cut,
                ])),
        );
    }
    for (at, lines) in
        ["X : y\r\n", " X: y\r\n", "X: y\r\n folded\r\n", ": y\r\n", "X y\r\n", "X: \0\r\n", "X: a\rb\r\n"]
            .iter()
            .enumerate()
    {
        all.push(never_whole(Case::h1(format!("H1-TR-{}", at + 30), "trailer-syntax", with(lines))));
    }
    let flood = "X-Long: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(3_000);
    all.push(never_whole(Case::h1("H1-TR-40", "trailer-bound", with(&flood))));
    let wide = format!("X-Long: {}\r\n", "y".repeat(100_000));
    all.push(never_whole(Case::h1("H1-TR-41", "trailer-bound", with(&wide))));
    all
}
