use super::*;

fn settings(flags: &str) -> Result<Settings, String> {
    let words = std::iter::once("outrigger-proxy").chain(flags.split_whitespace());
    Settings::new(Args::try_parse_from(words).map_err(|e| e.to_string())?, None)
}

#[test]
fn the_definition_holds_together() {
    <Args as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn a_sidecar_needs_little_to_be_said() {
    let s = settings("--service cart --version v1 --port 8080").unwrap();
    assert_eq!(s.identity.to_string(), "spiffe://mesh.local/ns/default/sa/cart");
    let workload = s.workload.unwrap();
    assert_eq!((workload.service.to_string().as_str(), workload.application.port()), ("default/cart", 8080));
    assert!(settings("--service-account web").unwrap().workload.is_none());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let told = settings("--service cart --port 15006 --inbound 0.0.0.0:15006 --admin 0.0.0.0:1").unwrap_err();
    assert!(told.contains("--advertise") && told.contains("loopback"), "{told}");
    for bad in ["", "--service cart", "--port 80", "--service Cart --port 80", "--service a --port 0"] {
        assert!(settings(bad).is_err(), "{bad}");
    }
    for bad in ["--upstream cart", "--upstream cart=x", "--drain-timeout 30", "--plan f"] {
        assert!(settings(&format!("--service-account web {bad}")).is_err(), "{bad}");
    }
}

#[test]
fn an_instance_may_serve_several_ports() {
    let flags = "--service cart --port 8080 --service-port 80";
    let more = "--inbound-map 15007=6379 --inbound-map 0=81:8081";
    let workload = settings(&format!("{flags} {more}")).unwrap().workload.unwrap();
    let told = |p: WorkloadPort| (p.listen.port(), p.service_port.unwrap().get(), p.application.port());
    let told: Vec<_> = workload.ports().map(told).collect();
    assert_eq!(told, [(15006, 80, 8080), (15007, 6379, 6379), (0, 81, 8081)]);
    for bad in ["15007=80:1", "15006=81", "15007", "15007=x", "15007=81 --inbound-map 15007=82"] {
        assert!(settings(&format!("{flags} --inbound-map {bad}")).is_err(), "{bad}");
    }
    assert!(settings("--service cart --port 8080 --inbound-map 15007=6379").is_err(), "which is --port?");
}

#[test]
fn opaque_ports_are_ports_and_ranges() {
    let ports = settings("--service-account web --opaque-ports 4000,6000-6010").unwrap().opaque_ports;
    assert!(ports.contains(4000) && ports.contains(6005) && !ports.contains(80));
    assert!(settings("--service-account web --opaque-ports 9-8").unwrap_err().contains("25,6000-6010"));
}

#[test]
fn labels_are_told_as_pairs() {
    let s =
        settings("--service-account web --labels tier=canary,app.example/team=shop --labels empty=").unwrap();
    let told: Vec<_> = s.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(told, ["app.example/team=shop", "empty=", "tier=canary"]);
    for bad in ["tier", "=canary", "a=b=c", "a=ä"] {
        assert!(settings(&format!("--service-account web --labels {bad}")).is_err(), "{bad}");
    }
}

#[test]
fn upstreams_may_be_repeated() {
    let s = settings("--service-account web --upstream cart=9001 --upstream prices.shop:81=0").unwrap();
    assert_eq!(s.upstreams.len(), 2);
    assert_eq!(s.upstreams[1].0.port.map(PortNumber::get), Some(81));
}
