//! Short ways to worlds for the tests of this crate.

use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_mesh::{EndpointUid, ServiceName, TrustDomain};

use crate::addresses::VirtualAddress;
use crate::check::{Checked, check, check_dangling};
use crate::compile::{ResourceChange, Touched};
use crate::secret::MeshSecret;
use crate::source::registration::Removal;
use crate::spec::{Key, Object, Problem, read};
use crate::state::Publish;
use crate::world::{Entry, World};

/// No sidecar is there: what is published reaches nobody, and what is removed nobody had.
pub(crate) struct Nobody;

impl Publish for Nobody {
    fn publish(&self, _: u64, _: Vec<ResourceChange>) {}
}

impl Removal for Nobody {
    fn removed<'a>(
        &'a self,
        _: &'a ServiceName,
        _: &'a EndpointUid,
        _: Duration,
    ) -> BoxFuture<'a, (u32, u32)> {
        Box::pin(std::future::ready((0, 0)))
    }
}

pub(crate) fn world() -> World {
    World::new(TrustDomain::new("mesh.local").unwrap(), MeshSecret::random().unwrap())
}

/// The one object of a text.
pub(crate) fn object(text: &str) -> Object {
    let mut documents = read(text, "test").unwrap_or_else(|p| panic!("{p:#?}\n{text}"));
    assert_eq!(documents.len(), 1);
    documents.remove(0).object
}

/// A service of the namespace `shop` with `spec` in flow style, without its braces.
pub(crate) fn service(name: &str, spec: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: MeshService, metadata: {{name: {name}, namespace: shop}}, spec: {{{spec}}}}}"
    ))
}

pub(crate) fn egress(name: &str, spec: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: EgressService, metadata: {{name: {name}, namespace: shop}}, spec: {{{spec}}}}}"
    ))
}

pub(crate) fn defaults(spec: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: MeshDefaults, metadata: {{name: mesh, namespace: outrigger}}, spec: {{{spec}}}}}"
    ))
}

pub(crate) fn gateway(name: &str, listeners: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{gatewayClassName: outrigger, listeners: [{listeners}]}}}}"
    ))
}

/// A route of a gateway, with the rest of its specification in flow style.
pub(crate) fn gateway_route(name: &str, gateway: &str, rest: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{parentRefs: [{{name: {gateway}}}], {rest}}}}}"
    ))
}

/// A policy of a service, with the rest of its specification in flow style.
pub(crate) fn policy(name: &str, service: &str, rest: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{targetRef: {{kind: MeshService, name: {service}}}, {rest}}}}}"
    ))
}

/// A policy of a route, with the rest of its specification in flow style.
pub(crate) fn route_policy(name: &str, route: &str, rest: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{targetRef: {{kind: HTTPRoute, name: {route}}}, {rest}}}}}"
    ))
}

/// An override with the rest of its specification in flow style.
pub(crate) fn breaker_override(name: &str, service: &str, rest: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: BreakerOverride, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{service: {service}, why: because, {rest}}}}}"
    ))
}

/// An access policy of a namespace, with its specification in flow style.
pub(crate) fn access(namespace: &str, name: &str, spec: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
    ))
}

/// A rollout with the rest of its specification in flow style.
pub(crate) fn rollout(name: &str, service: &str, rest: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: Rollout, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{service: {service}, stable: v1, candidate: v2, {rest}}}}}"
    ))
}

pub(crate) fn instance(name: &str, spec: &str) -> Object {
    object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: Instance, metadata: {{name: {name}, namespace: shop}}, spec: {{{spec}}}}}"
    ))
}

/// A route of `parent` with one rule in flow style.
pub(crate) fn route(name: &str, parent: &str, rule: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{parentRefs: [{{kind: Service, name: {parent}}}], rules: [{{{rule}}}]}}}}"
    ))
}

/// Checks `object` and puts it into `world`. The warnings come back.
pub(crate) fn put(world: &mut World, object: Object) -> Result<Vec<Problem>, Vec<Problem>> {
    let checked = check(&object, world)?;
    Ok(put_checked(world, object, checked))
}

