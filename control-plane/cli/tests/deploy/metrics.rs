//! What the programs say of themselves, on real text of running ones: a foreign judge reads it, Prometheus scrapes it and its
//! rules load, and the table in docs/observability.md says what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use outrigger_mesh::{Family, Sample, parse_exposition};
use outrigger_testkit::real;
use serde_json::Value;

use crate::guide::{alone, namespaces};
use crate::observability::unpacked;
use crate::stage::{PATIENCE, list, programs, root, text};

const PAGE: &str = "docs/observability.md";

/// What a control plane and two sidecars say after some requests.
struct Pages {
    /// The sidecar of who asks.
    web: String,
    /// The sidecar of who is asked.
    cart: String,
    /// The control plane.
    control: String,
    /// The sidecar of who asks, in the form of OpenMetrics.
    open: String,
    /// What `rest` left in its folder.
    folder: tempfile::TempDir,
}

/// A small mesh for itself: one service that answers, one that asks it; then `rest`, in the same network, for which `$CART` is
/// where the sidecar of the first has its pages.
fn mesh(rest: &str) -> Option<Pages> {
    real::debian(&["curl", "iproute2", "util-linux", "python3"])?;
    real::needed(namespaces())?;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let script = format!(
        "set -e; cd {at}
        outrigger-control --data {at}/mesh --log warn &
        until curl -sf -o {at}/ready http://127.0.0.1:15080/readyz; do sleep 0.1; done
        outrigger apply -f {examples}
        outrigger run --service me -- sleep 120 &
        until curl -sf -o {at}/ready http://127.0.0.1:15000/clusters; do sleep 0.1; done
        outrigger run --service hello --data {at}/cart-data -- \
            bash -c 'exec python3 -m http.server --bind 127.0.0.1 $PORT' &
        until [ -e {at}/cart-data/ready.json ]; do sleep 0.1; done
        CART=$(grep -o '\"admin\":\"[^\"]*' {at}/cart-data/ready.json | cut -d'\"' -f4)
        until curl -sf -o {at}/ready http://$CART/ready; do sleep 0.1; done
        {ASK}
        for n in 1 2 3 4; do {ASK}; done
        curl -s -o {at}/nobody http://127.0.0.1:15001/ -H 'Host: nobody'
        curl -sf -o {at}/web http://127.0.0.1:15000/stats/prometheus
        curl -sf -o {at}/open -H 'Accept: application/openmetrics-text' http://127.0.0.1:15000/stats/prometheus
        curl -sf -o {at}/cart http://$CART/stats/prometheus
        curl -sf -o {at}/control http://127.0.0.1:15080/metrics
        {rest}",
        examples = root().join("examples/hello.yaml").display()
    );
    fs::write(folder.path().join("script.sh"), script).unwrap();
    let mut shell = alone(&format!(
        "export PATH={}:$PATH HOME={at}; exec timeout -k 2 100 bash {at}/script.sh > {at}/log 2>&1",
        programs().display()
    ));
    let ran = real::run(&mut shell, PATIENCE * 2);
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(ran.ok, "{}{log}", ran.stderr);
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    Some(Pages { web: page("web"), cart: page("cart"), control: page("control"), open: page("open"), folder })
}

/// A request that is answered, as part of a trace that is kept.
const ASK: &str = "until curl -sf -o /dev/null http://127.0.0.1:15001/ -H 'Host: hello' \
            -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'; do sleep 0.1; done";

/// What promtool says of a page.
fn checked(prometheus: &Path, folder: &Path, page: &str) -> real::Ran {
    let file = folder.join("page");
    fs::write(&file, page).unwrap();
    let line = format!("{}/usr/bin/promtool check metrics < {}", prometheus.display(), file.display());
    real::run(Command::new("bash").args(["-c", &line]), PATIENCE)
}

#[test]
fn promtool_finds_nothing_wrong_with_what_the_programs_write() {
    let Some(prometheus) = real::needed(unpacked()) else { return };
    let Some(pages) = mesh("true") else { return };
    let folder = pages.folder.path();
    for (of, page) in [("sidecar", &pages.web), ("sidecar", &pages.cart), ("control plane", &pages.control)] {
        let ran = checked(&prometheus, folder, page);
        assert!(ran.ok && ran.stderr.is_empty(), "{of}: {}{}", ran.stdout, ran.stderr);
    }
    // In OpenMetrics a counter has its name without what it ends in: no other may have that.
    for text in [&pages.web, &pages.control] {
        let mut names = BTreeSet::new();
        for family in parse_exposition(text) {
            let name = family.name.strip_suffix("_total").unwrap_or(family.name);
            assert!(names.insert(name.to_owned()), "{name} is two in OpenMetrics");
        }
    }
    let wrong = "# HELP some_milliseconds Some.\n# TYPE some_milliseconds counter\nsome_milliseconds 1\n";
    assert!(!checked(&prometheus, folder, wrong).ok);
    assert!(pages.open.ends_with("# EOF\n"));
    assert!(pages.open.contains("# {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} "), "{}", pages.open);
    assert!(!pages.web.contains("trace_id"));
}

