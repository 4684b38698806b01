//! Instances that workloads register themselves: what they may say, and what they may not.

use std::fmt;

use outrigger_mesh::{Endpoint, EndpointUid, ServiceName};

use super::stage::Stage;
use crate::audit::Author;
use crate::check::{CheckedInstance, instance_of};
use crate::spec::{Discovery, Key, Kind, ObjectName, Spec};
use crate::store::StoreError;
use crate::world::World;

/// Why a workload does not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The sort of it.
    pub kind: RefusalKind,
    /// What the log says. It may tell more than the workload should know.
    pub reason: String,
}

/// The sorts of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such service.
    UnknownService,
    /// The workload may not do that.
    NotAllowed,
    /// What it says can not be.
    Invalid,
    /// It has as many as it may have.
    TooMany,
    /// There never was such a token, or it is long gone.
    TokenUnknown,
    /// The token has been used.
    TokenUsed,
    /// The token came too late.
    TokenExpired,
    /// The store does not answer; the same may work later.
    Unavailable,
}

impl Refusal {
    pub(super) fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// What the workload is told: of a token only that it is no good, so that nobody can find out which ones exist.
    pub fn told(&self) -> &str {
        match self.kind {
            RefusalKind::TokenUnknown | RefusalKind::TokenUsed | RefusalKind::TokenExpired => {
                "the join token is not valid; ask for a new one"
            }
            RefusalKind::Unavailable => "the control plane can not answer now; try again",
            _ => &self.reason,
        }
    }

    /// Whether the same may work later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.kind == RefusalKind::Unavailable
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

impl From<StoreError> for Refusal {
    fn from(e: StoreError) -> Self {
        Self::new(RefusalKind::Unavailable, e.to_string())
    }
}

/// No service has more instances. It bounds what one workload that has gone mad can do to the others.
const MAX_INSTANCES: usize = 10_000;

/// Stages that the author's workload is this endpoint.
pub(super) fn register(stage: &mut Stage, endpoint: Endpoint, author: &Author) -> Result<(), Refusal> {
    let refuse = |kind, reason: String| Err(Refusal::new(kind, reason));
    let name = &endpoint.service;
    let Some(identity) = &author.identity else {
        return refuse(RefusalKind::NotAllowed, "only a workload registers itself".into());
    };
    let Some(service) = stage.world.service(name).map(|e| &e.checked) else {
        return refuse(RefusalKind::UnknownService, format!("there is no service {name}"));
    };
    if !service.may_be_served_by(identity) {
        return refuse(RefusalKind::NotAllowed, format!("{identity} may not serve {name}"));
    }
    // Its instances are those that the cluster knows: whoever says that he is one is believed to be among them, and adds
    // nothing.
    if is_found_by_the_cluster(&stage.world, name) {
        return Ok(());
    }
    if endpoint.ip.is_unspecified() || endpoint.ip.is_multicast() {
        let reason = format!("{} is not an address at which an instance can be reached", endpoint.ip);
        return refuse(RefusalKind::Invalid, reason);
    }
    if endpoint.ports.is_empty() {
        return refuse(RefusalKind::Invalid, "an instance without a port serves nothing".into());
    }
    for (i, port) in endpoint.ports.iter().enumerate() {
        if service.service().ports.iter().all(|p| p.number != port.port) {
            return refuse(RefusalKind::Invalid, format!("{name} has no port {}", port.port));
        }
        if endpoint.ports[..i].iter().any(|p| p.port == port.port) {
            return refuse(RefusalKind::Invalid, format!("port {} is there twice", port.port));
        }
    }
    let object = instance_of(&endpoint);
    let checked = CheckedInstance { endpoint, registered_by: Some(identity.clone()) };
    let (service, uid) = (&checked.endpoint.service, &checked.endpoint.uid);
    match stage.world.service_of_instance(service.namespace(), uid) {
        None if stage.world.instances_of(service) >= MAX_INSTANCES => {
            return refuse(RefusalKind::TooMany, format!("{service} has {MAX_INSTANCES} instances already"));
        }
        None => {}
        Some(other) if other != service => {
            return refuse(
                RefusalKind::NotAllowed,
                format!("the name {uid} is taken by an instance of {other}"),
            );
        }
        Some(_) => match stage.world.instance(service, uid).map(|e| &e.checked) {
            // A renewal that says nothing new.
            Some(before) if *before == checked => return Ok(()),
            Some(before) if before.registered_by != checked.registered_by => {
                return refuse(
                    RefusalKind::NotAllowed,
                    format!("the name {uid} is taken by somebody else's instance"),
                );
            }
            _ => {}
        },
    }
    stage.put_instance(object, checked, author);
    Ok(())
}

/// Whether the instances of a service are those that the cluster knows.
pub fn is_found_by_the_cluster(world: &World, service: &ServiceName) -> bool {
    let says = |spec: &Spec| match spec {
        Spec::MeshService(service) => service.discovery == Some(Discovery::Kubernetes),
        _ => false,
    };
    world.service(service).is_some_and(|entry| says(&entry.object.spec))
}

/// Stages that an instance is no more. A workload withdraws only what it registered; the control plane itself, whose
/// author has no identity, ends any lease.
pub(super) fn remove(
    stage: &mut Stage,
    service: &ServiceName,
    uid: &EndpointUid,
    author: &Author,
) -> Result<(), Refusal> {
    let Some(entry) = stage.world.instance(service, uid) else { return Ok(()) };
    let registered_by = entry.checked.registered_by.as_ref();
    if author.identity.is_some() && author.identity.as_ref() != registered_by {
        let reason = format!("the instance {uid} of {service} was registered by somebody else");
        return Err(Refusal::new(RefusalKind::NotAllowed, reason));
    }
    let action = if author.identity.is_some() { "withdraw" } else { "expire" };
    let key =
        Key { kind: Kind::Instance, namespace: service.namespace().clone(), name: ObjectName::from(uid) };
    stage.remove(&key, action, author);
    Ok(())
}
