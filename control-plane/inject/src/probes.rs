//! The kubelet's questions to an application, which come from the node without mutual TLS: the sidecar answers them at its
//! health port, asking the application itself. Questions by `exec` need no help.
//!
//! A probe keeps its times and thresholds; only whom it asks changes. What it asked goes into two tables: one for the sidecar,
//! with names of ports as numbers, and one for the status annotation, as it was written.

use serde_json::{Map, Value, json};

use crate::decision::Warning;
use crate::json::{as_object, list, list_in, member, object_in, text};
use crate::values::Ports;

/// Paths of the health port at which the sidecar asks the application.
const PREFIX: &str = "/app-health/";

/// What was rewritten.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rewritten {
    /// By path, for the sidecar.
    pub(crate) table: Map<String, Value>,
    /// By container and field, as it was.
    pub(crate) originals: Map<String, Value>,
}

/// Questions of the kubelet: the field of the container, and the last part of the path.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
/// Questions at the beginning and the end of a container, in its field `lifecycle`.
const HOOKS: [(&str, &str); 2] = [("postStart", "poststart"), ("preStop", "prestop")];
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// As long as a start may be waited for, in seconds.
const POST_START: u64 = 60;
const MOST_SECONDS: u64 = 3600;

/// Where and how probes are rewritten.
pub(crate) struct Rewriter<'a> {
    pub(crate) health: u16,
    /// Ports that are not redirected: their probes reach the application by themselves.
    pub(crate) skipped: &'a Ports,
    /// How long the pod may take to end, in seconds.
    pub(crate) grace: u64,
    /// Whether the sidecar runs before the initial containers do.
    pub(crate) native: bool,
}

/// A question of one container.
struct Question<'a> {
    container: &'a str,
    field: &'a str,
    last: &'a str,
    ports: &'a [Value],
    seconds: u64,
}

impl Rewriter<'_> {
    /// Rewrites the probes of all containers of `spec`.
    pub(crate) fn rewrite(&self, spec: &mut Map<String, Value>, warnings: &mut Vec<Warning>) -> Rewritten {
        let mut rewritten = Rewritten::default();
        for part in ["initContainers", "containers"] {
            if spec.get(part).is_none_or(|value| !value.is_array()) {
                continue;
            }
            for container in list_in(spec, part) {
                if part == "initContainers" && !self.native {
                    // They begin before the sidecar does, so nobody would answer.
                    warn_of_early(container, warnings);
                    continue;
                }
                self.rewrite_container(container, &mut rewritten, warnings);
            }
        }
        rewritten
    }

    fn rewrite_container(&self, container: &mut Value, into: &mut Rewritten, warnings: &mut Vec<Warning>) {
        let name = text(container, "name").unwrap_or_default().to_owned();
        let ports = list(container, "ports").to_vec();
        let members = as_object(container);
        for (field, last) in PROBES {
            let Some(Value::Object(probe)) = members.get_mut(field) else { continue };
            let seconds = probe.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(1);
            let question = Question { container: &name, field, last, ports: &ports, seconds };
            self.rewrite_handler(probe, &question, into, warnings);
        }
        let Some(Value::Object(lifecycle)) = members.get_mut("lifecycle") else { return };
        for (field, last) in HOOKS {
            let Some(Value::Object(hook)) = lifecycle.get_mut(field) else { continue };
            let seconds = if field == "postStart" { POST_START } else { self.grace };
            let question = Question { container: &name, field, last, ports: &ports, seconds };
            self.rewrite_handler(hook, &question, into, warnings);
        }
    }

    fn rewrite_handler(
        &self,
        holder: &mut Map<String, Value>,
        question: &Question<'_>,
        into: &mut Rewritten,
        warnings: &mut Vec<Warning>,
    ) {
        let Question { container, field, last, ports, seconds } = *question;
        let handlers = HANDLERS.into_iter().filter(|kind| holder.get(*kind).is_some_and(Value::is_object));
        let (Some(kind), 1) = (handlers.clone().next(), handlers.count()) else { return };
        let Some(handler) = holder.get(kind) else { return };
        // A host of its own is asked there, not here.
        if text(handler, "host").is_some_and(|host| !host.is_empty()) {
            return;
        }
        let Some(port) = resolve(handler, ports) else {
            let message =
                format!("the port of {container}'s {field} is unknown: the probe stays as it is, and fails");
            warnings.push(Warning { code: "unknown_probe_port", message });
            return;
        };
        if self.skipped.contains(port) {
            return;
        }
        let path = format!("{PREFIX}{container}/{last}");
        into.table.insert(path.clone(), entry(kind, handler, port, seconds.clamp(1, MOST_SECONDS)));
        object_in(&mut into.originals, container).insert(field.to_owned(), json!({ kind: handler }));
        holder.shift_remove(kind);
        holder.insert("httpGet".to_owned(), json!({"path": path, "port": self.health, "scheme": "HTTP"}));
    }
}

