//! Where a connection of the application goes, before its first request is read: it is served as HTTP, or carried to
//! one service as it is.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_mesh::{Hop, Host, Port, PortNumber, Protocol, Reason, Side};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::http::connections::Guard;
use crate::http::serve::Spoken;
use crate::listen::detect::{self, First, Speaks, Verdict};
use crate::live::LiveService;
use crate::outbound::{resolve_fixed, resolve_host};
use crate::tcp;
use crate::telemetry::ports::Decision;
use crate::worker::{Named, Worker};

/// Where a connection goes.
pub enum Way {
    /// Each request says by itself.
    Http(Spoken),
    /// To a port of one service.
    Opaque(Arc<LiveService>, Port),
    /// Nowhere. It has been counted and told, and is to be closed.
    Nowhere,
}

/// The way of a connection to the port that all services share, where only HTTP and TLS name where they go.
pub async fn of_shared(worker: &Worker, stream: &TcpStream, guard: &Guard) -> Way {
    match detect::sniff(stream, guard).await {
        Ok(First::Plain(spoken)) => Way::Http(spoken),
        Ok(First::Tls) => match by_server_name(worker, stream, guard, None).await {
            Ok((service, port)) => by_tls(worker, service, port),
            Err(error) => refused(worker, stream, &error),
        },
        Err(_) => Way::Nowhere,
    }
}

/// The way of TLS that was going to `to`, outside the mesh, where only what is registered may be called: to what it names.
pub async fn of_tls_outside(worker: &Worker, stream: &TcpStream, guard: &Guard, to: SocketAddr) -> Way {
    match by_server_name(worker, stream, guard, PortNumber::new(to.port())).await {
        Ok((service, port)) => by_tls(worker, service, port),
        Err(error) if matches!(error.reason, Reason::DiscoveryUnavailable | Reason::BadRequest) => {
            refused(worker, stream, &error)
        }
        Err(error) => {
            let why = format!("TLS to {to}, and the mesh lets out only what is registered: {}", error.detail);
            refused(worker, stream, &Error::refused(Reason::EgressDenied, why))
        }
    }
}

/// The way of a connection to a port that stands for `host`.
pub async fn of_fixed(worker: &Worker, stream: &TcpStream, guard: &Guard, host: &Host) -> Way {
    let found = resolve_fixed(worker, host).await.and_then(|named| port_of(&named));
    let (service, port) = match found {
        Ok(found) => found,
        // HTTP is told by an answer to each request why; everything else can only be closed.
        Err(error) => match detect::sniff(stream, guard).await {
            Ok(First::Plain(spoken)) => return Way::Http(spoken),
            Ok(First::Tls) => return refused(worker, stream, &error),
            Err(_) => return Way::Nowhere,
        },
    };
    of_service(worker, stream, guard, service, port).await
}

/// The way of a connection that is known to be for `port` of `service`.
pub async fn of_service(
    worker: &Worker,
    stream: &TcpStream,
    guard: &Guard,
    service: Arc<LiveService>,
    port: Port,
) -> Way {
    // A service with routes is one of HTTP, whatever its port says.
    let http = service.snapshot.load().as_ref().is_some_and(|s| !s.service.routes.is_empty());
    let Ok(Verdict { speaks, decision }) = detect::detect(stream, guard, port, http).await else {
        return Way::Nowhere;
    };
    count(worker, &service, port, decision);
    match (speaks, port.protocol) {
        (Speaks::Http(spoken), _) => Way::Http(spoken),
        (Speaks::Tls, Protocol::Http | Protocol::Http2 | Protocol::Grpc) => {
            let why = format!(
                "TLS at port {} of {}, which is declared for {}",
                port.number, service.name, port.protocol
            );
            refused(worker, stream, &Error::downstream(Reason::BadRequest, why))
        }
        (Speaks::Tls | Speaks::Opaque, _) => Way::Opaque(service, port),
    }
}

fn by_tls(worker: &Worker, service: Arc<LiveService>, port: Port) -> Way {
    count(worker, &service, port, Decision::Tls);
    Way::Opaque(service, port)
}

/// The service that the TLS of the application names, and its port for TLS: the `called` one if that is one.
async fn by_server_name(
    worker: &Worker,
    stream: &TcpStream,
    guard: &Guard,
    called: Option<PortNumber>,
) -> Result<(Arc<LiveService>, Port), Error> {
    let broken = |e| Error::downstream(Reason::BadRequest, format!("the ClientHello can not be read: {e}"));
    let hello = detect::client_hello(stream, guard).await.map_err(broken)?;
    let name = hello.server_name.ok_or_else(|| {
        Error::downstream(Reason::UnknownService, "TLS that names no host: nothing tells where it goes")
    })?;
    let host = Host { name, port: None };
    let named = resolve_host(worker, host.name.as_str().as_bytes(), || Ok(host.clone())).await?;
    let service = named.service;
    let snapshot = service.snapshot.load();
    let ports = snapshot.as_ref().map(|s| &s.service.ports[..]).unwrap_or_default();
    let mut for_tls = ports.iter().filter(|p| p.protocol == Protocol::Tls);
    let first = for_tls.clone().next();
    let port = for_tls.find(|p| Some(p.number) == called).or(first).copied();
    drop(snapshot);
    let none = || Error::refused(Reason::NoRoute, format!("{} has no port for TLS", service.name));
    Ok((Arc::clone(&service), port.ok_or_else(none)?))
}

fn port_of(named: &Named) -> Result<(Arc<LiveService>, Port), Error> {
    let port = named.service.snapshot.load().as_ref().and_then(|s| s.service.port(named.port).copied());
    let none = || Error::refused(Reason::NoRoute, format!("{} does not have that port", named.service.name));
    Ok((Arc::clone(&named.service), port.ok_or_else(none)?))
}

fn count(worker: &Worker, service: &LiveService, port: Port, decision: Decision) {
    worker.shared.live.ports.handle(Side::Client, &service.name, port.number.get()).decided(decision);
}

fn refused(worker: &Worker, stream: &TcpStream, error: &Error) -> Way {
    tcp::cut_on_close(stream);
    worker.shared.live.counters.refused(error.reason, Hop::Client);
    tracing::info!(%error, "connection refused");
    Way::Nowhere
}
