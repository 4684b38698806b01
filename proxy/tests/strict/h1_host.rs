//! Whom a request names: Host, absolute targets, and the forms of a target that name nobody.

use crate::case::{ALL, Case, Gets, Sees, Want, Way};

pub fn cases() -> Vec<Case> {
    let mut all = hosts();
    all.extend(absolute());
    all.extend(special());
    all
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{headers}\r\n")
}

fn hosts() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, clause, headers) in [
        ("H1-HO-01", "host-missing", ""),
        ("H1-HO-02", "host-missing", "X-Host: cart\r\n"),
        ("H1-HO-03", "host-missing", "Hos: cart\r\n"),
        ("H1-HO-04", "host-missing", "X-Forwarded-Host: cart\r\n"),
        ("H1-HO-05", "host-duplicate", "Host: cart\r\nHost: cart\r\n"),
        ("H1-HO-06", "host-duplicate", "Host: cart\r\nHost: other\r\n"),
        ("H1-HO-07", "host-duplicate", "Host: cart\r\nX: y\r\nhOST: cart\r\n"),
        ("H1-HO-08", "host-duplicate", "Host: cart\r\nHost:\r\n"),
        ("H1-HO-09", "host-duplicate", "Host:\r\nHost: cart\r\n"),
        ("H1-HO-10", "host-invalid", "Host:\r\n"),
        ("H1-HO-11", "host-invalid", "Host: cart, other\r\n"),
        ("H1-HO-12", "host-invalid", "Host: cart other\r\n"),
        ("H1-HO-13", "host-invalid", "Host: cart/../x\r\n"),
        ("H1-HO-14", "host-invalid", "Host: http://cart\r\n"),
        ("H1-HO-15", "host-invalid", "Host: me@cart\r\n"),
        ("H1-HO-16", "host-invalid", "Host: me:pw@cart\r\n"),
        ("H1-HO-17", "host-invalid", "Host: cart:\r\n"),
        ("H1-HO-18", "host-invalid", "Host: cart:80x\r\n"),
        ("H1-HO-19", "host-invalid", "Host: cart:-80\r\n"),
        ("H1-HO-20", "host-invalid", "Host: cart:99999\r\n"),
        ("H1-HO-21", "host-invalid", "Host: cart:0\r\n"),
        ("H1-HO-22", "host-invalid", "Host: cart:80:80\r\n"),
        ("H1-HO-23", "host-invalid", "Host: c%61rt\r\n"),
        ("H1-HO-24", "host-invalid", "Host: cart%00\r\n"),
        ("H1-HO-25", "host-invalid", "Host: cart?x\r\n"),
        ("H1-HO-26", "host-invalid", "Host: cart#x\r\n"),
        ("H1-HO-27", "host-invalid", "Host: cart\\x\r\n"),
        ("H1-HO-28", "host-invalid", "Host: [::1\r\n"),
        ("H1-HO-29", "host-invalid", "Host: [zz]\r\n"),
        ("H1-HO-30", "host-invalid", "Host: c\u{e4}rt\r\n"),
        ("H1-HO-31", "host-invalid", "Host: \"cart\"\r\n"),
        ("H1-HO-32", "host-invalid", "Host: cart..shop\r\n"),
        ("H1-HO-33", "host-invalid", "Host: .cart\r\n"),
        ("H1-HO-34", "host-invalid", "Host: cart\tother\r\n"),
        ("H1-HO-35", "host-invalid", "Host: [::1%25eth0]\r\n"),
    ] {
        all.push(Case::h1(id, clause, get("/a", headers)));
    }
    let long = format!("Host: {}\r\n", "a".repeat(300));
    all.push(Case::h1("H1-HO-36", "host-invalid", get("/a", &long)));
    let http10 = "GET /a HTTP/1.0\r\n\r\n";
    all.push(Case::h1("H1-HO-37", "host-missing", http10).by(&[Way::Out]));
    for (at, host) in ["CART", "cart:80", "cart.shop", "cart.shop.mesh."].iter().enumerate() {
        let want = Want::of("GET /a").has(&format!("host: {host}"));
        let given = get("/a", &format!("host: \t{host} \t\r\n"));
        all.push(Case::h1(format!("H1-HO-{}", 40 + at), "host-one", given).by(ALL).passes(want));
    }
    // Connection can not take the Host away, nor make room for another.
    let named = get("/a", "Connection: host\r\nHost: cart\r\n");
    all.push(Case::h1("H1-HO-50", "host-one", named).by(ALL).passes(Want::of("GET /a").has("host: cart")));
    let forwarded = get("/a", "Host: cart\r\nX-Forwarded-Host: other\r\nForwarded: host=other\r\n");
    all.push(Case::h1("H1-HO-51", "host-one", forwarded).passes(Want::of("GET /a").has("host: cart")));
    all
}

