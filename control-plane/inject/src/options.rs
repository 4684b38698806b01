//! What holds for one pod: the operator's settings, over them the annotations of its namespace, over them its own.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::annotations::Annotations;
use crate::decision::Warning;
use crate::env::RESERVED;
use crate::resources::Resources;
use crate::telemetry;
use crate::values::{self, Ports};
use crate::{ANNOTATION_PREFIX, NamespaceFacts, Problem, Settings};

/// Every annotation that a namespace or a pod may have, without `outrigger.dev/`; besides, `env.NAME`.
pub const ANNOTATIONS: [&str; 25] = [
    "native-sidecar",
    "proxy-cpu-request",
    "proxy-cpu-limit",
    "proxy-memory-request",
    "proxy-memory-limit",
    "proxy-image",
    "proxy-image-pull-policy",
    "proxy-uid",
    "log-level",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-outbound-networks",
    "opaque-ports",
    "service",
    "port",
    "version",
    "rewrite-probes",
    "hold-application",
    "scrape",
    "otlp-endpoint",
    "otlp-metrics",
    "otlp-protocol",
    "trace-sample",
    "access-log",
    "access-log-format",
];

/// What holds for one pod, proven.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) native: bool,
    pub(crate) image: String,
    pub(crate) init_image: String,
    pub(crate) pull_policy: String,
    pub(crate) uid: u32,
    pub(crate) log_level: String,
    pub(crate) resources: Resources,
    /// What nobody looks into: the sidecar hears of it here, callers from the control plane, which reads it, too.
    pub(crate) opaque_ports: Ports,
    pub(crate) skip_inbound_ports: Ports,
    pub(crate) skip_outbound_ports: Ports,
    pub(crate) skip_outbound_networks: String,
    pub(crate) service: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) version: Option<String>,
    pub(crate) rewrite_probes: bool,
    pub(crate) hold_application: bool,
    pub(crate) scrape: bool,
    pub(crate) env: BTreeMap<String, String>,
}

