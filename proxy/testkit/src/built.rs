//! The programs of the mesh, for tests that run them as processes.

use std::path::{Path, PathBuf};

/// The folder with all of them: that of the tests' own build, unless `OUTRIGGER_BIN_DIR` names another.
///
/// # Panics
/// If they are not built.
pub fn programs() -> PathBuf {
    program("outrigger-control");
    folder()
}

/// One of them.
///
/// # Panics
/// If it is not built.
pub fn program(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

fn folder() -> PathBuf {
    let own = || {
        let test = std::env::current_exe().expect("the path of this test");
        test.ancestors().nth(2).map(Path::to_path_buf).expect("a test lies in deps of its build")
    };
    std::env::var_os("OUTRIGGER_BIN_DIR").map_or_else(own, PathBuf::from)
}
