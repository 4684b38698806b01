//! The dashboard and the rules: every metric in them is one that a program writes, and each alert fires when it should.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use outrigger_testkit::real;
use serde_json::Value;

use crate::guide::{alone, namespaces};
use crate::stage::{PATIENCE, list, programs, root, text};

const RULES: &str = "deploy/observability/rules.yaml";
const DASHBOARD: &str = "deploy/observability/dashboard.json";

#[test]
fn every_metric_in_dashboard_and_rules_is_one_that_a_program_writes() {
    let Some(()) = real::debian(&["curl", "iproute2", "util-linux"]) else { return };
    let Some(()) = real::needed(namespaces()) else { return };
    let mut written = of_the_running();
    assert!(written.len() > 80, "{written:?}");
    // What is told of a shared store and of the webhook alone, which are not started here.
    for source in ["app.rs", "webhook/figures.rs"] {
        written.extend(declared(&text(&format!("control-plane/src/{source}"))));
    }
    for file in [RULES, DASHBOARD] {
        let used = named(&text(file));
        assert!(used.len() >= 10, "{file}: {used:?}");
        for name in &used {
            assert!(written.contains(name), "{file}: nobody writes {name}");
        }
    }
    // And what nobody writes would be seen.
    let absent = named("rate(outrigger_no_such_total[5m]) / service:outrigger_recorded:rate5m");
    assert_eq!(absent.into_iter().collect::<Vec<_>>(), ["outrigger_no_such_total"]);
}

#[test]
fn reasons_that_rules_name_are_reasons_of_the_mesh() {
    let known = text("docs/refusals.md");
    let rules = text(RULES);
    let reasons = rules.split("reason=~\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(reasons.split('|').count() > 2);
    for reason in reasons.split('|') {
        assert!(known.contains(&format!("`{reason}`")), "{reason}");
    }
}

#[test]
fn each_alert_fires_when_it_should_and_says_what_to_do() {
    let Some(promtool) = real::needed(promtool()) else { return };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&promtool);
        real::run(command.args(arguments).current_dir(root().join("deploy/observability")), PATIENCE)
    };
    let checked = run(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
    assert!(checked.ok, "{}{}", checked.stdout, checked.stderr);
    let tested = run(&["test", "rules", "rules.test.yaml"]);
    assert!(tested.ok, "{}{}", tested.stdout, tested.stderr);
    let rules = &crate::stage::documents(&text(RULES))[0];
    let cases = text("deploy/observability/rules.test.yaml");
    let mut alerts = 0;
    for rule in list(&rules["groups"]).iter().flat_map(|g| list(&g["rules"])) {
        let Some(name) = rule["alert"].as_str() else { continue };
        alerts += 1;
        assert!(cases.contains(&format!("alertname: {name}")), "{name} has no case");
        assert!(
            rule["annotations"]["what"].as_str().is_some_and(|w| w.len() > 15),
            "{name} does not say what to do"
        );
    }
    assert!(alerts >= 15, "{alerts}");
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let variables: Vec<&str> =
        list(&dashboard["templating"]["list"]).iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "service"]);
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its number is taken");
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} hangs over the edge");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} lies on another");
            }
        }
        let targets = list(&panel["targets"]);
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

/// The names of metrics in a query or a file of queries; those that rules record have a colon, and are none.
fn named(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !part(c)).filter(|w| {
        ["outrigger_", "process_", "http_client_", "http_server_"].iter().any(|ours| w.starts_with(ours))
    });
    // A name of a test or of a group is none either.
    words.filter(|w| !w.contains(':')).map(str::to_owned).collect()
}

/// The metrics that a page, or the source of one, declares, with what a histogram makes of its name.
fn declared(page: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in page.split("# TYPE ").skip(1) {
        let mut words = line.split(|c: char| c.is_whitespace() || c == '\\');
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { continue };
        if kind.starts_with("histogram") {
            all.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        all.insert(name.to_owned());
    }
    all
}

/// What a control plane and a sidecar say of themselves.
fn of_the_running() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let (at, log) = (folder.path().display().to_string(), folder.path().join("log"));
    let script = format!(
        "set -e; cd {at}; outrigger-control --data {at}/mesh --log warn > {at}/log 2>&1 &
        until curl -sf -o {at}/ready http://127.0.0.1:15080/readyz; do sleep 0.1; done
        outrigger apply -f {examples} > {at}/log 2>&1
        outrigger run --service me -- curl -sf -o {at}/proxy http://127.0.0.1:15000/stats/prometheus > {at}/log 2>&1
        curl -sf -o {at}/control http://127.0.0.1:15080/metrics",
        examples = root().join("examples/hello.yaml").display()
    );
    let mut shell = alone(&format!(
        "export PATH={}:$PATH HOME={at}; exec timeout -k 2 40 bash -c '{script}'",
        programs().display()
    ));
    let ran = real::run(shell.stdin(Stdio::null()), PATIENCE);
    assert!(ran.ok, "{}{}", ran.stderr, fs::read_to_string(&log).unwrap_or_default());
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    declared(&format!("{}{}", page("proxy"), page("control")))
}

/// Prometheus' own judge, out of Debian's package, which is not installed: that would start a server.
fn promtool() -> Result<PathBuf, String> {
    Ok(unpacked()?.join("usr/bin/promtool"))
}

/// Debian's package of Prometheus, unpacked.
pub(crate) fn unpacked() -> Result<PathBuf, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _mine = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = real::target().join("peers/prometheus");
    if folder.join("usr/bin/promtool").exists() {
        return Ok(folder);
    }
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let shell = |script: &str| {
        let ran =
            real::run(Command::new("bash").args(["-ec", script]).current_dir(scratch.path()), PATIENCE * 3);
        if ran.ok { Ok(()) } else { Err(format!("{script}: {}", ran.stderr.trim())) }
    };
    let fetch = "apt-get -qq download prometheus";
    shell(fetch).or_else(|_| shell(&format!("apt-get -qq update && {fetch}")))?;
    shell("dpkg-deb -x prometheus_*.deb unpacked")?;
    moved(&scratch.path().join("unpacked"), &folder)?;
    Ok(folder)
}

fn moved(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|e| e.to_string())?;
    let ran = real::run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to), PATIENCE);
    if ran.ok { Ok(()) } else { Err(ran.stderr) }
}
