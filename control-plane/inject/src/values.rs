//! How single values of annotations and settings are written. An error says what is wrong; the caller knows where.

use std::net::IpAddr;

use serde_json::Value;

use crate::quantity::Quantity;

/// What is wrong with a value, and how it should be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

pub(crate) fn wrong<T>(message: impl Into<String>, hint: &'static str) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), hint })
}

/// What no value of ours may contain: whoever reads a log or a terminal would be misled.
pub(crate) fn plain(text: &str) -> Result<String, Wrong> {
    if text.len() > MOST_TEXT {
        return wrong(format!("it has {} bytes", text.len()), "at most 4096 bytes are taken");
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => wrong(format!("it contains the control character {c:?}"), "write it without"),
        None => Ok(text.to_owned()),
    }
}

const MOST_TEXT: usize = 4096;

pub(crate) fn boolean(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" | "enabled" => Ok(true),
        "false" | "disabled" => Ok(false),
        _ => wrong(format!("{text:?} is neither true nor false"), "write \"true\" or \"false\", in quotes"),
    }
}

pub(crate) fn port(text: &str) -> Result<u16, Wrong> {
    match text.parse() {
        Ok(port @ 1..) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => wrong(format!("{text:?} is not a port"), "a port is 1 to 65535"),
    }
}

/// Ports and ranges of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(Vec<(u16, u16)>);

impl Ports {
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

pub(crate) fn ports(text: &str) -> Result<Ports, Wrong> {
    const HINT: &str = "write ports and ranges with commas between: 25,6000-6010";
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (port(first.trim()), port(last.trim())) else {
            return wrong(format!("{part:?} is neither a port nor a range of ports"), HINT);
        };
        if first > last {
            return wrong(format!("{part:?} ends before it begins"), HINT);
        }
        found.push((first, last));
    }
    if found.len() > MOST_PARTS {
        return wrong(format!("it has {} parts", found.len()), "at most 64 ports and ranges are taken");
    }
    Ok(Ports(found))
}

const MOST_PARTS: usize = 64;

/// Networks in the form that the redirection takes.
pub(crate) fn networks(text: &str) -> Result<String, Wrong> {
    const HINT: &str = "write networks with commas between: 10.9.0.0/16,fd09::/32";
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    for part in &parts {
        let (address, length) = part.split_once('/').unwrap_or((part, ""));
        let Ok(ip) = address.parse::<IpAddr>() else {
            return wrong(format!("{part:?} is not a network"), HINT);
        };
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let whole = length.is_empty() && !part.contains('/');
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let fits = digits && length.parse::<u8>().is_ok_and(|length| length <= most);
        if !whole && !fits {
            return wrong(format!("{part:?} is not a network: /{length} is no length of 0 to {most}"), HINT);
        }
    }
    if parts.len() > MOST_PARTS {
        return wrong(format!("it has {} networks", parts.len()), "at most 64 networks are taken");
    }
    Ok(parts.join(","))
}

/// A positive quantity. It stays as it was written.
pub(crate) fn quantity(text: &str) -> Result<String, Wrong> {
    match text.parse::<Quantity>() {
        Ok(amount) if amount.is_positive() => Ok(text.to_owned()),
        _ => wrong(
            format!("{text:?} is not a positive quantity"),
            "write it as Kubernetes does: 100m, 0.5, 64Mi",
        ),
    }
}

/// A name of an image, as far as that can be told without a registry.
pub(crate) fn image(text: &str) -> Result<String, Wrong> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let begins = !text.starts_with(['/', ':', '-', '@']);
    if text.is_empty() || text.len() > 512 || !begins || !text.bytes().all(allowed) {
        let hint = "write REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST";
        return wrong(format!("{text:?} is not the name of an image"), hint);
    }
    Ok(text.to_owned())
}

pub(crate) fn pull_policy(text: &str) -> Result<String, Wrong> {
    match text {
        "Always" | "IfNotPresent" | "Never" => Ok(text.to_owned()),
        _ => wrong(format!("{text:?} is no pull policy"), "write Always, IfNotPresent or Never"),
    }
}

/// A user's number. Zero is refused: the redirection lets the sidecar's user pass, and root is everybody's.
pub(crate) fn uid(text: &str) -> Result<u32, Wrong> {
    match text.parse::<u32>() {
        Ok(uid) if uid > 0 && uid <= MOST_UID && text.bytes().all(|b| b.is_ascii_digit()) => Ok(uid),
        _ => wrong(
            format!("{text:?} is not a user's number"),
            "write 1 to 2147483647; root can not be the sidecar's user",
        ),
    }
}

