//! Whether a TCPRoute holds.

use outrigger_mesh::{CallerMatch, Label, RouteName, SpiffeId, TcpRoute};

use super::{CheckedRoute, Context, rule};
use crate::check::Found;
use crate::spec::tcp_route::{self as written, CALLERS};
use crate::spec::{Code, Object, Problem};
use crate::world::World;

pub(crate) fn check(
    object: &Object,
    spec: &written::TcpRoute,
    world: &World,
    found: &mut Found,
) -> Option<CheckedRoute> {
    let key = object.key();
    let cx = Context { key: &key, world };
    let parents = cx.parents(&spec.parent_refs, found);
    if let Some(gateway) = parents.gateways.first() {
        let message =
            format!("the listeners of {} speak HTTP: connections are not routed there", gateway.gateway);
        let problem = Problem::error("/spec/parentRefs", Code::Unsupported, message);
        found.add(problem.hint("write kind: Service and group: \"\" to mean a service"));
    }
    rule::count(spec.rules.iter().map(|r| (r.name.as_deref(), 0)), found);
    let callers = callers(object, world, found);
    let mut rules = vec![];
    for (i, rule) in spec.rules.iter().enumerate() {
        let mut backends = vec![];
        for (j, backend) in rule.backend_refs.iter().enumerate() {
            backends.extend(cx.backend(
                &format!("/spec/rules/{i}/backendRefs/{j}"),
                backend,
                &parents,
                found,
            ));
        }
        if rule.backend_refs.is_empty() {
            let message = "the rule has no backend, so its connections are refused";
            found.add(Problem::warning(format!("/spec/rules/{i}"), Code::NoTraffic, message));
        }
        match RouteName::new(&cx.name_of_rule(i)) {
            Ok(name) => rules.push(TcpRoute { name, ports: vec![], callers: callers.clone(), backends }),
            Err(e) => found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string())),
        }
    }
    (!found.is_fatal()).then(|| CheckedRoute {
        parents: parents.services,
        gateways: vec![],
        hostnames: vec![],
        rules: vec![],
        tcp_rules: rules,
    })
}

/// Whose connections it takes: everybody's, where nobody is named.
fn callers(object: &Object, world: &World, found: &mut Found) -> Vec<CallerMatch> {
    const AT: &str = "/metadata/annotations/outrigger.dev~1callers";
    let Some(written) = object.metadata.annotations.get(CALLERS) else { return vec![] };
    let mut all: Vec<CallerMatch> = vec![];
    for text in written.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match caller(text, &object.metadata.namespace, world) {
            Ok(id) if all.contains(&CallerMatch::Id(id.clone())) => {
                found.add(Problem::error(AT, Code::Duplicate, format!("{id} is there twice")));
            }
            Ok(id) => all.push(CallerMatch::Id(id)),
            Err(message) => {
                let problem = Problem::error(AT, Code::BadValue, message);
                found.add(problem.hint("write service accounts, joined by commas: web, bank/batch"));
            }
        }
    }
    if all.is_empty() && !found.is_fatal() {
        let problem = Problem::error(AT, Code::MissingField, "it names nobody");
        found.add(problem.hint("leave the annotation out to mean everybody"));
    }
    all
}

fn caller(text: &str, namespace: &Label, world: &World) -> Result<SpiffeId, String> {
    if text.contains(':') {
        return text.parse().map_err(|e: outrigger_mesh::InvalidName| e.to_string());
    }
    let (namespace, account) = match text.split_once('/') {
        Some((namespace, account)) => (Label::new(namespace).map_err(|e| e.to_string())?, account),
        None => (namespace.clone(), text),
    };
    let account = Label::new(account).map_err(|e| e.to_string())?;
    Ok(SpiffeId::new(world.trust_domain().clone(), namespace, account))
}
