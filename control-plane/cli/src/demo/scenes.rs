//! The resource files of the shop, as they lie in `examples/shop/mesh`, written out for `outrigger apply -f`.

use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure};

/// The shares of prices v2, in percent, in the order of the canary.
pub(super) const WEIGHTS: [u8; 4] = [0, 10, 50, 100];

/// Where the files lie.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// All services.
    pub(super) services: PathBuf,
}

impl Files {
    /// The route that gives prices v2 this share.
    pub(super) fn canary(&self, weight: u8) -> PathBuf {
        self.folder.join(format!("prices-{weight}.yaml"))
    }
}

/// Writes them below `folder`.
pub(super) fn write(folder: &Path) -> Result<Files, Failure> {
    let folder = folder.join("mesh");
    std::fs::create_dir_all(&folder).doing(format_args!("can not make {}", folder.display()))?;
    for (name, text) in TEXTS {
        let path = folder.join(name);
        std::fs::write(&path, text).doing(format_args!("can not write {}", path.display()))?;
    }
    Ok(Files { services: folder.join("services.yaml"), folder })
}

/// In the binary, so that it runs wherever that is put.
const TEXTS: [(&str, &str); 5] = [
    ("services.yaml", include_str!("../../../../examples/shop/mesh/services.yaml")),
    ("prices-0.yaml", include_str!("../../../../examples/shop/mesh/prices-0.yaml")),
    ("prices-10.yaml", include_str!("../../../../examples/shop/mesh/prices-10.yaml")),
    ("prices-50.yaml", include_str!("../../../../examples/shop/mesh/prices-50.yaml")),
    ("prices-100.yaml", include_str!("../../../../examples/shop/mesh/prices-100.yaml")),
];