#[test]
fn prometheus_scrapes_a_mesh_and_its_rules_load_and_are_true() {
    let Some(prometheus) = real::needed(unpacked()) else { return };
    let settings = tempfile::tempdir().unwrap();
    let config = settings.path().join("prometheus.yml");
    let rules = root().join("deploy/observability/rules.yaml");
    let written = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\nscrape_configs:\n  \
         - job_name: outrigger-sidecars\n    metrics_path: /stats/prometheus\n    static_configs: \
         [{{targets: [\"127.0.0.1:15000\", \"CART\"]}}]\n  - job_name: outrigger-control\n    \
         static_configs: [{{targets: [\"127.0.0.1:15080\"]}}]\n",
        rules.display()
    );
    fs::write(&config, written).unwrap();
    let asked = "http://127.0.0.1:9090/api/v1";
    let rest = format!(
        "sed -i s/CART/$CART/ {config}
        {program} --config.file={config} --storage.tsdb.path={data} --web.listen-address=127.0.0.1:9090 \
            --enable-feature=exemplar-storage --log.level=warn &
        until curl -sfG {asked}/query --data-urlencode \
            'query=service:outrigger_requests:rate5m{{service=\"default/hello\"}} > 0' > {data}.rate \
            && grep -q default/hello {data}.rate; do
            {ASK}; sleep 0.2; done
        for n in $(seq 150); do
            curl -sf {asked}/targets > {data}.targets && curl -sf {asked}/rules > {data}.rules \
                && [ $(grep -o '\"health\":\"up\"' {data}.targets | wc -l) = 3 ] \
                && ! grep -q '\"health\":\"unknown\"' {data}.rules && break
            sleep 0.2; done
        curl -sfG {asked}/query_exemplars --data-urlencode 'query=http_client_request_duration_seconds_bucket' \
            --data-urlencode start=0 --data-urlencode end=9999999999 > {data}.exemplars
        true",
        program = prometheus.join("usr/bin/prometheus").display(),
        config = config.display(),
        data = settings.path().join("data").display(),
    );
    let Some(_pages) = mesh(&rest) else { return };
    let told = |what: &str| -> Value {
        serde_json::from_slice(&fs::read(settings.path().join(format!("data.{what}"))).unwrap()).unwrap()
    };
    let targets = told("targets");
    let targets = list(&targets["data"]["activeTargets"]);
    assert_eq!(targets.len(), 3, "{targets:?}");
    for target in targets {
        assert_eq!(
            (target["health"].as_str(), target["lastError"].as_str()),
            (Some("up"), Some("")),
            "{target}"
        );
    }
    let rules = told("rules");
    let mut read = 0;
    for rule in list(&rules["data"]["groups"]).iter().flat_map(|group| list(&group["rules"])) {
        assert_eq!(rule["health"], "ok", "{rule}");
        read += 1;
    }
    assert!(read >= 19, "{read}");
    let exemplars = told("exemplars").to_string();
    assert!(exemplars.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{exemplars}");
}

/// A row of the table.
#[derive(Debug)]
struct Row<'a> {
    kind: &'a str,
    unit: &'a str,
    labels: Vec<&'a str>,
    meaning: &'a str,
}

/// The rows of the tables of metrics, by name.
fn rows(page: &str) -> BTreeMap<&str, Row<'_>> {
    let table = page.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, unit, labels, meaning] = cells[..] else { panic!("{line}") };
        let labels = labels.split(", ").map(|label| label.trim_matches('`')).filter(|l| !l.is_empty());
        (name.trim_matches('`'), Row { kind, unit, labels: labels.collect(), meaning })
    })
    .collect()
}

fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit_once('_') {
        Some((_, "seconds")) => "s",
        Some((_, "bytes")) => "By",
        _ => "1",
    }
}

#[test]
fn the_table_of_metrics_is_what_the_programs_write() {
    let Some(pages) = mesh("true") else { return };
    let page = text(PAGE);
    let rows = rows(&page);
    let all = [&pages.web, &pages.cart, &pages.control].map(|text| parse_exposition(text));
    let mut written: BTreeMap<&str, &Family<'_>> = BTreeMap::new();
    let mut lacks = BTreeSet::new();
    for family in all.iter().flatten() {
        written.insert(family.name, family);
        let (name, kind, help) = (family.name, family.kind.as_str(), family.help);
        let Some(row) = rows.get(name) else {
            lacks.insert(format!("| `{name}` | {kind} | {} | | {help} |", unit(name)));
            continue;
        };
        let told = (row.kind, row.unit, row.meaning);
        assert_eq!(told, (family.kind.as_str(), unit(family.name), family.help), "{}", family.name);
        for (label, _) in family.samples.iter().flat_map(Sample::pairs) {
            assert!(
                label == "le" || row.labels.contains(&label),
                "{}: {label} is not in {row:?}",
                family.name
            );
        }
    }
    assert!(lacks.is_empty(), "no rows in {PAGE}: {lacks:#?}");
    // What is told of a shared store, of the webhook and of gateways alone, which are not started here.
    let sources = ["app.rs", "webhook/figures.rs"].map(|file| text(&format!("control-plane/src/{file}")));
    for name in rows.keys() {
        let elsewhere = sources.iter().any(|source| source.contains(&format!("# TYPE {name} ")));
        assert!(written.contains_key(name) || elsewhere, "{PAGE}: nobody writes {name}");
    }
    assert!(Path::new(&root().join("docs/decisions/0021-names-of-metrics.md")).exists());
}
