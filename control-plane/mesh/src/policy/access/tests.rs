use http::{HeaderMap, Method};
use proptest::collection::vec;
use proptest::prelude::*;

use super::paths::Reading;
use super::*;
use crate::route::RequestHead;

fn id(domain: &str, namespace: &str, account: &str) -> SpiffeId {
    format!("spiffe://{domain}/ns/{namespace}/sa/{account}").parse().unwrap()
}

fn policy(name: &str, action: AccessAction, rules: Vec<AccessRule>) -> AccessPolicy {
    AccessPolicy { name: format!("shop/{name}").parse().unwrap(), action, rules }
}

fn rule(name: &str) -> AccessRule {
    AccessRule { name: name.into(), ..AccessRule::default() }
}

fn access(policies: Vec<AccessPolicy>) -> AccessIndex {
    let access = Access { default: AccessDefault::Allow, policies };
    access.check().unwrap();
    AccessIndex::new(&access)
}

struct Asks {
    caller: Option<SpiffeId>,
    port: u16,
    method: Method,
    path: String,
    headers: HeaderMap,
}

impl Asks {
    fn get(path: &str) -> Self {
        let caller = Some(id("mesh.local", "shop", "web"));
        Self { caller, port: 80, method: Method::GET, path: path.into(), headers: HeaderMap::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            path: &self.path,
            query: None,
            headers: &self.headers,
            claims: None,
            source: crate::Source::default(),
        }
    }

    fn by(&self, index: &AccessIndex) -> AskedBy {
        index.asked_by(self.caller.as_ref(), PortNumber::new(self.port).unwrap())
    }

    fn allowed(&self, index: &AccessIndex) -> bool {
        index.decide(&self.by(index), &self.head()).allowed
    }

    fn told(&self, index: &AccessIndex) -> String {
        index.decide(&self.by(index), &self.head()).to_string()
    }
}

fn exact(path: &str) -> AccessPath {
    AccessPath::Exact(path.into())
}

#[test]
fn deny_wins_and_what_no_allow_policy_allows_is_refused() {
    let index = access(vec![
        policy(
            "a",
            AccessAction::Allow,
            vec![AccessRule { paths: vec![AccessPath::Prefix("/items".into())], ..rule("items") }],
        ),
        policy("b", AccessAction::Deny, vec![AccessRule { methods: vec![Method::DELETE], ..rule("0") }]),
    ]);
    assert_eq!(Asks::get("/items/7").told(&index), "allowed by policy shop/a, rule items");
    let deletes = Asks { method: Method::DELETE, ..Asks::get("/items/7") };
    assert_eq!(deletes.told(&index), "denied by policy shop/b, rule 0");
    assert_eq!(Asks::get("/").told(&index), "denied: no policy allows it");
    assert_eq!(Asks::get("/").told(&access(vec![])), "allowed: no policy says otherwise");
    let denies = AccessIndex::new(&Access { default: AccessDefault::Deny, policies: vec![] });
    assert_eq!(Asks::get("/").told(&denies), "denied: no policy allows it, and the mesh denies by default");
}

#[test]
fn an_allow_policy_without_rules_allows_nothing() {
    let index = access(vec![policy("none", AccessAction::Allow, vec![])]);
    assert!(!Asks::get("/").allowed(&index));
}

#[test]
fn an_audit_counts_and_refuses_nothing() {
    let index = access(vec![policy("try", AccessAction::Audit, vec![rule("0"), rule("1")])]);
    let asks = Asks::get("/");
    assert!(asks.allowed(&index));
    let names: Vec<String> =
        index.audited(&asks.by(&index), &asks.head()).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["policy shop/try, rule 0"], "one of each policy");
    assert_eq!(index.audited_connection(&asks.by(&index)).len(), 1);
}

