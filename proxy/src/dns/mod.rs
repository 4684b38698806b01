//! Names: services whose endpoints name servers tell, and names of the mesh told to applications.
//!
//! [`resolve`] keeps the endpoints of services found by name, out of what [`names`] makes of answers; [`servers`] are
//! the name servers asked. Everything here runs beside the data path, never on a worker: a request reads what was found
//! as it reads pushed endpoints.
//!
//! Deliberately elsewhere: what was found lies in `config::registry`; connections to a host of both families of
//! addresses are made in `attempt`; what a server outside the mesh has to prove is in `config::outside`.

pub mod counters;
pub mod names;
pub mod resolve;
pub mod servers;

use std::sync::Arc;

use crate::config::registry::Registry;
use crate::live::{Live, OwnPorts};
use crate::settings::DnsSettings;

/// Everything of names that a sidecar runs, for as long as it does.
pub fn start(
    settings: &DnsSettings,
    registry: &Arc<Registry>,
    live: &Arc<Live>,
    own_ports: &OwnPorts,
) -> impl Future<Output = ()> + Send + use<> {
    let client = match servers::Servers::new(&settings.servers) {
        Ok(servers) => servers.client(),
        Err(why) => {
            tracing::warn!(why, "no name server is known: services found by name have no endpoints");
            servers::Client::of_nobody(why)
        }
    };
    resolve::Resolve::new(client, Arc::clone(registry), Arc::clone(live), own_ports.clone()).run()
}
