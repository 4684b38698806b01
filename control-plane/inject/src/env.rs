//! The environment of the two containers, by which they are told everything.

use serde_json::{Value, json};

use crate::Settings;
use crate::json::texts;
use crate::options::Options;
use crate::ports::{ADMIN, INBOUND, OUTBOUND, SidecarPorts};
use crate::service::Served;
use crate::telemetry;
use crate::volumes::{IDENTITY_AT, ROOTS_AT, TOKEN_AT};

/// What only the injection may set.
pub(crate) const RESERVED: [&str; 26] = [
    "OUTRIGGER_PROXY_SERVICE",
    "OUTRIGGER_PROXY_NAMESPACE",
    "OUTRIGGER_PROXY_SERVICE_ACCOUNT",
    "OUTRIGGER_PROXY_VERSION",
    "OUTRIGGER_PROXY_PORT",
    "OUTRIGGER_PROXY_SERVICE_PORT",
    "OUTRIGGER_PROXY_INBOUND_MAP",
    "OUTRIGGER_PROXY_OPAQUE_PORTS",
    "OUTRIGGER_PROXY_APP_IP",
    "OUTRIGGER_PROXY_ADVERTISE",
    "OUTRIGGER_PROXY_LABELS",
    "OUTRIGGER_PROXY_CONTROL",
    "OUTRIGGER_PROXY_TRUST_DOMAIN",
    "OUTRIGGER_PROXY_KUBERNETES_TOKEN_FILE",
    "OUTRIGGER_PROXY_CONTROL_ROOTS",
    "OUTRIGGER_PROXY_DATA",
    "OUTRIGGER_PROXY_TRANSPARENT",
    "OUTRIGGER_PROXY_OUTBOUND",
    "OUTRIGGER_PROXY_INBOUND",
    "OUTRIGGER_PROXY_ADMIN",
    "OUTRIGGER_PROXY_ENDED_BY_APPLICATION",
    "OUTRIGGER_PROXY_HEALTH",
    "OUTRIGGER_PROXY_DNS",
    "OUTRIGGER_PROXY_APP_PROBES",
    "OUTRIGGER_PROXY_APP_METRICS",
    "OUTRIGGER_PROXY_LOG",
];

/// Labels that differ from pod to pod of one workload, or that come only when a pod is placed: no route asks for them, and
/// they would make each copy of a pod another.
const FLEETING: [&str; 11] = [
    "pod-template-hash",
    "pod-template-generation",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "kubernetes.io/hostname",
    "outrigger.dev/injected",
];

/// Everything from which the environments are made.
pub(crate) struct Told<'a> {
    pub(crate) metadata: &'a Value,
    pub(crate) settings: &'a Settings,
    pub(crate) options: &'a Options,
    pub(crate) ports: &'a SidecarPorts,
    /// The service; without one, what arrives does not come by the sidecar.
    pub(crate) served: Option<&'a Served>,
    pub(crate) probes: Option<String>,
    pub(crate) metrics: Option<String>,
    /// How long the pod may take to end, in seconds.
    pub(crate) grace: u64,
    /// Whether it is to end by itself.
    pub(crate) is_job: bool,
}