#[test]
fn a_deny_holds_for_every_spelling_and_an_allow_for_one() {
    let admin = |action| {
        let paths = vec![exact("/admin"), AccessPath::Template("/users/{id}/keys".into())];
        access(vec![policy("p", action, vec![AccessRule { paths, ..rule("0") }])])
    };
    let (deny, allow) = (admin(AccessAction::Deny), admin(AccessAction::Allow));
    for path in ["/admin", "/users/7/keys"] {
        assert!(!Asks::get(path).allowed(&deny) && Asks::get(path).allowed(&allow), "{path}");
    }
    for path in [
        "/admin/",
        "/Admin",
        "/ADMIN",
        "/admin;x=1",
        "/admin;",
        "/;a/admin",
        "/admin%3Bx",
        "/users/7/keys/",
        "/users/7;a/Keys",
        "/users/%C3%A4/keys;x",
    ] {
        let (denied, allowed) = (!Asks::get(path).allowed(&deny), Asks::get(path).allowed(&allow));
        let one_segment = path == "/users/%C3%A4/keys;x";
        assert!(denied && !allowed, "{path} {one_segment}");
    }
    for path in ["/", "/administrator", "/admin/x", "/users/keys", "/users//keys", "/users/7/8/keys", "*"] {
        assert!(Asks::get(path).allowed(&deny) && !Asks::get(path).allowed(&allow), "{path}");
    }
}

#[test]
fn each_value_of_a_header_is_looked_at_by_itself() {
    let role = |action| {
        let headers = vec![AccessHeader { name: "x-role".parse().unwrap(), values: vec!["admin".into()] }];
        access(vec![policy("p", action, vec![AccessRule { headers, ..rule("0") }])])
    };
    let (deny, allow) = (role(AccessAction::Deny), role(AccessAction::Allow));
    let twice = Asks::get("/").with("x-role", "user").with("x-role", "admin");
    assert!(!twice.allowed(&deny) && twice.allowed(&allow));
    let joined = Asks::get("/").with("x-role", "user, Admin");
    assert!(!joined.allowed(&deny) && !joined.allowed(&allow), "as a list it can be two values");
    let other = Asks::get("/").with("x-role", "administrator");
    assert!(other.allowed(&deny) && !other.allowed(&allow));
    let any = AccessHeader { name: "x-debug".parse().unwrap(), values: vec![] };
    let present =
        access(vec![policy("p", AccessAction::Deny, vec![AccessRule { headers: vec![any], ..rule("0") }])]);
    assert!(Asks::get("/").allowed(&present) && !Asks::get("/").with("x-debug", "").allowed(&present));
}

#[test]
fn whoever_proved_nothing_is_unauthenticated_in_every_policy() {
    let from = |whom| {
        access(vec![policy("p", AccessAction::Deny, vec![AccessRule { from: vec![whom], ..rule("0") }])])
    };
    let nobody = Asks { caller: None, ..Asks::get("/") };
    let shop = || (TrustDomain::new("mesh.local").unwrap(), Label::new("shop").unwrap());
    for whom in [
        CallerMatch::Id(id("mesh.local", "shop", "web")),
        CallerMatch::Namespace(shop().0, shop().1),
        CallerMatch::TrustDomain(shop().0),
        CallerMatch::Authenticated,
    ] {
        let index = from(whom);
        assert!(!Asks::get("/").allowed(&index) && nobody.allowed(&index));
    }
    let index = from(CallerMatch::Unauthenticated);
    assert!(Asks::get("/").allowed(&index) && !nobody.allowed(&index));
}

#[test]
fn a_connection_is_refused_by_what_can_be_seen_of_it() {
    let web = || vec![CallerMatch::Id(id("mesh.local", "shop", "web"))];
    let get = || vec![Method::GET];
    let index = access(vec![
        policy(
            "a",
            AccessAction::Allow,
            vec![AccessRule { methods: get(), ..rule("get") }, AccessRule { from: web(), ..rule("web") }],
        ),
        policy(
            "d",
            AccessAction::Deny,
            vec![AccessRule {
                ports: vec![PortNumber::new(81).unwrap()],
                paths: vec![exact("/x")],
                ..rule("0")
            }],
        ),
    ]);
    let told = |asks: Asks| index.decide_connection(&asks.by(&index)).to_string();
    assert_eq!(told(Asks::get("/")), "allowed by policy shop/a, rule web");
    assert_eq!(told(Asks { caller: None, ..Asks::get("/") }), "denied: no policy allows it");
    assert_eq!(told(Asks { port: 81, ..Asks::get("/") }), "denied by policy shop/d, rule 0");
}

