//! Rules for text that several kinds share.

use outrigger_mesh::{
    HostPattern, Hostname, HttpRules, IpRange, Label, MeshSettings, SpiffeId, SrvName, Version,
};

use super::duration::Duration;
use super::schema::Shape;
use super::size::Size;

/// The longest name of a route, so that the name of each of its rules fits the bound of a route's name.
pub(super) const MAX_NAME: usize = 200;

/// A DNS label.
pub(super) fn label(text: &str) -> Result<(), String> {
    Label::new(text).map(drop).map_err(|e| e.to_string())
}

/// DNS labels joined by dots, which is what Kubernetes allows as the name of an object.
pub(super) fn object_name(text: &str) -> Result<(), String> {
    if text.len() > MAX_NAME {
        return Err(format!("a name has at most {MAX_NAME} characters, this has {}", text.len()));
    }
    text.split('.').try_for_each(label)
}

/// A service account of the same namespace, or a whole SPIFFE id.
pub(super) fn identity(text: &str) -> Result<(), String> {
    if text.contains(':') {
        text.parse::<SpiffeId>().map(drop).map_err(|e| e.to_string())
    } else {
        label(text)
    }
}

/// A host name.
pub(super) fn hostname(text: &str) -> Result<(), String> {
    Hostname::new(text).map(drop).map_err(|e| e.to_string())
}

/// A version label.
pub(super) fn version(text: &str) -> Result<(), String> {
    Version::new(text).map(drop).map_err(|e| e.to_string())
}

/// The name of a backend, which by its kind is `service` or `service.version`; the check of the route knows the kind.
pub(super) fn backend_name(text: &str) -> Result<(), String> {
    match text.split_once('.') {
        None => label(text),
        Some((service, of)) => label(service).and_then(|()| version(of)),
    }
}

/// A duration longer than zero.
pub(super) fn duration(text: &str) -> Result<(), String> {
    match Duration::parse(text) {
        Ok(d) if d.get().is_zero() => Err("it must be longer than zero; leave it out for the default".into()),
        Ok(_) => Ok(()),
        Err(message) => Err(message),
    }
}

/// A Gateway API duration, zero too.
pub(super) fn any_duration(text: &str) -> Result<(), String> {
    Duration::parse(text).map(drop)
}

/// What a host name of a listener or a route may be.
pub(super) const HOST_PATTERN: Shape =
    Shape::Like(host_pattern, "write a whole name, like www.example.com, or *. and one, like *.example.com");

fn host_pattern(text: &str) -> Result<(), String> {
    text.parse::<HostPattern>().map(drop).map_err(|e| e.to_string())
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<(), String> {
    Size::parse(text).map(drop)
}

/// A share of what is traced.
pub(super) fn share(text: &str) -> Result<(), String> {
    text.parse::<outrigger_mesh::TraceShare>().map(drop)
}

/// The name of an SRV record.
pub(super) fn srv(text: &str) -> Result<(), String> {
    SrvName::new(text).map(drop)
}

/// A protocol to which a connection may be upgraded.
pub(super) fn upgrade(text: &str) -> Result<(), String> {
    let rules = HttpRules { upgrades: vec![text.into()], ..HttpRules::default() };
    rules.check()
}

/// A range of addresses.
pub(super) const RANGE: Shape = Shape::Like(range, "write a network and its length, like 10.42.0.0/16");

fn range(text: &str) -> Result<(), String> {
    text.parse::<IpRange>().map(drop).map_err(|e| e.to_string())
}

/// Certificates in PEM.
pub(super) const PEM: Shape =
    Shape::Like(pem, "write the certificates themselves, from -----BEGIN CERTIFICATE----- on, not a file");

fn pem(text: &str) -> Result<(), String> {
    outrigger_certs::certificates_from_pem(text).map(drop)
}

/// A virtual address of IPv4.
pub(super) fn virtual_address(text: &str) -> Result<(), String> {
    let address: Option<std::net::Ipv4Addr> = text.parse().ok();
    match address.filter(|a| MeshSettings::VIRTUAL_V4.contains((*a).into())) {
        Some(_) => Ok(()),
        None => Err(format!("{text:?} is not an address of {}", MeshSettings::VIRTUAL_V4)),
    }
}

/// An IP address at which something can be reached.
pub(super) fn ip(text: &str) -> Result<(), String> {
    let ip: std::net::IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address; host names are not supported here yet"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("{ip} is not an address at which one instance can be reached"));
    }
    Ok(())
}

/// A path that begins with a slash, in visible ASCII, without query or fragment.
pub(crate) fn path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("the path {text:?} does not begin with '/'"));
    }
    if text.len() > 1024 {
        return Err("a path has at most 1024 characters".into());
    }
    if text.contains("//") || text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(format!(
            "the path {text:?} has an empty, '.' or '..' segment, which no canonical path has"
        ));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#') {
        return Err(format!("the path {text:?} must be visible ASCII without '?' and '#'"));
    }
    Ok(())
}

/// Whether a header says something of one connection or of how a message is framed on it, and ends there.
pub(crate) fn is_of_connection(name: &str) -> bool {
    const OF_CONNECTION: [&str; 10] = [
        "connection",
        "content-length",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    OF_CONNECTION.contains(&name)
}

/// What a path becomes; nothing is the root.
pub(super) fn path_or_none(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { path(text) }
}

/// The group of a kind of objects; that of Kubernetes' own is empty.
pub(super) fn group(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { object_name(text) }
}

/// A kind of objects.
pub(super) fn kind(text: &str) -> Result<(), String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    if plain && begins && text.len() <= 63 {
        Ok(())
    } else {
        Err(format!("{:?} is not a kind", text.chars().take(80).collect::<String>()))
    }
}

/// An origin of browsers: a scheme and a host, in which a wildcard may stand first, and perhaps a port.
pub(super) fn origin(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    let wrong = || format!("{:?} is not an origin", text.chars().take(80).collect::<String>());
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(wrong)?;
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
        return Err(wrong());
    }
    match host.strip_prefix("*.").or_else(|| host.strip_prefix('*')) {
        Some("") => Ok(()),
        Some(rest) => hostname(rest).map_err(|_| wrong()),
        None => hostname(host).map_err(|_| wrong()),
    }
}

/// The name of a header, or all of them.
pub(super) fn header_or_all(text: &str) -> Result<(), String> {
    if text == "*" { Ok(()) } else { header_name(text) }
}

/// The name of a header.
pub(super) fn header_name(text: &str) -> Result<(), String> {
    http::HeaderName::from_bytes(text.as_bytes())
        .map(drop)
        .map_err(|_| format!("{text:?} is not the name of a header"))
}

/// Where a claim of a token stands.
pub(super) fn claim(text: &str) -> Result<(), String> {
    outrigger_mesh::ClaimPath::new(text).map(drop).map_err(|e| e.to_string())
}

/// The value of a header.
pub(super) fn header_value(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 4096 {
        return Err("the value has 1 to 4096 characters".into());
    }
    http::HeaderValue::from_str(text).map(drop).map_err(|_| format!("{text:?} is not the value of a header"))
}

/// 1 to 1024 characters of any kind.
pub(super) fn words(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 1024 { Err("it has 1 to 1024 characters".into()) } else { Ok(()) }
}

/// A web address that is safe to show as a link.
pub(super) fn link(text: &str) -> Result<(), String> {
    let uri: Option<http::Uri> = text.parse().ok();
    match uri.as_ref().map(|u| (u.scheme_str(), u.host())) {
        Some((Some("http" | "https"), Some(_))) => Ok(()),
        _ => Err(format!("{text:?} is not an http or https address")),
    }
}
