//! Whether an access policy holds together, and which services it is for.

use outrigger_mesh::{
    Access, AccessAction, AccessHeader, AccessPath, AccessPolicy, AccessRule, CallerMatch, ClaimMatch,
    ClaimPath, ClaimTest, Label, PortNumber, ServiceName, SpiffeId, TrustDomain, canonical_path,
};

use super::settings::no_service;
use super::{Found, federation};
use crate::spec::{self, Code, Kind, Object, Problem, access_policy as written};
use crate::world::World;

/// An access policy that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedAccess {
    /// The services it is for.
    pub selects: Selects,
    /// What it says.
    pub policy: AccessPolicy,
}

/// The services that an access policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selects {
    /// Every service of the mesh.
    Mesh,
    /// Every service of a namespace.
    Namespace(Label),
    /// These.
    Services(Vec<ServiceName>),
}

impl Selects {
    /// Whether it is for `service`.
    pub fn holds_for(&self, service: &ServiceName) -> bool {
        match self {
            Self::Mesh => true,
            Self::Namespace(namespace) => namespace == service.namespace(),
            Self::Services(names) => names.contains(service),
        }
    }
}

/// A policy of this namespace that names no service is for the whole mesh.
const ROOT_NAMESPACE: &str = "outrigger";

pub(super) fn check(
    object: &Object,
    spec: &written::AccessPolicy,
    world: &World,
    found: &mut Found,
) -> Option<CheckedAccess> {
    let selects = selects(object, spec, world, found);
    let action = match spec.action {
        written::AccessAction::Allow => AccessAction::Allow,
        written::AccessAction::Deny => AccessAction::Deny,
        written::AccessAction::Audit => AccessAction::Audit,
    };
    if spec.rules.is_empty() {
        found.add(without_rules(action));
    }
    let rules: Vec<Option<AccessRule>> = spec
        .rules
        .iter()
        .enumerate()
        .map(|(i, rule)| read_rule(object, i, rule, spec, world, found))
        .collect();
    let metadata = &object.metadata;
    let name = format!("{}/{}", metadata.namespace, metadata.name);
    let name = name.parse().map_err(|e: outrigger_mesh::InvalidName| {
        found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string()));
    });
    let policy = AccessPolicy { name: name.ok()?, action, rules: rules.into_iter().collect::<Option<_>>()? };
    let whole = Access { policies: vec![policy], ..Access::default() };
    if let Err(what) = whole.check() {
        found.add(Problem::error("/spec/rules", Code::TooLarge, what));
    }
    let policy = whole.policies.into_iter().next()?;
    fits(object, &selects, &policy, world, found);
    (!found.is_fatal()).then_some(CheckedAccess { selects, policy })
}

fn without_rules(action: AccessAction) -> Problem {
    if action == AccessAction::Allow {
        let message = "it allows nothing: whatever no other policy allows is refused";
        return Problem::warning("/spec/rules", Code::MissingField, message);
    }
    let message = "without rules it holds for nothing";
    let problem = Problem::error("/spec/rules", Code::MissingField, message);
    problem.hint("write rules: [{}] to mean every request")
}

fn selects(object: &Object, spec: &written::AccessPolicy, world: &World, found: &mut Found) -> Selects {
    let namespace = &object.metadata.namespace;
    if spec.target_refs.is_empty() {
        let root = namespace.as_str() == ROOT_NAMESPACE;
        return if root { Selects::Mesh } else { Selects::Namespace(namespace.clone()) };
    }
    let is_there = |target: &written::AccessTarget| {
        let label = Label::new(&target.name).ok();
        label.is_some_and(|label| world.service(&ServiceName::new(namespace.clone(), label)).is_some())
    };
    let some_are = spec.target_refs.iter().any(is_there);
    let mut names: Vec<ServiceName> = vec![];
    for (i, target) in spec.target_refs.iter().enumerate() {
        let at = |field: &str| format!("/spec/targetRefs/{i}/{field}");
        let right = if target.kind == "Service" { "" } else { "outrigger.dev" };
        if target.group.as_deref().is_some_and(|group| group != right) {
            let problem = Problem::error(at("group"), Code::Contradiction, "this kind is not in this group");
            found.add(problem.hint(format!("write group: {right:?}")));
        }
        let Ok(label) = Label::new(&target.name) else { continue };
        let name = ServiceName::new(namespace.clone(), label);
        match world.service(&name) {
            None => found.one_is_gone(no_service(&at("name"), &name, world), some_are),
            Some(entry) if entry.object.kind() == Kind::EgressService => {
                let message = format!("{name} is an EgressService, which has no sidecar that could refuse");
                found.add(Problem::error(at("name"), Code::Reference, message));
            }
            Some(_) if names.contains(&name) => {
                found.add(Problem::error(at("name"), Code::Duplicate, format!("{name} is there twice")));
            }
            Some(_) => names.push(name),
        }
    }
    Selects::Services(names)
}

