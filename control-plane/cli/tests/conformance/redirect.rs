//! Answers that ask for something else.

use crate::case::{Case, case, get, route_of};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = statuses();
    all.extend(places());
    all.extend(ports());
    all.extend(refused());
    all
}

fn redirect(what: &str) -> String {
    format!(
        "[{{matches: [{{path: {{value: /old}}}}], filters: [{{type: RequestRedirect, requestRedirect: {what}}}]}}]"
    )
}

fn statuses() -> Vec<Case> {
    let status = |id, code: u16, meaning: &'static str| {
        case(id, "HTTPRequestRedirectFilter.statusCode", meaning)
            .rules(&redirect(&format!("{{hostname: www.example.com, statusCode: {code}}}")))
            .ask(get("/old").status(code).tells("location", "http://www.example.com/old"))
    };
    vec![
        case(
            "redirect-status-default",
            "HTTPRequestRedirectFilter.statusCode",
            "a redirect without a status is a 302",
        )
        .rules(&redirect("{hostname: www.example.com}"))
        .ask(get("/old").status(302).tells("location", "http://www.example.com/old")),
        status("redirect-301", 301, "301 can be asked for"),
        status("redirect-302", 302, "302 can be asked for"),
        status("redirect-303", 303, "303 can be asked for (extended)"),
        status("redirect-307", 307, "307 can be asked for (extended)"),
        status("redirect-308", 308, "308 can be asked for (extended)"),
    ]
}

fn places() -> Vec<Case> {
    vec![
        case(
            "redirect-host",
            "HTTPRequestRedirectFilter.hostname",
            "the host of the redirect is the one that is written",
        )
        .rules(&redirect("{hostname: www.example.com}"))
        .ask(get("/old/x").status(302).tells("location", "http://www.example.com/old/x")),
        case(
            "redirect-host-default",
            "HTTPRequestRedirectFilter.hostname",
            "without one it is the host of the request",
        )
        .at_a_gateway()
        .rules(&redirect("{path: {type: ReplaceFullPath, replaceFullPath: /new}}"))
        .ask(get("/old").status(302).tells("location", "http://$NAME.example/new")),
        case(
            "redirect-host-default-mesh",
            "HTTPRequestRedirectFilter.hostname",
            "without one it is the host by which the service was called",
        )
        .in_the_mesh()
        .rules(&redirect("{path: {type: ReplaceFullPath, replaceFullPath: /new}}"))
        .ask(get("/old").status(302).tells("location", "http://$NAME/new"))
        .ask(
            get("/old")
                .host("$NAME.shop.svc.cluster.local")
                .status(302)
                .tells("location", "http://$NAME.shop.svc.cluster.local/new"),
        ),
        case(
            "redirect-scheme-default",
            "HTTPRequestRedirectFilter.scheme",
            "without a scheme it is that of the request",
        )
        .rules(&redirect("{hostname: www.example.com}"))
        .ask(get("/old").status(302).word("location", "http://")),
        case(
            "redirect-path-default",
            "HTTPRequestRedirectFilter.path",
            "without a path it is that of the request, with its query",
        )
        .rules(&redirect("{hostname: www.example.com}"))
        .ask(get("/old/x/?y=z").status(302).tells("location", "http://www.example.com/old/x/?y=z")),
        case(
            "redirect-path-full",
            "HTTPPathModifier.replaceFullPath",
            "the whole path of the redirect is the one that is written",
        )
        .rules(&redirect("{hostname: www.example.com, path: {type: ReplaceFullPath, replaceFullPath: /new}}"))
        .ask(get("/old/x").status(302).tells("location", "http://www.example.com/new")),
        case(
            "redirect-path-prefix",
            "HTTPPathModifier.replacePrefixMatch",
            "the matched prefix is replaced, the rest stays",
        )
        .rules(&redirect(
            "{hostname: www.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}",
        ))
        .ask(get("/old").status(302).tells("location", "http://www.example.com/new"))
        .ask(get("/old/x").status(302).tells("location", "http://www.example.com/new/x"))
        .ask(get("/old/").status(302).tells("location", "http://www.example.com/new/"))
        .ask(get("/older").status(404)),
        case(
            "redirect-path-prefix-root",
            "HTTPPathModifier.replacePrefixMatch",
            "the prefix may be replaced by nothing",
        )
        .rules(&redirect(
            "{hostname: www.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}",
        ))
        .ask(get("/old").status(302).tells("location", "http://www.example.com/"))
        .ask(get("/old/x").status(302).tells("location", "http://www.example.com/x")),
    ]
}

