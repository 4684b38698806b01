//! Requests over HTTP/2 that become something else over HTTP/1.1: pseudo headers, names and values that would be lines,
//! framing that is none, and what RFC 9113 forbids.

use crate::case::{Case, EDGES, Gets, Sees, Want, Way};
use crate::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, data, frame, headers, with};
use crate::hpack;

/// Where HTTP/2 comes in from a stranger, and from one sidecar to the next.
const H2: &[Way] = &[Way::Out, Way::In, Way::Mesh1, Way::Mesh2];

pub fn cases() -> Vec<Case> {
    let mut all = pseudo();
    all.extend(names_and_values());
    all.extend(connection());
    all.extend(authority());
    all.extend(lengths());
    all.extend(targets());
    all.extend(extended_connect());
    all.extend(trailers());
    all.extend(kept());
    all
}

fn get(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(1, true, fields)
}

fn pseudo() -> Vec<Case> {
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/a"));
    let mut all = Vec::new();
    for (id, clause, fields) in [
        ("H2-PS-01", "h2-pseudo-order", vec![method, scheme, ("x-a", "b"), authority, path]),
        ("H2-PS-02", "h2-pseudo-order", vec![("x-a", "b"), method, scheme, authority, path]),
        ("H2-PS-03", "h2-pseudo-order", vec![method, scheme, authority, ("host", "cart"), path]),
        ("H2-PS-04", "h2-pseudo-duplicate", vec![method, method, scheme, authority, path]),
        ("H2-PS-05", "h2-pseudo-duplicate", vec![method, scheme, authority, path, path]),
        ("H2-PS-06", "h2-pseudo-duplicate", vec![method, scheme, authority, path, (":path", "/smuggled")]),
        ("H2-PS-07", "h2-pseudo-duplicate", vec![method, scheme, authority, authority, path]),
        ("H2-PS-08", "h2-pseudo-duplicate", vec![method, scheme, scheme, authority, path]),
        ("H2-PS-09", "h2-pseudo-duplicate", vec![method, scheme, authority, (":authority", "other"), path]),
        ("H2-PS-10", "h2-pseudo-missing", vec![scheme, authority, path]),
        ("H2-PS-11", "h2-pseudo-missing", vec![method, authority, path]),
        ("H2-PS-12", "h2-pseudo-missing", vec![method, scheme, authority]),
        ("H2-PS-13", "h2-pseudo-missing", vec![("x-a", "b")]),
        ("H2-PS-14", "h2-pseudo-missing", vec![]),
        ("H2-PS-15", "h2-pseudo-missing", vec![method, scheme, authority, (":path", "")]),
        ("H2-PS-16", "h2-pseudo-missing", vec![(":method", ""), scheme, authority, path]),
        ("H2-PS-17", "h2-pseudo-unknown", vec![method, scheme, authority, path, (":evil", "x")]),
        ("H2-PS-18", "h2-pseudo-unknown", vec![method, scheme, authority, path, (":status", "200")]),
        ("H2-PS-19", "h2-pseudo-unknown", vec![method, scheme, authority, path, (":host", "cart")]),
        ("H2-PS-20", "h2-pseudo-unknown", vec![method, scheme, authority, path, (":", "x")]),
        ("H2-PS-21", "h2-pseudo-unknown", vec![method, scheme, authority, path, (":Path", "/b")]),
    ] {
        all.push(Case::h2(id, clause, get(&fields)));
    }
    all
}

