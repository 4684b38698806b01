//! Whether what holds for the mesh as a whole agrees with itself and with what is there.

use outrigger_mesh::{Hostname, IpRange, MeshSettings, OutboundMode};

use super::Found;
use crate::spec::{self, Code, MeshDefaults, Object, Problem};
use crate::world::World;

/// Settings of the mesh that hold.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedDefaults {
    /// As every sidecar will see them.
    pub settings: MeshSettings,
}

/// The one name that such an object may have, and its namespace.
const NAME: (&str, &str) = ("outrigger", "mesh");

pub(super) fn check(
    object: &Object,
    spec: &MeshDefaults,
    world: &World,
    found: &mut Found,
) -> Option<CheckedDefaults> {
    let (namespace, name) = NAME;
    let metadata = &object.metadata;
    if (metadata.namespace.as_str(), metadata.name.as_str()) != NAME {
        let message = format!("there is one MeshDefaults, {namespace}/{name}");
        let problem = Problem::error("/metadata/name", Code::BadValue, message);
        found.add(problem.hint(format!("write name: {name} and namespace: {namespace}")));
        return None;
    }
    let mut settings = MeshSettings::new(world.trust_domain().clone());
    settings.outbound_mode = match spec.outbound_mode {
        None | Some(spec::OutboundMode::AllowAny) => OutboundMode::AllowAny,
        Some(spec::OutboundMode::RegistryOnly) => OutboundMode::RegistryOnly,
    };
    for (i, text) in spec.address_ranges.iter().enumerate() {
        let pointer = format!("/spec/addressRanges/{i}");
        match text.parse::<IpRange>() {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, e.to_string())),
            Ok(range) if settings.ranges.contains(&range) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{range} is there already")));
            }
            Ok(range) if range.prefix() == 0 => {
                let message =
                    format!("{range} is every address there is, so nothing outside could be reached");
                found.add(Problem::error(pointer, Code::Contradiction, message));
            }
            Ok(range) => settings.ranges.push(range),
        }
    }
    for (i, text) in spec.suffixes.iter().enumerate() {
        let pointer = format!("/spec/suffixes/{i}");
        match Hostname::new(text) {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, e.to_string())),
            Ok(suffix) if settings.suffixes.contains(&suffix) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{suffix} is there already")));
            }
            Ok(suffix) => settings.suffixes.push(suffix),
        }
    }
    for entry in world.services().filter(|e| e.checked.service().location.is_outside()) {
        for host in entry.checked.service().hostnames.iter().filter(|h| settings.owns(h)) {
            let message = format!(
                "the egress service {} has the host {host}, which would be the mesh's",
                entry.checked.name()
            );
            found.add(Problem::error("/spec/suffixes", Code::Conflict, message));
        }
    }
    (!found.is_fatal()).then_some(CheckedDefaults { settings })
}
