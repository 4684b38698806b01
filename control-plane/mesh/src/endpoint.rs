//! Endpoints: the instances of a service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{InvalidName, Label, PortNumber, ServiceName, Version};

/// The name of one instance, unique in the mesh for as long as it lives. A new process is a new instance.
///
/// 1 to 63 of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointUid(Label);

impl EndpointUid {
    /// Proves `text` to be the name of an instance.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        Label::new(text).map(Self)
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for EndpointUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EndpointUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EndpointUid {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

/// One instance of a service. Pushed as a resource of its own, so that a change to one costs its subscribers
/// one small message, however many there are (docs/decisions/0001-endpoints-one-by-one.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The service it is an instance of.
    pub service: ServiceName,
    /// Its name.
    pub uid: EndpointUid,
    /// The address at which its sidecar listens, or the application itself where it has none.
    pub ip: IpAddr,
    /// Where each port of the service is reached at this instance; never empty.
    pub ports: Arc<[EndpointPort]>,
    /// The subset it belongs to.
    pub version: Option<Version>,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Its share of the traffic relative to the other endpoints of its subset.
    pub weight: Weight,
    /// How it is reached.
    pub transport: Transport,
    /// Whether it takes new requests.
    pub state: EndpointState,
}

impl Endpoint {
    /// Where the service's `port` is reached at this instance. `None` when the instance does not serve that port.
    pub fn address(&self, port: PortNumber) -> Option<SocketAddr> {
        let found = self.ports.iter().find(|p| p.port == port)?;
        Some(SocketAddr::new(self.ip, found.listen.get()))
    }
}

/// One port of a service at one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointPort {
    /// The service's port.
    pub port: PortNumber,
    /// The port where this instance listens for it.
    pub listen: PortNumber,
    /// The port of the application itself, where that is another: callers that know the instance's own address use
    /// it. `None` means the same as `listen`.
    pub target: Option<PortNumber>,
}

impl EndpointPort {
    /// A port of the application, without a sidecar's before it.
    pub fn direct(port: PortNumber, listen: PortNumber) -> Self {
        Self { port, listen, target: None }
    }

    /// The port of the application.
    pub fn application(&self) -> PortNumber {
        self.target.unwrap_or(self.listen)
    }
}

/// How an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Through its sidecar, over mutual TLS.
    Mesh,
    /// Directly, in plaintext. Used only where the service's `mtls` mode allows it.
    Plaintext,
}

/// Whether an endpoint takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointState {
    /// It does.
    Ready,
    /// It finishes what it has.
    Draining,
}

/// A relative share, 1 to 65535; 100 unless set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// `None` for 0: an endpoint that should get nothing is taken out instead.
    pub fn new(weight: u16) -> Option<Self> {
        (weight > 0).then_some(Self(weight))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}