impl Options {
    /// Reads them. All mistakes are told at once; what is unknown is a warning, as it may be of a newer version.
    pub(crate) fn read(
        metadata: &Value,
        namespace: &NamespaceFacts,
        settings: &Settings,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, Vec<Problem>> {
        let mut of = Annotations::of(metadata, namespace);
        warn_of_unknown(&of, warnings);
        let image = of.read("proxy-image", values::image);
        // An image of one's own has both programs, as ours has.
        let init_image = image.clone().unwrap_or_else(|| settings.init_image.clone());
        let inbound = of.read("skip-inbound-ports", values::ports);
        let outbound = of.read("skip-outbound-ports", values::ports);
        let networks = of.read("skip-outbound-networks", values::networks);
        let policy = of.read("proxy-image-pull-policy", values::pull_policy);
        let log_level = of.read("log-level", values::log_level);
        let opaque = of.read("opaque-ports", values::ports);
        let options = Self {
            native: native(&mut of, settings),
            image: image.unwrap_or_else(|| settings.image.clone()),
            init_image,
            pull_policy: policy.unwrap_or_else(|| settings.pull_policy.clone()),
            uid: of.read("proxy-uid", values::uid).unwrap_or(settings.proxy_uid),
            log_level: log_level.unwrap_or_else(|| settings.log_level.clone()),
            resources: resources(&mut of, settings),
            opaque_ports: opaque.unwrap_or_default(),
            skip_inbound_ports: inbound.unwrap_or_else(|| settings.skip_inbound_ports.clone()),
            skip_outbound_ports: outbound.unwrap_or_else(|| settings.skip_outbound_ports.clone()),
            skip_outbound_networks: networks.unwrap_or_else(|| settings.skip_outbound_networks.clone()),
            service: of.read("service", values::label),
            port: of.read("port", values::port),
            version: of.read("version", values::version),
            rewrite_probes: of.read("rewrite-probes", values::boolean).unwrap_or(settings.rewrite_probes),
            hold_application: of
                .read("hold-application", values::boolean)
                .unwrap_or(settings.hold_application),
            scrape: of.read("scrape", values::boolean).unwrap_or(settings.scrape),
            env: env(&mut of, settings),
        };
        let problems = of.into_problems();
        if problems.is_empty() { Ok(options) } else { Err(problems) }
    }
}

fn native(of: &mut Annotations<'_>, settings: &Settings) -> bool {
    let asked = of.read("native-sidecar", values::boolean);
    if asked == Some(true) && !settings.has_native() {
        let message =
            "native sidecars need Kubernetes 1.29, and this cluster is older: the pod would never start";
        of.object("native-sidecar", message.into(), "leave it out, or write \"false\"");
    }
    asked.unwrap_or_else(|| settings.native_by_default())
}

fn resources(of: &mut Annotations<'_>, settings: &Settings) -> Resources {
    let mut resources = settings.proxy_resources.clone();
    for (name, resource) in [("proxy-cpu-request", "cpu"), ("proxy-memory-request", "memory")] {
        if let Some(amount) = of.read(name, values::quantity) {
            resources.requests.insert(resource.into(), amount);
        }
    }
    for (name, resource) in [("proxy-cpu-limit", "cpu"), ("proxy-memory-limit", "memory")] {
        if let Some(amount) = of.read(name, values::quantity) {
            resources.limits.insert(resource.into(), amount);
        }
    }
    for resource in resources.above_limit() {
        let limit = resources.limits.get(&resource).map_or("", String::as_str);
        let message = format!("more {resource} is asked for than its limit, {limit}");
        let hint = format!("set {ANNOTATION_PREFIX}proxy-{resource}-request and -limit so that they fit");
        of.object(&format!("proxy-{resource}-request"), message, &hint);
    }
    resources
}

/// Further variables of the sidecar's environment. Those that make it what it is can not be set: an identity or a control
/// plane of somebody else's.
fn env(of: &mut Annotations<'_>, settings: &Settings) -> BTreeMap<String, String> {
    let mut env = settings.env.clone();
    for key in &telemetry::KEYS {
        env.extend(of.read(key.name, key.check).map(|value| (key.variable.to_owned(), value)));
    }
    for name in of.names() {
        let Some(variable) = name.strip_prefix("env.") else { continue };
        let value = of.read(name, |text| Ok(text.to_owned()));
        if let Err(values::Wrong { message, hint }) = values::env_name(variable) {
            of.object(name, message, hint);
        } else if RESERVED.contains(&variable) {
            of.object(name, format!("{variable} is set by the injection"), "leave it out");
        } else if let Some(value) = value {
            env.insert(variable.to_owned(), value);
        }
    }
    env
}

fn warn_of_unknown(of: &Annotations<'_>, warnings: &mut Vec<Warning>) {
    for name in of.names() {
        if ANNOTATIONS.contains(&name) || name.starts_with("env.") || matches!(name, "status" | "undo") {
            continue;
        }
        let meant = match name {
            "inject" => "; it is a label, not an annotation".to_owned(),
            _ => nearest(name).map_or_else(String::new, |known| format!("; {ANNOTATION_PREFIX}{known}?")),
        };
        let message = format!("the annotation {ANNOTATION_PREFIX}{name} is unknown{meant}");
        warnings.push(Warning { code: "unknown_annotation", message });
    }
}

/// The known name that differs from `name` least, if it is by at most three letters.
fn nearest(name: &str) -> Option<&'static str> {
    let near = ANNOTATIONS.iter().map(|known| (distance(name, known), *known)).min()?;
    (near.0 <= 3).then_some(near.1)
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.chars().enumerate() {
            let value = |at: usize, of: &[usize]| of.get(at).copied().unwrap_or(usize::MAX - 1);
            let change = value(j, &row) + usize::from(x != y);
            next.push(change.min(value(j + 1, &row) + 1).min(value(j, &next) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
