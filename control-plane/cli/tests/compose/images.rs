//! Images FROM scratch: the programs of this build with the libraries that they load, so that no build is made for them alone.
//! What was built static has none: `OUTRIGGER_BIN_DIR` names the folder of such programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

pub use outrigger_testkit::built::program as built;
use outrigger_testkit::real;

use crate::engine::{Engine, PATIENCE, VERSION};

const SHOP: &[&str] = &["shop-web", "shop-cart", "shop-prices", "shop-reviews"];

impl Engine {
    /// All that the mesh and the shop are made of.
    pub fn make_images(&self) {
        thread::scope(|all| {
            all.spawn(|| {
                let root = self.root("proxy", &["outrigger-proxy", "outrigger-init"]);
                put(Path::new("/usr/sbin/nft"), &root, "usr/sbin/nft");
                self.import(&root, &format!("outrigger/proxy:{VERSION}"), &[]);
            });
            all.spawn(|| {
                let root = self.root("control-plane", &["outrigger-control", "outrigger"]);
                self.import(&root, &format!("outrigger/control-plane:{VERSION}"), &[]);
            });
            all.spawn(|| {
                let root = self.root("shop", SHOP);
                fs::copy("/bin/busybox", root.join("busybox")).unwrap();
                self.import(&root, "outrigger/shop:dev", &[]);
            });
            all.spawn(|| {
                let root = self.path("roots/recommendations");
                python(&root);
                fs::copy(
                    repository().join("examples/shop/recommendations.py"),
                    root.join("recommendations.py"),
                )
                .unwrap();
                let run = "ENTRYPOINT [\"python3\", \"-B\", \"/recommendations.py\"]";
                self.import(&root, "outrigger/recommendations:dev", &["--change", run]);
            });
        });
    }

    /// The root of an image with these programs.
    fn root(&self, name: &str, programs: &[&str]) -> PathBuf {
        let root = self.path("roots").join(name);
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
        for program in programs {
            put(&built(program), &root, program);
        }
        root
    }
}

/// The source.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Debian's Python as the root of an image: no image of it can be fetched where there is no registry.
pub fn python(root: &Path) {
    fs::create_dir_all(root).unwrap();
    let script = "set -e
        cd /
        library=$(/usr/bin/python3 -c 'import os; print(os.path.dirname(os.__file__)[1:])')
        program=$(realpath --relative-to=/ /usr/bin/python3)
        libraries=$(ldd $program $library/lib-dynload/*.so | grep -o '/lib[^ ]*' | sort -u)
        tar -h -c --exclude=test --exclude=config-* --exclude=dist-packages --exclude=ensurepip --exclude=idlelib \
            usr/bin/python3 $library $libraries 2>/dev/null | tar -x -C \"$0\"";
    let ran = real::run(Command::new("sh").args(["-c", script]).arg(root), PATIENCE);
    assert!(ran.ok, "{}", ran.stderr);
}

/// Puts a program into the root of an image, with what it loads. What is for debuggers alone stays behind: it is most of it.
pub fn put(program: &Path, root: &Path, name: &str) {
    let to = root.join(name);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let mut strip = Command::new("strip");
    let ran = real::run(strip.arg("--strip-debug").arg("-o").arg(&to).arg(program), PATIENCE);
    assert!(ran.ok, "{}", ran.stderr);
    let loads = real::run(Command::new("ldd").arg(program), PATIENCE).stdout;
    for library in loads.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(library, to).unwrap();
        }
    }
}