/// Kubernetes takes no larger one.
pub(crate) const MOST_UID: u32 = i32::MAX as u32;

/// A DNS label: the name of a service, a namespace.
pub(crate) fn label(text: &str) -> Result<String, Wrong> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > 63 || ends || !text.bytes().all(allowed) {
        let hint = "lower-case letters, digits and '-', at most 63, are allowed";
        return wrong(format!("{text:?} is not a name"), hint);
    }
    Ok(text.to_owned())
}

/// Several labels joined by dots.
pub(crate) fn dns_name(text: &str) -> Result<String, Wrong> {
    if text.len() > 253 || text.split('.').any(|part| label(part).is_err()) {
        let hint = "labels of lower-case letters, digits and '-' with dots between";
        return wrong(format!("{text:?} is not a DNS name"), hint);
    }
    Ok(text.to_owned())
}

/// A version of a service.
pub(crate) fn version(text: &str) -> Result<String, Wrong> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let inner = |c: char| c.is_ascii_alphanumeric();
    let (first, last) = (text.starts_with(inner), text.ends_with(inner));
    if text.len() > 63 || !first || !last || !text.bytes().all(allowed) {
        let hint = "letters, digits, '-', '_' and '.', at most 63, are allowed";
        return wrong(format!("{text:?} is not a version"), hint);
    }
    Ok(text.to_owned())
}

/// What the sidecar takes for --log: levels, for targets or for all.
pub(crate) fn log_level(text: &str) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const HINT: &str = "write a level (off, error, warn, info, debug, trace), or levels for targets: info,outrigger_proxy=debug";
    let good = |part: &str| {
        let (target, level) = part.split_once('=').unwrap_or(("all", part));
        let named = |b: u8| b.is_ascii_alphanumeric() || b"_:".contains(&b);
        !target.is_empty() && target.bytes().all(named) && LEVELS.contains(&level)
    };
    if text.len() <= 512 && text.split(',').all(good) {
        return Ok(text.to_owned());
    }
    wrong(format!("{text:?} is no log level"), HINT)
}

/// The name of an environment variable.
pub(crate) fn env_name(text: &str) -> Result<String, Wrong> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    if text.is_empty() || text.len() > 256 || digit || !text.bytes().all(allowed) {
        let hint = "letters, digits and '_' are allowed";
        return wrong(format!("{text:?} is no name of an environment variable"), hint);
    }
    Ok(text.to_owned())
}

/// HOST:PORT, several with commas between.
pub(crate) fn addresses(text: &str) -> Result<String, Wrong> {
    const HINT: &str = "write HOST:PORT, several with commas between";
    for part in text.split(',') {
        let Some((host, number)) = part.rsplit_once(':') else {
            return wrong(format!("{part:?} has no port"), HINT);
        };
        port(number)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if bare.parse::<IpAddr>().is_err() && dns_name(host).is_err() {
            return wrong(format!("{host:?} is neither a name nor an address"), HINT);
        }
    }
    Ok(text.to_owned())
}

/// A value of JSON in few words, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_is_taken() {
        assert_eq!(ports("25, 6000-6010").map(|p| p.to_string()), Ok("25,6000-6010".into()));
        assert_eq!(networks("10.0.0.0/8, fd00::/8,1.2.3.4"), Ok("10.0.0.0/8,fd00::/8,1.2.3.4".into()));
        assert!(addresses("outrigger-control.outrigger-system.svc:15010,[fd00::1]:15010").is_ok());
        assert!(
            log_level("info,outrigger_proxy::tcp=debug").is_ok()
                && image("localhost:5000/a/b@sha256:00").is_ok()
        );
    }

    #[test]
    fn what_is_bad_is_refused() {
        for bad in ["", "0", "65536", "9-8", "1,,2", "1-2-3", "+1", "a", "1;2"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "fd00::/129", "10.0.0/8", "10.0.0.0/+8"] {
            assert!(networks(bad).is_err(), "{bad}");
        }
        for bad in ["", "loud", "info,", "=info", "a b=info"] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
        assert!(uid("0").is_err() && uid("2147483648").is_err() && uid("+5").is_err());
        assert!(plain("a\u{1b}[2J").is_err() && plain("a\nb").is_err());
        assert!(env_name("1A").is_err() && env_name("A-B").is_err() && image("a b").is_err());
    }
}
