//! What is planted: services with endpoints, of which each sidecar uses some.

use outrigger_mesh::{Endpoint, EndpointPort, EndpointState, PortNumber, ServiceName, Transport, Weight};
use serde_json::{Value as Json, json};

use crate::Settings;
use crate::admin::Admin;

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "bench";

/// The services of a mesh.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    services: usize,
    endpoints: usize,
    uses: usize,
    /// So many of the services have sidecars.
    served: usize,
}

impl Mesh {
    pub(crate) fn new(settings: &Settings) -> Self {
        let &Settings { services, endpoints, uses, sidecars, .. } = settings;
        Self { services, endpoints, uses, served: services.min(sidecars) }
    }

    /// Makes the services and their endpoints, many at a time.
    pub(crate) async fn plant(&self, admin: &Admin) -> anyhow::Result<()> {
        let services: Vec<Json> = (0..self.services).map(|number| Self::service(number, None)).collect();
        let each = |service: usize| (0..self.endpoints).map(move |number| instance(service, number));
        let instances: Vec<Json> = (0..self.services).flat_map(each).collect();
        for batch in services.chunks(AT_ONCE).chain(instances.chunks(AT_ONCE)) {
            admin.apply(batch).await?;
        }
        Ok(())
    }

    /// A service; `edition` tells one from the next.
    pub(crate) fn service(number: usize, edition: Option<usize>) -> Json {
        let hostnames: Vec<String> = edition.iter().map(|edition| format!("e{edition}.bench")).collect();
        let spec = json!({ "ports": [{ "port": 80 }], "hostnames": hostnames });
        object("outrigger.dev/v1alpha1", "MeshService", &service_of(number), &spec)
    }

    /// The service that a sidecar stands beside.
    pub(crate) fn own(&self, sidecar: usize) -> usize {
        sidecar % self.served
    }

    /// The services that a sidecar uses: the first one, and some that differ from sidecar to sidecar.
    pub(crate) fn used(&self, sidecar: usize) -> Vec<usize> {
        let others = 0..self.served.saturating_sub(1).min(self.uses - 1);
        let others = others.map(|i| 1 + (sidecar * 7 + i) % (self.served - 1));
        [0].into_iter().chain(others).collect()
    }

    /// The instance that a sidecar registers.
    #[allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "names of a measurement")]
    pub(crate) fn registered(&self, sidecar: usize, weight: u16) -> Endpoint {
        let listen = PortNumber::new(15_006).unwrap();
        Endpoint {
            service: name_of(self.own(sidecar)),
            uid: format!("r-{sidecar}").parse().unwrap(),
            ip: [10, 200, (sidecar / 250) as u8, (sidecar % 250) as u8].into(),
            ports: [EndpointPort { port: PortNumber::HTTP, listen, target: None }].into(),
            version: None,
            zone: None,
            weight: Weight::new(weight).unwrap(),
            transport: Transport::Mesh,
            state: EndpointState::Ready,
        }
    }
}

/// A route of the first service; `edition` tells one from the next.
pub(crate) fn route(edition: usize) -> Json {
    let set = json!([{ "name": "x-edition", "value": edition.to_string() }]);
    let spec = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": service_of(0) }],
        "rules": [{
            "matches": [{ "path": { "value": "/" } }],
            "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": set } }],
            "backendRefs": [{ "name": service_of(0), "port": 80 }],
        }],
    });
    object("gateway.networking.k8s.io/v1", "HTTPRoute", "hot", &spec)
}

/// A policy of the first service.
pub(crate) fn policy(edition: usize) -> Json {
    let spec = json!({
        "targetRef": { "kind": "MeshService", "name": service_of(0) },
        "timeouts": { "request": format!("{}ms", 5_000 + edition) },
    });
    object("outrigger.dev/v1alpha1", "TrafficPolicy", "hot", &spec)
}

pub(crate) fn service_of(number: usize) -> String {
    format!("s{number}")
}

#[allow(clippy::unwrap_used, reason = "names of a measurement")]
pub(crate) fn name_of(number: usize) -> ServiceName {
    format!("{NAMESPACE}/{}", service_of(number)).parse().unwrap()
}

fn instance(service: usize, number: usize) -> Json {
    let address =
        format!("10.{}.{}.{}", 64 + service / 6_400, service / 25 % 256, service % 25 * 10 + number % 250);
    let spec = json!({ "service": service_of(service), "address": address });
    object("outrigger.dev/v1alpha1", "Instance", &format!("{}-{number}", service_of(service)), &spec)
}

fn object(version: &str, kind: &str, name: &str, spec: &Json) -> Json {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": spec,
    })
}

const AT_ONCE: usize = 1_000;
