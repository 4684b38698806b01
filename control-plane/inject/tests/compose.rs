//! Compose files, injected and taken back.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use outrigger_inject::compose::{Images, inject, uninject};
use outrigger_inject::manifest::{Outcome, Rewritten, value};
use serde_json::{Value, json};

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/compose/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn injected(text: &str) -> Rewritten {
    inject(text, &Images::default()).unwrap_or_else(|failed| panic!("{failed}\n{text}"))
}

fn file(text: &str) -> Value {
    value(text).unwrap()
}

fn outcomes(rewritten: &Rewritten) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Skipped { reason, .. } => reason.clone(),
        Outcome::Refused { problems } => {
            problems.iter().map(|p| format!("{} {}", p.pointer, p.code)).collect::<Vec<_>>().join(", ")
        }
        Outcome::Injected => "injected".into(),
        Outcome::Unchanged => "unchanged".into(),
        Outcome::Uninjected => "uninjected".into(),
    };
    rewritten.told.iter().map(|told| format!("{}: {}", told.name, word(&told.outcome))).collect()
}

#[test]
fn compose_files_are_injected_and_taken_back_byte_for_byte() {
    for name in ["shop.yaml", "anchors.yaml", "windows.yaml", "compose.json"] {
        let text = read(name);
        let done = injected(&text);
        assert!(done.text.contains("outrigger-proxy-"), "{name}: {:?}", outcomes(&done));
        assert_eq!(uninject(&done.text).unwrap().text, text, "{name}, taken back from\n{}", done.text);
        let again = injected(&done.text);
        assert_eq!(again.text, done.text, "{name}, again");
        assert!(
            !outcomes(&again).iter().any(|o| o.ends_with(": injected")),
            "{name}: {:?}",
            outcomes(&again)
        );
    }
}

#[test]
fn every_member_gets_a_redirection_and_a_sidecar_in_its_own_network() {
    let done = injected(&read("shop.yaml"));
    assert_eq!(outcomes(&done), ["web: injected", "cart: injected", "prices: injected", "db: opted_out"]);
    let services = &file(&done.text)["services"];
    for name in ["web", "cart", "prices"] {
        let (init, proxy) =
            (&services[&format!("outrigger-init-{name}")], &services[&format!("outrigger-proxy-{name}")]);
        for part in [init, proxy] {
            assert_eq!(part["network_mode"], format!("service:{name}"));
            assert_eq!(part["cap_drop"], json!(["ALL"]));
        }
        assert_eq!(init["cap_add"], json!(["NET_ADMIN", "NET_RAW"]));
        assert_eq!(proxy["user"], "15001:15001");
        assert_eq!(
            proxy["depends_on"][format!("outrigger-init-{name}")]["condition"],
            "service_completed_successfully"
        );
        assert_eq!(proxy["depends_on"]["outrigger-setup"]["condition"], "service_completed_successfully");
    }
    assert!(services.get("outrigger-proxy-db").is_none());
    assert_eq!(services["outrigger-setup"]["network_mode"], "service:outrigger-control");
    // What the authors wrote is as it was.
    assert_eq!(services["web"]["healthcheck"]["test"], json!(["CMD", "/shop-web", "--healthy"]));
    assert_eq!(services["db"], file(&read("shop.yaml"))["services"]["db"]);
    for comment in ["# what people see", "# for browsers", "# a database that nobody meshes", "# kept"] {
        assert!(done.text.contains(comment), "{comment}");
    }
}

#[test]
fn who_depends_on_a_member_waits_for_its_sidecar_and_so_ends_before_it() {
    let services = &file(&injected(&read("shop.yaml")).text)["services"];
    assert_eq!(
        services["web"]["depends_on"],
        json!({
            "cart": {"condition": "service_started"},
            "prices": {"condition": "service_started"},
            "outrigger-proxy-cart": {"condition": "service_healthy"},
            "outrigger-proxy-prices": {"condition": "service_healthy"},
        })
    );
    assert_eq!(services["cart"]["depends_on"]["prices"]["condition"], "service_healthy");
    assert_eq!(services["cart"]["depends_on"]["outrigger-proxy-prices"]["condition"], "service_healthy");
}

#[test]
fn ports_and_their_protocols_reach_the_mesh_and_published_ones_take_plaintext_too() {
    let setup =
        |name: &str| file(&injected(&read(name)).text)["services"]["outrigger-setup"]["command"].clone();
    let members =
        ["--member=web=8080/detect/permissive", "--member=cart=8080/detect", "--member=prices=8080/http"];
    assert_eq!(setup("shop.yaml").as_array().unwrap()[2..], members.map(Value::from));
    let done = injected(&read("anchors.yaml"));
    assert_eq!(
        outcomes(&done),
        ["api: injected", "worker: injected", "host: network_mode", "many: replicas"]
    );
    let services = &file(&done.text)["services"];
    let api = "--member=api=80/detect/permissive,9000/detect/permissive,9001/detect/permissive,9002/detect/permissive";
    assert_eq!(setup("anchors.yaml")[2], api);
    assert_eq!(setup("anchors.yaml")[3], "--member=worker=");
    let proxy = &services["outrigger-proxy-api"]["environment"];
    assert_eq!(proxy["OUTRIGGER_PROXY_INBOUND_MAP"], "15100=9000:9000,15101=9001:9001,15102=9002:9002");
    assert_eq!(services["outrigger-init-api"]["command"][2], "--skip-inbound-ports=15100,15101,15102");
    // A client only.
    let worker = &services["outrigger-proxy-worker"];
    assert_eq!(worker["environment"]["OUTRIGGER_PROXY_SERVICE_ACCOUNT"], "worker");
    assert!(worker["environment"].get("OUTRIGGER_PROXY_SERVICE").is_none());
    assert_eq!(worker["environment"]["OUTRIGGER_PROXY_LOG"], "debug");
    assert_eq!(worker["profiles"], json!(["jobs"]));
    assert_eq!(services["outrigger-control"]["networks"], json!(["front", "back"]));
}

