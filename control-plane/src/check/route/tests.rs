use outrigger_mesh::{
    Fraction, HeaderMatch, Label, PathChange, PathMatch, PortNumber, RouteMatch, StickyBy, Timeouts,
    ValueMatch,
};

use super::{CheckedRoute, CheckedRule};
use crate::spec::{Code, Key, Kind, Object, ObjectName, Problem, Severity};
use crate::testing::{gateway, object, policy, put, service, world};
use crate::world::World;

fn told(problems: &[Problem]) -> Vec<(&str, Code)> {
    problems.iter().map(|p| (p.pointer.as_str(), p.code)).collect()
}

fn shop() -> World {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    let ports =
        "ports: [{port: 80, name: web}, {port: 81, name: rpc, protocol: grpc}, {port: 9, protocol: tcp}]";
    put(&mut world, service("prices", ports)).unwrap();
    world
}

/// A route of `cart` with `rules` in flow style.
fn rules(rules: &str) -> Object {
    with_parents("{kind: Service, group: '', name: cart}", rules)
}

fn with_parents(parents: &str, rules: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, namespace: shop}}, \
         spec: {{parentRefs: [{parents}], rules: [{rules}]}}}}"
    ))
}

fn checked(world: &mut World, object: Object) -> CheckedRoute {
    let key = object.key();
    put(world, object).unwrap_or_else(|p| panic!("{p:#?}"));
    world.route(&key).unwrap().checked.clone()
}

fn rule(text: &str) -> CheckedRule {
    checked(&mut shop(), rules(&format!("{{{text}}}"))).rules.remove(0)
}

fn errors(text: &str) -> Vec<Problem> {
    let found = put(&mut shop(), rules(text)).unwrap_err();
    found.into_iter().filter(|p| p.severity == Severity::Error).collect()
}

#[test]
fn all_mistakes_of_filters_are_told_at_once_each_with_a_hint() {
    let text = "{matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: cart}], filters: [\
         {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: a}, {name: x-a, value: b}], \
             add: [{name: X-A, value: c}], remove: [connection, x-outrigger-hop]}}, \
         {type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-b]}}, \
         {type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}, \
         {type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /b}}}, \
         {type: RequestMirror, requestMirror: {backendRef: {name: price}, percent: 1, fraction: {numerator: 1}}}, \
         {type: RequestMirror, requestMirror: {backendRef: {name: prices}, fraction: {numerator: 3, denominator: 2}}}, \
         {type: CORS, cors: {allowOrigins: ['*', 'https://a.example']}, requestMirror: {backendRef: {name: cart}}}, \
         {type: ResponseHeaderModifier}]}";
    let found = errors(text);
    let at = |rest: &str| format!("/spec/rules/0/{rest}");
    let expected = [
        (at("filters/1/type"), Code::Duplicate),
        (at("filters/0/requestHeaderModifier/set/0/name"), Code::Conflict),
        (at("filters/0/requestHeaderModifier/add/0/name"), Code::Duplicate),
        (at("filters/0/requestHeaderModifier/remove/0"), Code::Conflict),
        (at("filters/0/requestHeaderModifier/remove/1"), Code::Conflict),
        (at("filters/2/requestRedirect/path/type"), Code::Contradiction),
        (at("filters/3/urlRewrite/path/replacePrefixMatch"), Code::Contradiction),
        (at("filters/3/urlRewrite/path"), Code::MissingField),
        (at("filters/4/requestMirror"), Code::Contradiction),
        (at("filters/4/requestMirror/backendRef/name"), Code::Reference),
        (at("filters/5/requestMirror/fraction/numerator"), Code::BadValue),
        (at("filters/6/requestMirror"), Code::Contradiction),
        (at("filters/7"), Code::MissingField),
        (at("filters"), Code::Contradiction),
        (at("backendRefs"), Code::Contradiction),
    ];
    let expected: Vec<_> = expected.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    assert_eq!(told(&found), expected, "{found:#?}");
    let without = found.iter().filter(|p| p.hint.is_none()).map(|p| p.pointer.clone()).collect::<Vec<_>>();
    assert_eq!(without, [at("filters/5/requestMirror/fraction/numerator")], "{found:#?}");
}

