//! The recorded reviews.

use std::fs;

use outrigger_inject::Settings;
use serde_json::json;

use crate::support::{Between, asking, fixtures, member_with, patch_of, recorded, skip_of};

/// Every first call, by name.
fn firsts() -> Vec<String> {
    let files =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        files.filter_map(|file| file.strip_suffix(".0.json").map(str::to_owned)).collect();
    names.sort();
    assert_eq!(names.len(), 12);
    names
}

#[test]
fn every_recorded_pod_becomes_a_member_without_a_fault_or_is_skipped_with_a_reason() {
    for name in firsts() {
        let pod = recorded(&format!("{name}.0.json"));
        match name.as_str() {
            "hostnet" => assert_eq!(skip_of(&pod, &asking()).reason.code(), "host_network"),
            "windows" => assert_eq!(skip_of(&pod, &asking()).reason.code(), "windows"),
            _ => {
                for native in [true, false] {
                    let settings = Settings::from_json(&json!({"nativeSidecar": native})).unwrap();
                    member_with(&pod, &asking(), &settings, native);
                }
            }
        }
    }
}

/// The token of the mesh is a volume of its own, so a pod that wants no token of the API joins all the same.
#[test]
fn a_pod_without_a_token_of_the_api_joins_and_its_own_initial_containers_come_after_ours() {
    let member = member_with(&recorded("notoken.0.json"), &asking(), &Settings::default(), true);
    let first = member["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&str> = first.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["outrigger-init", "outrigger-proxy", "own-init", "own-native"]);
}

#[test]
fn the_second_call_after_the_plugins_of_the_api_server_finds_nothing_to_do() {
    let mut seen = 0;
    for name in firsts() {
        if !fixtures().join(format!("{name}.1.json")).exists() || name == "windows" {
            continue;
        }
        let pod = recorded(&format!("{name}.0.json"));
        let between = Between::of(&recorded(&format!("{name}.1.json")));
        for native in [true, false] {
            let settings = json!({"nativeSidecar": native, "resources": {"proxy":
                {"requests": {"cpu": "0.1", "memory": "64Mi"}, "limits": {"memory": "0.25Gi"}}}});
            let settings = Settings::from_json(&settings).unwrap();
            let mut again = between.apply(&member_with(&pod, &asking(), &settings, native));
            // The API server writes amounts in its own form.
            let (part, at) = if native { ("initContainers", 1) } else { ("containers", 0) };
            let proxy = &mut again["spec"][part][at];
            assert_eq!(proxy["resources"]["requests"]["cpu"], "0.1");
            proxy["resources"]["requests"]["cpu"] = json!("100m");
            proxy["resources"]["limits"]["memory"] = json!("256Mi");
            assert_eq!(patch_of(&again, &asking(), &settings).0, json!([]), "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}