fn names_and_values() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, (clause, name)) in [
        ("h2-name-upper", "X-Upper"),
        ("h2-name-upper", "x-uppeR"),
        ("h2-name-upper", "Transfer-Encoding"),
        ("h2-name-upper", "Content-Length"),
        ("h2-name-control", "x-a\r"),
        ("h2-name-control", "x-a\n"),
        ("h2-name-control", "x\r\ntransfer-encoding: chunked\r\nx-b"),
        ("h2-name-control", "x-a\0"),
        ("h2-name-control", "\0"),
        ("h2-name-colon", "x:a"),
        ("h2-name-colon", "x-a:"),
        ("h2-name-colon", "transfer-encoding:chunked"),
        ("h2-name-token", ""),
        ("h2-name-token", "x a"),
        ("h2-name-token", " x-a"),
        ("h2-name-token", "x-a "),
        ("h2-name-token", "x\ta"),
        ("h2-name-token", "x-\u{e4}"),
        ("h2-name-token", "x\u{7f}"),
        ("h2-name-token", "x(a)"),
        ("h2-name-token", "get / http/1.1"),
    ]
    .into_iter()
    .enumerate()
    {
        all.push(Case::h2(format!("H2-NA-{:02}", at + 1), clause, get(&with("GET", "/a", &[(name, "1")]))));
    }
    for (at, value) in [
        "b\r\nx-smuggled: 1",
        "b\nx-smuggled: 1",
        "b\rx-smuggled: 1",
        "b\0c",
        "b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: cart\r\n\r\n",
        "\r\n",
        "b\u{1}",
        "b\u{7f}",
    ]
    .into_iter()
    .enumerate()
    {
        all.push(Case::h2(
            format!("H2-VA-{:02}", at + 1),
            "h2-value",
            get(&with("GET", "/a", &[("x-a", value)])),
        ));
    }
    // Blanks around a value are taken off or refused: RFC 9113, section 8.2.1.
    for (at, value) in [" b", "b ", "\tb", "b\t"].into_iter().enumerate() {
        let once = Sees::Each(vec![Want::of("GET /a").has("x-a: b")]);
        all.push(
            Case::h2(format!("H2-VA-{:02}", at + 10), "h2-value", get(&with("GET", "/a", &[("x-a", value)])))
                .sees(Sees::Either(vec![once, Sees::Nothing]))
                .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::NotServed])),
        );
    }
    let inject = "\r\nhost: cart\r\n\r\nGET /smuggled HTTP/1.1";
    let fields = |method, scheme, authority, path| {
        get(&[(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)])
    };
    let in_method = format!("GET /a HTTP/1.1{inject}");
    let in_path = format!("/a HTTP/1.1{inject}");
    let in_host = format!("cart{inject}");
    let in_scheme = format!("http{inject}");
    for (id, block) in [
        ("H2-IN-01", fields(&in_method, "http", "cart", "/a")),
        ("H2-IN-02", fields("GET", "http", "cart", &in_path)),
        ("H2-IN-03", fields("GET", "http", &in_host, "/a")),
        ("H2-IN-04", fields("GET", &in_scheme, "cart", "/a")),
        ("H2-IN-05", fields("GET /smuggled", "http", "cart", "/a")),
        ("H2-IN-06", fields("GET\t", "http", "cart", "/a")),
        ("H2-IN-07", fields("GET", "http", "cart", "/a HTTP/1.1")),
        ("H2-IN-08", fields("GET", "http", "cart", "/a\tb")),
        ("H2-IN-09", fields("GET", "http", "cart", "/a\0")),
        ("H2-IN-10", fields("GET", "http", "cart\r", "/a")),
        ("H2-IN-11", fields("GET", "http", "cart\n", "/a")),
        ("H2-IN-12", fields("GET", "http", "cart other", "/a")),
        ("H2-IN-13", fields("GET", "http", "cart\0", "/a")),
        ("H2-IN-14", fields("G(T", "http", "cart", "/a")),
        ("H2-IN-15", fields("GET", "http", "cart", "/a\u{7f}")),
    ] {
        all.push(Case::h2(id, "h2-injection", block));
    }
    all
}

fn connection() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, (name, value)) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x-a"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
    ]
    .into_iter()
    .enumerate()
    {
        all.push(Case::h2(
            format!("H2-CN-{:02}", at + 1),
            "h2-connection",
            get(&with("GET", "/a", &[(name, value)])),
        ));
    }
    let body = [
        headers(1, false, &with("POST", "/a", &[("transfer-encoding", "chunked")])),
        data(1, true, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: cart\r\n\r\n"),
    ];
    all.push(Case::h2("H2-CN-20", "h2-connection", body.concat()));
    let te = Want::of("GET /a").has("x-kept: 1");
    all.push(
        Case::h2(
            "H2-CN-21",
            "h2-connection",
            get(&with("GET", "/a", &[("te", "trailers"), ("x-kept", "1")])),
        )
        .by(H2)
        .passes(te),
    );
    // The names of the mesh, over HTTP/2.
    for (at, name) in [
        "x-outrigger-attempt",
        "x_outrigger_attempt",
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "http2-settings",
    ]
    .into_iter()
    .enumerate()
    {
        let want = Want::of("GET /a").has("x-kept: 1");
        let given = get(&with("GET", "/a", &[(name, "forged"), ("x-kept", "1")]));
        let clause = if name == "http2-settings" { "upgrade-h2c" } else { "identity-removed" };
        all.push(Case::h2(format!("H2-CN-{:02}", at + 30), clause, given).by(H2).passes(want));
    }
    all
}

