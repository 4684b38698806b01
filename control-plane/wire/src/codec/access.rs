//! Access policies. A service of which nobody says anything, in a mesh that allows by default, costs nothing.

use http::Method;
use outrigger_mesh::{
    Access, AccessAction, AccessDefault, AccessHeader, AccessPath, AccessPolicy, AccessRule, CallerMatch,
};

use super::field::{self, Fault};
use super::policy::header_name;
use super::token;
use crate::pb;

pub(super) fn to_pb(access: &Access) -> Option<pb::Access> {
    (*access != Access::default()).then(|| pb::Access {
        default: match access.default {
            AccessDefault::Allow => pb::AccessDefault::Allow,
            AccessDefault::Deny => pb::AccessDefault::Deny,
        }
        .into(),
        policies: access.policies.iter().map(policy_to_pb).collect(),
    })
}

pub(super) fn from_pb(access: Option<pb::Access>) -> Result<Access, Fault> {
    let Some(access) = access else { return Ok(Access::default()) };
    let access = Access {
        default: match field::value("default access", access.default)? {
            pb::AccessDefault::Unspecified => return Err(Fault::missing("default access")),
            pb::AccessDefault::Allow => AccessDefault::Allow,
            pb::AccessDefault::Deny => AccessDefault::Deny,
        },
        policies: access.policies.into_iter().map(policy_from_pb).collect::<Result<_, _>>()?,
    };
    access.check().map_err(Fault::new)?;
    Ok(access)
}

fn policy_to_pb(policy: &AccessPolicy) -> pb::AccessPolicy {
    pb::AccessPolicy {
        name: policy.name.to_string(),
        action: match policy.action {
            AccessAction::Allow => pb::AccessAction::Allow,
            AccessAction::Deny => pb::AccessAction::Deny,
            AccessAction::Audit => pb::AccessAction::Audit,
        }
        .into(),
        rules: policy.rules.iter().map(rule_to_pb).collect(),
    }
}

fn policy_from_pb(policy: pb::AccessPolicy) -> Result<AccessPolicy, Fault> {
    Ok(AccessPolicy {
        name: field::name(&policy.name)?,
        action: match field::value("action", policy.action)? {
            pb::AccessAction::Unspecified => return Err(Fault::missing("action")),
            pb::AccessAction::Allow => AccessAction::Allow,
            pb::AccessAction::Deny => AccessAction::Deny,
            pb::AccessAction::Audit => AccessAction::Audit,
        },
        rules: policy.rules.into_iter().map(rule_from_pb).collect::<Result<_, _>>()?,
    })
}

fn rule_to_pb(rule: &AccessRule) -> pb::AccessRule {
    pb::AccessRule {
        name: rule.name.to_string(),
        from: rule.from.iter().map(caller_to_pb).collect(),
        ports: rule.ports.iter().map(|p| p.get().into()).collect(),
        methods: rule.methods.iter().map(ToString::to_string).collect(),
        paths: rule.paths.iter().map(path_to_pb).collect(),
        headers: rule.headers.iter().map(header_to_pb).collect(),
        claims: rule.claims.iter().map(token::match_to_pb).collect(),
    }
}

fn rule_from_pb(rule: pb::AccessRule) -> Result<AccessRule, Fault> {
    let method = |text: String| {
        Method::from_bytes(text.as_bytes()).map_err(|_| Fault::new(format!("{text:?} is not a method")))
    };
    Ok(AccessRule {
        name: rule.name.into(),
        from: rule.from.into_iter().map(caller_from_pb).collect::<Result<_, _>>()?,
        ports: rule.ports.into_iter().map(field::port_number).collect::<Result<_, _>>()?,
        methods: rule.methods.into_iter().map(method).collect::<Result<_, _>>()?,
        paths: rule.paths.into_iter().map(path_from_pb).collect::<Result<_, _>>()?,
        headers: rule.headers.into_iter().map(header_from_pb).collect::<Result<_, _>>()?,
        claims: rule.claims.into_iter().map(token::match_from_pb).collect::<Result<_, _>>()?,
    })
}

pub(super) fn caller_to_pb(caller: &CallerMatch) -> pb::CallerMatch {
    use pb::caller_match::Caller;
    let caller = match caller {
        CallerMatch::Id(id) => Caller::Id(id.to_string()),
        CallerMatch::Namespace(domain, namespace) => Caller::Namespace(pb::NamespaceMatch {
            trust_domain: domain.to_string(),
            namespace: namespace.to_string(),
        }),
        CallerMatch::TrustDomain(domain) => Caller::TrustDomain(domain.to_string()),
        CallerMatch::Authenticated => Caller::Authenticated(pb::Nothing {}),
        CallerMatch::Unauthenticated => Caller::Unauthenticated(pb::Nothing {}),
    };
    pb::CallerMatch { caller: Some(caller) }
}

pub(super) fn caller_from_pb(caller: pb::CallerMatch) -> Result<CallerMatch, Fault> {
    use pb::caller_match::Caller;
    Ok(match caller.caller.ok_or_else(|| Fault::missing("whom an access rule is about"))? {
        Caller::Id(id) => CallerMatch::Id(field::name(&id)?),
        Caller::Namespace(of) => {
            CallerMatch::Namespace(field::name(&of.trust_domain)?, field::name(&of.namespace)?)
        }
        Caller::TrustDomain(domain) => CallerMatch::TrustDomain(field::name(&domain)?),
        Caller::Authenticated(pb::Nothing {}) => CallerMatch::Authenticated,
        Caller::Unauthenticated(pb::Nothing {}) => CallerMatch::Unauthenticated,
    })
}

fn path_to_pb(path: &AccessPath) -> pb::AccessPath {
    use pb::access_path::Path;
    let path = match path {
        AccessPath::Exact(text) => Path::Exact(text.to_string()),
        AccessPath::Prefix(text) => Path::Prefix(text.to_string()),
        AccessPath::Template(text) => Path::Template(text.to_string()),
    };
    pb::AccessPath { path: Some(path) }
}

fn path_from_pb(path: pb::AccessPath) -> Result<AccessPath, Fault> {
    use pb::access_path::Path;
    Ok(match path.path.ok_or_else(|| Fault::missing("the path of an access rule"))? {
        Path::Exact(text) => AccessPath::Exact(text.into()),
        Path::Prefix(text) => AccessPath::Prefix(text.into()),
        Path::Template(text) => AccessPath::Template(text.into()),
    })
}

fn header_to_pb(header: &AccessHeader) -> pb::AccessHeader {
    let values = header.values.iter().map(ToString::to_string).collect();
    pb::AccessHeader { name: header.name.to_string(), values }
}

fn header_from_pb(header: pb::AccessHeader) -> Result<AccessHeader, Fault> {
    let values = header.values.into_iter().map(Into::into).collect();
    Ok(AccessHeader { name: header_name(&header.name)?, values })
}
