//! Whether what holds for the mesh as a whole agrees with itself and with what is there.

use outrigger_mesh::{AccessDefault, Hostname, IpRange, MeshSettings, OutboundMode, Trust};

use super::grants::{self, Grant};
use super::settings::{self, Scope};
use super::{Found, access_policy, federation};
use crate::spec::{self, Code, MeshDefaults, Object, PolicySettings, Problem};
use crate::world::World;

/// Settings of the mesh that hold.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedDefaults {
    /// As every sidecar will see them.
    pub settings: MeshSettings,
    /// What holds for the traffic of every service that says nothing else.
    pub policy: Option<PolicySettings>,
    /// What becomes of requests of which no access policy says anything.
    pub access: AccessDefault,
    /// Who may have host names outside the own namespace.
    pub(crate) grants: Vec<Grant>,
    /// The roots of other trust domains.
    pub(crate) trusted: Vec<Trust>,
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
    let mut mesh = MeshSettings::new(world.trust_domain().clone());
    mesh.outbound_mode = match spec.outbound_mode {
        None | Some(spec::OutboundMode::AllowAny) => OutboundMode::AllowAny,
        Some(spec::OutboundMode::RegistryOnly) => OutboundMode::RegistryOnly,
    };
    for (i, text) in spec.address_ranges.iter().enumerate() {
        let pointer = format!("/spec/addressRanges/{i}");
        match text.parse::<IpRange>() {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, e.to_string())),
            Ok(range) if mesh.ranges.contains(&range) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{range} is there already")));
            }
            Ok(range) if range.prefix() == 0 => {
                let message =
                    format!("{range} is every address there is, so nothing outside could be reached");
                found.add(Problem::error(pointer, Code::Contradiction, message));
            }
            Ok(range) => mesh.ranges.push(range),
        }
    }
    for (i, text) in spec.suffixes.iter().enumerate() {
        let pointer = format!("/spec/suffixes/{i}");
        match Hostname::new(text) {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, e.to_string())),
            Ok(suffix) if mesh.suffixes.contains(&suffix) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{suffix} is there already")));
            }
            Ok(suffix) => mesh.suffixes.push(suffix),
        }
    }
    for entry in world.services().filter(|e| e.checked.service().location.is_outside()) {
        for host in entry.checked.service().hostnames.iter().filter(|h| mesh.owns(h)) {
            let message = format!(
                "the egress service {} has the host {host}, which would be the mesh's",
                entry.checked.name()
            );
            found.add(Problem::error("/spec/suffixes", Code::Conflict, message));
        }
    }
    if let Some(policy) = &spec.traffic_policy {
        settings::check("/spec/trafficPolicy", policy, Scope::Mesh, world, found);
    }
    let access = access_policy::default_of(spec.access);
    let grants = grants::check(&spec.hostname_grants, found);
    let trusted = federation::check(&spec.trusted_domains, world, found);
    (!found.is_fatal()).then(|| CheckedDefaults {
        settings: mesh,
        trusted,
        grants,
        policy: spec.traffic_policy.clone(),
        access,
    })
}