fn authority() -> Vec<Case> {
    let base = [(":method", "GET"), (":scheme", "http"), (":path", "/a")];
    let both = |authority: &'static str, hosts: &[&'static str]| {
        let mut fields = base.to_vec();
        fields.push((":authority", authority));
        fields.extend(hosts.iter().map(|h| ("host", *h)));
        get(&fields)
    };
    let want = || Want::of("GET /a").has("host: cart");
    let mut all = vec![
        Case::h2("H2-AU-01", "h2-authority", both("cart", &["other"])),
        Case::h2("H2-AU-02", "h2-authority", both("cart", &["cart", "other"])),
        Case::h2("H2-AU-03", "h2-authority", both("cart", &["cart", "cart"])),
        Case::h2("H2-AU-04", "h2-authority", both("cart", &[""])),
        Case::h2("H2-AU-05", "h2-authority", both("cart", &["cart:81"])),
        Case::h2("H2-AU-06", "h2-authority", both("", &["cart"])).gets(Gets::Either(vec![Gets::NotServed])),
        Case::h2("H2-AU-07", "h2-authority", get(&base)),
        Case::h2("H2-AU-08", "h2-authority", both("me@cart", &[])),
        Case::h2("H2-AU-09", "h2-authority", both("cart,other", &[])),
        Case::h2("H2-AU-10", "h2-authority", both("cart/x", &[])),
        Case::h2("H2-AU-11", "h2-authority", both("cart:x", &[])),
        Case::h2("H2-AU-12", "h2-authority", both("http://cart", &[])),
        Case::h2("H2-AU-13", "h2-authority", both("c%61rt", &[])),
        Case::h2("H2-AU-20", "h2-authority", both("cart", &["cart"])).by(H2).passes(want()),
        Case::h2("H2-AU-21", "h2-authority", both("cart", &[])).by(H2).passes(want()),
    ];
    let only_host: Vec<_> = base.iter().copied().chain([("host", "cart")]).collect();
    all.push(Case::h2("H2-AU-22", "h2-authority", get(&only_host)).by(H2).passes(want()));
    let two_hosts: Vec<_> = base.iter().copied().chain([("host", "cart"), ("host", "other")]).collect();
    all.push(Case::h2("H2-AU-23", "h2-authority", get(&two_hosts)));
    all
}

