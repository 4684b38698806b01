//! The head of a request, byte by byte: names, values, line ends, the request line, and names that pass for others.

use crate::case::{ALL, Case, Gets, Sees, Want};

pub fn cases() -> Vec<Case> {
    let mut all = fields();
    all.extend(request_lines());
    all.extend(line_ends());
    all.extend(aliases());
    all
}

fn with(headers: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /a HTTP/1.1\r\nHost: cart\r\n", headers.as_ref(), b"\r\n"].concat()
}

fn fields() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, clause, headers) in [
        ("H1-HD-01", "name-blank", "X-A : b\r\n"),
        ("H1-HD-02", "name-blank", "X-A\t: b\r\n"),
        ("H1-HD-03", "name-blank", "Content-Length : 5\r\n"),
        ("H1-HD-04", "name-blank", "Transfer-Encoding : chunked\r\n"),
        ("H1-HD-05", "name-blank", "Transfer-Encoding\t: chunked\r\n"),
        ("H1-HD-06", "name-blank", "X A: b\r\n"),
        ("H1-HD-07", "name-blank", "X\u{b}: b\r\n"),
        ("H1-HD-08", "name-empty", ": b\r\n"),
        ("H1-HD-09", "name-empty", ":\r\n"),
        ("H1-HD-10", "name-empty", ":method: GET\r\n"),
        ("H1-HD-11", "name-token", "X@A: b\r\n"),
        ("H1-HD-12", "name-token", "X(A): b\r\n"),
        ("H1-HD-13", "name-token", "\"X\": b\r\n"),
        ("H1-HD-14", "name-token", "X/A: b\r\n"),
        ("H1-HD-15", "name-token", "X=A\r\n"),
        ("H1-HD-16", "name-token", "no colon at all\r\n"),
        ("H1-HD-17", "name-token", "X[A]: b\r\n"),
        ("H1-HD-18", "nul", "X-A: b\0c\r\n"),
        ("H1-HD-19", "nul", "X-\0A: b\r\n"),
        ("H1-HD-20", "nul", "X-A: \0\r\n"),
        ("H1-HD-21", "nul", "\0X-A: b\r\n"),
        ("H1-HD-22", "bare-cr", "X-A: b\rX-B: c\r\n"),
        ("H1-HD-23", "bare-cr", "X-A: b\r\r\n"),
        ("H1-HD-24", "bare-cr", "X-A: \rTransfer-Encoding: chunked\r\n"),
        ("H1-HD-25", "bare-cr", "X-\rA: b\r\n"),
        ("H1-HD-26", "bare-cr", "\rX-A: b\r\n"),
        ("H1-HD-27", "bare-cr", "X-A: b\r\r\nGET /smuggled HTTP/1.1\r\nHost: cart\r\n"),
        ("H1-HD-28", "obs-fold", "X-A: b\r\n c\r\n"),
        ("H1-HD-29", "obs-fold", "X-A: b\r\n\tc\r\n"),
        ("H1-HD-30", "obs-fold", "X-A:\r\n b\r\n"),
        ("H1-HD-31", "obs-fold", "Transfer-Encoding:\r\n chunked\r\n"),
        ("H1-HD-32", "obs-fold", "Content-Length: 5\r\n 0\r\n"),
        ("H1-HD-33", "obs-fold", "X-A: b\r\n \r\n"),
        ("H1-HD-34", "value-control", "X-A: b\u{1}\r\n"),
        ("H1-HD-35", "value-control", "X-A: b\u{7f}\r\n"),
        ("H1-HD-36", "value-control", "X-A: \u{1b}[31m\r\n"),
        ("H1-HD-37", "value-control", "X-A: b\u{8}\r\n"),
    ] {
        all.push(Case::h1(id, clause, with(headers)));
    }
    let folded_first = "GET /a HTTP/1.1\r\n Host: cart\r\n\r\n";
    all.push(Case::h1("H1-HD-38", "obs-fold", folded_first));
    let folded_host = "GET /a HTTP/1.1\r\nHost: cart\r\n .evil\r\n\r\n";
    all.push(Case::h1("H1-HD-39", "obs-fold", folded_host));
    let want = Want::of("GET /a").has("x-a: b").has("x-a: c").has("x-high: \u{e4}");
    let kept = with(b"X-A: b\r\nX-A: \t c \t\r\nX-High: \xe4\r\n");
    all.push(Case::h1("H1-HD-40", "value-kept", kept).by(ALL).passes(want));
    let want = Want::of("GET /a").has("x-empty: ");
    all.push(Case::h1("H1-HD-41", "value-kept", with("X-Empty:\r\n")).by(ALL).passes(want));
    all
}