fn read_rule(
    object: &Object,
    number: usize,
    rule: &written::AccessRule,
    spec: &written::AccessPolicy,
    world: &World,
    found: &mut Found,
) -> Option<AccessRule> {
    let at = format!("/spec/rules/{number}");
    let twice = |name: &String| spec.rules[..number].iter().any(|r| r.name.as_ref() == Some(name));
    if let Some(name) = rule.name.as_ref().filter(|name| twice(name)) {
        let message = format!("there are two rules {name:?}");
        found.add(Problem::error(format!("{at}/name"), Code::Duplicate, message));
    }
    let from = rule.from.iter().enumerate();
    let from: Vec<_> = from
        .map(|(i, caller)| read_caller(&format!("{at}/from/{i}"), object, caller, world, found))
        .collect();
    let paths = rule.paths.iter().enumerate();
    let paths: Vec<_> = paths.map(|(i, path)| read_path(&format!("{at}/paths/{i}"), path, found)).collect();
    let header = |h: &written::Header| {
        let values = h.values.iter().map(|v| v.as_str().into()).collect();
        Some(AccessHeader { name: http::HeaderName::from_bytes(h.name.as_bytes()).ok()?, values })
    };
    Some(AccessRule {
        name: rule.name.clone().unwrap_or_else(|| number.to_string()).into(),
        from: from.into_iter().collect::<Option<_>>()?,
        ports: rule.ports.iter().filter_map(|p| PortNumber::new(*p)).collect(),
        methods: rule.methods.iter().filter_map(|m| http::Method::from_bytes(m.as_bytes()).ok()).collect(),
        paths: paths.into_iter().collect::<Option<_>>()?,
        headers: rule.headers.iter().filter_map(header).collect(),
        claims: rule.claims.iter().filter_map(read_claim).collect(),
    })
}

/// Who is meant, of the callers that a rule of whatever kind names.
pub(super) fn read_caller(
    at: &str,
    object: &Object,
    caller: &written::Caller,
    world: &World,
    found: &mut Found,
) -> Option<CallerMatch> {
    let written::Caller { identity, service_account, namespace, trust_domain, is } = caller;
    let ways = [
        identity.is_some(),
        service_account.is_some(),
        namespace.is_some() || trust_domain.is_some(),
        is.is_some(),
    ];
    if ways.iter().filter(|w| **w).count() != 1 {
        let message = "a caller is meant in exactly one way";
        let problem = Problem::error(at, Code::Contradiction, message);
        found.add(problem.hint(
            "write one of identity, serviceAccount, namespace (with or without trustDomain), trustDomain and is",
        ));
        return None;
    }
    let own = world.trust_domain();
    let foreign = |domain: &TrustDomain| {
        let message = format!(
            "{domain} is neither the trust domain of this mesh, which is {own}, nor one of its trustedDomains"
        );
        (!federation::is_believed(world, domain)).then(|| Problem::warning(at, Code::Reference, message))
    };
    let meant = if let Some(text) = identity {
        let id: SpiffeId = text.parse().ok()?;
        found.problems.extend(foreign(id.trust_domain()));
        CallerMatch::Id(id)
    } else if let Some(text) = service_account {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Label::new(namespace).ok()?, name),
            None => (object.metadata.namespace.clone(), text.as_str()),
        };
        CallerMatch::Id(SpiffeId::new(own.clone(), namespace, Label::new(name).ok()?))
    } else if let Some(is) = is {
        match is {
            written::Proof::Authenticated => CallerMatch::Authenticated,
            written::Proof::Unauthenticated => CallerMatch::Unauthenticated,
        }
    } else {
        let domain = trust_domain.as_ref().map_or(Some(own.clone()), |text| TrustDomain::new(text).ok())?;
        found.problems.extend(foreign(&domain));
        match namespace {
            Some(text) => CallerMatch::Namespace(domain, Label::new(text).ok()?),
            None => CallerMatch::TrustDomain(domain),
        }
    };
    Some(meant)
}

