//! One canonical path: what the backend sees is what was matched. The same through HTTP/2, whose paths go another way in.

use crate::case::{ALL, Case, Gets, Sees, Want, Way};
use crate::frames::{headers, with};

pub fn cases() -> Vec<Case> {
    let mut all = canonical();
    all.extend(refused());
    all.extend(queries());
    all
}

fn get(target: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: cart\r\n\r\n"].concat()
}

fn canonical() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, (clause, given, kept)) in [
        ("path-dots", "/a/./b", "/a/b"),
        ("path-dots", "/a/../b", "/b"),
        ("path-dots", "/a/b/../../c", "/c"),
        ("path-dots", "/a/..", "/"),
        ("path-dots", "/a/b/..", "/a/"),
        ("path-dots", "/.", "/"),
        ("path-dots", "/./", "/"),
        ("path-dots", "/a/.", "/a/"),
        ("path-dots", "/a/...", "/a/..."),
        ("path-dots", "/.a/..b/c..", "/.a/..b/c.."),
        ("path-encoded-dots", "/a/%2e%2e/b", "/b"),
        ("path-encoded-dots", "/a/%2E%2E/b", "/b"),
        ("path-encoded-dots", "/a/.%2e/b", "/b"),
        ("path-encoded-dots", "/a/%2e./b", "/b"),
        ("path-encoded-dots", "/a/%2e/b", "/a/b"),
        ("path-encoded-dots", "/public/%2e%2e/admin", "/admin"),
        ("path-slashes", "//a", "/a"),
        ("path-slashes", "/a//b", "/a/b"),
        ("path-slashes", "/a///b//", "/a/b/"),
        ("path-slashes", "/a//../b", "/b"),
        ("path-slashes", "/a/.//b", "/a/b"),
        ("path-escapes", "/%61%62", "/ab"),
        ("path-escapes", "/%41%5a%7e%2d", "/AZ~-"),
        ("path-escapes", "/a%3ab", "/a%3Ab"),
        ("path-escapes", "/a%c3%a4", "/a%C3%A4"),
        ("path-escapes", "/a%20b", "/a%20b"),
        ("path-escapes", "/a%3fb", "/a%3Fb"),
        ("path-escapes", "/a%23b", "/a%23b"),
        ("path-escapes", "/a%26b%3dc", "/a%26b%3Dc"),
        ("path-semicolon", "/a;v=1/b", "/a;v=1/b"),
        ("path-semicolon", "/a;/b", "/a;/b"),
    ]
    .into_iter()
    .enumerate()
    {
        let want = || Want::of(&format!("GET {kept}"));
        let id = at + 1;
        all.push(Case::h1(format!("PA-{id:02}"), clause, get(given)).by(ALL).passes(want()));
        if at % 5 == 0 {
            let frames = headers(1, true, &with("GET", given, &[]));
            all.push(Case::h2(format!("PA-{id:02}h2"), clause, frames).by(ALL).passes(want()));
        }
    }
    all
}

