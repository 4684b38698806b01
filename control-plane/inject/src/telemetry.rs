//! What can be said of a sidecar's traces, metrics and access lines: as annotations of pods and namespaces, as keys of a Compose
//! file, and for all sidecars in the operator's settings.

use crate::values::{Wrong, wrong};

/// One thing that can be said.
pub(crate) struct Key {
    /// Its name as an annotation, and in a Compose file.
    pub(crate) name: &'static str,
    /// The same among the operator's settings, below `telemetry`.
    pub(crate) setting: &'static str,
    /// The variable by which the sidecar is told.
    pub(crate) variable: &'static str,
    /// Proves a value.
    pub(crate) check: fn(&str) -> Result<String, Wrong>,
}

/// All of them.
pub(crate) const KEYS: [Key; 6] = [
    Key {
        name: "otlp-endpoint",
        setting: "otlpEndpoint",
        variable: "OUTRIGGER_PROXY_OTLP_ENDPOINT",
        check: collector,
    },
    Key {
        name: "otlp-metrics",
        setting: "otlpMetrics",
        variable: "OUTRIGGER_PROXY_OTLP_METRICS",
        check: collector,
    },
    Key {
        name: "otlp-protocol",
        setting: "otlpProtocol",
        variable: "OUTRIGGER_PROXY_OTLP_PROTOCOL",
        check: protocol,
    },
    Key {
        name: "trace-sample",
        setting: "traceSample",
        variable: "OUTRIGGER_PROXY_TRACE_SAMPLE",
        check: share,
    },
    Key {
        name: "access-log",
        setting: "accessLog",
        variable: "OUTRIGGER_PROXY_ACCESS_LOG",
        check: access_log,
    },
    Key {
        name: "access-log-format",
        setting: "accessLogFormat",
        variable: "OUTRIGGER_PROXY_ACCESS_LOG_FORMAT",
        check: format,
    },
];

/// What stands for the address of the pod's node in the URL of a collector.
pub(crate) const NODE: &str = "$(OUTRIGGER_HOST_IP)";

fn collector(text: &str) -> Result<String, Wrong> {
    const HINT: &str = "write http://HOST:PORT or https://HOST:PORT; $(OUTRIGGER_HOST_IP) is the pod's node";
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else { return wrong(format!("{text:?} is no URL of a collector"), HINT) };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = host == NODE
        || address.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
        || (!host.is_empty() && host.bytes().all(named));
    let is_port = port.is_none_or(|port| crate::values::port(port).is_ok());
    let rest_is_path = rest.bytes().all(|b| b.is_ascii_graphic() && !b"?#@\\\"'".contains(&b));
    if is_host && is_port && rest_is_path {
        return Ok(text.to_owned());
    }
    // Not shown: a password may stand in it.
    wrong("it is no URL of a collector", HINT)
}

fn protocol(text: &str) -> Result<String, Wrong> {
    one_of(text, &["grpc", "http"], "write grpc or http")
}

fn access_log(text: &str) -> Result<String, Wrong> {
    one_of(text, &["off", "denied", "all"], "write off, denied or all")
}

fn one_of(text: &str, known: &[&str], hint: &'static str) -> Result<String, Wrong> {
    if known.contains(&text) { Ok(text.to_owned()) } else { wrong(format!("{text:?} is not known"), hint) }
}

fn share(text: &str) -> Result<String, Wrong> {
    let number = text.strip_suffix('%').filter(|number| {
        !number.is_empty() && number.len() <= 8 && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    });
    match number.and_then(|number| number.parse::<f64>().ok()) {
        Some(percent) if percent <= 100.0 => Ok(text.to_owned()),
        _ => wrong(format!("{text:?} is no share"), "write a percentage from 0% to 100%, like 1% or 0.5%"),
    }
}

/// A template's braces and the form of its names; which fields there are is the sidecar's to say, and it says so when it starts.
fn format(text: &str) -> Result<String, Wrong> {
    const HINT: &str = "write json, or a template like {time} {method} {path} {status}; {{ and }} are braces";
    if text == "json" {
        return Ok(text.to_owned());
    }
    let (mut rest, mut fields) = (text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            rest = after;
            continue;
        }
        let Some((name, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) else {
            return wrong(format!("a brace of {text:?} has no other"), HINT);
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            return wrong(format!("{name:?} is no field"), HINT);
        }
        (rest, fields) = (after, fields + 1);
    }
    if fields == 0 { wrong(format!("{text:?} has no field in it"), HINT) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sidecar_would_not_take_is_refused_before_it_is_there() {
        let check = |name: &str, value: &str| {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            (key.check)(value)
        };
        for (name, value) in [
            ("otlp-endpoint", "http://$(OUTRIGGER_HOST_IP):4317"),
            ("otlp-endpoint", "https://otlp.example.com/team-7"),
            ("otlp-endpoint", "http://[::1]:4317"),
            ("otlp-metrics", "http://otel-agent.observability:4318"),
            ("otlp-protocol", "http"),
            ("trace-sample", "0.5%"),
            ("access-log", "all"),
            ("access-log-format", "json"),
            ("access-log-format", "{time} {{{method}}} \"{path}\" {status}"),
        ] {
            assert_eq!(check(name, value).as_deref(), Ok(value), "{name}");
        }
        for (name, value) in [
            ("otlp-endpoint", "otel:4317"),
            ("otlp-endpoint", "http://"),
            ("otlp-endpoint", "http://otel:0"),
            ("otlp-endpoint", "http://me:secret@otel:4317"),
            ("otlp-endpoint", "http://$(OTHER):4317"),
            ("otlp-metrics", "http://otel:4318/?x=1"),
            ("otlp-protocol", "thrift"),
            ("trace-sample", "1"),
            ("trace-sample", "101%"),
            ("trace-sample", "NaN%"),
            ("access-log", "some"),
            ("access-log-format", "nothing"),
            ("access-log-format", "{time"),
            ("access-log-format", "{Time}"),
            ("access-log-format", "time}"),
        ] {
            let why = check(name, value).unwrap_err();
            assert!(!why.hint.is_empty() && !why.message.contains("secret"), "{name} {value}: {why:?}");
        }
    }
}
