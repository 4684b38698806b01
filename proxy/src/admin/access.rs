//! The access policies in force, for `/policies`, in the words they are written with.

use outrigger_mesh::{
    Access, AccessDefault, AccessHeader, AccessPath, AccessRule, CallerMatch, ClaimMatch, ClaimTest,
};
use serde_json::{Value, json};

/// Who may ask what.
pub(super) fn access(access: &Access) -> Value {
    let policies = access.policies.iter().map(|policy| {
        json!({
            "name": policy.name.as_str(),
            "action": policy.action.as_str(),
            "rules": policy.rules.iter().map(rule).collect::<Vec<_>>(),
        })
    });
    json!({
        "default": match access.default {
            AccessDefault::Allow => "allow",
            AccessDefault::Deny => "deny",
        },
        "policies": policies.collect::<Vec<_>>(),
    })
}

fn rule(rule: &AccessRule) -> Value {
    let path = |path: &AccessPath| match path {
        AccessPath::Exact(text) => json!({"exact": &**text}),
        AccessPath::Prefix(text) => json!({"prefix": &**text}),
        AccessPath::Template(text) => json!({"template": &**text}),
    };
    let header = |header: &AccessHeader| {
        let values: Vec<&str> = header.values.iter().map(|v| &**v).collect();
        json!({"name": header.name.as_str(), "values": values})
    };
    json!({
        "name": &*rule.name,
        "from": rule.from.iter().map(caller).collect::<Vec<_>>(),
        "ports": rule.ports.iter().map(|p| p.get()).collect::<Vec<_>>(),
        "methods": rule.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(),
        "paths": rule.paths.iter().map(path).collect::<Vec<_>>(),
        "headers": rule.headers.iter().map(header).collect::<Vec<_>>(),
        "claims": rule.claims.iter().map(claim).collect::<Vec<_>>(),
    })
}

fn claim(claim: &ClaimMatch) -> Value {
    let values: Vec<&str> = match &claim.test {
        ClaimTest::Present => vec![],
        ClaimTest::OneOf(values) => values.iter().map(|v| &**v).collect(),
    };
    json!({"claim": claim.claim.to_string(), "values": values})
}

fn caller(caller: &CallerMatch) -> Value {
    match caller {
        CallerMatch::Id(id) => json!({"identity": id.to_string()}),
        CallerMatch::Namespace(domain, namespace) => {
            json!({"trustDomain": domain.as_str(), "namespace": namespace.as_str()})
        }
        CallerMatch::TrustDomain(domain) => json!({"trustDomain": domain.as_str()}),
        CallerMatch::Authenticated => json!({"is": "authenticated"}),
        CallerMatch::Unauthenticated => json!({"is": "unauthenticated"}),
    }
}