fn ports() -> Vec<Case> {
    const PLACE: &str = "HTTPRequestRedirectFilter.port";
    let to = |id, meaning: &'static str, what: &str, location: &'static str| {
        case(id, PLACE, meaning)
            .rules(&redirect(what))
            .ask(get("/old").status(302).tells("location", location))
    };
    let at_8080 = |id, meaning: &'static str, what: &str, location: &'static str| {
        let parent = "[{name: edge, namespace: shop, sectionName: alt}]";
        let route = route_of("HTTPRoute", ("shop", "$NAME"), parent, "[$NAME.example]", &redirect(what));
        case(id, PLACE, meaning)
            .at_a_gateway()
            .apply(&route)
            .ask(get("/old").port(8080).status(302).tells("location", location))
    };
    vec![
        to(
            "redirect-scheme-https",
            "with a scheme and no port it is the scheme's own port, which is not written: https",
            "{scheme: https, hostname: www.example.com}",
            "https://www.example.com/old",
        ),
        to(
            "redirect-scheme-http",
            "with a scheme and no port it is the scheme's own port, which is not written: http",
            "{scheme: http, hostname: www.example.com}",
            "http://www.example.com/old",
        ),
        to(
            "redirect-port",
            "the port of the redirect is the one that is written",
            "{hostname: www.example.com, port: 8081}",
            "http://www.example.com:8081/old",
        ),
        to(
            "redirect-port-80",
            "port 80 is not written with http",
            "{hostname: www.example.com, port: 80}",
            "http://www.example.com/old",
        ),
        to(
            "redirect-port-443",
            "port 443 is not written with https",
            "{scheme: https, hostname: www.example.com, port: 443}",
            "https://www.example.com/old",
        ),
        to(
            "redirect-port-https",
            "any other port is written with https",
            "{scheme: https, hostname: www.example.com, port: 8443}",
            "https://www.example.com:8443/old",
        ),
        to(
            "redirect-port-80-https",
            "port 80 is written with https",
            "{scheme: https, hostname: www.example.com, port: 80}",
            "https://www.example.com:80/old",
        ),
        to(
            "redirect-port-443-http",
            "port 443 is written with http",
            "{hostname: www.example.com, port: 443}",
            "http://www.example.com:443/old",
        ),
        at_8080(
            "redirect-port-listener",
            "without scheme and port it is the port of the listener",
            "{hostname: www.example.com}",
            "http://www.example.com:8080/old",
        ),
        at_8080(
            "redirect-port-listener-scheme",
            "with a scheme the port of the listener does not count",
            "{scheme: https, hostname: www.example.com}",
            "https://www.example.com/old",
        ),
        at_8080(
            "redirect-port-listener-http",
            "nor where the scheme is the same",
            "{scheme: http, hostname: www.example.com}",
            "http://www.example.com/old",
        ),
        at_8080(
            "redirect-port-listener-80",
            "nor where a port is written",
            "{hostname: www.example.com, port: 80}",
            "http://www.example.com/old",
        ),
    ]
}

fn refused() -> Vec<Case> {
    let at = "/filters/0/requestRedirect";
    vec![
        case(
            "redirect-scheme-unknown",
            "HTTPRequestRedirectFilter.scheme",
            "a scheme that is not known takes nothing down and the route is not accepted",
        )
        .refuses(&redirect("{scheme: ftp}"), at),
        case(
            "redirect-status-unknown",
            "HTTPRequestRedirectFilter.statusCode",
            "a status that is no redirect takes nothing down and the route is not accepted",
        )
        .refuses(&redirect("{hostname: www.example.com, statusCode: 305}"), at)
        .refuses(&redirect("{hostname: www.example.com, statusCode: 200}"), at),
        case(
            "redirect-host-precise",
            "PreciseHostname",
            "the host of a redirect is a whole name, no wildcard and no address",
        )
        .refuses(&redirect("{hostname: \"*.example.com\"}"), at)
        .refuses(&redirect("{hostname: 10.0.0.1}"), at),
        case("redirect-port-range", "HTTPRequestRedirectFilter.port", "a port is a number from 1 to 65535")
            .refuses(&redirect("{port: 0}"), at)
            .refuses(&redirect("{port: 65536}"), at),
        case(
            "redirect-path-type-unknown",
            "HTTPPathModifier.type",
            "a change to the path that is not known takes nothing down and the route is not accepted",
        )
        .refuses(&redirect("{path: {type: ReplaceSuffix, replaceFullPath: /new}}"), at),
        case(
            "redirect-path-union",
            "HTTPPathModifier",
            "a change to the path has the value that its type names, and no other",
        )
        .refuses(&redirect("{path: {type: ReplaceFullPath}}"), at)
        .refuses(&redirect("{path: {type: ReplacePrefixMatch, replaceFullPath: /new}}"), at),
    ]
}