#[test]
fn filters_become_what_is_done() {
    let rule = rule(
        "matches: [{headers: [{name: x, value: y}]}], backendRefs: [{name: cart, filters: [\
             {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-to, value: cart}]}}]}], filters: [\
         {type: URLRewrite, urlRewrite: {hostname: other.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}, \
         {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-a, value: 'b, c'}], remove: [server]}}, \
         {type: RequestMirror, requestMirror: {backendRef: {name: prices, port: 80}, percent: 5}}, \
         {type: RequestMirror, requestMirror: {backendRef: {name: prices}}}, \
         {type: CORS, cors: {allowOrigins: ['https://*.shop.example'], allowCredentials: true, maxAge: 60}}]",
    );
    let (route, filters) = (&rule.route, &rule.route.filters);
    let rewrite = filters.rewrite.as_ref().unwrap();
    assert_eq!(rewrite.path, Some(PathChange::Prefix("/b".into())));
    assert_eq!(route.matches[0].path, Some(PathMatch::Prefix("/".into())), "what is replaced is written out");
    assert_eq!(rewrite.host.as_ref().map(|h| h.as_str().to_owned()).as_deref(), Some("other.example"));
    assert_eq!((filters.response.add.len(), filters.response.remove.len()), (1, 1));
    let shares: Vec<_> = filters.mirrors.iter().map(|m| (m.port.map(PortNumber::get), m.share)).collect();
    assert_eq!(shares, [(Some(80), Fraction { of: 5, out_of: 100 }), (None, Fraction::ALL)]);
    let cors = filters.cors.as_ref().unwrap();
    assert!(cors.credentials && cors.max_age == 60 && cors.allows("https://a.shop.example"));
    assert_eq!(route.backends[0].request.set[0].0.as_str(), "x-to");
}

#[test]
fn a_backend_changes_headers_and_nothing_else() {
    let text = "{backendRefs: [{name: cart, filters: [{type: RequestRedirect, requestRedirect: {port: 81}}, \
                {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: te, value: x}]}}]}]}";
    let found = errors(text);
    let at = |rest: &str| format!("/spec/rules/0/backendRefs/0/filters/{rest}");
    let pointers: Vec<_> = found.iter().map(|p| p.pointer.clone()).collect();
    assert_eq!(pointers, [at("0/type"), at("1/requestHeaderModifier/set/0/name")]);
    assert!(found[0].hint.as_deref().unwrap().contains("rule"), "{found:?}");
}

#[test]
fn expressions_are_compiled_or_told_with_their_place() {
    let good = rule(
        "matches: [{path: {type: RegularExpression, value: '/v[0-9]+/.*'}, \
         headers: [{type: RegularExpression, name: x-user, value: 'a.*'}], \
         queryParams: [{type: RegularExpression, name: v, value: '2|3'}]}], backendRefs: [{name: cart}]",
    );
    let m: &RouteMatch = &good.route.matches[0];
    assert!(matches!(m.path, Some(PathMatch::Regex(_))));
    assert!(matches!(m.headers[..], [HeaderMatch { value: ValueMatch::Regex(_), .. }]));
    assert!(matches!(&m.query[0].value, ValueMatch::Regex(p) if p.holds(b"3") && !p.holds(b"23")));
    let wrong = "{matches: [{path: {type: RegularExpression, value: '('}, \
         headers: [{type: RegularExpression, name: a, value: '(?=a)'}], \
         queryParams: [{type: RegularExpression, name: v, value: '(a{1,200}){1,200}'}]}, \
         {path: {type: Exact, value: a}}], backendRefs: [{name: cart}]}";
    let expected = [
        ("/spec/rules/0/matches/0/path/value", Code::BadValue),
        ("/spec/rules/0/matches/0/headers/0/value", Code::BadValue),
        ("/spec/rules/0/matches/0/queryParams/0/value", Code::BadValue),
        ("/spec/rules/0/matches/1/path/value", Code::BadValue),
    ];
    assert_eq!(told(&errors(wrong)), expected);
}

