//! Where the endpoints of a service come from.

use std::sync::Arc;

use outrigger_mesh::{DnsTarget, Location, Origination, OutsideRoots, SrvName};

use super::field::{self, Fault};
use super::service::canonical;
use crate::pb;

pub(super) fn to_pb(location: &Location) -> Option<pb::DnsLocation> {
    let Location::Dns { targets, tls, outside } = location else { return None };
    Some(pb::DnsLocation {
        targets: targets.iter().map(target_to_pb).collect(),
        tls: tls.as_ref().map(|tls| pb::Origination {
            server_name: tls.server_name.as_ref().map(ToString::to_string),
            roots: match &tls.roots {
                OutsideRoots::System => Vec::new(),
                OutsideRoots::Only(roots) => roots.iter().map(|r| r.to_vec()).collect(),
            },
        }),
        outside: *outside,
    })
}

pub(super) fn from_pb(dns: Option<pb::DnsLocation>) -> Result<Location, Fault> {
    let Some(dns) = dns else { return Ok(Location::Mesh) };
    Ok(Location::Dns {
        targets: dns.targets.into_iter().map(target_from_pb).collect::<Result<_, _>>()?,
        tls: dns.tls.map(origination_from_pb).transpose()?,
        outside: dns.outside,
    })
}

fn target_to_pb(target: &DnsTarget) -> pb::DnsTarget {
    use pb::dns_target::Target;
    let (target, port) = match target {
        DnsTarget::Host { name, port } => (Target::Host(name.to_string()), *port),
        DnsTarget::Srv(name) => (Target::Srv(name.to_string()), None),
        DnsTarget::Address { ip, port } => (Target::Address(field::ip_to_pb(*ip)), *port),
    };
    pb::DnsTarget { target: Some(target), port: port.map(|p| p.get().into()) }
}

fn target_from_pb(target: pb::DnsTarget) -> Result<DnsTarget, Fault> {
    use pb::dns_target::Target;
    let port = target.port.map(field::port_number).transpose()?;
    Ok(match target.target.ok_or_else(|| Fault::missing("a DNS target"))? {
        Target::Host(name) => DnsTarget::Host { name: canonical(&name)?, port },
        Target::Address(ip) => DnsTarget::Address { ip: field::ip_from_pb(&ip)?, port },
        Target::Srv(_) if port.is_some() => return Err(Fault::new("an SRV target has a port of its own")),
        Target::Srv(name) => {
            let srv = SrvName::new(&name).map_err(Fault::new)?;
            if srv.as_str() != name {
                return Err(Fault::new(format!("SRV name {name:?} is not written as {srv}")));
            }
            DnsTarget::Srv(srv)
        }
    })
}

fn origination_from_pb(tls: pb::Origination) -> Result<Origination, Fault> {
    if tls.roots.iter().any(Vec::is_empty) {
        return Err(Fault::missing("a root"));
    }
    let roots: Vec<Arc<[u8]>> = tls.roots.into_iter().map(Arc::from).collect();
    Ok(Origination {
        server_name: tls.server_name.as_deref().map(canonical).transpose()?,
        roots: if roots.is_empty() { OutsideRoots::System } else { OutsideRoots::Only(roots) },
    })
}
