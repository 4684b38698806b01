//! Frames out of order, out of bounds and out of number. What memory does under each flood is measured elsewhere; here the
//! abuser must be cut and a bystander served, in small forms of each.

use crate::case::{Case, Gets, Sees, Step, Want, Way};
use crate::frames::*;
use crate::hpack;

pub fn cases() -> Vec<Case> {
    let mut all = framing();
    all.extend(floods());
    all.extend(slow());
    all
}

const OUT: &[Way] = &[Way::Out];

fn get(stream: u32) -> Vec<u8> {
    headers(stream, true, &with("GET", "/a", &[]))
}

/// Wrong in itself: the connection or the stream ends, and nothing whole arrives.
fn wrong(id: &str, frames: impl Into<Vec<u8>>) -> Case {
    Case::h2(id, "h2-framing", frames).sees(Sees::NoWhole)
}

fn framing() -> Vec<Case> {
    let block = hpack::encode(&with("GET", "/a", &[]));
    let open = headers(1, false, &with("POST", "/a", &[]));
    let wu = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    let mut all = vec![
        wrong("H2-FR-01", data(1, true, "abc")),
        wrong("H2-FR-02", headers(2, true, &with("GET", "/a", &[]))),
        wrong("H2-FR-03", headers(0, true, &with("GET", "/a", &[]))),
        wrong("H2-FR-04", frame(CONTINUATION, END_HEADERS, 1, &block)),
        wrong("H2-FR-05", [frame(HEADERS, END_STREAM, 1, &block), data(1, true, "")].concat()),
        wrong("H2-FR-06", [frame(HEADERS, END_STREAM, 1, &block), get(3)].concat()),
        wrong(
            "H2-FR-07",
            [frame(HEADERS, END_STREAM, 1, &block), frame(CONTINUATION, END_HEADERS, 3, "")].concat(),
        ),
        wrong("H2-FR-08", frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &block].concat())),
        wrong("H2-FR-09", frame(SETTINGS, 0, 1, setting(3, 1))),
        wrong("H2-FR-10", frame(SETTINGS, 0, 0, [0; 5])),
        wrong("H2-FR-11", frame(SETTINGS, ACK, 0, setting(3, 1))),
        wrong("H2-FR-12", frame(SETTINGS, 0, 0, setting(2, 2))),
        wrong("H2-FR-13", frame(SETTINGS, 0, 0, setting(4, 0x8000_0000))),
        wrong("H2-FR-14", frame(SETTINGS, 0, 0, setting(5, 1))),
        wrong("H2-FR-15", frame(SETTINGS, 0, 0, setting(5, 0x0100_0000))),
        wrong("H2-FR-16", frame(PING, 0, 0, [0; 7])),
        wrong("H2-FR-17", frame(PING, 0, 1, [0; 8])),
        wrong("H2-FR-18", frame(RST_STREAM, 0, 0, [0; 4])),
        wrong("H2-FR-19", frame(RST_STREAM, 0, 1, [0; 4])),
        wrong("H2-FR-20", [open.clone(), frame(RST_STREAM, 0, 1, [0; 3])].concat()),
        wrong("H2-FR-21", wu(0, 0)),
        wrong("H2-FR-22", [open.clone(), wu(1, 0)].concat()),
        wrong("H2-FR-23", wu(0, 0x7fff_ffff)),
        wrong("H2-FR-24", [open.clone(), wu(1, 0x7fff_ffff)].concat()),
        wrong("H2-FR-25", wu(1, 1)),
        wrong("H2-FR-26", frame(WINDOW_UPDATE, 0, 0, [0; 3])),
        wrong("H2-FR-27", frame(GOAWAY, 0, 1, [0; 8])),
        wrong("H2-FR-28", frame(DATA, 0, 0, "abc")),
        wrong("H2-FR-29", [open.clone(), frame(DATA, PADDED | END_STREAM, 1, [9, 1, 2])].concat()),
        wrong(
            "H2-FR-30",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, [&[255][..], &block].concat()),
        ),
        wrong("H2-FR-31", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        wrong("H2-FR-32", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0x80])),
        wrong("H2-FR-33", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xbe])),
        wrong("H2-FR-34", frame(HEADERS, END_HEADERS | END_STREAM, 1, &block[..block.len() - 3])),
        wrong(
            "H2-FR-35",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                [&[0x3f, 0xff, 0xff, 0xff, 0x7f][..], &block].concat(),
            ),
        ),
        wrong(
            "H2-FR-36",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                [&block[..], &[0x00, 0x81, 0xff, 0x01, b'a']].concat(),
            ),
        ),
        wrong("H2-FR-37", [open.clone(), frame(DATA, 0, 1, vec![0; 16 * 1024 + 1])].concat()),
        wrong(
            "H2-FR-38",
            frame(HEADERS, END_HEADERS | END_STREAM | 0x20, 1, [&[0, 0, 0, 1, 16][..], &block].concat()),
        ),
    ];
    // Once a stream has ended it is over.
    let served = || Sees::Either(vec![Sees::Each(vec![Want::of("GET /a").body("")]), Sees::NoWhole]);
    for (id, frames) in [
        ("H2-FR-40", [get(1), data(1, true, "GET /smuggled")].concat()),
        ("H2-FR-41", [get(1), get(1)].concat()),
        ("H2-FR-42", [get(3), get(1)].concat()),
    ] {
        all.push(Case::h2(id, "h2-framing", frames).sees(served()).gets(Gets::Ended));
    }
    // Greetings that are none.
    for (at, bytes) in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "PRI * HTTP/1.1\r\nHost: cart\r\n\r\n",
        "PRI /a HTTP/1.1\r\nHost: cart\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let case = Case::h1(format!("H2-FR-{}", 50 + at), "h2-framing", *bytes).then(Step::HalfClose);
        all.push(case.gets(Gets::That("the end", |got| got.closed)));
    }
    let early = [PREFACE, &get(1)].concat();
    let mut case = Case::h2("H2-FR-54", "h2-framing", "").sees(served());
    case.steps = vec![Step::Write(early)];
    // Without SETTINGS: nobody is confused who goes on, and who ends it is right.
    all.push(case.gets(Gets::Either(vec![Gets::Ended, Gets::Answers(vec![200])])));
    // Unknown frames and settings are passed over (RFC 9113, section 5.5).
    let odd = [
        frame(0xbe, 0xff, 0, "x"),
        frame(SETTINGS, 0, 0, setting(0xbeef, 7)),
        frame(0xfa, 0, 1, "x"),
        get(1),
    ];
    all.push(Case::h2("H2-FR-60", "h2-framing", odd.concat()).passes(Want::of("GET /a")));
    all
}

