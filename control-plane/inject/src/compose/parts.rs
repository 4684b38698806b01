//! The services that are added to a Compose file.
//!
//! For each member two: `outrigger-init-NAME` redirects in its network namespace and ends, `outrigger-proxy-NAME` is its sidecar.
//! For all of them `outrigger-control`, and `outrigger-setup`, which tells the control plane of the members and puts a join
//! token into the volume of each sidecar that has no certificate yet, and ends.

use serde_json::{Map, Value, json};

use super::Images;
use super::wish::{Mesh, Port, Wish};

pub(super) const CONTROL: &str = "outrigger-control";
pub(super) const SETUP: &str = "outrigger-setup";
/// The user and group of sidecars.
const PROXY: &str = "15001:15001";
/// Where the sidecar of the first further port listens; each one more is one higher.
const MAPPED: u16 = 15_100;

pub(super) fn init_name(member: &Wish) -> String {
    format!("outrigger-init-{}", member.name)
}

pub(super) fn proxy_name(member: &Wish) -> String {
    format!("outrigger-proxy-{}", member.name)
}

/// The control plane: it must be reached from every network that a member is in.
pub(super) fn control(mesh: &Mesh, members: &[Wish], images: &Images) -> Value {
    let mut networks: Vec<&str> = vec![];
    for member in members {
        let own: Vec<&str> = match member.networks.as_slice() {
            [] => vec!["default"],
            own => own.iter().map(String::as_str).collect(),
        };
        networks.extend(own.into_iter().filter(|n| !networks.contains(n)).collect::<Vec<_>>());
    }
    json!({
        "image": images.control_plane,
        "entrypoint": ["/outrigger-control"],
        "command": [
            "--data=/var/lib/outrigger",
            "--push=[::]:15010",
            format!("--trust-domain={}", mesh.trust_domain),
        ],
        "user": "0:0",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": true,
        "restart": "unless-stopped",
        "networks": networks,
        "volumes": [format!("{CONTROL}:/var/lib/outrigger")],
    })
}

/// It shares the network of the control plane, whose admin API is on loopback.
pub(super) fn setup(mesh: &Mesh, members: &[Wish], images: &Images) -> Value {
    let mut command = vec!["compose-setup".to_owned(), format!("--namespace={}", mesh.namespace)];
    let mut volumes = vec![];
    for member in members {
        let ports: Vec<_> = member.ports.iter().map(written).collect();
        // Several may be one service: the folder is each one's own.
        let name = if member.name == member.service {
            member.name.clone()
        } else {
            format!("{}:{}", member.name, member.service)
        };
        command.push(format!("--member={name}={}", ports.join(",")));
        volumes.push(format!("{}:/identities/{}", proxy_name(member), member.name));
    }
    json!({
        "image": images.control_plane,
        "entrypoint": ["/outrigger"],
        "command": command,
        "user": "0:0",
        "cap_drop": ["ALL"],
        "cap_add": ["CHOWN", "DAC_OVERRIDE"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": true,
        "network_mode": format!("service:{CONTROL}"),
        "volumes": volumes,
        "depends_on": {CONTROL: {"condition": "service_started"}},
    })
}

/// A port as `compose-setup` reads it.
fn written(port: &Port) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("detect");
    let permissive = if port.permissive { "/permissive" } else { "" };
    format!("{}/{protocol}{permissive}", port.number)
}