#[test]
fn times_are_what_the_gateway_api_means_by_them() {
    let times =
        |text: &str| rule(&format!("timeouts: {{{text}}}, backendRefs: [{{name: cart}}]")).route.timeouts;
    let seconds = |s| Some(std::time::Duration::from_secs(s));
    for (text, request, per_try) in [
        ("request: 2s, backendRequest: 2s", seconds(2), seconds(2)),
        ("request: 0s", Some(Timeouts::UNBOUNDED), None),
        ("request: 0s, backendRequest: 3s", Some(Timeouts::UNBOUNDED), seconds(3)),
        ("request: 4s, backendRequest: 0s", seconds(4), seconds(4)),
        ("backendRequest: 0s", None, Some(Timeouts::UNBOUNDED)),
    ] {
        assert_eq!((times(text).request, times(text).per_try), (request, per_try), "{text}");
    }
    let found = errors("{timeouts: {request: 1s, backendRequest: 2s}, backendRefs: [{name: cart}]}");
    assert_eq!(told(&found), [("/spec/rules/0/timeouts/backendRequest", Code::Contradiction)]);
}

#[test]
fn a_session_is_a_cookie_or_a_header_of_the_rule() {
    let session = |text: &str| {
        let text = format!("sessionPersistence: {{{text}}}, backendRefs: [{{name: cart}}]");
        rule(&text).route.choice.session.unwrap().by
    };
    assert!(
        matches!(session(""), StickyBy::Cookie { name, ttl: None } if name.starts_with("outrigger-session-"))
    );
    let permanent = "sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}";
    let hour = std::time::Duration::from_hours(1);
    assert_eq!(session(permanent), StickyBy::Cookie { name: "s".into(), ttl: Some(hour) });
    assert!(matches!(session("type: Header, sessionName: x-s"), StickyBy::Header(name) if name == "x-s"));
    let ends = |text: &str| {
        let text = format!("sessionPersistence: {{{text}}}, backendRefs: [{{name: cart}}]");
        let end = rule(&text).route.choice.session.unwrap().end;
        (end.absolute, end.idle)
    };
    assert_eq!((ends(""), ends(permanent)), ((None, None), (Some(hour), None)));
    let both = "type: Header, sessionName: x-s, absoluteTimeout: 1h, idleTimeout: 60m";
    assert_eq!(ends(both), (Some(hour), Some(hour)));
    assert_eq!(
        session("sessionName: s, absoluteTimeout: 1h"),
        StickyBy::Cookie { name: "s".into(), ttl: None }
    );
    for (text, field, code) in [
        ("cookieConfig: {lifetimeType: Permanent}", "absoluteTimeout", Code::MissingField),
        ("type: Header, cookieConfig: {}", "cookieConfig", Code::Contradiction),
    ] {
        let found = errors(&format!("{{sessionPersistence: {{{text}}}, backendRefs: [{{name: cart}}]}}"));
        let pointer = format!("/spec/rules/0/sessionPersistence/{field}");
        assert_eq!(told(&found), [(pointer.as_str(), code)], "{text}");
    }
}

#[test]
fn a_header_that_says_something_else_keeps_no_place() {
    for name in ["Authorization", "host", "content-length", "cookie", "set-cookie", "x-outrigger-reason"] {
        let session = format!("sessionPersistence: {{type: Header, sessionName: {name}}}");
        let found = errors(&format!("{{{session}, backendRefs: [{{name: cart}}]}}"));
        assert_eq!(
            told(&found),
            [("/spec/rules/0/sessionPersistence/sessionName", Code::Conflict)],
            "{name}"
        );
        assert!(found[0].hint.is_some());
        let sticky = policy("p", "cart", &format!("balance: {{sticky: {{header: {name}}}}}"));
        let found = put(&mut shop(), sticky).unwrap_err();
        assert_eq!(told(&found), [("/spec/balance/sticky/header", Code::Conflict)], "{name}");
    }
}