fn absolute() -> Vec<Case> {
    let mut all = Vec::new();
    let want = || Want::of("GET /a").has("host: cart");
    for (id, target, headers) in [
        ("H1-AB-01", "http://cart/a", "Host: cart\r\n"),
        ("H1-AB-02", "http://cart/a", "Host: other\r\n"),
        ("H1-AB-03", "http://cart/a", "Host: prices.shop\r\n"),
        ("H1-AB-04", "HTTP://cart/a", "Host: other\r\n"),
    ] {
        all.push(Case::h1(id, "absolute-host", get(target, headers)).by(ALL).passes(want()));
    }
    let empty = Want::of("GET /").has("host: cart");
    all.push(Case::h1("H1-AB-05", "absolute-host", get("http://cart", "Host: other\r\n")).passes(empty));
    let query = Want::of("GET /?x=1").has("host: cart");
    all.push(Case::h1("H1-AB-06", "absolute-host", get("http://cart?x=1", "Host: other\r\n")).passes(query));
    let port = Want::of("GET /a").has("host: cart:80");
    all.push(Case::h1("H1-AB-07", "absolute-host", get("http://cart:80/a", "Host: other\r\n")).passes(port));
    for (id, clause, target, headers) in [
        ("H1-AB-10", "absolute-host", "http://cart/a", ""),
        ("H1-AB-11", "absolute-host", "http://cart/a", "Host: cart\r\nHost: cart\r\n"),
        ("H1-AB-12", "absolute-host", "http:///a", "Host: cart\r\n"),
        ("H1-AB-13", "absolute-host", "http://cart:x/a", "Host: cart\r\n"),
        ("H1-AB-14", "absolute-host", "http://c%61rt/a", "Host: cart\r\n"),
        ("H1-AB-15", "absolute-host", "http://cart,other/a", "Host: cart\r\n"),
        ("H1-AB-16", "absolute-host", "http://cart\\@other/a", "Host: cart\r\n"),
        ("H1-AB-17", "absolute-host", "//cart/a", ""),
        ("H1-AB-20", "absolute-user", "http://me@cart/a", "Host: cart\r\n"),
        ("H1-AB-21", "absolute-user", "http://me:pw@cart/a", "Host: cart\r\n"),
        ("H1-AB-22", "absolute-user", "http://@cart/a", "Host: cart\r\n"),
        ("H1-AB-23", "absolute-user", "http://cart@other/a", "Host: cart\r\n"),
        ("H1-AB-30", "absolute-scheme", "ftp://cart/a", "Host: cart\r\n"),
        ("H1-AB-31", "absolute-scheme", "file:///etc/passwd", "Host: cart\r\n"),
        ("H1-AB-32", "absolute-scheme", "ws://cart/a", "Host: cart\r\n"),
        ("H1-AB-33", "absolute-scheme", "gopher://cart/a", "Host: cart\r\n"),
        ("H1-AB-34", "absolute-scheme", "javascript:alert", "Host: cart\r\n"),
        ("H1-AB-35", "absolute-scheme", "cart/a", "Host: cart\r\n"),
        ("H1-AB-36", "absolute-scheme", "http:/a", "Host: cart\r\n"),
    ] {
        all.push(Case::h1(id, clause, get(target, headers)));
    }
    all
}

fn special() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nHost: cart\r\n\r\n");
    let mut all = vec![
        Case::h1("H1-AS-01", "asterisk", line("OPTIONS * HTTP/1.1")).by(ALL).passes(Want::of("OPTIONS *")),
        Case::h1("H1-AS-02", "asterisk", line("GET * HTTP/1.1")),
        Case::h1("H1-AS-03", "asterisk", line("POST * HTTP/1.1")),
        Case::h1("H1-AS-04", "asterisk", line("options * HTTP/1.1")),
        Case::h1("H1-AS-05", "asterisk", line("OPTIONS *x HTTP/1.1")),
        Case::h1("H1-AS-06", "asterisk", line("OPTIONS ** HTTP/1.1")),
        Case::h1("H1-AS-07", "asterisk", line("OPTIONS *?x HTTP/1.1")),
        Case::h1("H1-AS-08", "asterisk", line("OPTIONS /* HTTP/1.1")).passes(Want::of("OPTIONS /*")),
    ];
    // CONNECT is for names with a port; where it is not offered at all it is refused all the same.
    for (at, target) in
        ["/a", "*", "cart", "cart:", "cart:x", "http://cart:80/", "me@cart:80", "cart:80/a", ":80", "[::1:80"]
            .iter()
            .enumerate()
    {
        let case = Case::h1(
            format!("H1-CO-{:02}", at + 1),
            "connect-form",
            line(&format!("CONNECT {target} HTTP/1.1")),
        );
        all.push(case.sees(Sees::Nothing).gets(Gets::That("a refusal", |got| {
            got.answers().0.first().is_some_and(|m| (400..500).contains(&m.status()))
                && got.answers().0.len() == 1
        })));
    }
    // What comes behind a refused CONNECT is not a request of anybody.
    let behind =
        format!("{}GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n", line("CONNECT 127.0.0.1:x HTTP/1.1"));
    all.push(Case::h1("H1-CO-11", "connect-form", behind).gets(Gets::That("one refusal", |got| {
        got.closed && got.answers().0.len() == 1 && got.answers().0[0].status() >= 400
    })));
    all
}