#[test]
fn a_rule_does_not_grow_without_a_bound() {
    let many = |n: u16| (1..=n).filter_map(PortNumber::new).collect::<Vec<_>>();
    let paths: Vec<_> = (0..64).map(|i| exact(&format!("/{i}"))).collect();
    let of = |ports| Access {
        policies: vec![policy(
            "p",
            AccessAction::Deny,
            vec![AccessRule { ports, paths: paths.clone(), ..rule("0") }],
        )],
        ..Access::default()
    };
    assert!(of(many(64)).check().is_ok() && of(many(65)).check().is_err());
    let twice = Access { policies: vec![policy("p", AccessAction::Deny, vec![]); 2], ..Access::default() };
    assert!(twice.check().is_err());
}

fn any_id() -> impl Strategy<Value = SpiffeId> {
    // Few of each, so that near misses are common; and others that differ by a letter or a length.
    let domain =
        prop_oneof!["mesh\\.local", "mesh\\.loca", "mesh\\.local2", "a\\.mesh\\.local", "[a-z.]{1,6}"];
    let label = || prop_oneof!["shop", "sho", "shops", "web", "we", "webb", "[a-z0-9]{1,4}"];
    (domain, label(), label()).prop_map(|(d, n, a)| id(&d, &n, &a))
}

fn any_path() -> impl Strategy<Value = String> {
    vec(prop_oneof!["a", "A", "b", "a;x", "%C3%A4"], 0..4).prop_map(|s| format!("/{}", s.join("/")))
}

fn any_rule() -> impl Strategy<Value = AccessRule> {
    let domain = |t: &str| TrustDomain::new(t).unwrap();
    let caller = prop_oneof![
        any_id().prop_map(CallerMatch::Id),
        any_id().prop_map(|i| CallerMatch::Namespace(i.trust_domain().clone(), i.namespace().clone())),
        Just(CallerMatch::TrustDomain(domain("mesh.local"))),
        Just(CallerMatch::Authenticated),
        Just(CallerMatch::Unauthenticated),
    ];
    let path = prop_oneof![
        any_path().prop_map(|p| AccessPath::Exact(p.as_str().into())),
        any_path().prop_map(|p| AccessPath::Prefix(p.as_str().into())),
        prop_oneof!["/a/\\{x\\}", "/\\{x\\}/a", "/\\{x\\}", "/a/\\{x\\}/b"]
            .prop_map(|p| AccessPath::Template(p.as_str().into())),
    ];
    let header = prop_oneof!["0", "1"]
        .prop_map(|v| AccessHeader { name: "x-h".parse().unwrap(), values: vec![v.as_str().into()] });
    let ports = vec((80_u16..82).prop_map(|p| PortNumber::new(p).unwrap()), 0..2);
    let methods = vec(prop_oneof![Just(Method::GET), Just(Method::POST)], 0..2);
    (vec(caller, 0..3), ports, methods, vec(path, 0..3), vec(header, 0..2)).prop_map(
        |(from, ports, methods, paths, headers)| AccessRule {
            from,
            ports,
            methods,
            paths,
            headers,
            name: "r".into(),
            claims: vec![],
        },
    )
}

