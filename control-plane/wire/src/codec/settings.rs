//! `Mesh`: what holds for the mesh as a whole.

use outrigger_mesh::{IpRange, MeshSettings, OutboundMode};

use super::field::{self, Fault};
use super::service::canonical;
use crate::pb;

pub(super) fn to_pb(settings: &MeshSettings, required_features: Vec<String>) -> pb::Mesh {
    pb::Mesh {
        required_features,
        trust_domain: settings.trust_domain.to_string(),
        ranges: settings.ranges.iter().copied().map(range_to_pb).collect(),
        suffixes: settings.suffixes.iter().map(ToString::to_string).collect(),
        outbound_mode: match settings.outbound_mode {
            OutboundMode::AllowAny => pb::OutboundMode::AllowAny,
            OutboundMode::RegistryOnly => pb::OutboundMode::RegistryOnly,
        }
        .into(),
    }
}

pub(super) fn from_pb(settings: &pb::Mesh) -> Result<MeshSettings, Fault> {
    Ok(MeshSettings {
        trust_domain: field::name(&settings.trust_domain)?,
        ranges: settings.ranges.iter().map(range_from_pb).collect::<Result<_, _>>()?,
        suffixes: settings.suffixes.iter().map(|s| canonical(s)).collect::<Result<_, _>>()?,
        outbound_mode: match field::value("outbound_mode", settings.outbound_mode)? {
            pb::OutboundMode::Unspecified => return Err(Fault::missing("outbound_mode")),
            pb::OutboundMode::AllowAny => OutboundMode::AllowAny,
            pb::OutboundMode::RegistryOnly => OutboundMode::RegistryOnly,
        },
    })
}

fn range_to_pb(range: IpRange) -> pb::IpRange {
    pb::IpRange { address: field::ip_to_pb(range.address()), prefix: range.prefix().into() }
}

fn range_from_pb(range: &pb::IpRange) -> Result<IpRange, Fault> {
    let prefix = u8::try_from(range.prefix).unwrap_or(u8::MAX);
    Ok(IpRange::new(field::ip_from_pb(&range.address)?, prefix)?)
}