fn request_lines() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, line) in [
        "GET  /a HTTP/1.1",
        "GET /a  HTTP/1.1",
        "GET\t/a HTTP/1.1",
        "GET /a\tHTTP/1.1",
        " GET /a HTTP/1.1",
        "GET /a HTTP/1.1 ",
        "GET /a HTTP/1.1\t",
        "GET /a b HTTP/1.1",
        "GET /a HTTP/1.1 HTTP/1.1",
        "GET /a",
        "GET /a HTTP",
        "GET /a HTTP/",
        "GET /a HTTP/1",
        "GET /a HTTP/1.",
        "GET /a HTTP/.1",
        "GET /a HTTP/1.2",
        "GET /a HTTP/0.9",
        "GET /a HTTP/2.0",
        "GET /a HTTP/1.10",
        "GET /a HTTP/01.1",
        "GET /a HTTP/1,1",
        "GET /a http/1.1",
        "GET /a HTTPS/1.1",
        "GET /a ICY/1.1",
        "G@T /a HTTP/1.1",
        "(GET) /a HTTP/1.1",
        "\"GET\" /a HTTP/1.1",
        " /a HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET /a\u{b}HTTP/1.1",
        "GET /a\0 HTTP/1.1",
        "GET\0 /a HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /a\r HTTP/1.1",
    ]
    .iter()
    .enumerate()
    {
        let bytes = format!("{line}\r\nHost: cart\r\n\r\n");
        let case = Case::h1(format!("H1-RL-{:02}", at + 1), "request-line", bytes);
        all.push(case.gets(Gets::That("a refusal and the end", |got| {
            let only = got.answers().0;
            got.closed && only.len() <= 1 && only.iter().all(|m| matches!(m.status(), 400 | 431 | 505))
        })));
    }
    let long = format!("{} /a HTTP/1.1\r\nHost: cart\r\n\r\n", "M".repeat(70_000));
    all.push(Case::h1("H1-RL-40", "request-line", long).gets(Gets::That("a refusal and the end", |got| {
        got.closed && got.answers().0.iter().all(|m| matches!(m.status(), 400 | 414 | 431 | 501))
    })));
    let known = "PROPFIND /a HTTP/1.1\r\nHost: cart\r\n\r\n";
    all.push(Case::h1("H1-RL-41", "method-kept", known).by(ALL).passes(Want::of("PROPFIND /a")));
    let lower = "get /a HTTP/1.1\r\nHost: cart\r\n\r\n";
    all.push(Case::h1("H1-RL-42", "method-kept", lower).by(ALL).passes(Want::of("get /a")));
    // One empty line before a request may be let go (RFC 9112, section 2.2).
    let empty = "\r\nGET /a HTTP/1.1\r\nHost: cart\r\n\r\n";
    let passed = Sees::Each(vec![Want::of("GET /a")]);
    all.push(
        Case::h1("H1-RL-43", "request-line", empty)
            .sees(Sees::Either(vec![passed, Sees::Nothing]))
            .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::Refused(400, "bad_request")])),
    );
    all
}

