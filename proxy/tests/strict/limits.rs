//! Each bound from both sides, and those who take their time.

use outrigger_proxy::http::canonical::MAX_URI;

use crate::case::{ALL, Case, Gets, Sees, Step, Want, Way};
use crate::frames::{headers, with};

pub fn cases() -> Vec<Case> {
    let mut all = sizes();
    all.extend(slow());
    all
}

fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: cart\r\n{more}\r\n")
}

fn sizes() -> Vec<Case> {
    let path = |length: usize| format!("/{}", "a".repeat(length - 1));
    let large = |length: usize| format!("X-Large: {}\r\n", "y".repeat(length));
    let refused = || Gets::Refused(431, "header_too_large");
    let too_long = || Gets::Told(414, "uri_too_long");
    let lines = |n: usize| (0..n).map(|at| format!("X-{at}: y\r\n")).collect::<String>();
    let longest = path(MAX_URI);
    let query = format!("/?{}", "q".repeat(MAX_URI));
    let mut all = vec![
        Case::h1("LI-01", "limit-uri", get(&longest, "")).by(ALL).passes(Want::of(&format!("GET {longest}"))),
        Case::h1("LI-02", "limit-uri", get(&path(MAX_URI + 1), "")).gets(too_long()),
        Case::h1("LI-03", "limit-uri", get(&query, "")).gets(too_long()),
        Case::h1("LI-04", "limit-uri", get(&path(60_000), "")).gets(too_long()),
        Case::h1("LI-05", "limit-uri", get(&path(500_000), "")).gets(Gets::Either(vec![
            Gets::Refused(431, "header_too_large"),
            Gets::Refused(414, "uri_too_long"),
        ])),
        Case::h1("LI-10", "limit-head-bytes", get("/a", &large(32_000))).by(ALL).passes(Want::of("GET /a")),
        Case::h1("LI-11", "limit-head-bytes", get("/a", &large(70_000))).gets(refused()),
        Case::h1("LI-12", "limit-head-bytes", get("/a", &large(1_000_000))).gets(refused()),
        Case::h1("LI-13", "limit-head-bytes", get("/a", &format!("{}: y\r\n", "x".repeat(100_000))))
            .gets(Gets::Either(vec![refused(), Gets::Refused(400, "bad_request")])),
        Case::h1("LI-20", "limit-head-count", get("/a", &lines(80)))
            .by(ALL)
            .passes(Want::of("GET /a").has("x-79: y")),
        Case::h1("LI-24", "limit-head-count", get("/a", &lines(87)))
            .by(ALL)
            .passes(Want::of("GET /a").has("x-86: y")),
        Case::h1("LI-25", "limit-head-count", get("/a", &lines(88))).gets(refused()),
        Case::h1("LI-14", "limit-head-bytes", get("/a", &large(65_536 - 54))).passes(Want::of("GET /a")),
        Case::h1("LI-15", "limit-head-bytes", get("/a", &large(65_536 - 40))).gets(refused()),
        Case::h1("LI-21", "limit-head-count", get("/a", &lines(1_000))).gets(refused()),
        Case::h1("LI-22", "limit-head-count", get("/a", &"X: y\r\n".repeat(5_000))).gets(refused()),
        Case::h1("LI-23", "limit-head-count", get("/a", &"a:\r\n".repeat(12_000))).gets(refused()),
    ];
    // The same over HTTP/2, where the decoded size counts.
    let long = "y".repeat(15_000);
    let many: Vec<String> = (0..1_000).map(|n| format!("x-{n}")).collect();
    let mut fields = with("GET", "/a", &[]);
    fields.extend(many.iter().map(|n| (n.as_str(), "y")));
    all.push(Case::h2("LI-30", "limit-head-count", big_headers(&fields)));
    let fat = with(
        "GET",
        "/a",
        &[("x-1", &long), ("x-2", &long), ("x-3", &long), ("x-4", &long), ("x-5", &long), ("x-6", &long)],
    );
    all.push(Case::h2("LI-31", "limit-head-bytes", big_headers(&fat)));
    let fits = with("GET", "/a", &[("x-1", &long)]);
    all.push(
        Case::h2("LI-32", "limit-head-bytes", headers(1, true, &fits)).by(ALL).passes(Want::of("GET /a")),
    );
    let target = path(MAX_URI + 1);
    all.push(Case::h2("LI-33", "limit-uri", big_headers(&with("GET", &target, &[]))).gets(Gets::NotServed));
    all
}

/// HEADERS and as many CONTINUATIONs as it takes.
fn big_headers(fields: &[(&str, &str)]) -> Vec<u8> {
    use crate::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, frame};
    let block = crate::hpack::encode(fields);
    let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    let last = pieces.len() - 1;
    let mut all = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let end = if at == last { END_HEADERS } else { 0 };
        all.extend(if at == 0 {
            frame(HEADERS, END_STREAM | end, 1, piece)
        } else {
            frame(CONTINUATION, end, 1, piece)
        });
    }
    all
}

/// A head may take ten seconds; here one.
fn slow() -> Vec<Case> {
    let ended = || {
        Gets::That("the end, without an answer of the backend", |got| {
            got.closed && got.answers().0.iter().all(|m| matches!(m.status(), 400 | 408))
        })
    };
    let case = |id: &str, clause: &'static str, bytes: &str| {
        Case::h1(id, clause, bytes).by(&[Way::Out, Way::In]).head(HEAD).gets(ended())
    };
    let mut drip =
        Case::h1("LI-44", "limit-head-time", "GET /a HTTP/1.1\r\nHost: cart\r\n").head(HEAD).gets(ended());
    for at in 0..16 {
        drip = drip.then(Step::Pause(200)).write(format!("X-{at}: y\r\n"));
    }
    vec![
        case("LI-40", "limit-silent", ""),
        case("LI-41", "limit-head-time", "GET /a HT"),
        case("LI-42", "limit-head-time", "GET /a HTTP/1.1\r\nHost: cart\r\n"),
        case("LI-43", "limit-head-time", "PR"),
        drip,
        // Between two requests there is more time than for a head, but a second head that never ends is one.
        case("LI-45", "limit-head-time", "GET /1 HTTP/1.1\r\nHost: cart\r\n\r\nGET /a HTTP/1.1\r\nHo")
            .sees(Sees::Each(vec![Want::of("GET /1")]))
            .gets(Gets::That("an answer, then the end", |got| {
                got.closed && got.answers().0.first().is_some_and(|m| m.status() == 200)
            })),
    ]
}

const HEAD: u64 = 1_000;
