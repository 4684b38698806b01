//! `Gateway`.

use outrigger_mesh::{Gateway, GatewayRoute, HostPattern, Label, Listener, ListenerKind};

use super::field::{self, Fault};
use super::route::{route_from_pb, route_to_pb};
use crate::pb;

pub(super) fn to_pb(gateway: &Gateway, required_features: Vec<String>) -> pb::Gateway {
    pb::Gateway {
        required_features,
        name: gateway.name.to_string(),
        listeners: gateway.listeners.iter().map(listener_to_pb).collect(),
    }
}

pub(super) fn from_pb(gateway: pb::Gateway) -> Result<Gateway, Fault> {
    Gateway {
        name: field::name(&gateway.name)?,
        listeners: gateway.listeners.into_iter().map(listener_from_pb).collect::<Result<_, _>>()?,
    }
    .checked()
    .map_err(|e| Fault::new(e.to_string()))
}

fn listener_to_pb(listener: &Listener) -> pb::Listener {
    pb::Listener {
        name: listener.name.to_string(),
        port: listener.port.get().into(),
        hostname: listener.hostname.as_ref().map(ToString::to_string),
        certificates: match &listener.kind {
            ListenerKind::Http => Vec::new(),
            ListenerKind::Https { certificates } => certificates.iter().map(ToString::to_string).collect(),
        },
        routes: listener
            .routes
            .iter()
            .map(|attached| pb::GatewayRoute {
                hostnames: attached.hostnames.iter().map(ToString::to_string).collect(),
                route: Some(route_to_pb(&attached.route)),
            })
            .collect(),
    }
}

fn listener_from_pb(listener: pb::Listener) -> Result<Listener, Fault> {
    let name: Label = field::name(&listener.name)?;
    let read = || {
        let certificates: Vec<Label> =
            listener.certificates.iter().map(|c| field::name(c)).collect::<Result<_, _>>()?;
        Ok(Listener {
            name: name.clone(),
            port: field::port_number(listener.port)?,
            hostname: listener.hostname.as_deref().map(pattern).transpose()?,
            kind: if certificates.is_empty() {
                ListenerKind::Http
            } else {
                ListenerKind::Https { certificates }
            },
            routes: listener.routes.into_iter().map(attached_from_pb).collect::<Result<_, _>>()?,
        })
    };
    read().map_err(|fault: Fault| fault.within(format_args!("listener {name}")))
}

fn attached_from_pb(attached: pb::GatewayRoute) -> Result<GatewayRoute, Fault> {
    Ok(GatewayRoute {
        hostnames: attached.hostnames.iter().map(|h| pattern(h)).collect::<Result<_, _>>()?,
        route: route_from_pb(attached.route.ok_or_else(|| Fault::missing("a route"))?)?,
    })
}

fn pattern(text: &str) -> Result<HostPattern, Fault> {
    let pattern: HostPattern = field::name(text)?;
    if pattern.to_string() == text {
        Ok(pattern)
    } else {
        Err(Fault::new(format!("host name {text:?} is not written as {pattern}")))
    }
}
