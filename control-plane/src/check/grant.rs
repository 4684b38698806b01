//! Whom a ReferenceGrant lets refer to what.

use outrigger_mesh::{Label, ServiceName};

use super::Found;
use crate::spec::{Code, Kind, Problem, ReferenceGrant};

/// A grant that holds. What it says of kinds that refer to nothing here is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedGrant {
    /// The routes that may refer to something: those of a kind in a namespace.
    from: Vec<(Kind, Label)>,
    /// The services they may refer to; `None`: all of its namespace.
    to: Vec<Option<Label>>,
}

impl CheckedGrant {
    /// Whether routes of this kind and namespace may refer to `service`, which is of the grant's namespace.
    pub fn allows(&self, kind: Kind, namespace: &Label, service: &ServiceName) -> bool {
        self.from.iter().any(|(own, from)| *own == kind && from == namespace)
            && self.to.iter().any(|to| to.as_ref().is_none_or(|to| to == service.name()))
    }
}

pub(super) fn check(spec: &ReferenceGrant, found: &mut Found) -> Option<CheckedGrant> {
    let mut grant = CheckedGrant::default();
    for (field, empty) in [("from", spec.from.is_empty()), ("to", spec.to.is_empty())] {
        if empty {
            let problem = Problem::error(format!("/spec/{field}"), Code::MissingField, "it grants nothing");
            found.add(problem.hint("name at least one, or delete the grant"));
        }
    }
    for (i, from) in spec.from.iter().enumerate() {
        let kind = ROUTES.into_iter().find(|kind| kind.as_str() == from.kind);
        let namespace = Label::new(&from.namespace).ok();
        match (kind.filter(|_| from.group == GROUP), namespace) {
            (Some(kind), Some(namespace)) => grant.from.push((kind, namespace)),
            _ => found.add(nothing(
                &format!("/spec/from/{i}"),
                &from.group,
                &from.kind,
                "refers to anything here",
            )),
        }
    }
    for (i, to) in spec.to.iter().enumerate() {
        let service = matches!(
            (to.group.as_str(), to.kind.as_str()),
            ("", "Service") | ("outrigger.dev", "MeshService" | "EgressService")
        );
        match (&to.name, service) {
            (_, false) => {
                found.add(nothing(&format!("/spec/to/{i}"), &to.group, &to.kind, "is referred to here"));
            }
            (None, true) => grant.to.push(None),
            (Some(name), true) => match Label::new(name) {
                Ok(name) => grant.to.push(Some(name)),
                Err(e) => {
                    let at = format!("/spec/to/{i}/name");
                    found.add(Problem::error(at, Code::BadValue, e.to_string()));
                }
            },
        }
    }
    (!found.is_fatal()).then_some(grant)
}

/// A grant may be meant for others who read it, too; here it says nothing.
fn nothing(at: &str, group: &str, kind: &str, what: &str) -> Problem {
    let message = format!("nothing of the kind {kind} in the group {group:?} {what}");
    let known = format!(
        "routes (HTTPRoute, GRPCRoute, TCPRoute of {GROUP}) refer to services (Service of \"\", MeshService of outrigger.dev)"
    );
    Problem::warning(at, Code::Reference, message).hint(known)
}

const GROUP: &str = "gateway.networking.k8s.io";
const ROUTES: [Kind; 3] = [Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute];