pub(super) fn read_claim(claim: &written::Claim) -> Option<ClaimMatch> {
    let values: Vec<_> = claim.values.iter().map(|v| v.as_str().into()).collect();
    let test = if values.is_empty() { ClaimTest::Present } else { ClaimTest::OneOf(values) };
    Some(ClaimMatch { claim: ClaimPath::new(&claim.claim).ok()?, test })
}

fn read_path(at: &str, path: &written::Path, found: &mut Found) -> Option<AccessPath> {
    let read = match (&path.exact, &path.prefix, &path.template) {
        (Some(text), None, None) => AccessPath::Exact(text.as_str().into()),
        (None, Some(text), None) => AccessPath::Prefix(text.as_str().into()),
        (None, None, Some(text)) => AccessPath::Template(text.as_str().into()),
        _ => {
            let problem = Problem::error(at, Code::Contradiction, "a path is written in exactly one way");
            found.add(problem.hint("write one of exact, prefix and template"));
            return None;
        }
    };
    let template = matches!(read, AccessPath::Template(_));
    let variable = |s: &str| template && s.starts_with('{') && s.ends_with('}');
    // Segment by segment: a variable is no text.
    let canonical = |s: &str| {
        let whole = format!("/{s}");
        canonical_path(&whole).map(|c| c.get(1..).unwrap_or_default().to_owned())
    };
    let segments = read.as_str().split('/').skip(1);
    let spelled: Result<Vec<String>, _> =
        segments.map(|s| if variable(s) { Ok(s.to_owned()) } else { canonical(s) }).collect();
    match spelled {
        Err(why) => {
            found.add(Problem::error(at, Code::BadValue, format!("no request has this path: {why}")));
            return None;
        }
        Ok(spelled) => {
            let spelled = format!("/{}", spelled.join("/"));
            if spelled != read.as_str() {
                let message = "no request has this path: it is compared in its canonical spelling";
                found.add(Problem::error(at, Code::BadValue, message).hint(format!("write {spelled}")));
                return None;
            }
        }
    }
    Some(read)
}

/// What is allowed but probably not meant, and what is too much together.
fn fits(object: &Object, selects: &Selects, policy: &AccessPolicy, world: &World, found: &mut Found) {
    let services: Vec<_> = world
        .services()
        .filter(|e| e.object.kind() == Kind::MeshService && selects.holds_for(e.checked.name()))
        .collect();
    let key = object.key();
    for entry in &services {
        let others = world.access_for(entry.checked.name()).filter(|e| e.object.key() != key);
        let together = others.map(|e| e.checked.policy.rules.len()).sum::<usize>() + policy.rules.len();
        if together > Access::MOST_RULES {
            let most = Access::MOST_RULES;
            let message =
                format!("{} would have {together} access rules, more than {most}", entry.checked.name());
            found.add(Problem::error("/spec/rules", Code::TooLarge, message));
            return;
        }
    }
    let has = |port: PortNumber| services.iter().any(|e| e.checked.service().port(Some(port)).is_some());
    let opaque = |ports: &[PortNumber]| {
        let meant = |p: &&outrigger_mesh::Port| {
            p.protocol.is_opaque() && (ports.is_empty() || ports.contains(&p.number))
        };
        services.iter().find(|e| e.checked.service().ports.iter().any(|p| meant(&p)))
    };
    for (i, rule) in policy.rules.iter().enumerate() {
        for (j, port) in
            rule.ports.iter().enumerate().filter(|(_, port)| !services.is_empty() && !has(**port))
        {
            let message = format!("none of the services that it is for has a port {port}");
            found.add(Problem::warning(format!("/spec/rules/{i}/ports/{j}"), Code::Reference, message));
        }
        let Some(service) = opaque(&rule.ports).filter(|_| rule.is_about_http()) else { continue };
        let name = service.checked.name();
        let message = match policy.action {
            AccessAction::Allow => format!("at the opaque ports of {name} this rule allows nothing"),
            _ => format!("at the opaque ports of {name} this rule holds by caller and port alone"),
        };
        let problem = Problem::warning(format!("/spec/rules/{i}"), Code::Contradiction, message);
        found.add(problem.hint("name the ports that speak HTTP in ports: to leave the others out"));
    }
}

