//! How single values are written: ports, weights, durations, addresses. An error says how it should have been.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{Feature, Host, PortNumber, Weight};

pub(super) fn port(text: &str) -> Result<PortNumber, String> {
    text.parse().ok().and_then(PortNumber::new).ok_or_else(|| "a port is 1 to 65535".into())
}

pub(super) fn weight(text: &str) -> Result<Weight, String> {
    text.parse().ok().and_then(Weight::new).ok_or_else(|| "a weight is 1 to 65535".into())
}

/// A label as Kubernetes writes one: the name may have a prefix, the value may be empty.
pub(super) fn label(text: &str) -> Result<(Arc<str>, Arc<str>), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, for example tier=canary")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let named = (1..=317).contains(&name.len()) && name.bytes().all(|b| allowed(b) || b == b'/');
    if !named || value.len() > 63 || !value.bytes().all(allowed) {
        return Err(format!("{text:?} is no label: letters, digits, '-', '_' and '.' are allowed"));
    }
    Ok((name.into(), value.into()))
}

pub(super) fn upstream(text: &str) -> Result<(Host, u16), String> {
    let (service, port) = text.split_once('=').ok_or("write it as SERVICE=PORT, for example cart=9001")?;
    let host = service.parse::<Host>().map_err(|e| e.to_string())?;
    Ok((host, port.parse().map_err(|_| format!("{port:?} is not a port"))?))
}

pub(super) fn gateway_port(text: &str) -> Result<(PortNumber, u16), String> {
    let (number, listen) = text.split_once('=').ok_or("write it as PORT=LISTEN, for example 443=8443")?;
    Ok((port(number)?, listen.parse().map_err(|_| format!("{listen:?} is not a port"))?))
}

pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let bad = |_| {
        format!("{text:?} is not the address of a name server: write 10.0.0.2, 10.0.0.2:5353 or [fd00::2]:53")
    };
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, 53)),
        Err(_) => text.parse().map_err(bad),
    }
}

pub(super) fn workload_api(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
    let path = path.filter(|path| path.starts_with('/')).map(PathBuf::from);
    path.ok_or_else(|| format!("{text:?} is not the socket of a Workload API: write unix:/run/agent.sock"))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration: write 500ms, 30s or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(bad)
}

pub(super) fn feature(text: &str) -> Result<Feature, String> {
    Feature::parse(text).ok_or_else(|| format!("{text:?} is not a feature"))
}
