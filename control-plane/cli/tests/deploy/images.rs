//! The images: what they are made of, and whether what is in them is enough to run.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_testkit::real;

use crate::guide::{alone, namespaces};
use crate::stage::{PATIENCE, programs, root, text};

#[test]
fn the_images_are_from_scratch_and_run_as_nobody_in_particular() {
    let file = text("deploy/docker/Dockerfile");
    for (image, user, program) in
        [("proxy", "15001:15001", "/outrigger-proxy"), ("control-plane", "15010:15010", "/outrigger-control")]
    {
        let stage = file.split(&format!("FROM scratch AS {image}\n")).nth(1).unwrap();
        let stage = stage.split("FROM ").next().unwrap();
        let lines: Vec<&str> = stage.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
        let wanted = [
            format!("COPY --from=source /image/{image}/ /"),
            format!("USER {user}"),
            format!("ENTRYPOINT [\"{program}\"]"),
        ];
        assert_eq!(lines, wanted);
    }
    let binaries = text("deploy/docker/binaries");
    assert!(binaries.contains("target-feature=+crt-static"));
}

/// With the programs of the tests' build, and so with their libraries: what else an image has is what it has.
#[test]
fn what_is_in_the_images_is_enough_to_run_and_to_redirect() {
    let Some(()) = real::debian(&["ca-certificates", "iproute2", "nftables", "util-linux"]) else { return };
    let Some(()) = real::needed(namespaces()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut lay = Command::new(root().join("deploy/docker/rootfs"));
    let ran = real::run(lay.arg(programs()).arg(folder.path()).env("TRIAL", "1"), PATIENCE);
    assert!(ran.ok, "{}{}", ran.stdout, ran.stderr);
    let at = folder.path().display();
    let script = format!(
        "set -ex
        chroot {at}/proxy /outrigger-proxy --help
        chroot {at}/control-plane /outrigger-control --help
        chroot {at}/control-plane /outrigger --version
        chroot {at}/proxy /outrigger-init apply --backend nft
        chroot {at}/proxy /outrigger-init check --backend nft
        nft list tables
        chroot {at}/proxy /outrigger-init remove"
    );
    let mut shell = alone(&format!("exec timeout -k 2 30 bash -c '{script}'"));
    let ran = real::run(shell.stdin(Stdio::null()), PATIENCE);
    assert!(ran.ok, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("outrigger"), "{}", ran.stdout);
    for image in ["proxy", "control-plane"] {
        let roots = folder.path().join(image).join("etc/ssl/certs/ca-certificates.crt");
        assert!(fs::metadata(&roots).unwrap().len() > 100_000, "{image}: whom to believe outside");
        assert!(!folder.path().join(image).join("bin/sh").exists());
    }
}

#[test]
fn programs_that_would_not_run_in_an_image_are_refused() {
    let Some(()) = real::debian(&["ca-certificates", "nftables"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut lay = Command::new(root().join("deploy/docker/rootfs"));
    let ran = real::run(lay.arg(programs()).arg(folder.path()), PATIENCE);
    assert!(!ran.ok && ran.stderr.contains("is not static"), "{}{}", ran.stdout, ran.stderr);
}

/// `OUTRIGGER_SOAK=1`: builds what an image carries, which takes a quarter of an hour, and packs it where an engine answers.
#[test]
fn of_the_proxys_image_less_than_fifteen_million_bytes_are_pulled() {
    if std::env::var_os("OUTRIGGER_SOAK").is_none() {
        return;
    }
    let mut images = Command::new(root().join("deploy/docker/images"));
    let ran = real::run(images.env_remove("RUSTFLAGS"), Duration::from_secs(3000));
    assert!(ran.ok, "{}{}", ran.stdout, ran.stderr);
    let line = ran.stdout.lines().find(|l| l.starts_with("proxy ")).unwrap();
    let bytes: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(bytes < 15_000_000, "{line}");
}