fn lengths() -> Vec<Case> {
    let post = |length: &str, frames: &[Vec<u8>]| {
        let head = headers(1, frames.is_empty(), &with("POST", "/a", &[("content-length", length)]));
        [head, frames.concat()].concat()
    };
    let mut all = Vec::new();
    // Too much, too little, or not a number: nothing whole may arrive.
    for (at, frames) in [
        post("5", &[data(1, true, "abcdefgh")]),
        post("5", &[data(1, true, "abc")]),
        post("5", &[data(1, false, "abc"), data(1, true, "")]),
        post("0", &[data(1, true, "GET /smuggled HTTP/1.1\r\nhost: cart\r\n\r\n")]),
        post("5", &[]),
        post("5", &[data(1, false, "abcde"), data(1, true, "f")]),
        post("18446744073709551621", &[data(1, true, "abcde")]),
        post("+5", &[data(1, true, "abcde")]),
        post("-5", &[data(1, true, "abcde")]),
        post("5, 5", &[data(1, true, "abcde")]),
        post("5,6", &[data(1, true, "abcde")]),
        post("0x5", &[data(1, true, "abcde")]),
        post("", &[data(1, true, "abcde")]),
        post("5 5", &[data(1, true, "abcde")]),
    ]
    .into_iter()
    .enumerate()
    {
        all.push(Case::h2(format!("H2-CL-{:02}", at + 1), "h2-length", frames).sees(Sees::NoWhole));
    }
    let twice = with("POST", "/a", &[("content-length", "5"), ("content-length", "6")]);
    let frames = [headers(1, false, &twice), data(1, true, "abcde")].concat();
    all.push(Case::h2("H2-CL-20", "h2-length", frames).sees(Sees::NoWhole));
    let trailing = [
        headers(1, false, &with("POST", "/a", &[("content-length", "5")])),
        data(1, false, "abc"),
        headers(1, true, &[("x-sum", "1")]),
    ];
    all.push(Case::h2("H2-CL-21", "h2-length", trailing.concat()).sees(Sees::NoWhole));
    let want = || Want::of("POST /a").body("abcde");
    all.push(
        Case::h2("H2-CL-30", "h2-length", post("5", &[data(1, false, "ab"), data(1, true, "cde")]))
            .by(H2)
            .passes(want().has("content-length: 5")),
    );
    let none = [headers(1, false, &with("POST", "/a", &[])), data(1, true, "abcde")].concat();
    all.push(Case::h2("H2-CL-31", "framing-ours", none).by(H2).passes(want()));
    let get = [headers(1, false, &with("GET", "/a", &[])), data(1, true, "abcde")].concat();
    all.push(Case::h2("H2-CL-32", "framing-ours", get).by(H2).passes(Want::of("GET /a").body("abcde")));
    // An upload that is reset, or whose connection goes, is never whole.
    let head = headers(1, false, &with("POST", "/a", &[]));
    let reset = [head.clone(), data(1, false, "abc"), frame(3, 0, 1, 8_u32.to_be_bytes())].concat();
    all.push(
        Case::h2("H2-CL-40", "upload-aborted", reset)
            .by(H2)
            .sees(Sees::NoWhole)
            .gets(Gets::That("no 200", |_| true)),
    );
    let gone = [head.clone(), data(1, false, "abc")].concat();
    all.push(
        Case::h2("H2-CL-41", "upload-aborted", gone)
            .by(H2)
            .then(crate::case::Step::Pause(60))
            .then(crate::case::Step::Leave)
            .sees(Sees::NoWhole)
            .gets(Gets::That("nothing", |_| true)),
    );
    let known = headers(1, false, &with("POST", "/a", &[("content-length", "5")]));
    let reset = [known, data(1, false, "abcde"), frame(3, 0, 1, 8_u32.to_be_bytes())].concat();
    all.push(
        Case::h2("H2-CL-42", "upload-aborted", reset)
            .sees(Sees::Either(vec![Sees::NoWhole, Sees::Each(vec![want()])]))
            .gets(Gets::That("anything", |_| true)),
    );
    all
}

fn targets() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, path) in [
        "a",
        "a/b",
        "http://cart/a",
        "//cart/a",
        "?x",
        "/a b",
        "/a#b",
        "/a%2fb",
        "/a%00",
        "/..",
        "\\a",
        "/a\\b",
    ]
    .into_iter()
    .enumerate()
    {
        let case = Case::h2(format!("H2-PA-{:02}", at + 1), "h2-path", get(&with("GET", path, &[])));
        // These have one reading, which everybody behind us gets to see; a refusal is as good.
        let reading = match path {
            "//cart/a" => "GET /cart/a",
            "?x" => "GET /?x",
            "/a#b" => "GET /a",
            _ => {
                all.push(case);
                continue;
            }
        };
        let once = Sees::Each(vec![Want::of(reading).has("host: cart")]);
        all.push(
            case.sees(Sees::Either(vec![once, Sees::Nothing]))
                .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::NotServed])),
        );
    }
    all.push(Case::h2("H2-PA-20", "h2-path", get(&with("GET", "*", &[]))));
    all.push(
        Case::h2("H2-PA-21", "h2-path", get(&with("OPTIONS", "*", &[]))).by(H2).passes(Want::of("OPTIONS *")),
    );
    for (at, scheme) in ["ftp", "file", "ws", "h2", "", "http:", "HTTPX"].into_iter().enumerate() {
        let fields = [(":method", "GET"), (":scheme", scheme), (":authority", "cart"), (":path", "/a")];
        all.push(Case::h2(format!("H2-SC-{:02}", at + 1), "h2-scheme", get(&fields)));
    }
    // CONNECT has neither scheme nor path; what is neither plain nor extended is malformed, and none is offered here.
    let connect = |more: &[(&'static str, &'static str)]| {
        let mut fields = vec![(":method", "CONNECT"), (":authority", "cart:80")];
        fields.extend_from_slice(more);
        headers(1, false, &fields)
    };
    for (id, clause, block) in [
        ("H2-CO-01", "h2-connect", connect(&[(":path", "/a")])),
        ("H2-CO-02", "h2-connect", connect(&[(":scheme", "http")])),
        ("H2-CO-03", "h2-connect", headers(1, false, &[(":method", "CONNECT")])),
        ("H2-CO-04", "h2-connect", connect(&[(":scheme", "http"), (":path", "/a")])),
        (
            "H2-CO-06",
            "h2-extended-connect",
            headers(1, false, &with("GET", "/a", &[(":protocol", "websocket")])),
        ),
        ("H2-CO-07", "h2-extended-connect", connect(&[(":protocol", "websocket")])),
        (
            "H2-CO-08",
            "h2-extended-connect",
            headers(1, false, &with("CONNECT", "/a", &[(":protocol", "connect-udp")])),
        ),
        (
            "H2-CO-09",
            "h2-extended-connect",
            headers(1, false, &with("CONNECT", "/a", &[(":protocol", "websocket\r\nx: y")])),
        ),
    ] {
        all.push(Case::h2(id, clause, block));
    }
    all
}

