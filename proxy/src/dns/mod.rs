//! Names: services whose endpoints name servers tell, and names of the mesh told to applications.
//!
//! [`resolve`] keeps the endpoints of services found by name, out of what [`names`] makes of answers; [`servers`] are
//! the name servers asked; [`outside`] asks them for workers. Everything here runs beside the data path, never on a worker: a request reads what was found
//! as it reads pushed endpoints.
//!
//! [`respond`] answers the questions of applications, out of what [`message`] reads; [`forward`] passes on what is not of
//! the mesh.
//!
//! Deliberately elsewhere: what was found lies in `config::registry`; connections to a host of both families of
//! addresses are made in `attempt`; what a server outside the mesh has to prove is in `config::outside`.

pub mod counters;
pub mod forward;
pub mod message;
pub mod names;
pub mod outside;
pub mod resolve;
pub mod respond;
pub mod servers;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use outrigger_mesh::TrustDomain;

use crate::config::registry::Registry;
use crate::dns::outside::Outside;
use crate::dns::resolve::Resolve;
use crate::dns::respond::{Responder, Sockets};
use crate::live::{Live, OwnPorts};
use crate::settings::DnsSettings;

/// Everything of names that a sidecar runs, for as long as it does. It answers at `sockets`.
pub fn start(
    settings: &DnsSettings,
    registry: &Arc<Registry>,
    live: &Arc<Live>,
    own_ports: &OwnPorts,
    sockets: Vec<Sockets>,
    trust_domain: TrustDomain,
) -> impl Future<Output = ()> + Send + use<> {
    let (registry, live) = (Arc::clone(registry), Arc::clone(live));
    let own: Vec<SocketAddr> = sockets.iter().map(|s| s.address).collect();
    let (client, other, behind) = match servers::Servers::new(&settings.servers) {
        Ok(servers) => (servers.client(), servers.client(), servers.addresses().to_vec()),
        Err(why) => {
            tracing::warn!(why, "no name server is known: services found by name have no endpoints");
            (servers::Client::of_nobody(why.clone()), servers::Client::of_nobody(why), vec![])
        }
    };
    let own_ports = OwnPorts([&own_ports.0[..], &own].concat());
    let resolve = Resolve::new(client, Arc::clone(&registry), Arc::clone(&live), own_ports);
    let responder = Arc::new(Responder::new(registry, Arc::clone(&live), &behind, &own, trust_domain));
    async move {
        let answering = join_all(sockets.into_iter().map(|s| Arc::clone(&responder).run(s)));
        tokio::join!(resolve.run(), answering, Outside::serve(&live, other));
    }
}
