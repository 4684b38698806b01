//! ReferenceGrant: what another namespace lets a route refer to.

use crate::case::{Case, all, call, case, get, grpc_route, http_route};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = given();
    cases.extend(narrow());
    cases.extend(refused());
    cases
}

/// Services `a` and `b` in a namespace of the case's own.
const FAR: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: a, namespace: $NAME-far}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: a-1, namespace: $NAME-far}
spec: {service: a, address: 127.0.0.1, ports: [{port: 80, listen: $PORT-A}], transport: plaintext}
---
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: b, namespace: $NAME-far}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: b-1, namespace: $NAME-far}
spec: {service: b, address: 127.0.0.1, ports: [{port: 80, listen: $PORT-B}], transport: plaintext}
";

const ROUTES: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}";
const SERVICES: &str = "{group: \"\", kind: Service}";

/// A grant in the far namespace.
fn grant(from: &str, to: &str) -> String {
    grant_in("$NAME-far", "grant", from, to)
}

fn grant_in(namespace: &str, name: &str, from: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{from: [{from}], to: [{to}]}}\n"
    )
}

fn far(name: &str) -> String {
    format!("[{{backendRefs: [{{name: {name}, namespace: $NAME-far, port: 80}}]}}]")
}

/// A route to `a` of the far namespace, after these objects.
fn with(case: Case, grants: &[String]) -> Case {
    let mut objects = vec![FAR.to_owned()];
    objects.extend_from_slice(grants);
    case.apply(&all(&objects)).rules(&far("a"))
}

/// It leads there.
fn granted(case: Case, grants: &[String]) -> Case {
    with(case, grants).says("ResolvedRefs", "True", "ResolvedRefs").ask(get("/").to("a"))
}

/// It does not.
fn denied(case: Case, grants: &[String]) -> Case {
    with(case, grants)
        .says("ResolvedRefs", "False", "RefNotPermitted")
        .ask(get("/").status(500).arrives("a", 0))
}

fn given() -> Vec<Case> {
    let other = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: elsewhere}";
    let b = "{group: \"\", kind: Service, name: b}";
    vec![
        denied(case("grant-none", "ReferenceGrant", "without a grant nothing of another namespace can be a backend"), &[]),
        granted(case("grant", "ReferenceGrant", "with a grant of its namespace it can"), &[grant(ROUTES, SERVICES)]),
        granted(case("grant-name", "ReferenceGrantTo.name", "a grant may name what it is for"), &[grant(ROUTES, "{group: \"\", kind: Service, name: a}")]),
        with(case("grant-all-names", "ReferenceGrantTo.name", "without a name it is for all of the kind in its namespace"), &[grant(ROUTES, SERVICES)])
            .ask(get("/").to("a"))
            .rules(&far("b"))
            .ask(get("/").to("b")),
        granted(case("grant-from-any", "ReferenceGrantSpec.from", "it is enough that one entry of from holds"), &[grant(&format!("{other}, {ROUTES}"), SERVICES)]),
        granted(case("grant-to-any", "ReferenceGrantSpec.to", "it is enough that one entry of to holds"), &[grant(ROUTES, &format!("{b}, {{group: \"\", kind: Service, name: a}}"))]),
        granted(
            case("grant-several", "ReferenceGrant", "several grants of a namespace add up"),
            &[grant_in("$NAME-far", "one", other, SERVICES), grant_in("$NAME-far", "two", ROUTES, SERVICES)],
        ),
        with(case("grant-removed", "ReferenceGrant", "what a grant allowed ends when the grant is taken away"), &[grant(ROUTES, SERVICES)])
            .ask(get("/").to("a"))
            .delete("referencegrants", "$NAME-far", "grant")
            .ask(get("/").status(500))
            .says("ResolvedRefs", "False", "RefNotPermitted"),
        with(case("grant-later", "ReferenceGrant", "a grant that comes later is enough, without the route being written again"), &[])
            .ask(get("/").status(500))
            .apply(&grant(ROUTES, SERVICES))
            .ask(get("/").to("a"))
            .says("ResolvedRefs", "True", "ResolvedRefs"),
        case("grant-own-namespace", "BackendObjectReference.namespace", "what is in the route's own namespace needs none, its name written or not")
            .rules("[{backendRefs: [{name: a, namespace: shop, port: 80}]}]")
            .ask(get("/").to("a")),
        case("grant-share", "HTTPRouteRule.backendRefs", "of several backends the share of one that is not granted is answered 500")
            .apply(FAR)
            .rules("[{backendRefs: [$C, {name: a, namespace: $NAME-far, port: 80}]}]")
            .ask(get("/").times(120).share("500", 50).share("c", 50)),
        case("grant-mirror", "HTTPRequestMirrorFilter.backendRef", "a mirror in another namespace needs a grant, and has it")
            .apply(&all(&[FAR.to_owned(), grant(ROUTES, SERVICES)]))
            .rules("[{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, namespace: $NAME-far, port: 80}}}], backendRefs: [$A]}]")
            .ask(get("/").to("a").arrives("b", 1)),
        case("grant-grpc", "ReferenceGrantFrom.kind", "a GRPCRoute is granted as a GRPCRoute")
            .apply(&all(&[FAR.to_owned(), grant(&ROUTES.replace("HTTPRoute", "GRPCRoute"), SERVICES)]))
            .apply(&grpc_route(&far("a")))
            .ask(call("/shop.Cart/Add").to("a")),
        case("grant-version", "ReferenceGrantTo.kind", "a version of a service is granted with its service")
            .apply(&all(&[FAR.to_owned(), grant(ROUTES, "{group: outrigger.dev, kind: MeshService}"), http_route("[{backendRefs: [{group: outrigger.dev, kind: MeshService, name: a, namespace: $NAME-far, port: 80}]}]")]))
            .ask(get("/").to("a")),
    ]
}