/// WebSocket is allowed unless a service says otherwise. To an application over HTTP/1.1 it is an upgrade, a GET whatever
/// a stranger says, and an answer that does not switch is no success.
fn extended_connect() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, more) in [
        ("H2-CO-05", None),
        ("H2-CO-20", Some(("x-outrigger-method", "DELETE"))),
        ("H2-CO-21", Some(("x_outrigger_method", "DELETE"))),
        ("H2-CO-22", Some(("x-outrigger-status", "200"))),
    ] {
        let fields: Vec<_> = [(":protocol", "websocket")].into_iter().chain(more).collect();
        let mut pseudo_first = with("CONNECT", "/a", &[]);
        pseudo_first.extend(fields);
        let case = Case::h2(id, "h2-extended-connect", headers(1, false, &pseudo_first)).by(H2).upgrade();
        let want = Want::of("GET /a").has("upgrade: websocket").has("connection: upgrade").body("");
        all.push(case.sees(Sees::Each(vec![want])).gets(Gets::That("no success", |got| {
            let stream = got.http2.as_ref().and_then(|said| said.streams.get(&1));
            stream.is_some_and(|s| s.status().is_some_and(|status| status >= 400))
        })));
    }
    all
}

fn trailers() -> Vec<Case> {
    let after = |fields: &[(&str, &str)]| {
        let head = headers(1, false, &with("POST", "/a", &[("trailer", "x-sum")]));
        [head, data(1, false, "a"), headers(1, true, fields)].concat()
    };
    let mut all = Vec::new();
    for (at, fields) in [
        [(":path", "/smuggled")],
        [(":method", "POST")],
        [(":authority", "other")],
        [(":status", "200")],
        [("x-a\r\nx", "1")],
        [("X-A", "1")],
        [("x:a", "1")],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
    ]
    .into_iter()
    .enumerate()
    {
        let clause = if at < 4 { "h2-pseudo-trailers" } else { "h2-trailers" };
        let case = Case::h2(format!("H2-TR-{:02}", at + 1), clause, after(&fields));
        // Pseudo headers may also end here.
        let clean = Sees::Each(vec![Want::of("POST /a").body("a").trailers(&[])]);
        all.push(if at < 4 {
            case.sees(Sees::Either(vec![Sees::NoWhole, clean]))
                .gets(Gets::Either(vec![Gets::NotServed, Gets::Answers(vec![200])]))
        } else {
            case.sees(Sees::NoWhole)
        });
    }
    // Without END_STREAM a second block of headers is malformed.
    let open =
        [headers(1, false, &with("POST", "/a", &[])), headers(1, false, &[("x-a", "1")]), data(1, true, "a")];
    all.push(Case::h2("H2-TR-10", "h2-trailers", open.concat()).sees(Sees::NoWhole));
    let want = || Want::of("POST /a").body("a");
    all.push(
        Case::h2("H2-TR-11", "trailer-kept", after(&[("x-sum", "7")]))
            .by(H2)
            .passes(want().trailers(&["x-sum: 7"])),
    );
    for (at, name) in [
        "content-length",
        "host",
        "x-outrigger-attempt",
        "x_outrigger_attempt",
        "x-forwarded-client-cert",
        "authorization",
        "cookie",
        "trailer",
        "te",
    ]
    .into_iter()
    .enumerate()
    {
        let value = if name == "te" { "trailers" } else { "1" };
        let clean = Sees::Each(vec![want().trailers(&[])]);
        all.push(
            Case::h2(format!("H2-TR-{:02}", at + 20), "trailer-forbidden", after(&[(name, value)]))
                .by(H2)
                .sees(Sees::Either(vec![Sees::NoWhole, clean]))
                .gets(Gets::Either(vec![
                    Gets::Answers(vec![200]),
                    Gets::NotServed,
                    Gets::Cut,
                    Gets::That("502", |got| {
                        got.http2.as_ref().is_some_and(|said| {
                            said.streams.get(&1).and_then(crate::frames::Stream::status) == Some(502)
                        })
                    }),
                ])),
        );
    }
    all
}

