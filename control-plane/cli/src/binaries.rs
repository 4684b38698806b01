//! Where the other programs of Outrigger are: beside this one, or where OUTRIGGER_BIN_DIR says.

use std::path::{Path, PathBuf};

use crate::failure::{Doing, Exit, Failure};

/// Where to look, settled once.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
    outrigger: PathBuf,
}

impl Binaries {
    /// By the environment, else beside the running program.
    pub(crate) fn find() -> Result<Self, Failure> {
        let outrigger = std::env::current_exe().doing("can not tell where this program is")?;
        let folder = match std::env::var_os("OUTRIGGER_BIN_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => outrigger.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        Ok(Self { folder, outrigger })
    }

    /// This program itself.
    pub(crate) fn outrigger(&self) -> &Path {
        &self.outrigger
    }

    /// The program of that name.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        let message = format!("the program {name} is not in {}", self.folder.display());
        Err(Failure::new(Exit::Failed, message)
            .hint("build all of them with `cargo build --workspace`, or set OUTRIGGER_BIN_DIR"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_told_with_how_to_build_it() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries { folder: folder.path().to_owned(), outrigger: "/x/outrigger".into() };
        let told = binaries.program("outrigger-proxy").unwrap_err().to_string();
        assert!(told.contains("outrigger-proxy is not in"), "{told}");
        assert!(told.contains("cargo build --workspace"), "{told}");
        std::fs::write(folder.path().join("outrigger-proxy"), "").unwrap();
        assert_eq!(binaries.program("outrigger-proxy").unwrap(), folder.path().join("outrigger-proxy"));
    }
}
