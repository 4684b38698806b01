//! Other trust domains whose identities are believed, each by roots of its own.
//!
//! The roots of one domain never vouch for another: the verifier looks for an identity's roots by its domain. So the own
//! domain can not be written here, and no domain twice.

use outrigger_certs::{TrustBundle, certificates_from_pem};
use outrigger_mesh::{SpiffeId, Trust, TrustDomain};

use super::Found;
use crate::spec::{Code, Problem, TrustedDomain};
use crate::world::World;

/// More roots of one domain than any change of its root needs.
const MAX_ROOTS: usize = 16;

pub(super) fn check(written: &[TrustedDomain], world: &World, found: &mut Found) -> Vec<Trust> {
    let mut all: Vec<Trust> = vec![];
    for (i, trusted) in written.iter().enumerate() {
        let pointer = format!("/spec/trustedDomains/{i}");
        let bad =
            |field: &str, code, message: String| Problem::error(format!("{pointer}/{field}"), code, message);
        let domain = match TrustDomain::new(&trusted.trust_domain) {
            Err(e) => {
                found.add(bad("trustDomain", Code::BadValue, e.to_string()));
                continue;
            }
            Ok(domain) if domain == *world.trust_domain() => {
                let message =
                    format!("{domain} is this mesh's own trust domain, whose roots are its authority's");
                let problem = bad("trustDomain", Code::Contradiction, message);
                found.add(problem.hint("a root of its own is added with --ca-roots at the control plane"));
                continue;
            }
            Ok(domain) if all.iter().any(|trust| trust.trust_domain == domain) => {
                let message = format!("{domain} is there twice; write all of its roots in one place");
                found.add(bad("trustDomain", Code::Duplicate, message));
                continue;
            }
            Ok(domain) => domain,
        };
        match roots(&trusted.roots) {
            Err(why) => found.add(bad("roots", Code::BadValue, why)),
            Ok(roots) => {
                let trust = Trust { trust_domain: domain, roots };
                match TrustBundle::new(std::slice::from_ref(&trust)) {
                    Err(e) => found.add(bad("roots", Code::BadValue, e.to_string())),
                    Ok(_) => all.push(trust),
                }
            }
        }
    }
    all
}

/// The roots in the order of their bytes: written in another order they are the same.
fn roots(pem: &str) -> Result<Vec<std::sync::Arc<[u8]>>, String> {
    let mut roots = certificates_from_pem(pem)?;
    roots.sort();
    roots.dedup();
    if roots.len() > MAX_ROOTS {
        return Err(format!("{} roots are more than {MAX_ROOTS}", roots.len()));
    }
    Ok(roots)
}

/// Whether identities of this domain can be proven in the mesh.
pub(super) fn is_believed(world: &World, domain: &TrustDomain) -> bool {
    domain == world.trust_domain() || world.trust_of(domain).is_some()
}

/// That an identity can not be.
pub(super) fn stranger(world: &World, id: &SpiffeId, pointer: String) -> Problem {
    let (domain, own) = (id.trust_domain(), world.trust_domain());
    let message =
        format!("{id} is of another trust domain than {own}, and the roots of {domain} are not known");
    Problem::error(pointer, Code::Reference, message).hint("write them into trustedDomains of MeshDefaults")
}
