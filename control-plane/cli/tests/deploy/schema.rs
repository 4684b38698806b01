//! The schema of the chart's values: what is not known or can not be is refused, with its place.

use serde_json::Value;

use crate::stage::{Chart, documents, text};

#[test]
fn a_slip_of_the_pen_in_the_values_is_refused_with_its_place() {
    let Some(chart) = Chart::new() else { return };
    for (value, told) in [
        ("controlplane.replicas=2", "additional properties 'controlplane' not allowed"),
        ("controlPlane.replica=2", "at '/controlPlane': additional properties 'replica' not allowed"),
        ("controlPlane.replicas=0", "at '/controlPlane/replicas'"),
        ("controlPlane.antiAffinity=hard", "at '/controlPlane/antiAffinity'"),
        ("controlPlane.leafLifetime=1day", "at '/controlPlane/leafLifetime'"),
        ("controlPlane.resources.limits.memory=lots", "at '/controlPlane/resources/limits/memory'"),
        ("webhook.timeoutSeconds=11", "at '/webhook/timeoutSeconds'"),
        ("webhook.failurePolicy=Maybe", "at '/webhook/failurePolicy'"),
        // Nobody can ask about pods that the cluster itself starts with.
        ("webhook.excludedNamespaces={kube-public}", "at '/webhook/excludedNamespaces'"),
        ("image.digests.proxy=latest", "at '/image/digests/proxy'"),
        ("image.registry=mirror.example.com", "at '/image/registry'"),
        ("injection.proxyUid=0", "at '/injection/proxyUid'"),
        ("injection.skipOutboundPorts=all", "at '/injection/skipOutboundPorts'"),
        ("injection.skipOutboundNetworks={10.0.0.0}", "at '/injection/skipOutboundNetworks/0'"),
        ("security.runAsUser=root", "at '/security/runAsUser'"),
        ("admin.clients={spiffe://mesh.local/ns/ops/sa/deploy=king}", "at '/admin/clients/0'"),
        ("gateways[0].name=edge", "at '/gateways/0': missing properties 'namespace', 'ports'"),
        (
            "gateways[0].name=edge,gateways[0].namespace=shop,gateways[0].ports[0].name=a,gateways[0].ports[0].port=80,gateways[0].ports[0].target=15020",
            "the proxy's own",
        ),
        ("networkPolicy.egressPorts={70000}", "at '/networkPolicy/egressPorts/0'"),
        ("serviceMonitor.enabled=true", "serviceMonitor.tokenSecret.name"),
        ("authority.certManager.enabled=true", "authority.secret"),
        ("webhook.certManager.enabled=true", "webhook.certManager.issuer.name"),
        ("webhook.certManager.issuer.kind=Anybody", "at '/webhook/certManager/issuer/kind'"),
        (
            "webhook.certManager.secret=x",
            "at '/webhook/certManager': additional properties 'secret' not allowed",
        ),
        ("webhook.enabled=false,webhook.certManager.enabled=true", "there is no webhook"),
        ("trustDomain=Mesh_Local!", "at '/trustDomain'"),
    ] {
        let ran = chart.helm(&["template", "outrigger"], &["--set", value]);
        assert!(!ran.ok, "{value} is taken");
        assert!(ran.stderr.contains(told), "{value}: {}", ran.stderr);
    }
    let ran = chart.helm(&["template", "outrigger"], &["--kube-version", "1.24.0"]);
    assert!(!ran.ok && ran.stderr.contains("kubeVersion"), "{}", ran.stderr);
}

#[test]
fn the_schema_knows_every_value_and_none_that_is_not_there() {
    let schema: Value = serde_json::from_str(&text("deploy/chart/outrigger/values.schema.json")).unwrap();
    let values = documents(&text("deploy/chart/outrigger/values.yaml")).remove(0);
    let mut wrong = Vec::new();
    agree("", &schema, &values, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each object of the schema is closed, and has the fields that the values have. What is free on purpose (labels, selectors)
/// says of what kind it is.
fn agree(at: &str, schema: &Value, values: &Value, wrong: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] != false {
        wrong.push(format!("{at} is open"));
    }
    let written = values.as_object().cloned().unwrap_or_default();
    for name in written.keys().filter(|name| !properties.contains_key(*name)) {
        wrong.push(format!("{at}/{name} is in values.yaml alone"));
    }
    for (name, schema) in properties {
        let at = format!("{at}/{name}");
        // Helm adds it; and amounts may be left out.
        let left_out = at == "/global" || at.contains("/limits/") || at.contains("/requests/");
        match written.get(name) {
            Some(value) => agree(&at, schema, value, wrong),
            None if left_out => {}
            None => wrong.push(format!("{at} is not told in values.yaml")),
        }
    }
}
