//! Where a connection goes, who has to prove what there, and who did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::Peer;

use crate::config::outside::Outside;
use crate::config::registry::Resolved;
use crate::config::snapshot::ServiceSnapshot;
use crate::live::EndpointLive;

/// An endpoint as a connection sees it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its state.
    pub endpoint: Arc<EndpointLive>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who has to prove what there.
    pub secured: Secured,
    /// What is known of it beside, where it was found by name.
    pub resolved: Option<Arc<Resolved>>,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// Whether HTTP/1 headers keep their case there.
    pub keep_case: bool,
    /// The service, where the number of its connections is limited.
    pub limited: Option<Arc<ServiceSnapshot>>,
}

/// Who has to prove what at the other end of a connection.
#[derive(Clone, Debug)]
pub enum Secured {
    /// Nobody anything: plaintext.
    No,
    /// Both: mutual TLS of the mesh, with the service whose identities may answer.
    Mesh(Arc<ServiceSnapshot>),
    /// The server its name: TLS towards a server outside the mesh.
    Outside(Arc<Outside>),
}

impl Secured {
    /// Whether it is a place in the mesh, with a sidecar.
    pub fn is_mesh(&self) -> bool {
        matches!(self, Self::Mesh(_))
    }
}

/// Who proved to be at the other end when the connection was made.
#[derive(Debug)]
pub(super) enum Proof {
    Nobody,
    /// Boxed: with it go the answers of every request.
    Mesh(Box<Peer>),
    Outside(Arc<Outside>),
}

impl Proof {
    pub(super) fn of(place: &Place, peer: Option<Peer>) -> Self {
        match (&place.secured, peer) {
            (_, Some(peer)) => Self::Mesh(Box::new(peer)),
            (Secured::Outside(outside), None) => Self::Outside(Arc::clone(outside)),
            (Secured::No | Secured::Mesh(_), None) => Self::Nobody,
        }
    }

    /// Whether that is still somebody who may serve there: what has to be proven may have changed since.
    pub(super) fn holds(&self, place: &Place) -> bool {
        match (self, &place.secured) {
            (Self::Nobody, Secured::No) => true,
            (Self::Mesh(peer), Secured::Mesh(service)) => service.service.identities.contains(peer.id()),
            (Self::Outside(proven), Secured::Outside(wanted)) => Arc::ptr_eq(proven, wanted),
            _ => false,
        }
    }

    /// Who it is, in the mesh.
    pub(super) fn peer(&self) -> Option<&Peer> {
        if let Self::Mesh(peer) = self { Some(peer) } else { None }
    }

    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        matches!(self, Self::Mesh(peer) if peer.not_after() <= now)
    }
}