#[test]
fn a_route_that_was_in_force_before_it_would_be_refused_stays_in_force() {
    let world = shop();
    let session = "sessionPersistence: {type: Header, sessionName: Authorization}";
    let session = rules(&format!("{{{session}, backendRefs: [{{name: cart}}]}}"));
    let path =
        |i: usize| format!("{{path: {{type: RegularExpression, value: '/{i}/([a-z]{{1,40}}){{1,40}}'}}}}");
    let all: Vec<_> = (0..20).map(path).collect();
    let expressions = rules(&format!("{{matches: [{}], backendRefs: [{{name: cart}}]}}", all.join(", ")));
    let sticky = policy("p", "cart", "balance: {sticky: {header: Authorization}}");
    for object in [session, expressions, sticky] {
        assert!(crate::check::check(&object, &world).is_err(), "{object:?}");
        let stored = crate::check::check_stored(&object, &world);
        assert!(stored.is_ok(), "{stored:?}");
    }
}

#[test]
fn the_expressions_of_a_route_are_bounded_together() {
    let of = |number: usize, text: &str| {
        let path = |i: usize| format!("{{path: {{type: RegularExpression, value: '/{i}{text}'}}}}");
        let all: Vec<_> = (0..number).map(path).collect();
        let rule = |matches: &[String]| {
            format!("{{matches: [{}], backendRefs: [{{name: cart}}]}}", matches.join(", "))
        };
        all.chunks(60).map(rule).collect::<Vec<_>>().join(", ")
    };
    put(&mut shop(), rules(&of(64, "/[0-9]+/items"))).unwrap();
    let many = errors(&of(70, "/[0-9]+/items"));
    assert_eq!(told(&many), [("/spec/rules/1/matches/4/path/value", Code::TooLarge)], "{many:#?}");
    // Each is as large as one may be.
    put(&mut shop(), rules(&of(8, "([a-z]{1,40}){1,40}"))).unwrap();
    let large = errors(&of(20, "([a-z]{1,40}){1,40}"));
    assert_eq!(told(&large), [("/spec/rules/0/matches/8/path/value", Code::TooLarge)], "{large:#?}");
}

#[test]
fn the_ports_of_a_service_are_meant_by_number_or_name_each_once() {
    let parent = |rest: &str| format!("{{kind: Service, group: '', name: prices{rest}}}");
    let two = [parent(", sectionName: web"), parent(", sectionName: rpc")].join(", ");
    let found = checked(&mut shop(), with_parents(&two, "{backendRefs: [{name: cart}]}"));
    let ports: Vec<_> = found.parents[0].ports.iter().map(|p| PortNumber::get(*p)).collect();
    assert_eq!((found.parents.len(), ports), (1, vec![80, 81]));
    // A port in the backend is the one that the parent says.
    let same = "{backendRefs: [{name: prices, port: 81}]}";
    checked(&mut shop(), with_parents(&parent(", sectionName: rpc, port: 81"), same));
    for (parents, pointer) in [
        (parent(", port: 82"), "/spec/parentRefs/0/port"),
        (parent(", sectionName: rpcs"), "/spec/parentRefs/0/sectionName"),
        (parent(", sectionName: rpc, port: 80"), "/spec/parentRefs/0/sectionName"),
        ([parent(""), parent(", port: 80")].join(", "), "/spec/parentRefs/1"),
        ([parent(", port: 80"), parent(", port: 80")].join(", "), "/spec/parentRefs/1"),
        ([parent(", port: 80"), parent(", sectionName: rpc")].join(", "), "/spec/parentRefs/1"),
        ([parent(", port: 80"), parent(", sectionName: rpc, port: 81")].join(", "), "/spec/parentRefs/1"),
    ] {
        let found = put(&mut shop(), with_parents(&parents, "{backendRefs: [{name: cart}]}")).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].pointer, pointer, "{parents}");
        assert!(found[0].hint.is_some(), "{found:?}");
    }
}