/// A flood, after which the abuser is cut. Whole requests that came before the cut are no fault.
fn flood(id: &str, clause: &'static str, frames: Vec<u8>) -> Case {
    Case::h2(id, clause, frames).by(OUT).sees(Sees::NoWhole).gets(Gets::Ended)
}

fn floods() -> Vec<Case> {
    let times = |n: u32, one: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> { (0..n).flat_map(one).collect() };
    let post = with("POST", "/a", &[]);
    let id = |n: u32| 2 * n + 1;
    let cancel = |stream: u32| frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes());
    let open = headers(1, false, &post);
    let piece = hpack::encode(&[("x-a", "y".repeat(1000))]);
    // A field that the table keeps, and then only its number: each byte costs 4 KB where it is counted decoded.
    let planted = hpack::encode_indexed(&[("x-bomb", "y".repeat(3_900))]);
    let bomb = [hpack::encode(&with("GET", "/a", &[])), planted, vec![0xbe; 12_000]].concat();
    let crumb = hpack::encode_indexed(&[("cookie", "c".repeat(1_000))]);
    let crumbs = [hpack::encode(&with("GET", "/a", &[])), crumb, vec![0xbe; 12_000]].concat();
    let tiny = [hpack::encode(&with("GET", "/a", &[])), hpack::encode(&vec![("cookie", ""); 2_000])].concat();
    vec![
        flood(
            "H2-FL-01",
            "h2-rapid-reset",
            times(3_000, &|n| [headers(id(n), false, &post), cancel(id(n))].concat()),
        ),
        flood(
            "H2-FL-02",
            "h2-made-resets",
            times(3_000, &|n| {
                [headers(id(n), false, &post), frame(WINDOW_UPDATE, 0, id(n), [0; 4])].concat()
            }),
        ),
        flood(
            "H2-FL-03",
            "h2-made-resets",
            times(3_000, &|n| headers(id(n), true, &with("GET", "/a", &[("connection", "close")]))),
        ),
        flood(
            "H2-FL-04",
            "h2-continuation",
            [
                frame(HEADERS, END_STREAM, 1, hpack::encode(&with("GET", "/a", &[]))),
                times(2_000, &|_| frame(CONTINUATION, 0, 1, &piece)),
            ]
            .concat(),
        ),
        flood(
            "H2-FL-05",
            "h2-continuation-empty",
            [
                frame(HEADERS, END_STREAM, 1, hpack::encode(&with("GET", "/a", &[]))),
                times(20_000, &|_| frame(CONTINUATION, 0, 1, "")),
            ]
            .concat(),
        ),
        flood("H2-FL-06", "h2-hpack-bomb", frame(HEADERS, END_HEADERS | END_STREAM, 1, bomb))
            .gets(Gets::Either(vec![Gets::Ended, Gets::NotServed])),
        flood("H2-FL-07", "h2-cookie-bomb", frame(HEADERS, END_HEADERS | END_STREAM, 1, crumbs))
            .gets(Gets::Either(vec![Gets::Ended, Gets::NotServed])),
        flood("H2-FL-08", "h2-cookie-bomb", frame(HEADERS, END_HEADERS | END_STREAM, 1, tiny))
            .gets(Gets::Either(vec![Gets::Ended, Gets::NotServed])),
        flood("H2-FL-09", "h2-settings", times(20_000, &|n| frame(SETTINGS, 0, 0, setting(3, n)))),
        flood("H2-FL-10", "h2-settings", times(20_000, &|_| frame(SETTINGS, 0, 0, ""))),
        flood("H2-FL-11", "h2-ping", times(20_000, &|n| frame(PING, 0, 0, u64::from(n).to_be_bytes()))),
        flood("H2-FL-12", "h2-priority", times(40_000, &|n| frame(PRIORITY, 0, id(n), [0, 0, 0, 0, 1]))),
        flood(
            "H2-FL-13",
            "h2-window-update",
            times(40_000, &|_| frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())),
        ),
        flood("H2-FL-14", "h2-empty-data", [open.clone(), times(40_000, &|_| data(1, false, ""))].concat()),
        flood("H2-FL-15", "h2-unknown-frames", times(40_000, &|n| frame(0xbe, 0, n, "x"))),
        flood("H2-FL-16", "h2-empty-data", [open, times(40_000, &|_| frame(DATA, PADDED, 1, [0]))].concat()),
    ]
}

