//! Host names outside a service's own namespace: an operator grants them in `MeshDefaults`, namespace by namespace.
//!
//! A name takes the traffic that is meant for it, so without a grant a service has names of its own namespace only. A
//! grant that a service lives by can not be taken away before the name is: what changes the grants has every service with
//! such a name checked again.

use outrigger_mesh::{HostPattern, Hostname, Label};

use super::{Found, service};
use crate::spec::{Code, HostnameGrant, Problem};
use crate::world::World;

/// A namespace may have the host names of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    namespace: Label,
    pattern: HostPattern,
}

/// Whether the services of `namespace` may have this name: it is granted to them, or it is a name of the namespace that is
/// granted to nobody else. A namespace called `com` does not own what ends so.
pub(super) fn allow(world: &World, namespace: &Label, host: &Hostname) -> bool {
    let grants = world.defaults().map(|entry| entry.checked.grants.as_slice()).unwrap_or_default();
    let mut covering = grants.iter().filter(|grant| grant.pattern.matches(host)).peekable();
    if covering.peek().is_none() {
        return service::namespace_of(host) == Some(namespace.as_str());
    }
    covering.any(|grant| grant.namespace == *namespace)
}

pub(super) fn check(written: &[HostnameGrant], found: &mut Found) -> Vec<Grant> {
    let mut grants: Vec<Grant> = vec![];
    for (i, grant) in written.iter().enumerate() {
        let pointer = format!("/spec/hostnameGrants/{i}");
        let namespace = match Label::new(grant.namespace.as_str()) {
            Ok(namespace) => namespace,
            Err(e) => {
                found.add(Problem::error(format!("{pointer}/namespace"), Code::BadValue, e.to_string()));
                continue;
            }
        };
        for (j, text) in grant.hostnames.iter().enumerate() {
            let pointer = format!("{pointer}/hostnames/{j}");
            match pattern(text) {
                Err(problem) => found.add(problem.below(&pointer)),
                Ok(pattern) => {
                    let grant = Grant { namespace: namespace.clone(), pattern };
                    if grants.contains(&grant) {
                        let message = format!("{text} is granted to {namespace} already");
                        found.add(Problem::error(pointer, Code::Duplicate, message));
                    } else {
                        grants.push(grant);
                    }
                }
            }
        }
    }
    grants
}

/// What may be granted: nothing that is some namespace's already.
fn pattern(text: &str) -> Result<HostPattern, Problem> {
    let pattern: HostPattern =
        text.parse().map_err(|e| Problem::error("", Code::BadValue, format!("{e}")))?;
    if is_of_the_mesh(pattern.name()) {
        let message = format!("{text} is a name of the mesh, which belongs to its namespace and to no other");
        let problem = Problem::error("", Code::Contradiction, message);
        return Err(problem.hint("grant names of your own domain, such as api.example.com"));
    }
    Ok(pattern)
}

/// Names that end with a suffix of the mesh, or are the suffix.
fn is_of_the_mesh(host: &Hostname) -> bool {
    let below = |suffix: &str| host.as_str().strip_suffix(suffix);
    let is = |suffix: &str| below(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    ["mesh", "svc.cluster.local"].into_iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_mesh_are_told_from_others() {
        for (text, expected) in [
            ("cart.bank.mesh", true),
            ("cart.bank.svc.cluster.local", true),
            ("svc.cluster.local", true),
            ("bank.mesh", true),
            ("api.example.com", false),
            ("mesh.example.com", false),
            ("notmesh.example", false),
            ("api.notmesh", false),
        ] {
            assert_eq!(is_of_the_mesh(&Hostname::new(text).unwrap()), expected, "{text}");
        }
    }
}
