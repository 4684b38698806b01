//! The edge of the mesh: a proxy that terminates public TLS, has no application behind it, and calls the mesh with its
//! own identity.
//!
//! `ports` follows the pushed Gateway and opens and closes ports; `table` is what requests read; `serve` is the way of a
//! connection and a request; `forwarded` is what a request from outside may not say of itself, and what is said instead.
//! What happens once a service is chosen (deadline, retries, balancing, mutual TLS) is the same as for an application's
//! calls: [`crate::request::stack`].

pub mod forwarded;
pub mod ports;
pub mod serve;
pub mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use arc_swap::ArcSwap;
use outrigger_mesh::{IpRange, PortNumber, ServiceName};
use serde_json::{Value, json};

use table::Table;

/// What the operator says of a gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The Gateway to serve.
    pub name: ServiceName,
    /// Where its ports are opened.
    pub ip: IpAddr,
    /// Where a port of the Gateway is opened in place of itself; 0 lets the system choose.
    pub ports: BTreeMap<PortNumber, u16>,
    /// Where its certificates are.
    pub certificates: Option<PathBuf>,
    /// Whose word on where a request came from is taken: proxies before this one.
    pub trusted: Vec<IpRange>,
}

impl GatewaySettings {
    fn address(&self, port: PortNumber) -> SocketAddr {
        SocketAddr::new(self.ip, self.ports.get(&port).copied().unwrap_or(port.get()))
    }
}

/// A gateway, as all workers share it.
#[derive(Debug)]
pub struct Edge {
    /// What the operator says.
    pub settings: GatewaySettings,
    /// What is served, swapped whole.
    pub table: ArcSwap<Table>,
}

impl Edge {
    /// A gateway that serves nothing yet.
    pub fn new(settings: GatewaySettings) -> Self {
        Self { settings, table: ArcSwap::default() }
    }

    /// What is served where, for operators.
    pub fn dump(&self) -> Value {
        let table = self.table.load();
        let port = |(number, open): (&PortNumber, &Result<SocketAddr, String>)| match open {
            Ok(address) => {
                let fault = table.port(*number).and_then(|p| {
                    let nobody = p.tls.as_ref().and_then(|tls| tls.as_ref().err());
                    let all: Vec<&str> = nobody.into_iter().chain(&p.wrong).map(String::as_str).collect();
                    (!all.is_empty()).then(|| all.join("; "))
                });
                json!({"port": number.get(), "open": address.to_string(), "fault": fault})
            }
            Err(why) => json!({"port": number.get(), "open": null, "fault": why}),
        };
        json!({"name": self.settings.name.to_string(), "ports": table.open.iter().map(port).collect::<Vec<_>>()})
    }
}