/// The written default of the mesh.
pub(super) fn default_of(access: Option<spec::access_policy::MeshAccess>) -> outrigger_mesh::AccessDefault {
    match access.and_then(|a| a.by_default) {
        Some(written::ByDefault::Deny) => outrigger_mesh::AccessDefault::Deny,
        Some(written::ByDefault::Allow) | None => outrigger_mesh::AccessDefault::Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Severity;
    use crate::testing::{access, egress, put, service, world};

    fn shop() -> World {
        let mut world = world();
        put(&mut world, service("cart", "")).unwrap();
        put(&mut world, service("db", "ports: [{port: 5432, protocol: tcp}]")).unwrap();
        put(&mut world, egress("bank", "hosts: [api.example.com], ports: [{port: 443, protocol: tls}]"))
            .unwrap();
        world
    }

    fn told(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|p| p.pointer.as_str()).collect()
    }

    #[test]
    fn all_mistakes_of_an_access_policy_are_told_at_once_with_hints() {
        let wrong = "targetRefs: [{kind: MeshService, name: carts}, {kind: MeshService, name: bank}, \
             {kind: Service, group: outrigger.dev, name: cart}], action: deny, rules: [\
             {name: a, from: [{}, {identity: 'spiffe://mesh.local/ns/shop/sa/web', namespace: shop}]}, \
             {name: a, paths: [{}, {exact: /a, prefix: /b}, {exact: '/%61'}, {prefix: '/a%2fb'}, {template: '/x/{id'}]}]";
        let problems = put(&mut shop(), access("shop", "p", wrong)).unwrap_err();
        let expected = [
            "/spec/targetRefs/0/name",
            "/spec/targetRefs/1/name",
            "/spec/targetRefs/2/group",
            "/spec/rules/0/from/0",
            "/spec/rules/0/from/1",
            "/spec/rules/1/name",
            "/spec/rules/1/paths/0",
            "/spec/rules/1/paths/1",
            "/spec/rules/1/paths/2",
            "/spec/rules/1/paths/3",
            "/spec/rules/1/paths/4",
        ];
        assert_eq!(told(&problems), expected, "{problems:#?}");
        let hint = |i: usize| problems[i].hint.as_deref().unwrap_or_default();
        assert_eq!((hint(0), hint(8)), ("did you mean \"cart\"?", "write /a"));
    }

    #[test]
    fn a_policy_that_says_nothing_is_refused_unless_it_is_one_that_allows_nothing() {
        let problems = put(&mut shop(), access("shop", "p", "action: deny")).unwrap_err();
        assert!(problems[0].hint.as_deref().unwrap().contains("rules: [{}]"), "{problems:?}");
        let warnings = put(&mut shop(), access("shop", "p", "action: allow")).unwrap();
        assert!(warnings[0].message.contains("allows nothing"), "{warnings:?}");
    }

    #[test]
    fn what_is_probably_not_meant_is_a_warning() {
        let rules = "action: deny, rules: [{methods: [GET]}, {ports: [9999]}, \
             {from: [{identity: 'spiffe://other.org/ns/shop/sa/web'}], ports: [80], methods: [GET]}]";
        let warnings = put(&mut shop(), access("shop", "p", rules)).unwrap();
        assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
        let expected = ["/spec/rules/2/from/0", "/spec/rules/0", "/spec/rules/1/ports/0"];
        assert_eq!(told(&warnings), expected, "{warnings:#?}");
    }

    #[test]
    fn a_service_account_is_one_of_the_mesh_and_a_namespace_too() {
        let mut world = shop();
        let rules = "action: allow, rules: [{from: [{serviceAccount: web}, {serviceAccount: other/web}, {namespace: shop}, \
             {namespace: shop, trustDomain: other.org}, {is: authenticated}]}]";
        let object = access("shop", "p", rules);
        put(&mut world, object.clone()).unwrap();
        let from = &world.access_policy(&object.key()).unwrap().checked.policy.rules[0].from;
        let told: Vec<String> = from.iter().map(|c| format!("{c:?}")).collect();
        let expected = [
            "Id(spiffe://mesh.local/ns/shop/sa/web)",
            "Id(spiffe://mesh.local/ns/other/sa/web)",
            "Namespace(mesh.local, shop)",
            "Namespace(other.org, shop)",
            "Authenticated",
        ];
        assert_eq!(told, expected);
    }
}