/// Those who do not read: their answers wait within bounds, everybody else's do not.
fn slow() -> Vec<Case> {
    let zero = [frame(SETTINGS, 0, 0, setting(4, 0)), get(1)].concat();
    let waits =
        Case::h2("H2-SL-01", "h2-zero-window", zero).by(OUT).sees(Sees::Each(vec![Want::of("GET /a")]));
    let many: Vec<u8> = (0..50).flat_map(|n| get(2 * n + 1)).collect();
    let all_wait = [frame(SETTINGS, 0, 0, setting(4, 0)), many].concat();
    let wants = vec![Want::of("GET /a"); 50];
    vec![
        waits.gets(Gets::That("a head, and no body", |got| {
            let stream = got.http2.as_ref().and_then(|said| said.streams.get(&1));
            stream.is_some_and(|s| s.status() == Some(200) && s.body.is_empty() && !s.ended)
        })),
        Case::h2("H2-SL-02", "h2-slow-reader", all_wait).by(OUT).sees(Sees::Each(wants)).gets(Gets::That(
            "50 heads",
            |got| {
                let heads = got.http2.iter().flat_map(|said| said.streams.values());
                heads.filter(|s| s.status() == Some(200) && s.body.is_empty()).count() == 50
            },
        )),
    ]
}
