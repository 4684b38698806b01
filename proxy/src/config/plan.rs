//! Configuration from a file of compiled resources, without a control plane.

use std::path::{Path, PathBuf};

use outrigger_mesh::{FeatureSet, Resource, ResourceName, SpiffeId, Trust};
use outrigger_wire::{Bundle, BundleError};

use crate::config::disk::{DiskError, read_bounded};
use crate::config::registry::{Change, Discovery, Registry};

/// A plan that was read and proven.
#[derive(Debug)]
pub struct Plan {
    file: PathBuf,
    bundle: Bundle,
}

/// Why a plan can not be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There is no such file.
    #[error("{0}: there is no such file")]
    Missing(PathBuf),
    /// It can not be read.
    #[error(transparent)]
    Read(#[from] DiskError),
    /// It is no plan.
    #[error("{path}: {source}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// It was made for somebody else.
    #[error("{path} is the configuration of {owner}, not of {expected}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Whose it should be.
        expected: String,
    },
    /// Resources that this sidecar can not obey, all of them.
    #[error("{path}: {}", .refused.iter().map(|(n, why)| format!("{} {n}: {why}", n.kind())).collect::<Vec<_>>().join("; "))]
    Resources {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        refused: Vec<(ResourceName, String)>,
    },
}

impl Plan {
    /// Reads `file`.
    pub fn read(file: &Path) -> Result<Self, PlanError> {
        let path = || file.to_path_buf();
        let bytes = read_bounded(file)?.ok_or_else(|| PlanError::Missing(path()))?;
        let bundle = Bundle::from_bytes(&bytes, &FeatureSet::all())
            .map_err(|source| PlanError::Refused { path: path(), source })?;
        Ok(Self { file: path(), bundle })
    }

    /// Its revision.
    pub fn revision(&self) -> u64 {
        self.bundle.revision
    }

    /// Puts the plan in force for `own`: everything but the inbound rules of other workloads. Afterwards the registry
    /// knows that there is no more to come. `trusted` takes the roots.
    pub fn apply(
        self,
        own: &SpiffeId,
        registry: &Registry,
        trusted: impl Fn(&Trust) -> Result<(), String>,
    ) -> Result<(), PlanError> {
        let Self { file: path, bundle } = self;
        if let Some(owner) = bundle.owner.filter(|owner| owner != own) {
            return Err(PlanError::Foreign { path, owner: owner.to_string(), expected: own.to_string() });
        }
        registry.set_discovery(Discovery::Complete);
        let mut refused = Vec::new();
        for resource in bundle.resources {
            let name = resource.name();
            let outcome = match resource {
                Resource::Trust(trust) => trusted(&trust),
                Resource::Inbound(inbound) if &inbound.identity != own => Ok(()),
                other => registry.apply(Change::Set(other)),
            };
            if let Err(why) = outcome {
                refused.push((name, why));
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(PlanError::Resources { path, refused }) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outrigger_mesh::Hostname;
    use outrigger_testkit::resources::{endpoint, identity, inbound, service};

    use super::*;
    use crate::config::registry::Found;

    fn registry() -> Arc<Registry> {
        Arc::new(Registry::new("shop".parse().unwrap(), Arc::default()))
    }

    fn plan(folder: &Path, owner: Option<SpiffeId>) -> PathBuf {
        let cart = service("shop/cart");
        let resources = vec![
            Resource::Endpoint(endpoint("shop/cart", "cart-1", "127.0.0.1:9000".parse().unwrap())),
            Resource::Inbound(inbound(&identity("shop", "cart"), &[&cart])),
            Resource::Inbound(inbound(&identity("shop", "web"), &[])),
            Resource::Service(cart),
        ];
        let file = folder.join("plan");
        std::fs::write(&file, Bundle { owner, revision: 3, resources }.to_bytes()).unwrap();
        file
    }

    #[test]
    fn a_plan_is_all_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = plan(folder.path(), None);
        let registry = registry();
        Plan::read(&file).unwrap().apply(&identity("shop", "cart"), &registry, |_| Ok(())).unwrap();
        assert!(matches!(registry.find(&"cart".parse().unwrap()), Found::Known(_)));
        assert!(matches!(registry.find(&"other".parse().unwrap()), Found::Unknown));
        let at = |text: &str| registry.find(&Hostname::of_socket(text.parse().unwrap()));
        assert!(matches!(at("127.0.0.1:9000"), Found::Known(_)), "by the address of an instance, too");
        assert!(matches!(at("127.0.0.1:9001"), Found::Unknown));
        assert_eq!(registry.inbound().unwrap().identity, identity("shop", "cart"));
    }

    #[test]
    fn a_plan_for_somebody_else_or_none_at_all_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = plan(folder.path(), Some(identity("shop", "web")));
        let error = Plan::read(&file).unwrap().apply(&identity("shop", "cart"), &registry(), |_| Ok(()));
        assert!(error.unwrap_err().to_string().contains("sa/web"));
        std::fs::write(&file, "nonsense").unwrap();
        assert!(Plan::read(&file).unwrap_err().to_string().contains("not a bundle"));
        assert!(Plan::read(&folder.path().join("none")).unwrap_err().to_string().contains("no such file"));
    }
}
