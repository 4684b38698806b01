//! What is for one connection only: Connection and all it names, upgrades, and what it must not reach.

use crate::backend::{Part, Script};
use crate::case::{ALL, Case, Gets, Sees, Step, Want, Way};

pub fn cases() -> Vec<Case> {
    let mut all = connection();
    all.extend(upgrades());
    all
}

fn with(headers: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: cart\r\n{headers}\r\n")
}

fn connection() -> Vec<Case> {
    let want = || Want::of("GET /a");
    let mut all = Vec::new();
    for (id, headers, lacks) in [
        ("H1-HH-01", "Connection: X-A\r\nX-A: 1\r\n", "x-a"),
        ("H1-HH-02", "Connection: x-a, X-B\r\nX-A: 1\r\nX-B: 1\r\n", "x-b"),
        ("H1-HH-03", "Connection: x-a\r\nConnection: x-b\r\nX-B: 1\r\n", "x-b"),
        ("H1-HH-04", "X-A: 1\r\nX-A: 2\r\nConnection: close, x-a\r\n", "x-a"),
        ("H1-HH-05", "Connection: , ,x-a,\r\nX-A: 1\r\n", "x-a"),
        ("H1-HH-06", "Connection: \tX-A\t\r\nX-A: 1\r\n", "x-a"),
        ("H1-HH-07", "CONNECTION: keep-alive, Cookie\r\nCookie: a=b\r\n", "cookie"),
        ("H1-HH-08", "Keep-Alive: timeout=5\r\n", "keep-alive"),
        ("H1-HH-09", "Proxy-Connection: keep-alive\r\n", "proxy-connection"),
        ("H1-HH-10", "TE: gzip\r\n", "te"),
        ("H1-HH-11", "TE: gzip;q=0.5, deflate\r\nConnection: te\r\n", "te"),
        ("H1-HH-12", "Connection: upgrade\r\nUpgrade: foo/2\r\n", "upgrade"),
        ("H1-HH-13", "Connection: keep-alive, keep-alive, close, x-a\r\nX-A: 1\r\n", "connection"),
    ] {
        all.push(Case::h1(id, "hop-removed", with(headers)).by(ALL).passes(want().lacks(lacks)));
    }
    let te = with("TE: gzip, trailers\r\nConnection: te\r\n");
    all.push(Case::h1("H1-HH-14", "hop-removed", te).by(ALL).passes(want()));
    // What Connection may not take out: what carries meaning for the whole way, and what we set.
    for (id, clause, headers, has) in [
        ("H1-HH-20", "hop-not-ours", "Connection: host\r\n", "host: cart"),
        ("H1-HH-21", "hop-not-ours", "Connection: close, Host\r\n", "host: cart"),
    ] {
        all.push(Case::h1(id, clause, with(headers)).by(ALL).passes(want().has(has)));
    }
    let body =
        "POST /a HTTP/1.1\r\nHost: cart\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nabcde";
    let length = Want::of("POST /a").has("content-length: 5").body("abcde");
    all.push(Case::h1("H1-HH-22", "hop-not-ours", body).by(ALL).passes(length));
    let chunked = "POST /a HTTP/1.1\r\nHost: cart\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    all.push(Case::h1("H1-HH-23", "hop-not-ours", chunked).by(ALL).passes(Want::of("POST /a").body("a")));
    // The proven caller arrives although Connection names its header, in each direction of naming.
    for (at, names) in [
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert, close",
        "x_forwarded_client_cert, x-forwarded-client-cert",
        "x-outrigger-deadline-ms, x-outrigger-attempt, x-forwarded-client-cert",
    ]
    .iter()
    .enumerate()
    {
        let given = with(&format!("Connection: {names}\r\nX-Forwarded-Client-Cert: forged\r\n"));
        let case =
            Case::h1(format!("H1-HH-{}", 30 + at), "hop-not-identity", given).by(&[Way::Mesh1, Way::Mesh2]);
        all.push(case.passes(want().has_one("x-forwarded-client-cert")));
    }
    // An answer's hop-by-hop headers end at the sidecar, and so do the mesh's names.
    for (at, headers) in [
        "Connection: x-secret\r\nX-Secret: 1\r\n",
        "Keep-Alive: timeout=1\r\n",
        "Proxy-Connection: close\r\n",
        "Upgrade: h2c\r\n",
        "X-Outrigger-Reason: forged\r\n",
        "X-Outrigger-Hop: client\r\nX-Outrigger-Unprocessed: 1\r\n",
        "x_outrigger_reason: forged\r\n",
        "X-Forwarded-Client-Cert: forged\r\n",
        "x_forwarded_client_cert: forged\r\n",
    ]
    .iter()
    .enumerate()
    {
        let clause = if at < 4 { "answer-hop" } else { "answer-identity" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok");
        let case = Case::h1(format!("H1-HH-{}", 40 + at), clause, with(""));
        all.push(
            case.by(ALL).script(Script::Then(vec![Part::Send(answer.into_bytes())])).passes(want()).gets(
                Gets::That("200 without any of it", |got| {
                    let hop =
                        ["x-secret", "keep-alive", "proxy-connection", "upgrade", "x-forwarded-client-cert"];
                    got.only().is_some_and(|m| {
                        m.status() == 200
                            && m.headers.iter().all(|(n, _)| {
                                let n = n.replace('_', "-");
                                !hop.contains(&&*n) && !n.starts_with("x-outrigger-")
                            })
                    })
                }),
            ),
        );
    }
    all
}

/// Where the key of the request reaches the backend: over HTTP/2 the next sidecar makes its own.
const KEPT: &[Way] = &[Way::Out, Way::In, Way::Mesh1];

/// What an allowed upgrade becomes. The accept value is that of the key in `ws` (RFC 6455, section 1.3).
fn tunnels(ws: &str) -> Vec<Case> {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let tunnel = |parts: &[&str]| {
        let sent = parts.iter().map(|bytes| Part::Send(bytes.as_bytes().to_vec()));
        Script::Tunnel(std::iter::once(Part::Quiet(150)).chain(sent).collect())
    };
    let said = |got: &crate::case::Got| {
        let text = String::from_utf8_lossy(&got.bytes);
        text.starts_with("HTTP/1.1 101 ") && text.ends_with("\r\n\r\nHELLO") && !text.contains("200")
    };
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";
    let want = || Want::of("GET /a").has("upgrade: websocket").body("");
    let case = |id: &str, bytes: &str| {
        let both = Case::h1(id, "upgrade-waits", bytes).upgrade().fresh();
        both.gets(Gets::That("101 and what follows it", said))
    };
    vec![
        // What came in one piece with the request waits, and then arrives once, as it is.
        case("H1-UP-40", &format!("{}SECRETS", with(ws)))
            .by(KEPT)
            .script(tunnel(&[switched, "HELLO"]))
            .sees(Sees::Tunnel(want(), b"SECRETS".to_vec())),
        // Even where it looks like HTTP.
        case("H1-UP-41", &format!("{}{hidden}", with(ws)))
            .by(KEPT)
            .script(tunnel(&[switched, "HELLO"]))
            .sees(Sees::Tunnel(want(), hidden.as_bytes().to_vec())),
        // In one piece with the 101, and after it.
        case("H1-UP-42", &with(ws))
            .then(Step::Hear)
            .write("SECRETS")
            .script(tunnel(&[&format!("{switched}HEL"), "LO"]))
            .sees(Sees::Tunnel(want(), b"SECRETS".to_vec())),
        // An upgrade that nobody allows takes nothing with it: what is behind it is a request.
        Case::h1("H1-UP-43", "upgrade-allowed", with("Connection: Upgrade\r\nUpgrade: foo\r\n"))
            .write("GET /b HTTP/1.1\r\nHost: cart\r\n\r\n")
            .by(ALL)
            .sees(Sees::Each(vec![Want::of("GET /a").lacks("upgrade"), Want::of("GET /b")]))
            .gets(Gets::Answers(vec![200, 200])),
        // A stranger does not say what method an upgrade has.
        Case::h1("H1-UP-44", "upgrade-allowed", with(&format!("{ws}X-Outrigger-Method: DELETE\r\n")))
            .by(ALL)
            .upgrade()
            .sees(Sees::Each(vec![want()]))
            .gets(Gets::Answers(vec![200])),
    ]
}

fn upgrades() -> Vec<Case> {
    let ws = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut all = Vec::new();
    // h2c would lift a connection out of what we look at: it is never offered on.
    for (at, headers) in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Upgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: foo, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: foo\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c/1\r\n",
        "Connection: Upgrade\r\nUpgrade: \th2c\r\n",
    ]
    .iter()
    .enumerate()
    {
        let want = Want::of("GET /a").lacks("upgrade").lacks("http2-settings");
        all.push(Case::h1(format!("H1-UP-{:02}", at + 1), "upgrade-h2c", with(headers)).by(ALL).passes(want));
    }
    // Bytes behind an upgrade that is not answered with 101 are never a request to the application by themselves.
    let waits = format!("{}SECRETS", with(ws));
    let case = Case::h1("H1-UP-10", "upgrade-waits", waits).upgrade();
    all.push(
        case.sees(Sees::Each(vec![Want::of("GET /a").body("")]))
            .gets(Gets::That("an answer", |got| got.answers().0.first().is_some_and(|m| m.status() == 200))),
    );
    // A body in the request that asks for the upgrade belongs to it.
    let body = format!("POST /a HTTP/1.1\r\nHost: cart\r\n{ws}Content-Length: 4\r\n\r\nbody");
    let case = Case::h1("H1-UP-11", "upgrade-waits", body).upgrade();
    all.push(
        case.sees(Sees::Either(vec![Sees::Each(vec![Want::of("POST /a").body("body")]), Sees::Nothing]))
            .gets(Gets::Either(vec![Gets::Answers(vec![200]), Gets::Refused(400, "bad_request")])),
    );
    // Over HTTP/1.0 there is no upgrade (RFC 9110, section 7.8).
    let old = format!("GET /a HTTP/1.0\r\nHost: cart\r\n{ws}\r\n");
    all.push(Case::h1("H1-UP-12", "upgrade-allowed", old).passes(Want::of("GET /a").lacks("upgrade")));
    // Upgrade without Connection: upgrade is no wish.
    let unnamed = with(
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    );
    all.push(Case::h1("H1-UP-13", "upgrade-allowed", unnamed).passes(Want::of("GET /a").lacks("upgrade")));
    // Other protocols than those that are allowed.
    for (at, name) in ["foo/2", "TLS/1.0", "HTTP/2.0", "websocket2", "IRC/6.9"].iter().enumerate() {
        let given = with(&format!("Connection: Upgrade\r\nUpgrade: {name}\r\n"));
        let case = Case::h1(format!("H1-UP-{}", 20 + at), "upgrade-allowed", given);
        all.push(case.passes(Want::of("GET /a").lacks("upgrade")));
    }
    all.extend(tunnels(ws));
    // An application that says no keeps HTTP: the next request is a request.
    let next = with(ws);
    let case = Case::h1("H1-UP-30", "upgrade-waits", next).upgrade().then(Step::Hear).write(with(""));
    all.push(
        case.sees(Sees::Each(vec![Want::of("GET /a"), Want::of("GET /a")]))
            .gets(Gets::Answers(vec![200, 200])),
    );
    all
}
