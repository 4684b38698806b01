//! Sidecars whose clocks are wrong, by libfaketime: what they make of certificates, and that the error is theirs alone.

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_testkit::real::debian;
use outrigger_testkit::{Client, Origin, eventually};

use crate::support::{Mesh, Sidecar, SidecarPlan};

const DAY: i64 = 24 * 3600;

/// A clock that tests move while the sidecar runs.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `None` where there is no libfaketime.
    fn new(mesh: &Mesh, name: &str) -> Option<Self> {
        debian(&["libfaketime"])?;
        let file = mesh.path(name);
        fs::write(&file, "+0").unwrap();
        Some(Self { library: library(), file })
    }

    fn drives(&self, plan: SidecarPlan) -> SidecarPlan {
        // Timers run as they do; only what time of day it is, is wrong.
        plan.env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// Moves the clock of a running sidecar and waits until that is seen in what it tells.
    async fn move_to(&self, sidecar: &Sidecar, offset: i64) {
        fs::write(&self.file, format!("{offset:+}")).unwrap();
        eventually("the sidecar's clock is moved", || async {
            seconds_left(sidecar).await.abs_diff(DAY - offset) < 120
        })
        .await;
    }
}

fn library() -> PathBuf {
    let of = |folder: &Path| folder.join("faketime/libfaketimeMT.so.1");
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| of(&folder)).find(|file| file.exists());
    found.expect("the library of the package libfaketime")
}

/// Until the sidecar's certificate ends, by its own clock.
async fn seconds_left(sidecar: &Sidecar) -> i64 {
    let page = Client::h1(sidecar.admin).await.get("localhost", "/stats/prometheus").await.unwrap().text();
    let line = page.lines().find(|line| line.starts_with("outrigger_cert_expiry_seconds "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_minutes_apart_keep_nobody_out() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let Some(clock) = Clock::new(&mesh, "clock") else { return };
    for offset in [-480, 480] {
        fs::write(&clock.file, format!("{offset:+}")).unwrap();
        let origin = Origin::named("prices").await;
        let prices = mesh.sidecar("prices", "v1", origin.addr()).token(mesh.token("prices"));
        let prices = clock.drives(prices).start();
        let left = seconds_left(&prices).await;
        assert!(left.abs_diff(DAY - offset) < 120, "the skew is seen: {left} s are left, {offset:+} s");
        let web = mesh.caller("web").token(mesh.token("web")).start();
        mesh.reachable(&web, "prices").await;
        let web = clock.drives(mesh.caller("web").token(mesh.token("web"))).start();
        mesh.reachable(&web, "prices").await;
        prices.terminate();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_hours_off_believes_nobody_says_why_and_recovers() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let prices = mesh.instance("prices", "v1").await;
    let Some(clock) = Clock::new(&mesh, "clock") else { return };
    for (offset, why) in [(30 * 3600, "expired"), (-3600, "not yet valid")] {
        let web = clock.drives(mesh.caller("web").token(mesh.token("web"))).start();
        clock.move_to(&web, offset).await;
        let before = prices.origin.requests();
        let reply = web.get("prices", "/").await;
        assert_eq!(reply.header("x-outrigger-reason"), Some("tls_failed"), "{}", reply.text());
        assert!(reply.text().contains(why), "{}", reply.text());
        assert_eq!(prices.origin.requests(), before);
        clock.move_to(&web, 0).await;
        mesh.reachable(&web, "prices").await;
        web.terminate();
    }
}
