//! The small fields that several resources share.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use outrigger_mesh::{Between, HttpRules, InvalidName, MtlsMode, MtlsModes, PortNumber, Protocol};

use crate::pb;

/// What is wrong with a message, in words for the one who wrote the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl Fault {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn missing(field: &str) -> Self {
        Self(format!("{field} is missing"))
    }

    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<InvalidName> for Fault {
    fn from(error: InvalidName) -> Self {
        Self(error.to_string())
    }
}

/// A name of any kind.
pub(super) fn name<T: FromStr<Err = InvalidName>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(Fault::from)
}

/// An optional name of any kind.
pub(super) fn name_if<T: FromStr<Err = InvalidName>>(text: Option<&str>) -> Result<Option<T>, Fault> {
    text.map(name).transpose()
}

/// An enum's value: 0 is missing, a number without a meaning is from a newer writer.
pub(super) fn value<E: TryFrom<i32>>(field: &'static str, number: i32) -> Result<E, Fault> {
    if number == 0 {
        return Err(Fault::missing(field));
    }
    E::try_from(number)
        .map_err(|_| Fault(format!("{field} has the value {number}, which this version does not know")))
}

pub(super) fn port_number(number: u32) -> Result<PortNumber, Fault> {
    u16::try_from(number)
        .ok()
        .and_then(PortNumber::new)
        .ok_or_else(|| Fault(format!("{number} is not a port")))
}

/// A status of HTTP or gRPC; whether it makes sense there is the resource's own check.
pub(super) fn status(number: u32) -> Result<u16, Fault> {
    u16::try_from(number).map_err(|_| Fault(format!("{number} is not a status")))
}

pub(super) fn protocol_to_pb(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Detect => pb::Protocol::Detect,
        Protocol::Http => pb::Protocol::Http,
        Protocol::Http2 => pb::Protocol::Http2,
        Protocol::Grpc => pb::Protocol::Grpc,
        Protocol::Tcp => pb::Protocol::Tcp,
        Protocol::Tls => pb::Protocol::Tls,
    }
    .into()
}

pub(super) fn protocol_from_pb(number: i32) -> Result<Protocol, Fault> {
    Ok(match value("protocol", number)? {
        pb::Protocol::Unspecified => return Err(Fault::missing("protocol")),
        pb::Protocol::Detect => Protocol::Detect,
        pb::Protocol::Http => Protocol::Http,
        pb::Protocol::Http2 => Protocol::Http2,
        pb::Protocol::Grpc => Protocol::Grpc,
        pb::Protocol::Tcp => Protocol::Tcp,
        pb::Protocol::Tls => Protocol::Tls,
    })
}

pub(super) fn mtls_to_pb(mode: MtlsMode) -> i32 {
    match mode {
        MtlsMode::Strict => pb::MtlsMode::Strict,
        MtlsMode::Permissive => pb::MtlsMode::Permissive,
        MtlsMode::Off => pb::MtlsMode::Off,
    }
    .into()
}

pub(super) fn mtls_from_pb(number: i32) -> Result<MtlsMode, Fault> {
    Ok(match value("mtls", number)? {
        pb::MtlsMode::Unspecified => return Err(Fault::missing("mtls")),
        pb::MtlsMode::Strict => MtlsMode::Strict,
        pb::MtlsMode::Permissive => MtlsMode::Permissive,
        pb::MtlsMode::Off => MtlsMode::Off,
    })
}

pub(super) fn port_mtls_to_pb(modes: &MtlsModes) -> Vec<pb::PortMtls> {
    let port = |(port, mode): &(PortNumber, MtlsMode)| pb::PortMtls {
        port: port.get().into(),
        mtls: mtls_to_pb(*mode),
    };
    modes.ports().iter().map(port).collect()
}

pub(super) fn mtls_modes_from_pb(service: i32, ports: &[pb::PortMtls]) -> Result<MtlsModes, Fault> {
    let port = |port: &pb::PortMtls| Ok((port_number(port.port)?, mtls_from_pb(port.mtls)?));
    let named = ports.iter().map(port).collect::<Result<Vec<_>, Fault>>()?;
    let modes = MtlsModes::new(mtls_from_pb(service)?, named.iter().copied());
    if modes.ports() != named {
        return Err(Fault::new("the modes of its ports are not in order, or one is there without a reason"));
    }
    Ok(modes)
}

pub(super) fn ip_to_pb(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn ip_from_pb(bytes: &[u8]) -> Result<IpAddr, Fault> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| Fault::new(format!("an address has {} bytes, neither 4 nor 16", bytes.len())))
}

pub(super) fn between_to_pb(between: Between) -> i32 {
    match between {
        Between::Auto => pb::Between::Auto,
        Between::Http1 => pb::Between::Http1,
        Between::Http2 => pb::Between::Http2,
    }
    .into()
}

pub(super) fn between_from_pb(number: i32) -> Result<Between, Fault> {
    Ok(match value("between", number)? {
        pb::Between::Unspecified => return Err(Fault::missing("between")),
        pb::Between::Auto => Between::Auto,
        pb::Between::Http1 => Between::Http1,
        pb::Between::Http2 => Between::Http2,
    })
}

/// The defaults, which nearly every service has, cost nothing.
pub(super) fn http_to_pb(http: &HttpRules) -> Option<pb::HttpRules> {
    (*http != HttpRules::default()).then(|| pb::HttpRules {
        upgrades: http.upgrades.iter().map(ToString::to_string).collect(),
        connect: http.connect,
        max_body: http.max_body,
    })
}

pub(super) fn http_from_pb(http: Option<pb::HttpRules>) -> HttpRules {
    http.map_or_else(HttpRules::default, |http| HttpRules {
        upgrades: http.upgrades.into_iter().map(Into::into).collect(),
        connect: http.connect,
        max_body: http.max_body,
    })
}

pub(crate) fn duration_to_pb(duration: Duration) -> pb::Duration {
    pb::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

pub(crate) fn duration_from_pb(duration: pb::Duration) -> Result<Duration, Fault> {
    if duration.nanos >= 1_000_000_000 {
        return Err(Fault::new("a duration has more nanoseconds than a second"));
    }
    Ok(Duration::new(duration.seconds, duration.nanos))
}

/// A duration that must be there.
pub(super) fn duration(field: &'static str, duration: Option<pb::Duration>) -> Result<Duration, Fault> {
    duration_from_pb(duration.ok_or_else(|| Fault::missing(field))?)
}
