//! What is to be looked up in place of instances.

use outrigger_mesh::{DnsTarget, Hostname, PortNumber, SrvName};

use super::Found;
use crate::spec::{Code, Problem, Target};
use crate::world::World;

/// The targets that hold, and a problem for each that does not. A name of the mesh is no target: its services are
/// known here, and looking them up would lead in a circle.
pub(super) fn targets(written: &[Target], world: &World, found: &mut Found) -> Vec<DnsTarget> {
    let mut all = vec![];
    for (i, target) in written.iter().enumerate() {
        let pointer = format!("/spec/targets/{i}");
        match one(&pointer, target, world, found) {
            Some(target) if all.contains(&target) => {
                found.add(Problem::error(pointer, Code::Duplicate, "the target is there twice"));
            }
            Some(target) => all.push(target),
            None => {}
        }
    }
    all
}

fn one(pointer: &str, target: &Target, world: &World, found: &mut Found) -> Option<DnsTarget> {
    let mut bad = |at: &str, message: String| {
        found.add(Problem::error(format!("{pointer}{at}"), Code::BadValue, message));
    };
    let port = match target.port.map(PortNumber::new) {
        Some(None) => {
            bad("/port", "a port is a number from 1 to 65535".into());
            return None;
        }
        Some(port) => port,
        None => None,
    };
    match (&target.host, &target.srv, target.address) {
        (Some(text), None, None) => match Hostname::new(text) {
            Ok(name) if world.settings().owns(&name) => {
                bad("/host", format!("{name} is a name of the mesh itself"));
                None
            }
            Ok(name) => Some(DnsTarget::Host { name, port }),
            Err(e) => {
                bad("/host", e.to_string());
                None
            }
        },
        (None, Some(_), None) if port.is_some() => {
            bad("/port", "an SRV record says the port itself; leave it out".into());
            None
        }
        (None, Some(text), None) => SrvName::new(text).map(DnsTarget::Srv).map_err(|e| bad("/srv", e)).ok(),
        (None, None, Some(ip)) if world.settings().contains(ip) => {
            bad("/address", format!("{ip} is an address of the mesh itself"));
            None
        }
        (None, None, Some(ip)) => Some(DnsTarget::Address { ip, port }),
        _ => {
            bad("", "a target has exactly one of host, srv and address".into());
            None
        }
    }
}
