//! What the chart tells the programs: flags that they have, and values that they take.

use std::process::Command;

use outrigger_testkit::real;
use serde_json::Value;

use crate::stage::{Chart, PATIENCE, VALUE_SETS, arguments, list, pods, programs};

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

fn program(container: &Value) -> &str {
    match container["name"].as_str().unwrap() {
        "control-plane" => "outrigger-control",
        "gateway" => "outrigger-proxy",
        other => panic!("{other}"),
    }
}