#[test]
fn an_opaque_port_is_declared_to_the_mesh_and_told_to_its_sidecar() {
    let text = "services:\n  db:\n    expose: [\"9000\", \"8080\"]\n    labels: {outrigger.dev/opaque-ports: \"9000, 9100-9110\"}\n";
    let services = &file(&injected(text).text)["services"];
    assert_eq!(services["outrigger-setup"]["command"][2], "--member=db=9000/tcp,8080/detect");
    let told = &services["outrigger-proxy-db"]["environment"]["OUTRIGGER_PROXY_OPAQUE_PORTS"];
    assert_eq!(told, "9000,9100-9110");
    for (said, mistake) in [
        ("{ports: [9000/http], opaque-ports: 9000}", "/services/db/x-outrigger/opaque-ports invalid_value"),
        ("{opaque-ports: 9-8}", "/services/db/x-outrigger/opaque-ports invalid_value"),
    ] {
        let done = injected(&format!("services:\n  db:\n    image: db\n    x-outrigger: {said}\n"));
        assert_eq!(outcomes(&done), [format!("db: {mistake}")]);
    }
}

/// Both tokens went to one folder: a mount twice, which no engine takes.
#[test]
fn two_that_are_one_service_have_a_token_each() {
    let text = "services:\n  prices:\n    expose: [\"8080\"]\n  prices-v2:\n    expose: [\"8080\"]\n    \
                x-outrigger: {service: prices, version: v2}\n";
    let done = file(&injected(text).text);
    let setup = &done["services"]["outrigger-setup"];
    let members = ["--member=prices=8080/detect", "--member=prices-v2:prices=8080/detect"];
    assert_eq!(setup["command"].as_array().unwrap()[2..], members);
    let volumes =
        ["outrigger-proxy-prices:/identities/prices", "outrigger-proxy-prices-v2:/identities/prices-v2"];
    assert_eq!(setup["volumes"], json!(volumes));
    let second = &done["services"]["outrigger-proxy-prices-v2"]["environment"];
    assert_eq!(second["OUTRIGGER_PROXY_SERVICE_ACCOUNT"], "prices");
}

#[test]
fn what_is_said_of_telemetry_reaches_the_sidecar_and_mistakes_are_refused() {
    let of = |said: &str| {
        format!("services:\n  a:\n    image: a\n    expose: [80]\n    x-outrigger: {{{said}}}\n")
    };
    let done = injected(&of(
        "otlp-endpoint: 'http://otel:4317', otlp-metrics: 'https://otlp.example.com', otlp-protocol: http, \
         trace-sample: 5%, access-log: all, access-log-format: '{method} {path}'",
    ));
    let told = &file(&done.text)["services"]["outrigger-proxy-a"]["environment"];
    for (name, value) in [
        ("OTLP_ENDPOINT", "http://otel:4317"),
        ("OTLP_METRICS", "https://otlp.example.com"),
        ("OTLP_PROTOCOL", "http"),
        ("TRACE_SAMPLE", "5%"),
        ("ACCESS_LOG", "all"),
        ("ACCESS_LOG_FORMAT", "{method} {path}"),
    ] {
        assert_eq!(told[format!("OUTRIGGER_PROXY_{name}")], value, "{told}");
    }
    let done = injected(&of("otlp-endpoint: otel, otlp-protocol: thrift, trace-sample: 2, access-log: some"));
    for key in ["otlp-endpoint", "otlp-protocol", "trace-sample", "access-log"] {
        let mistake = format!("/x-outrigger/{key} invalid_value");
        assert!(done.is_refused() && outcomes(&done)[0].contains(&mistake), "{key}: {:?}", outcomes(&done));
    }
}

#[test]
fn mistakes_are_told_all_at_once_and_nothing_is_written() {
    let text = "x-outrigger: {nmespace: a}\nservices:\n  a_b:\n    image: a\n    user: 15001:0\n    ports: [\"80:15006\"]\n    x-outrigger: {port: 80, mtls: maybe, inject: perhaps, skip-inbound-ports: x}\n";
    let done = injected(&text.replace("x-outrigger: {nmespace: a}\n", ""));
    assert_eq!(done.told.len(), 1);
    for mistake in [
        "port unknown_key",
        "mtls invalid_value",
        "inject invalid_value",
        "skip-inbound-ports invalid_value",
        "invalid_name",
        "/user proxy_uid",
        "/ports reserved_port",
    ] {
        assert!(outcomes(&done)[0].contains(mistake), "{mistake}: {:?}", outcomes(&done));
    }
    let done = injected(text);
    assert!(
        done.is_refused() && outcomes(&done)[0].contains("/x-outrigger/nmespace unknown_key"),
        "{:?}",
        outcomes(&done)
    );
    assert_eq!(done.text, text);
    assert!(inject("a: 1\n", &Images::default()).unwrap_err().to_string().contains("no services"));
}

#[test]
fn a_file_that_was_edited_since_is_not_taken_back_half() {
    let edited = injected(&read("shop.yaml")).text.replace("shop/web:1.0", "shop/web:1.1");
    let failed = uninject(&edited).unwrap_err().to_string();
    assert!(failed.contains("edited since"), "{failed}");
    let plain = read("shop.yaml");
    assert_eq!(uninject(&plain).unwrap().text, plain);
}