fn kept() -> Vec<Case> {
    let crumbs = with("GET", "/a", &[("cookie", "a=1"), ("x-a", "b"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let many: Vec<String> = (0..50).map(|n| format!("c{n}=v")).collect();
    let mut fields = with("GET", "/a", &[]);
    fields.extend(many.iter().map(|c| ("cookie", c.as_str())));
    let joined = format!("cookie: {}", many.join("; "));
    let mut all = vec![
        Case::h2("H2-CK-01", "h2-cookies", get(&crumbs))
            .by(H2)
            .passes(Want::of("GET /a").has("cookie: a=1; b=2; c=3").has("x-a: b")),
        Case::h2("H2-CK-02", "h2-cookies", get(&fields)).by(H2).passes(Want::of("GET /a").has(&joined)),
        Case::h2("H2-CK-03", "h2-cookies", get(&with("GET", "/a", &[("cookie", "a=1; b=2")])))
            .by(H2)
            .passes(Want::of("GET /a").has("cookie: a=1; b=2")),
        Case::h2(
            "H2-CK-05",
            "h2-cookies",
            get(&with(
                "GET",
                "/a",
                &[("cookie", ""), ("cookie", "a=1"), ("cookie", ""), ("cookie", "b=2"), ("cookie", "")],
            )),
        )
        .by(H2)
        .passes(Want::of("GET /a").has("cookie: a=1; b=2")),
        Case::h2(
            "H2-CK-04",
            "h2-cookies",
            get(&with("GET", "/a", &[("cookie", "a=1\r\nx-smuggled: 1"), ("cookie", "b=2")])),
        ),
    ];
    // A block in many pieces is one block.
    let block = hpack::encode(&with("GET", "/a", &[("x-a", "b")]));
    let mut pieces = frame(HEADERS, END_STREAM, 1, &block[..3]);
    for (at, byte) in block.iter().enumerate().skip(3) {
        let last = if at + 1 == block.len() { END_HEADERS } else { 0 };
        pieces.extend(frame(CONTINUATION, last, 1, [*byte]));
    }
    let served = Case::h2("H2-OK-01", "h2-served", pieces).by(EDGES).passes(Want::of("GET /a").has("x-a: b"));
    all.push(
        served
            .sees(Sees::Either(vec![Sees::Each(vec![Want::of("GET /a").has("x-a: b")]), Sees::Nothing]))
            .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::Ended])),
    );
    let padded = [
        frame(
            HEADERS,
            END_HEADERS | 8,
            1,
            [&[4][..], &hpack::encode(&with("POST", "/a", &[])), &[0; 4]].concat(),
        ),
        frame(DATA, END_STREAM | 8, 1, [&[3][..], b"abcde", &[0; 3]].concat()),
    ];
    all.push(
        Case::h2("H2-OK-02", "h2-served", padded.concat()).by(H2).passes(Want::of("POST /a").body("abcde")),
    );
    let three: Vec<u8> = [(1, "/1"), (3, "/2"), (5, "/3")]
        .iter()
        .flat_map(|(id, path)| headers(*id, true, &with("GET", path, &[])))
        .collect();
    all.push(
        Case::h2("H2-OK-03", "h2-served", three)
            .by(H2)
            .sees(Sees::Each(vec![Want::of("GET /1"), Want::of("GET /2"), Want::of("GET /3")]))
            .gets(Gets::Answers(vec![200, 200, 200])),
    );
    let head = headers(1, true, &with("HEAD", "/a", &[]));
    all.push(Case::h2("H2-OK-04", "h2-served", head).by(H2).passes(Want::of("HEAD /a")).gets(Gets::That(
        "200 without a body",
        |got| {
            got.http2
                .as_ref()
                .and_then(|said| said.streams.get(&1))
                .is_some_and(|s| s.status() == Some(200) && s.ended && s.body.is_empty())
        },
    )));
    let expects =
        [headers(1, false, &with("POST", "/a", &[("expect", "100-continue")])), data(1, true, "abcde")];
    all.push(
        Case::h2("H2-OK-05", "expect", expects.concat()).by(H2).passes(Want::of("POST /a").body("abcde")),
    );
    all
}