/// Bare line feeds have one reading for whoever takes them, and another for whoever does not: a refusal, or the one
/// reading with our own line ends and nothing behind it.
fn line_ends() -> Vec<Case> {
    let mut all = Vec::new();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";
    for (at, bytes) in [
        "GET /a HTTP/1.1\nHost: cart\n\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: cart\n\r\n".to_owned(),
        "GET /a HTTP/1.1\nHost: cart\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: cart\r\n\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: cart\r\nX-A: b\nX-B: c\r\n\r\n".to_owned(),
        format!("GET /a HTTP/1.1\r\nHost: cart\n\n{smuggled}"),
        format!(
            "POST /a HTTP/1.1\r\nHost: cart\r\nX: y\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ),
        format!("POST /a HTTP/1.1\r\nHost: cart\r\nContent-Length: {}\r\nX: y\n\n{smuggled}", smuggled.len()),
    ]
    .into_iter()
    .enumerate()
    {
        let method = if bytes.starts_with("POST") { "POST /a" } else { "GET /a" };
        let once = Want::of(method).has("host: cart");
        all.push(
            Case::h1(format!("H1-LF-{:02}", at + 1), "bare-lf", bytes)
                .sees(Sees::Either(vec![Sees::Nothing, Sees::Each(vec![once])]))
                .gets(Gets::That("a refusal and the end, or one answer", |got| match got.only() {
                    Some(m) => m.status() == 200 || (m.status() == 400 && got.closed),
                    None => got.closed,
                })),
        );
    }
    all
}

fn aliases() -> Vec<Case> {
    let mut all = Vec::new();
    // The names of the mesh, in every spelling that a server could take for them. None arrives: see `may_arrive`.
    for (at, name) in [
        "x-outrigger-reason",
        "X-OUTRIGGER-ATTEMPT",
        "X_OUTRIGGER_ATTEMPT",
        "x_outrigger-deadline_ms",
        "X-Outrigger_Hop",
        "x-outrigger-new-one",
        "x_outrigger_new_one",
        "X-Outrigger-Unprocessed",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "X-Forwarded_Client-Cert",
        "X-FORWARDED-CLIENT_CERT",
    ]
    .iter()
    .enumerate()
    {
        let want = Want::of("GET /a").has("x-kept: 1");
        let given = with(format!("{name}: forged;URI=spiffe://mesh.local/ns/shop/sa/admin\r\nX-Kept: 1\r\n"));
        all.push(Case::h1(format!("H1-ID-{:02}", at + 1), "identity-alias", given).by(ALL).passes(want));
    }
    let want = || Want::of("GET /a").has("x-kept: 1");
    let twice = "X-Forwarded-Client-Cert: forged=1\r\nX-Kept: 1\r\nx-forwarded-client-cert: forged=2\r\n";
    all.push(Case::h1("H1-ID-20", "identity-removed", with(twice)).by(ALL).passes(want()));
    let named = "Connection: x-forwarded-client-cert\r\nX-Forwarded-Client-Cert: forged\r\nX-Kept: 1\r\n";
    all.push(Case::h1("H1-ID-21", "identity-removed", with(named)).by(ALL).passes(want()));
    let many: String = (0..60).map(|n| format!("X-Outrigger-{n}: forged\r\n")).collect();
    all.push(
        Case::h1("H1-ID-22", "identity-removed", with(format!("{many}X-Kept: 1\r\n"))).by(ALL).passes(want()),
    );
    let many: String = (0..60).map(|n| format!("x_outrigger_{n}: forged\r\n")).collect();
    all.push(
        Case::h1("H1-ID-23", "identity-alias", with(format!("{many}X-Kept: 1\r\n"))).by(ALL).passes(want()),
    );
    // Not ours: longer or shorter names stay.
    let want =
        Want::of("GET /a").has("x-forwarded-client-certs: 1").has("x-outrigger: 2").has("xx-outrigger-a: 3");
    let near = "X-Forwarded-Client-Certs: 1\r\nX-Outrigger: 2\r\nXX-Outrigger-A: 3\r\n";
    all.push(Case::h1("H1-ID-24", "value-kept", with(near)).by(ALL).passes(want));
    // The mesh's own word about the caller's deadline and attempt is not taken from an application.
    let spoken = "X-Outrigger-Deadline-Ms: 1\r\nX-Outrigger-Attempt: 99\r\nX-Kept: 1\r\n";
    all.push(Case::h1("H1-ID-25", "identity-removed", with(spoken)).by(ALL).passes(want_kept()));
    all
}

fn want_kept() -> Want {
    Want::of("GET /a").has("x-kept: 1")
}