#[test]
fn names_of_rules_are_told_apart_and_matches_are_counted() {
    let backends = "backendRefs: [{name: cart}]";
    let twice = format!("{{name: a, {backends}}}, {{name: b, {backends}}}, {{name: a, {backends}}}");
    assert_eq!(told(&errors(&twice)), [("/spec/rules/2/name", Code::Duplicate)]);
    let many: Vec<String> = (0..43).map(|i| format!("{{path: {{value: /{i}}}}}")).collect();
    let rule = format!("{{matches: [{}], {backends}}}", many.join(", "));
    let three = [rule.as_str(); 3].join(", ");
    assert_eq!(told(&errors(&three)), [("/spec/rules", Code::TooLarge)]);
}

#[test]
fn retries_are_laid_over_those_of_the_service_and_under_those_of_a_policy() {
    let mut world = shop();
    put(&mut world, service("cart", "retry: {retries: 5, budgetPercent: 30, maxBackoff: 300ms}")).unwrap();
    let text = "retry: {codes: [500, 503], attempts: 3, backoff: 1s}, backendRefs: [{name: cart}]";
    put(&mut world, rules(&format!("{{{text}}}"))).unwrap();
    let name = ObjectName::new("r").unwrap();
    let key = Key { kind: Kind::HttpRoute, namespace: Label::new("shop").unwrap(), name };
    let compiled =
        |world: &World| crate::policy::rules(world, &key, Some(&crate::testing::name("shop/cart")));
    let retry = compiled(&world)[0].retry.clone().unwrap();
    assert_eq!((retry.retries, retry.budget_percent, &retry.codes[..]), (3, 30, &[500, 503][..]));
    let pauses =
        |r: &outrigger_mesh::RetryPolicy| [r.min_backoff, r.backoff, r.max_backoff].map(|p| p.as_millis());
    assert_eq!(pauses(&retry), [1_000, 2_000, 2_000], "what a route says is the shortest");
    put(&mut world, crate::testing::route_policy("p", "r", "retry: {retries: 1}")).unwrap();
    let retry = compiled(&world)[0].retry.clone().unwrap();
    assert_eq!((retry.retries, retry.codes.len(), pauses(&retry)[0]), (1, 2, 1_000));
    put(&mut world, crate::testing::route_policy("p", "r", "retry: {backoff: 20ms}")).unwrap();
    let retry = compiled(&world)[0].retry.clone().unwrap();
    assert_eq!(pauses(&retry), [0, 20, 300], "a policy's is the longest");
}

#[test]
fn a_redirect_needs_no_backend_and_must_lead_somewhere_else() {
    let redirect =
        |text: &str| format!("{{filters: [{{type: RequestRedirect, requestRedirect: {{{text}}}}}]}}");
    let warnings = put(&mut shop(), rules(&redirect("scheme: https, statusCode: 301"))).unwrap();
    assert_eq!(warnings, [], "no backend is meant");
    assert_eq!(told(&errors(&redirect("")))[0].1, Code::Contradiction);
    assert_eq!(told(&errors(&redirect("port: 81, statusCode: 304")))[0].1, Code::BadValue);
}

#[test]
fn at_a_gateway_a_route_does_the_same() {
    let mut world = shop();
    put(&mut world, gateway("edge", "{name: web, port: 80, protocol: HTTP}")).unwrap();
    let text = "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: ''}}}], \
                backendRefs: [{name: prices, port: 81}]}";
    let key = with_parents("{name: edge}", text).key();
    put(&mut world, with_parents("{name: edge}", text)).unwrap();
    let compiled = crate::routes::at_gateway(&world, &key);
    assert_eq!(compiled[0].backends[0].port.map(PortNumber::get), Some(81));
    assert_eq!(compiled[0].filters.rewrite.as_ref().unwrap().path, Some(PathChange::Full("".into())));
}