/// The rules read plainly: each by itself, without an index.
fn plainly(rule: &AccessRule, action: AccessAction, asks: &Asks) -> bool {
    let wide = action != AccessAction::Allow;
    let reading = if wide { Reading::Wide } else { Reading::Narrow };
    let given = reading.of(&asks.path).into_owned();
    let path = |p: &AccessPath| {
        let wanted = |text: &str| reading.of(text).into_owned();
        match p {
            AccessPath::Exact(text) => wanted(text) == given,
            AccessPath::Prefix(text) => {
                let prefix = wanted(text.strip_suffix('/').unwrap_or(text));
                given.strip_prefix(&*prefix).is_some_and(|r| r.is_empty() || r[0] == b'/')
            }
            AccessPath::Template(text) => {
                let (t, g): (Vec<_>, Vec<_>) =
                    (text.split('/').collect(), given.split(|b| *b == b'/').collect());
                t.len() == g.len()
                    && t.iter()
                        .zip(&g)
                        .all(|(t, g)| if t.starts_with('{') { !g.is_empty() } else { t.as_bytes() == *g })
            }
        }
    };
    (rule.from.is_empty() || rule.from.iter().any(|c| c.holds(asks.caller.as_ref())))
        && (rule.ports.is_empty() || rule.ports.iter().any(|p| p.get() == asks.port))
        && (rule.methods.is_empty() || rule.methods.contains(&asks.method))
        && (rule.paths.is_empty() || rule.paths.iter().any(path))
        && rule.headers.iter().all(|h| {
            asks.headers
                .get_all(&h.name)
                .iter()
                .any(|v| h.values.iter().any(|w| w.as_bytes() == v.as_bytes()))
        })
}

proptest! {
    /// For all a and b that differ, what is said of a holds for b never: neither alone nor beside other rules.
    #[test]
    fn a_policy_for_one_identity_never_matches_another(a in any_id(), b in any_id(), others in vec(any_rule(), 0..3)) {
        prop_assume!(a != b);
        for action in [AccessAction::Deny, AccessAction::Allow, AccessAction::Audit] {
            let own = AccessRule { from: vec![CallerMatch::Id(a.clone())], ..rule("own") };
            let alone = access(vec![policy("a", action, vec![own.clone()])]);
            let asks = |id: &SpiffeId| Asks { caller: Some(id.clone()), ..Asks::get("/a") };
            let met = |index: &AccessIndex, asks: &Asks| {
                let decision = index.decide(&asks.by(index), &asks.head());
                let at_connection = index.decide_connection(&asks.by(index));
                let by = [decision, at_connection].map(|d| match d.because {
                    Because::Rule(name) => name.policy.as_str() == "shop/a",
                    _ => false,
                });
                let audited = index.audited(&asks.by(index), &asks.head());
                by[0] || by[1] || audited.iter().any(|n| n.policy.as_str() == "shop/a")
            };
            prop_assert!(met(&alone, &asks(&a)) && !met(&alone, &asks(&b)));
            let beside = access(vec![policy("a", action, vec![own]), policy("b", action, others.clone())]);
            prop_assert!(!met(&beside, &asks(&b)));
            let nobody = Asks { caller: None, ..Asks::get("/a") };
            prop_assert!(!met(&beside, &nobody));
        }
    }

    /// The index agrees with reading every rule.
    #[test]
    fn the_index_agrees_with_reading_every_rule(
        denies in vec(any_rule(), 0..4), allows in vec(any_rule(), 0..4), audits in vec(any_rule(), 0..4),
        caller in proptest::option::of(any_id()), port in 80_u16..83, path in any_path(), header in "[01]", post in any::<bool>(),
    ) {
        let method = if post { Method::POST } else { Method::GET };
        let asks = Asks { caller, port, method, ..Asks::get(&path) }.with("x-h", &header);
        let policies = vec![
            policy("allow", AccessAction::Allow, allows.clone()),
            policy("audit", AccessAction::Audit, audits.clone()),
            policy("deny", AccessAction::Deny, denies.clone()),
        ];
        let any = |rules: &[AccessRule], action| rules.iter().any(|r| plainly(r, action, &asks));
        let expected = !any(&denies, AccessAction::Deny) && any(&allows, AccessAction::Allow);
        let index = access(policies);
        prop_assert_eq!(asks.allowed(&index), expected);
        let audited = !index.audited(&asks.by(&index), &asks.head()).is_empty();
        prop_assert_eq!(audited, any(&audits, AccessAction::Audit));
    }

    #[test]
    fn what_is_allowed_narrowly_is_denied_widely(path in any_path(), rule in any_rule()) {
        let asks = Asks::get(&path).with("x-h", "1");
        if plainly(&rule, AccessAction::Allow, &asks) {
            let deny = access(vec![policy("p", AccessAction::Deny, vec![rule])]);
            prop_assert!(!asks.allowed(&deny));
        }
    }
}
