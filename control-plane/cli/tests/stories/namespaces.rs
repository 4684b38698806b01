//! Routes across namespaces: what callers say of a service of others holds for them alone, and what one namespace sends to
//! another the other has to grant.

use std::time::{Duration, Instant};

use outrigger_testkit::Origin;

use crate::support::{Instance, Mesh, Sidecar, text};

/// `stock/items` and `shop/own` with an instance each, and a caller in each of two other namespaces.
struct World {
    mesh: Mesh,
    _items: Instance,
    _own: Instance,
    web: Sidecar,
    desk: Sidecar,
}

impl World {
    async fn open() -> Self {
        let mesh = Mesh::start();
        mesh.services(&["own"]);
        mesh.apply(
            "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {name: items, namespace: stock}\n\
             spec: {ports: [{port: 80, protocol: http}]}\n",
        );
        let own = mesh.instance("own", "v1").await;
        let origin = Origin::named("items").await;
        let items = mesh.sidecar("items", "v1", origin.addr()).namespace("stock");
        let sidecar = items.token(mesh.token_in("stock", "items")).start();
        let web = mesh.caller("web").token(mesh.token("web")).start();
        let desk = mesh.caller("desk").namespace("office").token(mesh.token_in("office", "desk")).start();
        let world = Self { _items: Instance { origin, sidecar }, _own: own, web, desk, mesh };
        world.until(&world.web, "items.stock", "items").await;
        world.until(&world.desk, "items.stock", "items").await;
        world
    }

    /// Waits until `from` is answered by whom it should be, or with why nobody answers.
    async fn until(&self, from: &Sidecar, host: &str, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let now = who(from, host).await;
            if now == wanted {
                return;
            }
            assert!(Instant::now() < end, "{host} is answered by {now} and not by {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Who answers, or why nobody does.
async fn who(from: &Sidecar, host: &str) -> String {
    let reply = from.get(host, "/").await;
    match reply.header("x-outrigger-reason") {
        Some(reason) => format!("{} {reason}", reply.status.as_u16()),
        None => reply.json()["origin"].as_str().unwrap().to_owned(),
    }
}

/// An HTTPRoute of the namespace `shop` that sends everything for `parent` to `backend`.
fn route(parent: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all, namespace: shop}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, {parent}}}]\n  rules: [{{backendRefs: [{{{backend}, port: 80}}]}}]\n"
    )
}

const GRANT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: shop, namespace: stock}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: \"\", kind: Service, name: items}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_callers_of_a_namespace_say_of_a_service_of_another_holds_for_them_alone() {
    let world = World::open().await;
    let World { mesh, web, desk, .. } = &world;
    mesh.apply(&route("name: items, namespace: stock", "name: own"));
    // Who has acknowledged it obeys it.
    for _ in 0..20 {
        assert_eq!(who(web, "items.stock").await, "own-v1");
        assert_eq!(who(desk, "items.stock").await, "items");
    }
    let out = mesh.cli(&["delete", "httproute", "all", "-n", "shop"]);
    assert!(out.status.success(), "{}", text(&out));
    world.until(web, "items.stock", "items").await;
    assert_eq!(who(desk, "items.stock").await, "items");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_another_namespace_is_reached_for_as_long_as_that_grants_it() {
    let world = World::open().await;
    let World { mesh, web, .. } = &world;
    let elsewhere = route("name: own", "name: items, namespace: stock");
    world.until(web, "own", "own-v1").await;
    let refused = mesh.try_apply(&elsewhere, &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("ReferenceGrant"), "{}", text(&refused));
    let out = mesh.try_apply(&elsewhere, &["--allow-dangling", "--wait"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(who(web, "own").await, "500 unresolved_backend");
    mesh.apply(GRANT);
    assert_eq!(who(web, "own").await, "items");
    let out = mesh.cli(&["delete", "referencegrant", "shop", "-n", "stock"]);
    assert!(out.status.success(), "{}", text(&out));
    world.until(web, "own", "500 unresolved_backend").await;
}