/// What the sidecar has to know to ask.
fn entry(kind: &str, handler: &Value, port: u16, seconds: u64) -> Value {
    match kind {
        "httpGet" => {
            let pair = |header: &Value| {
                Some(json!([text(header, "name")?, text(header, "value").unwrap_or_default()]))
            };
            let headers: Vec<Value> = list(handler, "httpHeaders").iter().filter_map(pair).collect();
            let path = text(handler, "path").unwrap_or("/");
            let tls = text(handler, "scheme") == Some("HTTPS");
            json!({"http": {"port": port, "path": path, "tls": tls, "headers": headers}, "seconds": seconds})
        }
        "grpc" => {
            let service = text(handler, "service").unwrap_or_default();
            json!({"grpc": {"port": port, "service": service}, "seconds": seconds})
        }
        _ => json!({"tcp": {"port": port}, "seconds": seconds}),
    }
}

/// The number of the port that a handler names.
fn resolve(handler: &Value, ports: &[Value]) -> Option<u16> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    match member(handler, "port")? {
        Value::String(name) => {
            let named = ports.iter().find(|port| text(port, "name") == Some(name));
            let named = named.and_then(|port| port.get("containerPort")).and_then(number);
            // The kubelet takes a number in quotes, too.
            named.or_else(|| name.parse().ok().filter(|n| *n > 0))
        }
        value => number(value),
    }
}

/// Puts what a probe asked back in its place, if it is still ours that stands there.
pub(crate) fn restore(spec: &mut Map<String, Value>, originals: &Map<String, Value>) {
    for part in ["initContainers", "containers"] {
        if spec.get(part).is_none_or(|value| !value.is_array()) {
            continue;
        }
        for container in list_in(spec, part) {
            let name = text(container, "name").unwrap_or_default().to_owned();
            if let Some(Value::Object(fields)) = originals.get(&name) {
                restore_container(as_object(container), fields);
            }
        }
    }
}

fn restore_container(members: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (field, handler) in fields {
        let holder = if HOOKS.iter().any(|(hook, _)| hook == field) {
            members.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(field))
        } else {
            members.get_mut(field)
        };
        if let (Some(Value::Object(holder)), Value::Object(handler)) = (holder, handler)
            && is_ours(holder)
        {
            holder.shift_remove("httpGet");
            holder.extend(handler.clone());
        }
    }
}

fn is_ours(holder: &Map<String, Value>) -> bool {
    let path = holder.get("httpGet").and_then(|get| text(get, "path"));
    path.is_some_and(|path| path.starts_with(PREFIX))
}

fn warn_of_early(container: &Value, warnings: &mut Vec<Warning>) {
    let probed = PROBES.iter().any(|(field, _)| member(container, field).is_some());
    let asked = probed || member(container, "lifecycle").is_some();
    if text(container, "restartPolicy") == Some("Always") && asked {
        let name = text(container, "name").unwrap_or_default();
        let message = format!(
            "{name} begins before the sidecar, so its probes stay as they are, and fail where mutual TLS is wanted: use \
             native sidecars"
        );
        warnings.push(Warning { code: "early_probes", message });
    }
}