fn refused() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, (clause, given)) in [
        ("path-above-root", "/.."),
        ("path-above-root", "/../a"),
        ("path-above-root", "/a/../../b"),
        ("path-above-root", "/%2e%2e/a"),
        ("path-above-root", "/a/%2e%2e/%2e%2e/b"),
        ("path-encoded-slash", "/a%2fb"),
        ("path-encoded-slash", "/a%2Fb"),
        ("path-encoded-slash", "/a/..%2fb"),
        ("path-encoded-slash", "/%2f"),
        ("path-backslash", "/a\\b"),
        ("path-backslash", "/a/..\\b"),
        ("path-backslash", "/a%5cb"),
        ("path-backslash", "/a%5Cb"),
        ("path-nul", "/a%00"),
        ("path-nul", "/%00a"),
        ("path-nul", "/a.php%00.jpg"),
        ("path-control", "/a%0a"),
        ("path-control", "/a%0d%0aX-Smuggled:%201"),
        ("path-control", "/a%01"),
        ("path-control", "/a%1f"),
        ("path-control", "/a%7f"),
        ("path-control", "/a%09b"),
        ("path-bad-escape", "/a%"),
        ("path-bad-escape", "/a%2"),
        ("path-bad-escape", "/a%zz"),
        ("path-bad-escape", "/a%2g"),
        ("path-bad-escape", "/a%%32e"),
        ("path-bad-escape", "/a%u002e"),
        ("path-bad-escape", "/a% 2e"),
        ("path-bad-escape", "/a%-1"),
        ("path-semicolon-dots", "/..;/a"),
        ("path-semicolon-dots", "/a/..;x=1/b"),
        ("path-semicolon-dots", "/a/.;/b"),
        ("path-semicolon-dots", "/a/%2e%2e;/b"),
        ("path-semicolon-dots", "/a/..;"),
        ("path-fragment", "/a#b"),
        ("path-fragment", "/#"),
        ("path-relative", "a"),
        ("path-relative", "../a"),
        ("path-relative", "%2fa"),
        ("path-relative", ";a"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = at + 1;
        all.push(Case::h1(format!("PR-{id:02}"), clause, get(given)));
        if at % 4 == 0 && clause != "path-fragment" {
            let frames = headers(1, true, &with("GET", given, &[]));
            all.push(Case::h2(format!("PR-{id:02}h2"), clause, frames));
        }
    }
    // Bytes that are no text: overlong forms of the slash and the dot, halves of characters, raw bytes above ASCII.
    for (at, given) in
        ["/a%c0%afb", "/a/%c0%ae%c0%ae/b", "/a%e0%80%afb", "/a%f0%80%80%afb", "/a%ff", "/a%c3", "/a%ed%a0%80"]
            .into_iter()
            .enumerate()
    {
        // Kept as they are they mean to us what they mean to the next: bytes. Decoded they would be another path.
        let as_given = Want::of(&upper_escapes(given));
        all.push(
            Case::h1(format!("PU-{:02}", at + 1), "path-overlong", get(given))
                .sees(Sees::Either(vec![Sees::Nothing, Sees::Each(vec![as_given])]))
                .gets(Gets::Either(vec![Gets::Refused(400, "bad_request"), Gets::Answers(vec![200])])),
        );
    }
    for (at, raw) in
        [&b"/a\xc0\xafb"[..], b"/a\xff", b"/\xc3\xa4", b"/a/\xc0\xae\xc0\xae/b"].into_iter().enumerate()
    {
        all.push(Case::h1(format!("PU-{:02}", at + 10), "path-overlong", get(raw)));
    }
    all
}

/// `GET` and the path with the digits of its escapes in upper case.
fn upper_escapes(path: &str) -> String {
    let mut out = String::from("GET ");
    let mut digits = 0_u8;
    for c in path.chars() {
        if c == '%' {
            digits = 3;
        }
        out.push(if digits > 0 { c.to_ascii_uppercase() } else { c });
        digits = digits.saturating_sub(1);
    }
    out
}

fn queries() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, given) in [
        "/a?x=1",
        "/a?x=../..",
        "/a?x=%2f%5c",
        "/a?//",
        "/a?",
        "/a?x=%",
        "/a??x",
        "/?x=/../",
        "/a?b;c",
        "/a?[]{}|^`\"<>",
    ]
    .into_iter()
    .enumerate()
    {
        let want = Want::of(&format!("GET {given}"));
        let case = Case::h1(format!("PQ-{:02}", at + 1), "path-query", get(given)).by(ALL);
        // What no query may have (RFC 3986, section 3.4) can be refused as well.
        all.push(if at == 9 {
            case.sees(Sees::Either(vec![Sees::Each(vec![want]), Sees::Nothing]))
                .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::Refused(400, "bad_request")]))
        } else {
            case.passes(want)
        });
    }
    all.push(Case::h1("PQ-20", "path-query", get("/a?x=1#y")));
    all.push(Case::h1("PQ-21", "path-query", get("/a?x=\0")).by(&[Way::Out, Way::In]));
    all.push(
        Case::h1("PQ-22", "path-query", get("/a/../b?x=/a/../b"))
            .by(ALL)
            .passes(Want::of("GET /b?x=/a/../b")),
    );
    all
}
