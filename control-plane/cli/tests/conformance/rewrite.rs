//! Requests that ask for something else there than here.

use crate::case::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = hosts_and_paths();
    all.extend(prefixes());
    all.extend(refused());
    all
}

fn rewrite(prefix: &str, what: &str) -> String {
    format!(
        "[{{matches: [{{path: {{value: {prefix}}}}}], filters: [{{type: URLRewrite, urlRewrite: {what}}}], backendRefs: [$A]}}]"
    )
}

fn full(path: &str) -> String {
    format!("{{path: {{type: ReplaceFullPath, replaceFullPath: {path}}}}}")
}

fn hosts_and_paths() -> Vec<Case> {
    vec![
        case("rewrite-host", "HTTPURLRewriteFilter.hostname", "the Host of the request becomes the one that is written")
            .rules(&rewrite("/one", "{hostname: www.example.com}"))
            .ask(get("/one/x").to("a").sends("host", "www.example.com").asks_for("/one/x")),
        case("rewrite-path-full", "HTTPPathModifier.replaceFullPath", "the whole path becomes the one that is written")
            .rules(&rewrite("/one", &full("/new/path")))
            .ask(get("/one/x/y").to("a").asks_for("/new/path")),
        case("rewrite-query", "HTTPURLRewriteFilter.path", "the query is no part of the path and stays")
            .rules(&rewrite("/one", &full("/new")))
            .ask(get("/one?a=b&c=d").to("a").asks_for("/new?a=b&c=d")),
        case("rewrite-host-and-path", "HTTPURLRewriteFilter", "host and path can be rewritten together")
            .rules(&rewrite("/one", "{hostname: www.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /two}}"))
            .ask(get("/one/x").to("a").sends("host", "www.example.com").asks_for("/two/x")),
        case("rewrite-not-the-choice", "HTTPURLRewriteFilter", "what is rewritten does not change which rule is met")
            .rules("[{matches: [{path: {value: /one}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /two}}}], backendRefs: [$A]}, \
                    {matches: [{path: {value: /two}}], backendRefs: [$B]}]")
            .ask(get("/one").to("a").asks_for("/two"))
            .ask(get("/two").to("b")),
    ]
}

/// The rows of the table of prefixes: what is asked for, the prefix, its replacement, what is made of it.
const PREFIXES: [(&str, &str, &str, &str, &str); 11] = [
    ("rewrite-prefix-1", "/foo/bar", "/foo", "/xyz", "/xyz/bar"),
    ("rewrite-prefix-2", "/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
    ("rewrite-prefix-3", "/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
    ("rewrite-prefix-4", "/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
    ("rewrite-prefix-5", "/foo", "/foo", "/xyz", "/xyz"),
    ("rewrite-prefix-6", "/foo/", "/foo", "/xyz", "/xyz/"),
    ("rewrite-prefix-7", "/foo/bar", "/foo", "\"\"", "/bar"),
    ("rewrite-prefix-8", "/foo/", "/foo", "\"\"", "/"),
    ("rewrite-prefix-9", "/foo", "/foo", "\"\"", "/"),
    ("rewrite-prefix-10", "/foo/", "/foo", "/", "/"),
    ("rewrite-prefix-11", "/foo", "/foo", "/", "/"),
];

/// What each row of that table means.
const MEANINGS: [&str; 11] = [
    "a prefix is replaced, the rest stays: `/foo` by `/xyz` in `/foo/bar`",
    "a slash at the end of the replacement is not doubled",
    "nor does one at the end of the prefix take one away",
    "nor do both",
    "the whole path can be the prefix",
    "a slash behind the prefix stays",
    "the replacement can be empty: `/foo` by nothing in `/foo/bar`",
    "an empty replacement leaves the slash of `/foo/`",
    "and makes one of `/foo`",
    "the replacement can be a slash, which is not doubled in `/foo/`",
    "and stands alone for `/foo`",
];

fn prefixes() -> Vec<Case> {
    let rows = PREFIXES.iter().zip(MEANINGS);
    let each = |(&(id, asked, prefix, by, made), meaning)| {
        let what = format!("{{path: {{type: ReplacePrefixMatch, replacePrefixMatch: {by}}}}}");
        case(id, "HTTPPathModifier.replacePrefixMatch, table", meaning)
            .rules(&rewrite(prefix, &what))
            .ask(get(asked).to("a").asks_for(made))
    };
    let mut all: Vec<Case> = rows.map(each).collect();
    let what = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /xyz}}";
    all.push(
        case(
            "rewrite-prefix-segments",
            "HTTPPathModifier.replacePrefixMatch",
            "a prefix is whole segments here, too: `/foobar` has no prefix `/foo`",
        )
        .rules(&rewrite("/foo", what))
        .ask(get("/foo/bar").to("a").asks_for("/xyz/bar"))
        .ask(get("/foobar").status(404)),
    );
    all.push(
        case(
            "rewrite-prefix-root",
            "HTTPPathModifier.replacePrefixMatch",
            "the prefix / can be replaced: everything moves below",
        )
        .rules(&rewrite("/", what))
        .ask(get("/foo/bar").to("a").asks_for("/xyz/foo/bar"))
        .ask(get("/").to("a")),
    );
    all
}

fn refused() -> Vec<Case> {
    let at = "/filters/0/urlRewrite";
    vec![
        case(
            "rewrite-host-precise",
            "PreciseHostname",
            "the host of a rewrite is a whole name, no wildcard and no address",
        )
        .refuses(&rewrite("/one", "{hostname: \"*.example.com\"}"), at)
        .refuses(&rewrite("/one", "{hostname: 10.0.0.1}"), at),
        case(
            "rewrite-path-type-unknown",
            "HTTPPathModifier.type",
            "a change to the path that is not known takes nothing down and the route is not accepted",
        )
        .refuses(&rewrite("/one", "{path: {type: ReplaceSuffix, replaceFullPath: /new}}"), at),
        case(
            "rewrite-path-union",
            "HTTPPathModifier",
            "a change to the path has the value that its type names, and no other",
        )
        .refuses(&rewrite("/one", "{path: {type: ReplacePrefixMatch}}"), at)
        .refuses(&rewrite("/one", "{path: {type: ReplaceFullPath, replacePrefixMatch: /new}}"), at),
        case("rewrite-path-length", "HTTPPathModifier", "a path has at most 1024 characters")
            .refuses(&rewrite("/one", &full(&format!("/{}", "x".repeat(1024)))), at),
    ]
}
