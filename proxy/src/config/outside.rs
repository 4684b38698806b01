//! What a service outside the mesh has to prove, made ready when the service is pushed.

use std::fmt;
use std::sync::Arc;

use outrigger_certs::{OutsideConnector, OutsideName};
use outrigger_mesh::{Location, Origination, Service};

/// The TLS that this sidecar adds towards a service outside the mesh.
pub struct Outside {
    /// What was asked for.
    origination: Origination,
    /// The name that every endpoint has to prove, where one was given.
    pub name: Option<OutsideName>,
    /// What makes the handshakes.
    pub connector: OutsideConnector,
}

impl Outside {
    /// For `service`, where it wants TLS added. An error is a reason to reject the service. May read files.
    pub fn of(service: &Service) -> Result<Option<Arc<Self>>, String> {
        let Location::Dns { tls: Some(origination), .. } = &service.location else { return Ok(None) };
        let refused = |why: String| format!("service {}: {why}", service.name);
        let connector = OutsideConnector::new(&origination.roots).map_err(|e| refused(e.to_string()))?;
        let name = match &origination.server_name {
            None => None,
            Some(name) => Some(
                OutsideName::of_host(name)
                    .ok_or_else(|| refused(format!("no certificate can have the name {name}")))?,
            ),
        };
        Ok(Some(Arc::new(Self { origination: origination.clone(), name, connector })))
    }

    /// `old` if it is the same, so that connections made with it serve on; else `new`.
    pub fn kept(old: Option<&Arc<Self>>, new: Option<Arc<Self>>) -> Option<Arc<Self>> {
        match (old, &new) {
            (Some(old), Some(fresh)) if old.origination == fresh.origination => Some(Arc::clone(old)),
            _ => new,
        }
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("name", &self.name).finish_non_exhaustive()
    }
}