/// The same, whether or not there is what it refers to.
pub(crate) fn put_dangling(world: &mut World, object: Object) -> Result<Vec<Problem>, Vec<Problem>> {
    let checked = check_dangling(&object, world)?;
    Ok(put_checked(world, object, checked))
}

fn put_checked(
    world: &mut World,
    object: Object,
    (checked, warnings): (Checked, Vec<Problem>),
) -> Vec<Problem> {
    let created = world.object(&object.key()).map(|e| e.created());
    world.revision += 1;
    let changed = world.revision;
    let created = created.unwrap_or(changed);
    match checked {
        Checked::Service(mut checked) => {
            let kept = world.service(checked.name()).and_then(|e| e.checked.address());
            let is_free = |a| world.at_address(a).is_none();
            let wanted = checked.address().or(kept);
            let address = wanted.or_else(|| VirtualAddress::find(checked.name(), is_free));
            checked.at(address.unwrap());
            world.put_service(Entry { object, created, changed, checked });
        }
        Checked::Defaults(checked) => {
            world.put_defaults(Some(Entry { object, created, changed, checked }));
        }
        Checked::Gateway(checked) => world.put_gateway(Entry { object, created, changed, checked }),
        Checked::Route(checked) => world.put_route(Entry { object, created, changed, checked }),
        Checked::Filter(checked) => world.put_filter(Entry { object, created, changed, checked }),
        Checked::Grant(checked) => world.put_grant(Entry { object, created, changed, checked }),
        Checked::Instance(checked) => world.put_instance(Entry { object, created, changed, checked }),
        Checked::Policy(checked) => world.put_policy(Entry { object, created, changed, checked }),
        Checked::Override(checked) => world.put_override(Entry { object, created, changed, checked }),
        Checked::Access(checked) => world.put_access(Entry { object, created, changed, checked }),
        Checked::Tokens(checked) => world.put_token_policy(Entry { object, created, changed, checked }),
        Checked::Denylist(checked) => world.put_denylist(Entry { object, created, changed, checked }),
        Checked::Rollout(checked) => world.rollouts.put(Entry { object, created, changed, checked }),
    }
    warnings
}

pub(crate) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// Records that the object of `key` is touched, in `world` as it is now.
pub(crate) fn touch(touched: &mut Touched, world: &World, key: &Key) {
    match key.kind {
        crate::spec::Kind::MeshDefaults => touched.defaults = true,
        crate::spec::Kind::Gateway => {
            touched.gateways.insert(name(&format!("{}/{}", key.namespace, key.name)));
        }
        crate::spec::Kind::MeshService | crate::spec::Kind::EgressService => {
            touched.services.insert(name(&format!("{}/{}", key.namespace, key.name)));
        }
        crate::spec::Kind::HttpRoute | crate::spec::Kind::GrpcRoute | crate::spec::Kind::TcpRoute => {
            touched.routes.insert(key.clone());
        }
        crate::spec::Kind::RouteFilter => {
            touched.filters.insert(key.clone());
        }
        crate::spec::Kind::ReferenceGrant => {
            touched.grants.insert(key.clone());
        }
        crate::spec::Kind::TrafficPolicy => {
            touched.policies.insert(key.clone());
        }
        crate::spec::Kind::BreakerOverride => {
            touched.overrides.insert(key.clone());
        }
        crate::spec::Kind::AccessPolicy => {
            touched.access.insert(key.clone());
        }
        crate::spec::Kind::TokenPolicy => {
            touched.token_policies.insert(key.clone());
        }
        crate::spec::Kind::Denylist => {
            touched.denylists.insert(key.clone());
        }
        crate::spec::Kind::Rollout => {
            touched.rollouts.extend(world.rollouts.get(key).map(|e| e.checked.service.clone()));
        }
        crate::spec::Kind::Instance => {
            let uid = EndpointUid::new(key.name.as_str()).unwrap();
            if let Some(service) = world.service_of_instance(&key.namespace, &uid) {
                touched.instances.insert((service.clone(), uid));
            }
        }
    }
}