impl Told<'_> {
    /// The sidecar's.
    pub(crate) fn proxy(&self) -> Vec<Value> {
        let mut env = Env(Vec::new());
        env.field("OUTRIGGER_PROXY_NAMESPACE", "metadata.namespace");
        env.field("OUTRIGGER_PROXY_SERVICE_ACCOUNT", "spec.serviceAccountName");
        env.field("OUTRIGGER_POD_NAME", "metadata.name");
        env.field("OUTRIGGER_POD_UID", "metadata.uid");
        env.field("OUTRIGGER_NODE_NAME", "spec.nodeName");
        // The application listens where Kubernetes sends to: what is on loopback alone stays closed.
        env.field("OUTRIGGER_PROXY_APP_IP", "status.podIP");
        env.set("OUTRIGGER_PROXY_CONTROL", &self.settings.control);
        env.set("OUTRIGGER_PROXY_TRUST_DOMAIN", &self.settings.trust_domain);
        env.set("OUTRIGGER_PROXY_KUBERNETES_TOKEN_FILE", &format!("{TOKEN_AT}/token"));
        env.set("OUTRIGGER_PROXY_CONTROL_ROOTS", &format!("{ROOTS_AT}/roots.pem"));
        env.set("OUTRIGGER_PROXY_DATA", &format!("{IDENTITY_AT}/data"));
        env.set("OUTRIGGER_PROXY_TRANSPARENT", "redirect");
        env.set("OUTRIGGER_PROXY_HEALTH", &format!("[::]:{}", self.ports.health));
        env.set("OUTRIGGER_PROXY_LOG", &self.options.log_level);
        self.listens(&mut env);
        if let Some(served) = self.served {
            self.serves(served, &mut env);
        }
        if self.is_job && !self.options.native {
            env.set("OUTRIGGER_PROXY_ENDED_BY_APPLICATION", "true");
        }
        env.maybe("OUTRIGGER_PROXY_LABELS", labels(self.metadata).as_deref());
        env.maybe("OUTRIGGER_PROXY_APP_PROBES", self.probes.as_deref());
        env.maybe("OUTRIGGER_PROXY_APP_METRICS", self.metrics.as_deref());
        if self.options.env.values().any(|value| value.contains(telemetry::NODE)) {
            env.field("OUTRIGGER_HOST_IP", "status.hostIP");
        }
        let more = self.options.env.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str()));
        for (name, value) in more {
            // As people write them: here `$(NAME)` means what Kubernetes makes of it.
            env.0.push(json!({"name": name, "value": value}));
        }
        env.0
    }

    fn listens(&self, env: &mut Env) {
        let SidecarPorts { outbound, inbound, admin, dns, .. } = *self.ports;
        if outbound != OUTBOUND {
            env.set("OUTRIGGER_PROXY_OUTBOUND", &format!("127.0.0.1:{outbound}"));
        }
        if inbound != INBOUND {
            env.set("OUTRIGGER_PROXY_INBOUND", &format!("0.0.0.0:{inbound}"));
        }
        if admin != ADMIN {
            env.set("OUTRIGGER_PROXY_ADMIN", &format!("127.0.0.1:{admin}"));
        }
        if self.settings.dns {
            env.set("OUTRIGGER_PROXY_DNS", &format!("127.0.0.1:{dns}"));
        }
    }

    fn serves(&self, served: &Served, env: &mut Env) {
        env.set("OUTRIGGER_PROXY_SERVICE", &served.name);
        env.set("OUTRIGGER_PROXY_PORT", &served.first.application.to_string());
        env.field("OUTRIGGER_PROXY_ADVERTISE", "status.podIP");
        env.maybe("OUTRIGGER_PROXY_SERVICE_PORT", served.first.service.map(|p| p.to_string()).as_deref());
        let mapped = served.more.iter().zip(&self.ports.mapped).filter_map(|(port, listen)| {
            let service = port.service?;
            Some(format!("{listen}={service}:{}", port.application))
        });
        let mapped: Vec<String> = mapped.collect();
        if !mapped.is_empty() {
            env.set("OUTRIGGER_PROXY_INBOUND_MAP", &mapped.join(","));
        }
        let opaque = &self.options.opaque_ports;
        env.maybe(
            "OUTRIGGER_PROXY_OPAQUE_PORTS",
            (!opaque.is_empty()).then(|| opaque.to_string()).as_deref(),
        );
        env.maybe("OUTRIGGER_PROXY_VERSION", self.version().as_deref());
    }

    /// What the annotation says, else the usual labels.
    fn version(&self) -> Option<String> {
        let label = |wanted: &str| {
            let found = texts(self.metadata, "labels").find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value).filter(|value| crate::values::version(value).is_ok())
        };
        let labelled = || label("app.kubernetes.io/version").or_else(|| label("version")).map(str::to_owned);
        self.options.version.clone().or_else(labelled)
    }

    /// The redirection's.
    pub(crate) fn init(&self) -> Vec<Value> {
        let (mut env, inbound) = (Env(Vec::new()), self.served.is_some());
        env.set("OUTRIGGER_INIT_PROXY_UID", &self.options.uid.to_string());
        env.set("OUTRIGGER_INIT_OUTBOUND_PORT", &self.ports.outbound.to_string());
        env.set("OUTRIGGER_INIT_INBOUND_PORT", &self.ports.inbound.to_string());
        env.set("OUTRIGGER_INIT_OWN_PORTS", &self.ports.own());
        env.set("OUTRIGGER_INIT_INBOUND_MODE", if inbound { "redirect" } else { "off" });
        if self.settings.dns {
            env.set("OUTRIGGER_INIT_DNS", "true");
            env.set("OUTRIGGER_INIT_DNS_PORT", &self.ports.dns.to_string());
        }
        let (arriving, leaving) = (&self.options.skip_inbound_ports, &self.options.skip_outbound_ports);
        if inbound && !arriving.is_empty() {
            env.set("OUTRIGGER_INIT_SKIP_INBOUND_PORTS", &arriving.to_string());
        }
        if !leaving.is_empty() {
            env.set("OUTRIGGER_INIT_SKIP_OUTBOUND_PORTS", &leaving.to_string());
        }
        if !self.options.skip_outbound_networks.is_empty() {
            env.set("OUTRIGGER_INIT_SKIP_OUTBOUND_NETWORKS", &self.options.skip_outbound_networks);
        }
        env.0
    }
}

/// Variables in the order in which they are set.
struct Env(Vec<Value>);

impl Env {
    /// A value as it is: Kubernetes would replace `$(NAME)`.
    fn set(&mut self, name: &str, value: &str) {
        self.0.push(json!({"name": name, "value": value.replace("$(", "$$(")}));
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// A field of the pod as it will be.
    fn field(&mut self, name: &str, path: &str) {
        self.0
            .push(json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}));
    }
}

/// The pod's labels, in order of their names, as the sidecar takes them.
fn labels(metadata: &Value) -> Option<String> {
    let good = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let named = |name: &str| (1..=317).contains(&name.len()) && good(&name.replace('/', ""));
    let mut all: Vec<String> = texts(metadata, "labels")
        .filter(|(name, value)| !FLEETING.contains(name) && named(name) && value.len() <= 63 && good(value))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    all.sort_unstable();
    (!all.is_empty()).then(|| all.join(","))
}
