//! A mesh on paper: proven and compiled by the very steps of a change, without a store and without publishing.

use outrigger_mesh::{Resource, TrustDomain};

use super::stage::Stage;
use super::{ApplyError, Write};
use crate::audit::Author;
use crate::compile::everything;
use crate::secret::MeshSecret;
use crate::spec::{Code, Document, Problem};
use crate::store::Expect;
use crate::world::World;

/// A mesh in which there is nothing but some documents.
pub struct Paper {
    /// What a control plane would push.
    pub resources: Vec<Resource>,
    /// What a write of them would warn of.
    pub warnings: Vec<Problem>,
}

/// Every resource of a mesh in which there is nothing but these, or everything that is wrong with them.
pub fn compile_all(
    documents: Vec<Document>,
    trust_domain: &TrustDomain,
) -> Result<Vec<Resource>, Vec<Problem>> {
    on_paper(documents, trust_domain).map(|paper| paper.resources)
}

/// The same with what is allowed but probably not meant.
pub fn on_paper(documents: Vec<Document>, trust_domain: &TrustDomain) -> Result<Paper, Vec<Problem>> {
    // What a plan signs with is its own: whoever has the plan has it.
    let secret = MeshSecret::random().map_err(|e| vec![Problem::error("", Code::Other, e.to_string())])?;
    let nothing = World::new(trust_domain.clone(), secret);
    let put = |document| Write::Put { document, expect: Expect::Anything };
    let writes: Vec<Write> = documents.into_iter().map(put).collect();
    match Stage::of(&nothing, &writes, &Author::new("compile", "nobody"), false) {
        Ok(mut stage) => {
            let warnings = std::mem::take(&mut stage.warnings);
            Ok(Paper { resources: everything(&stage.finish()), warnings })
        }
        Err(ApplyError::Refused(problems)) => Err(problems),
        // Only an object that says which stored version it comes from: there is none on paper.
        Err(ApplyError::Precondition { key, .. }) => {
            let message = format!("{key} has a resourceVersion, and nothing is stored here");
            let problem = Problem::error("/metadata/resourceVersion", Code::Contradiction, message);
            Err(vec![problem.hint("leave it out")])
        }
        // Nobody looked at a revision: there is none on paper either.
        Err(ApplyError::Moved { .. }) => Err(vec![]),
        Err(ApplyError::Store(e)) => Err(vec![Problem::error("", Code::Other, e.to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read;

    const PRICES: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: prices, namespace: shop}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: prices-1, namespace: shop}
spec: {service: prices, address: 10.0.0.1, version: v1}
";

    fn compiled(text: &str) -> Result<Vec<Resource>, Vec<Problem>> {
        compile_all(read(text, "mesh.yaml").unwrap(), &"mesh.local".parse().unwrap())
    }

    #[test]
    fn what_holds_becomes_the_resources_that_a_control_plane_would_push() {
        let names: Vec<String> = compiled(PRICES).unwrap().iter().map(|r| r.name().to_string()).collect();
        assert!(names.contains(&"shop/prices".into()), "{names:?}");
        assert!(names.contains(&"shop/prices/prices-1".into()), "{names:?}");
    }

    #[test]
    fn what_does_not_hold_is_told_with_its_place() {
        let problems = compiled(&PRICES.replace("service: prices", "service: price")).unwrap_err();
        assert_eq!((problems[0].file.as_deref(), problems[0].line), (Some("mesh.yaml"), Some(8)));
    }
}
