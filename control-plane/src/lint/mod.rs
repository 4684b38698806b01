//! What is allowed but probably not meant: found in files, without a control plane.
//!
//! Everything that a write would refuse or warn of is found by `check`. Here is what only shows when all objects are
//! seen together, as the sidecars would get them: rules that no request can meet (`routes`), and access rules that
//! others undo (`access`). Both judge compiled resources, so that what they find is what would happen.

mod access;
mod routes;

use outrigger_mesh::{Resource, RouteName, TrustDomain};

use crate::spec::{Code, Document, Key, Kind, Problem};
use crate::state::{Paper, on_paper};

/// Everything that is wrong or doubtful with a mesh in which there is nothing but these documents, each with its place.
pub fn lint(documents: &[Document], trust_domain: &TrustDomain) -> Vec<Problem> {
    let Paper { resources, warnings } = match on_paper(documents.to_vec(), trust_domain) {
        Ok(paper) => paper,
        Err(problems) => return problems,
    };
    let mut all = warnings;
    for finding in resources.iter().flat_map(found) {
        let problem = finding.located(documents);
        // What a write warns of already is told once.
        let known = all.iter().any(|p| p.code == problem.code && same_place(p, &problem));
        if !known {
            all.push(problem);
        }
    }
    all.sort_by(|a, b| (&a.file, a.line, &a.pointer).cmp(&(&b.file, b.line, &b.pointer)));
    all
}

fn found(resource: &Resource) -> Vec<Finding> {
    match resource {
        Resource::Service(service) => routes::of_service(service),
        Resource::Gateway(gateway) => routes::of_gateway(gateway),
        Resource::ConsumerRoutes(consumer) => routes::of_consumer(consumer),
        Resource::Inbound(inbound) => inbound.services.iter().flat_map(access::of_service).collect(),
        _ => vec![],
    }
}

fn same_place(a: &Problem, b: &Problem) -> bool {
    (&a.file, &a.line, &a.pointer) == (&b.file, &b.line, &b.pointer)
}

/// Something doubtful, before it is known where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The kinds of object it can be in.
    kinds: &'static [Kind],
    /// The object, `namespace/name`.
    object: String,
    /// What is doubtful, with a pointer into the object.
    problem: Problem,
}

impl Finding {
    fn of_route(rule: &RouteName, below: &str, code: Code, message: String) -> Self {
        let (object, number) = rule.as_str().rsplit_once('/').unwrap_or((rule.as_str(), "0"));
        let problem = Problem::warning(format!("/spec/rules/{number}{below}"), code, message);
        // Which kind of route it is stands before its name (`check::route`).
        let (namespace, name) = object.split_once('/').unwrap_or(("", object));
        let (kinds, name) = match name.split_once(':') {
            Some(("grpc", name)) => (&[Kind::GrpcRoute][..], name),
            Some(("tcp", name)) => (&[Kind::TcpRoute][..], name),
            _ => (&[Kind::HttpRoute][..], name),
        };
        Self { kinds, object: format!("{namespace}/{name}"), problem }
    }

    fn hint(mut self, hint: &str) -> Self {
        self.problem = self.problem.hint(hint);
        self
    }

    fn located(self, documents: &[Document]) -> Problem {
        let is_it = |key: &Key| {
            self.kinds.contains(&key.kind) && format!("{}/{}", key.namespace, key.name) == self.object
        };
        match documents.iter().find(|document| is_it(&document.object.key())) {
            Some(document) => document.located(self.problem),
            None => self.problem,
        }
    }
}

#[cfg(test)]
mod tests;