/// The redirection: before it has ended, the sidecar does not begin.
pub(super) fn init(member: &Wish, images: &Images) -> Value {
    let mut command = vec!["apply".to_owned(), "--dns".to_owned()];
    let mapped: Vec<_> = further(member).map(|(listen, _)| listen.to_string()).collect();
    let arriving: Vec<_> = member.skip_inbound_ports.iter().cloned().chain(mapped).collect();
    if !arriving.is_empty() {
        command.push(format!("--skip-inbound-ports={}", arriving.join(",")));
    }
    if let Some(ports) = &member.skip_outbound_ports {
        command.push(format!("--skip-outbound-ports={ports}"));
    }
    if let Some(networks) = &member.skip_outbound_networks {
        command.push(format!("--skip-outbound-networks={networks}"));
    }
    let mut service = object(json!({
        "image": images.proxy,
        "entrypoint": ["/outrigger-init"],
        "command": command,
        "user": "0:0",
        "cap_drop": ["ALL"],
        "cap_add": ["NET_ADMIN", "NET_RAW"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": true,
        "network_mode": format!("service:{}", member.name),
        "depends_on": {&member.name: {"condition": "service_started", "restart": true}},
    }));
    with_profiles(&mut service, member);
    Value::Object(service)
}

/// The further ports of a member: where its sidecar listens for each.
fn further(member: &Wish) -> impl Iterator<Item = (u16, &Port)> {
    member.ports.iter().skip(1).zip(0..).map(|(port, n)| (MAPPED + n, port))
}

/// The sidecar.
pub(super) fn proxy(mesh: &Mesh, member: &Wish, images: &Images) -> Value {
    let mut environment = object(json!({
        "OUTRIGGER_PROXY_NAMESPACE": mesh.namespace,
        "OUTRIGGER_PROXY_SERVICE_ACCOUNT": member.service,
        "OUTRIGGER_PROXY_CONTROL": format!("{CONTROL}:15010"),
        "OUTRIGGER_PROXY_TRUST_DOMAIN": mesh.trust_domain,
        "OUTRIGGER_PROXY_DATA": "/var/lib/outrigger",
        "OUTRIGGER_PROXY_JOIN_TOKEN_FILE": "/var/lib/outrigger/join-token",
        "OUTRIGGER_PROXY_TRANSPARENT": "redirect",
        "OUTRIGGER_PROXY_DNS": "127.0.0.1:15053",
    }));
    let mut set =
        |key: &str, value: String| environment.insert(format!("OUTRIGGER_PROXY_{key}"), value.into());
    if let Some(first) = member.ports.first() {
        set("SERVICE", member.service.clone());
        set("PORT", first.number.to_string());
        set("SERVICE_PORT", first.number.to_string());
    }
    let maps: Vec<_> =
        further(member).map(|(listen, port)| format!("{listen}={0}:{0}", port.number)).collect();
    if !maps.is_empty() {
        set("INBOUND_MAP", maps.join(","));
    }
    if let Some(ports) = member.opaque_ports.as_ref().filter(|_| !member.ports.is_empty()) {
        set("OPAQUE_PORTS", ports.clone());
    }
    if let Some(version) = &member.version {
        set("VERSION", version.clone());
    }
    if let Some(log) = &member.log {
        set("LOG", log.clone());
    }
    for (variable, value) in &member.telemetry {
        // Compose would take a dollar for the begin of a variable.
        environment.insert((*variable).to_owned(), value.replace('$', "$$").into());
    }
    let mut service = object(json!({
        "image": images.proxy,
        "entrypoint": ["/outrigger-proxy"],
        "environment": environment,
        "user": PROXY,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": true,
        "restart": "unless-stopped",
        "stop_grace_period": "40s",
        "network_mode": format!("service:{}", member.name),
        "volumes": [format!("{}:/var/lib/outrigger", proxy_name(member))],
        "healthcheck": {
            "test": ["CMD", "/outrigger-proxy", "ready"],
            "interval": "2s",
            "timeout": "4s",
            "retries": 60,
        },
        "depends_on": {
            &member.name: {"condition": "service_started", "restart": true},
            init_name(member): {"condition": "service_completed_successfully"},
            SETUP: {"condition": "service_completed_successfully"},
        },
    }));
    with_profiles(&mut service, member);
    Value::Object(service)
}

fn with_profiles(service: &mut Map<String, Value>, member: &Wish) {
    if let Some(profiles) = &member.profiles {
        service.insert("profiles".into(), profiles.clone());
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
