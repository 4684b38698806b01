//! docs/compose.md for who follows it line by line, in an engine of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outrigger_testkit::real;

use crate::engine::{DOCKER, Engine, PATIENCE};
use crate::images::{built, put, python, repository};
use crate::page::{Boxes, printed};

/// `OUTRIGGER_SOAK=1`: the shop starts twice. Its images are built from their Dockerfile, as far as that needs no registry.
#[test]
fn whoever_follows_the_page_for_compose_gets_what_it_shows() {
    if std::env::var_os("OUTRIGGER_SOAK").is_none() {
        return;
    }
    let Some(engine) = Engine::start() else { return };
    engine.make_images();
    let source = source(&engine);
    engine.build_shop(&source);
    let programs = engine.programs();
    let page = fs::read_to_string(repository().join("docs/compose.md")).unwrap();
    let boxes = Boxes::of(&page);
    assert!(boxes.0.len() >= 6, "{} boxes", boxes.0.len());
    let file = engine.path("page.sh");
    let before = format!("export PATH=\"{}:$PATH\"\ncd {}", programs.display(), source.display());
    fs::write(&file, boxes.script(&before)).unwrap();
    let mut shell = engine.command("bash");
    boxes.compare("docs/compose.md", &printed(shell.arg(file), &engine.path("page.log"), LIMIT));
}

/// As much of the source as the page and the Dockerfile need, to be written into.
fn source(engine: &Engine) -> PathBuf {
    let (from, to) = (repository(), engine.path("source"));
    fs::create_dir_all(to.join("examples/shop/mesh")).unwrap();
    for name in ["Dockerfile", "compose.yaml", "recommendations.py"] {
        let name = Path::new("examples/shop").join(name);
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    for entry in fs::read_dir(from.join("examples/shop/mesh")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join("examples/shop/mesh").join(entry.file_name())).unwrap();
    }
    to
}

impl Engine {
    /// With what was built here, and a Python from Debian in the place of the one of a registry.
    fn build_shop(&self, source: &Path) {
        let root = source.join("target/images/shop");
        for name in ["shop-web", "shop-cart", "shop-prices", "shop-reviews"] {
            put(&built(name), &root, name);
        }
        fs::copy("/bin/busybox", root.join("busybox")).unwrap();
        let base = self.path("roots/python");
        python(&base);
        self.import(&base, "outrigger/python:dev", &[]);
        for (target, tag) in
            [("shop", "outrigger/shop:dev"), ("recommendations", "outrigger/recommendations:dev")]
        {
            let mut build = Command::new(DOCKER);
            build.env("DOCKER_BUILDKIT", "1").current_dir(source).arg("-H").arg(self.host());
            build.args(["build", "-q", "-f", "examples/shop/Dockerfile", "--target", target, "-t", tag]);
            build.args(["--build-arg", "BUILT=local", "--build-arg", "PYTHON=outrigger/python:dev", "."]);
            let ran = real::run(&mut build, PATIENCE);
            assert!(ran.ok, "{tag}: {}{}", ran.stdout, ran.stderr);
        }
    }

    /// A folder with `outrigger`, and with `docker` as the page has it.
    fn programs(&self) -> PathBuf {
        let folder = self.path("programs");
        fs::create_dir_all(&folder).unwrap();
        symlink(built("outrigger"), folder.join("outrigger")).unwrap();
        let script = format!(
            "#!/bin/sh\nexport DOCKER_HOST={}\n[ \"$1\" != compose ] || {{ shift; exec {} --ansi never \"$@\"; }}\nexec {DOCKER} \"$@\"\n",
            self.host(),
            self.compose_program().display()
        );
        let docker = folder.join("docker");
        fs::write(&docker, script).unwrap();
        fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }
}

const LIMIT: Duration = Duration::from_secs(240);
