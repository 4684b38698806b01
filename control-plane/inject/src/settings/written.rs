//! Settings as they are written: JSON, each member proven, and every mistake kept with its place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{KubernetesVersion, Settings};
use crate::Problem;
use crate::json::escape;
use crate::resources::Resources;
use crate::telemetry;
use crate::values::{self, MOST_UID, Ports, Wrong, wrong};

pub(super) fn read(written: &Value) -> Result<Settings, Vec<Problem>> {
    let mut reader = Reader { problems: Vec::new() };
    let mut settings = Settings::default();
    match written {
        Value::Object(members) => reader.read(&mut settings, members),
        other => reader.wrong_type("", other, "an object"),
    }
    if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
}

/// Reads members, and keeps what is wrong with them.
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn read(&mut self, settings: &mut Settings, members: &Map<String, Value>) {
        let s = settings;
        for (name, value) in members {
            let at = format!("/{}", escape(name));
            match name.as_str() {
                "image" => self.text(&at, value, values::image, &mut s.image),
                "initImage" => self.text(&at, value, values::image, &mut s.init_image),
                "imagePullPolicy" => self.text(&at, value, values::pull_policy, &mut s.pull_policy),
                "imagePullSecrets" => self.names(&at, value, &mut s.pull_secrets),
                "control" => self.text(&at, value, values::addresses, &mut s.control),
                "controlNamespace" => self.text(&at, value, values::label, &mut s.control_namespace),
                "trustDomain" => self.text(&at, value, values::dns_name, &mut s.trust_domain),
                "tokenAudience" => self.text(&at, value, audience, &mut s.token_audience),
                "tokenSeconds" => self.number(&at, value, (600, 86_400), &mut s.token_seconds),
                "rootsConfigMap" => self.text(&at, value, values::dns_name, &mut s.roots_config_map),
                "nativeSidecar" => self.boolean(&at, value, &mut s.native_sidecar),
                "kubernetesVersion" => self.version(&at, value, &mut s.server_version),
                "proxyUid" => self.number(&at, value, (1, MOST_UID), &mut s.proxy_uid),
                "dns" => self.boolean(&at, value, &mut s.dns),
                "rewriteProbes" => self.boolean(&at, value, &mut s.rewrite_probes),
                "holdApplication" => self.boolean(&at, value, &mut s.hold_application),
                "scrape" => self.boolean(&at, value, &mut s.scrape),
                "logLevel" => self.text(&at, value, values::log_level, &mut s.log_level),
                "resources" => self.both_resources(&at, value, s),
                "skipInboundPorts" => self.listed(&at, value, some_ports, &mut s.skip_inbound_ports),
                "skipOutboundPorts" => self.listed(&at, value, some_ports, &mut s.skip_outbound_ports),
                "skipOutboundNetworks" => {
                    self.listed(&at, value, some_networks, &mut s.skip_outbound_networks);
                }
                "ignoredNamespaces" => self.names(&at, value, &mut s.ignored_namespaces),
                "env" => self.env(&at, value, &mut s.env),
                "telemetry" => self.telemetry(&at, value, &mut s.env),
                _ => self.add(&at, "unknown_setting", format!("there is no setting {name:?}"), HERE),
            }
        }
        // One image has both programs, unless another is named.
        if members.contains_key("image") && !members.contains_key("initImage") {
            s.init_image.clone_from(&s.image);
        }
    }

    fn add(&mut self, pointer: &str, code: &'static str, message: String, hint: &str) {
        self.problems.push(Problem { pointer: pointer.into(), code, message, hint: hint.into() });
    }

    fn wrong_type(&mut self, at: &str, value: &Value, wanted: &str) {
        self.add(at, "wrong_type", format!("it is {}", values::kind(value)), &format!("write {wanted}"));
    }

    fn text<T>(&mut self, at: &str, value: &Value, parse: impl Fn(&str) -> Result<T, Wrong>, into: &mut T) {
        match value.as_str().map(|text| values::plain(text).and_then(|text| parse(&text))) {
            Some(Ok(good)) => *into = good,
            Some(Err(Wrong { message, hint })) => self.add(at, "invalid_value", message, hint),
            None => self.wrong_type(at, value, "a text"),
        }
    }

    /// A text with commas, or a list of its parts.
    fn listed<T>(&mut self, at: &str, value: &Value, parse: impl Fn(&str) -> Result<T, Wrong>, into: &mut T) {
        let Some(parts) = value.as_array() else { return self.text(at, value, parse, into) };
        let text = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
        let joined = parts.iter().map(text).collect::<Vec<_>>().join(",");
        self.text(at, &Value::String(joined), parse, into);
    }

    fn boolean(&mut self, at: &str, value: &Value, into: &mut bool) {
        match value.as_bool() {
            Some(good) => *into = good,
            None => self.wrong_type(at, value, "true or false"),
        }
    }

    fn number(&mut self, at: &str, value: &Value, (least, most): (u32, u32), into: &mut u32) {
        let number =
            value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (least..=most).contains(n));
        if let Some(good) = number {
            *into = good;
        } else {
            let hint = format!("write a number of {least} to {most}");
            self.add(at, "invalid_value", "it is no number, or out of range".into(), &hint);
        }
    }

    fn version(&mut self, at: &str, value: &Value, into: &mut Option<KubernetesVersion>) {
        match value.as_str().map(str::parse) {
            Some(Ok(good)) => *into = Some(good),
            _ => self.add(at, "invalid_value", "it is no version of Kubernetes".into(), "write \"1.29\""),
        }
    }

    fn names(&mut self, at: &str, value: &Value, into: &mut Vec<String>) {
        let Some(list) = value.as_array() else { return self.wrong_type(at, value, "a list of names") };
        into.clear();
        for (number, element) in list.iter().enumerate() {
            // Secrets are written as Kubernetes does, too.
            let element = element.get("name").unwrap_or(element);
            let mut name = String::new();
            self.text(&format!("{at}/{number}"), element, values::dns_name, &mut name);
            into.push(name);
        }
    }

    fn env(&mut self, at: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        let Some(members) = value.as_object() else {
            return self.wrong_type(at, value, "an object of texts");
        };
        for (name, value) in members {
            let at = format!("{at}/{}", escape(name));
            if let Err(Wrong { message, hint }) = values::env_name(name) {
                self.add(&at, "invalid_name", message, hint);
            }
            let mut text = String::new();
            self.text(&at, value, |text| Ok(text.to_owned()), &mut text);
            into.insert(name.clone(), text);
        }
    }

    fn telemetry(&mut self, at: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        let Some(members) = value.as_object() else {
            return self.wrong_type(at, value, "an object of texts");
        };
        // Charts write what nobody set as an empty text.
        for (name, value) in members.iter().filter(|(_, value)| value.as_str() != Some("")) {
            let at = format!("{at}/{}", escape(name));
            let Some(key) = telemetry::KEYS.iter().find(|key| key.setting == name) else {
                self.add(&at, "unknown_setting", format!("there is no setting {name:?}"), HERE);
                continue;
            };
            let mut text = String::new();
            self.text(&at, value, key.check, &mut text);
            into.insert(key.variable.to_owned(), text);
        }
    }

    fn both_resources(&mut self, at: &str, value: &Value, settings: &mut Settings) {
        let Some(members) = value.as_object() else {
            return self.wrong_type(at, value, "an object with proxy and init");
        };
        for (name, value) in members {
            let at = format!("{at}/{}", escape(name));
            match name.as_str() {
                "proxy" => self.resources(&at, value, &mut settings.proxy_resources),
                "init" => self.resources(&at, value, &mut settings.init_resources),
                _ => self.add(
                    &at,
                    "unknown_setting",
                    format!("there is no container {name:?}"),
                    "write proxy or init",
                ),
            }
        }
    }

    fn resources(&mut self, at: &str, value: &Value, into: &mut Resources) {
        let Some(members) = value.as_object() else {
            return self.wrong_type(at, value, "an object with requests and limits");
        };
        *into = Resources::default();
        for (part, amounts) in members {
            let at = format!("{at}/{}", escape(part));
            let map = match part.as_str() {
                "requests" => &mut into.requests,
                "limits" => &mut into.limits,
                _ => {
                    self.add(
                        &at,
                        "unknown_setting",
                        format!("there is no {part:?}"),
                        "write requests or limits",
                    );
                    continue;
                }
            };
            self.amounts(&at, amounts, map);
        }
        for name in into.above_limit() {
            let (at, message) = (format!("{at}/requests/{name}"), "more is asked for than its limit");
            self.add(&at, "above_limit", message.into(), "raise the limit");
        }
    }

    fn amounts(&mut self, at: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        let Some(amounts) = value.as_object() else {
            return self.wrong_type(at, value, "an object such as {\"cpu\": \"50m\"}");
        };
        for (resource, amount) in amounts {
            let at = format!("{at}/{}", escape(resource));
            if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                let message = format!("{resource:?} is no resource of a sidecar");
                self.add(&at, "unknown_setting", message, "write cpu or memory");
            }
            let mut text = String::new();
            self.text(&at, amount, values::quantity, &mut text);
            into.insert(resource.clone(), text);
        }
    }
}

const HERE: &str = "see docs/injection.md";

fn audience(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 253 {
        return wrong("an audience has 1 to 253 characters", "write outrigger");
    }
    Ok(text.into())
}

fn some_ports(text: &str) -> Result<Ports, Wrong> {
    if text.is_empty() { Ok(Ports::default()) } else { values::ports(text) }
}

fn some_networks(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Ok(String::new()) } else { values::networks(text) }
}