fn narrow() -> Vec<Case> {
    vec![
        denied(
            case(
                "grant-other-namespace",
                "ReferenceGrantFrom.namespace",
                "a grant for another namespace is none",
            ),
            &[grant("{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: elsewhere}", SERVICES)],
        ),
        denied(
            case("grant-other-kind", "ReferenceGrantFrom.kind", "a grant for routes of another kind is none"),
            &[grant("{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop}", SERVICES)],
        ),
        denied(
            case("grant-other-group", "ReferenceGrantFrom.group", "nor is one for a kind of another group"),
            &[grant("{group: \"\", kind: HTTPRoute, namespace: shop}", SERVICES)],
        ),
        denied(
            case("grant-other-name", "ReferenceGrantTo.name", "nor one for another name"),
            &[grant(ROUTES, "{group: \"\", kind: Service, name: b}")],
        ),
        denied(
            case("grant-other-to", "ReferenceGrantTo.kind", "nor one for another kind of backend"),
            &[grant(ROUTES, "{group: \"\", kind: Secret}")],
        ),
        denied(
            case(
                "grant-wrong-side",
                "ReferenceGrant",
                "nor one in the namespace of the route: only the namespace that is referred to can grant",
            ),
            &[grant_in("shop", "$NAME", ROUTES, SERVICES)],
        ),
        with(
            case(
                "grant-not-existing",
                "RouteReasonRefNotPermitted",
                "whether something is there is not told to who may not refer to it",
            ),
            &[],
        )
        .rules(&far("nobody"))
        .says("ResolvedRefs", "False", "RefNotPermitted"),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        case(
            "grant-from-required",
            "ReferenceGrantSpec.from",
            "a grant says from where, in at least one entry",
        )
        .refuses_all(&grant("", SERVICES), "/spec/from"),
        case("grant-to-required", "ReferenceGrantSpec.to", "and for what, in at least one entry")
            .refuses_all(&grant(ROUTES, ""), "/spec/to"),
        case("grant-count", "ReferenceGrantSpec", "each has at most 16 entries")
            .refuses_all(&grant(&vec![ROUTES; 17].join(", "), SERVICES), "/spec/from")
            .refuses_all(&grant(ROUTES, &vec![SERVICES; 17].join(", ")), "/spec/to"),
        case(
            "grant-from-fields",
            "ReferenceGrantFrom",
            "an entry of from has a group, a kind and a namespace",
        )
        .refuses_all(&grant("{group: gateway.networking.k8s.io, kind: HTTPRoute}", SERVICES), "/spec/from/0")
        .refuses_all(&grant("{group: gateway.networking.k8s.io, namespace: shop}", SERVICES), "/spec/from/0")
        .refuses_all(&grant("{kind: HTTPRoute, namespace: shop}", SERVICES), "/spec/from/0"),
        case("grant-to-fields", "ReferenceGrantTo", "an entry of to has a group and a kind")
            .refuses_all(&grant(ROUTES, "{kind: Service}"), "/spec/to/0")
            .refuses_all(&grant(ROUTES, "{group: \"\"}"), "/spec/to/0"),
    ]
}
