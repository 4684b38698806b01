//! Routes that the callers' own namespace has made for a service of another one.

use outrigger_mesh::{ConsumerRoutes, Resource, ResourceName, Route, Service};

use crate::support::{Mesh, open_service};
use crate::{backend, instance, route, who};

fn own(namespace: &str, routes: Vec<Route>) -> Resource {
    let (namespace, service) = (namespace.parse().unwrap(), "stock/items".parse().unwrap());
    Resource::ConsumerRoutes(
        ConsumerRoutes { namespace, service, routes, tcp_routes: vec![] }.checked().unwrap(),
    )
}

#[tokio::test]
async fn they_stand_in_place_of_the_services_own_for_that_namespace_alone() {
    let mesh = Mesh::new();
    let (v1, v2) =
        (outrigger_testkit::Origin::named("v1").await, outrigger_testkit::Origin::named("v2").await);
    let to = |v| vec![route("all", vec![], vec![backend("stock/items", Some(v), 1)])];
    let items = Service { routes: to("v1"), ..open_service("stock/items") };
    let web = mesh.client();
    let endpoints = || [instance("stock/items", "v1", &v1), instance("stock/items", "v2", &v2)];
    web.knows(items.clone(), endpoints());
    let at = web.outbound;
    let asked = || async move {
        let mut client = outrigger_testkit::Client::h1(at).await;
        who(&client.get("items.stock", "/").await.unwrap())
    };
    assert_eq!(asked().await, "v1");
    web.set(own("other", to("v2")));
    assert_eq!(asked().await, "v1", "those of another namespace are none of ours");
    web.set(own("shop", to("v2")));
    assert_eq!(asked().await, "v2");
    // The service changes, and what its callers say of it stays in force.
    web.set(Resource::Service(Service { division: None, ..items.clone() }));
    assert_eq!(asked().await, "v2");
    let name = ResourceName::ConsumerRoutes("shop".parse().unwrap(), "stock/items".parse().unwrap());
    web.registry.apply(outrigger_proxy::config::registry::Change::Remove(name)).unwrap();
    assert_eq!(asked().await, "v1");
}
