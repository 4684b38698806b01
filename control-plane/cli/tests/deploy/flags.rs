//! What the chart tells the programs: flags that they have, and values that they take.

use std::process::Command;

use outrigger_inject::Settings;
use outrigger_testkit::real;
use serde_json::Value;

use crate::stage::{Chart, PATIENCE, VALUE_SETS, arguments, documents, list, one, pods, programs};

#[test]
fn every_flag_that_the_chart_passes_is_taken_by_its_program() {
    let Some(chart) = Chart::new() else { return };
    let mut seen = 0;
    for set in VALUE_SETS {
        for (whose, pod) in pods(&chart.objects(set)) {
            for container in list(&pod["spec"]["containers"]) {
                seen += 1;
                let program = program(container);
                // With --help at its end a line of flags is read, every value of it is judged, and nothing is started.
                let mut command = Command::new(programs().join(program));
                let ran = real::run(command.args(arguments(container)).arg("--help"), PATIENCE);
                assert!(ran.ok, "{set}: {whose}: {program}: {}", ran.stderr);
            }
        }
    }
    assert!(seen >= 7, "{seen}");
    // And a flag that is not there would be told.
    let mut command = Command::new(programs().join("outrigger-control"));
    assert!(!real::run(command.args(["--no-such-flag", "--help"]), PATIENCE).ok);
    let mut command = Command::new(programs().join("outrigger-control"));
    assert!(!real::run(command.args(["--lease=never", "--help"]), PATIENCE).ok);
}

#[test]
fn what_the_chart_says_of_injection_is_what_the_webhook_takes() {
    let Some(chart) = Chart::new() else { return };
    for set in VALUE_SETS.into_iter().filter(|set| *set != "minimal") {
        let objects = chart.objects(set);
        let written = one(&objects, "ConfigMap", "outrigger-inject")["data"]["inject.json"].as_str().unwrap();
        let written: Value = serde_json::from_str(written).unwrap();
        assert!(written.as_object().unwrap().len() >= 8, "{written}");
        let problems = Settings::from_json(&written).err();
        assert!(problems.is_none(), "{set}: {problems:?}");
    }
    let more = "injection.skipOutboundPorts=25\\,6000-6010,injection.skipOutboundNetworks={10.9.0.0/16}";
    let objects = documents(&chart.rendered("default", &["--set", more]));
    let written = one(&objects, "ConfigMap", "outrigger-inject")["data"]["inject.json"].as_str().unwrap();
    assert!(written.contains("\"25,6000-6010\""), "{written}");
    Settings::from_json(&serde_json::from_str(written).unwrap()).unwrap();
}

fn program(container: &Value) -> &str {
    match container["name"].as_str().unwrap() {
        "control-plane" => "outrigger-control",
        "gateway" => "outrigger-proxy",
        other => panic!("{other}"),
    }
}
