//! How tokens go along: only with the handle of the request, only where it is wanted, never out of the mesh.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use outrigger_mesh::{
    Backend, ClaimMatch, ClaimTest, DeniedToken, Denylist, Filters, Fraction, Mirror, Resource, Route,
    RouteMatch, RouteName, Service, TokenNeed, TokenRule, TokenRules, TokenTravel,
};
use outrigger_testkit::{Behaviour, Client, Origin, Reply, eventually, request, resources};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mint::{ISS, Mint, claims};
use crate::support::{Mesh, Sidecar, open_service, plain};
use crate::{accepted, issuer, login, pair, rules, want};

/// `web`, whose application is slow and is called with tokens, and what it calls itself: `cart` behind a sidecar.
struct Shop {
    mint: Mint,
    outside: Sidecar,
    web: Sidecar,
    web_app: Origin,
    _cart: Sidecar,
    cart_app: Origin,
    mesh: Mesh,
}

impl Shop {
    async fn new(travel: TokenTravel) -> Self {
        let (mint, mesh) = (Mint::new(), Mesh::new());
        let (web_app, cart_app) = (Origin::start().await, Origin::start().await);
        web_app.behave(Behaviour { delay: Duration::from_secs(4), ..Behaviour::default() });
        let web = mesh.server("shop/web", web_app.addr());
        want(&web, "shop/web", Some(rules(TokenNeed::Optional)));
        web.set(issuer(login(), ISS, mint.keys()));
        let outside = mesh.client_as("browser");
        outside.knows(resources::service("shop/web"), [web.endpoint("shop/web", "w-1")]);
        let cart = mesh.server("shop/cart", cart_app.addr());
        let service = Service { tokens: travel, ..resources::service("shop/cart") };
        web.knows(service, [cart.endpoint("shop/cart", "c-1")]);
        Self { mint, outside, web, web_app, _cart: cart, cart_app, mesh }
    }

    fn token(&self, sub: &str) -> String {
        self.mint.token(&claims(json!({"sub": sub, "jti": sub})))
    }

    /// A request of this user arrives, and is being served: the trace context that the application got, and its end.
    async fn arrives(&self, token: Option<&str>) -> (HeaderMap, tokio::task::JoinHandle<()>) {
        let before = self.web_app.requests();
        let mut asked = request(Method::GET, "web", "/", "".into());
        if let Some(token) = token {
            asked.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let at = self.outside.outbound;
        let served = tokio::spawn(async move { drop(Client::h1(at).await.send(asked).await) });
        eventually("the application serves it", || async { self.web_app.requests() > before }).await;
        let seen = self.web_app.seen().pop().unwrap().headers;
        let context = ["traceparent", "tracestate"].map(|n| (n.parse().unwrap(), seen[n].clone()));
        (HeaderMap::from_iter(context), served)
    }

    /// A call of the application, with these headers; what `cart` saw in Authorization.
    async fn calls(&self, headers: &HeaderMap) -> Option<String> {
        assert_eq!(call(&self.web, "cart", headers).await.status, 200);
        let seen = self.cart_app.seen().pop().unwrap();
        seen.header("authorization").map(str::to_owned)
    }
}

async fn call(sidecar: &Sidecar, host: &str, headers: &HeaderMap) -> Reply {
    let mut asked = request(Method::GET, host, "/", "".into());
    asked.headers_mut().extend(headers.clone());
    Client::h1(sidecar.outbound).await.send(asked).await.unwrap()
}

#[tokio::test]
async fn the_token_goes_along_with_the_handle_and_with_nothing_else_of_the_request() {
    let shop = Shop::new(TokenTravel::Attach).await;
    let (ada, bob) = (shop.token("ada"), shop.token("bob"));
    let (of_ada, served) = shop.arrives(Some(&ada)).await;
    let (of_bob, _served) = shop.arrives(Some(&bob)).await;
    assert_eq!(shop.calls(&of_ada).await, Some(format!("Bearer {ada}")));
    assert_eq!(shop.calls(&of_bob).await, Some(format!("Bearer {bob}")));
    // What the application says itself goes on as it is.
    let mut own = of_ada.clone();
    own.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
    assert_eq!(shop.calls(&own).await.as_deref(), Some("Basic YTpi"));
    // The victim's trace id, request id, and guesses.
    let mut guess = of_ada.clone();
    guess.remove("tracestate");
    guess.insert("x-request-id", HeaderValue::from_static("ada"));
    assert_eq!(shop.calls(&guess).await, None);
    let handle = of_ada["tracestate"].to_str().unwrap()[3..35].to_owned();
    for wrong in [
        format!("or={:032x}", u128::from_str_radix(&handle, 16).unwrap() ^ 1),
        format!("or={}", &handle[..31]),
        format!("OR={handle}"),
        format!("or={}", "0".repeat(32)),
    ] {
        guess.insert("tracestate", wrong.parse().unwrap());
        assert_eq!(shop.calls(&guess).await, None, "{wrong}");
    }
    // An attacker within the mesh sends the victim's whole context: it gets a handle of its own, and no token.
    let mut stolen = request(Method::GET, "web", "/", "".into());
    stolen.headers_mut().extend(of_ada.clone());
    let before = shop.web_app.requests();
    let at = shop.outside.outbound;
    let _attack = tokio::spawn(async move { drop(Client::h1(at).await.send(stolen).await) });
    eventually("it is served", || async { shop.web_app.requests() > before }).await;
    let seen = shop.web_app.seen().pop().unwrap().headers;
    let context: HeaderMap =
        ["traceparent", "tracestate"].map(|n| (n.parse().unwrap(), seen[n].clone())).into_iter().collect();
    assert_ne!(context["tracestate"], of_ada["tracestate"]);
    assert_eq!(shop.calls(&context).await, None);
    // Once its request has ended, a handle means nothing.
    served.await.unwrap();
    assert_eq!(shop.calls(&of_ada).await, None);
}

#[tokio::test]
async fn a_copy_has_the_token_that_the_request_has() {
    let (shop, copy_app) = (Shop::new(TokenTravel::Attach).await, Origin::start().await);
    let copy = shop.mesh.server("shop/copy", copy_app.addr());
    let service = Service { tokens: TokenTravel::Attach, ..resources::service("shop/copy") };
    shop.web.knows(service, [copy.endpoint("shop/copy", "m-1")]);
    let mirror =
        Mirror { service: "shop/copy".parse().unwrap(), version: None, port: None, share: Fraction::ALL };
    let route = Route {
        filters: Filters { mirrors: vec![mirror], ..Filters::default() },
        backends: vec![Backend::to("shop/cart".parse().unwrap())],
        ..Route::new(RouteName::new("shop/copied/0").unwrap())
    };
    let cart = resources::service("shop/cart");
    shop.web.set(Resource::Service(Service { tokens: TokenTravel::Attach, routes: vec![route], ..cart }));
    let ada = shop.token("ada");
    let (context, _served) = shop.arrives(Some(&ada)).await;
    assert_eq!(shop.calls(&context).await, Some(format!("Bearer {ada}")));
    eventually("the copy is there", || async { !copy_app.seen().is_empty() }).await;
    let seen = copy_app.seen().pop().unwrap();
    assert_eq!(seen.header("authorization").map(str::to_owned), Some(format!("Bearer {ada}")));
}

#[tokio::test]
async fn nothing_is_attached_where_nobody_asked_for_it_and_nothing_that_was_revoked_since() {
    let shop = Shop::new(TokenTravel::Keep).await;
    let ada = shop.token("ada");
    let (context, _served) = shop.arrives(Some(&ada)).await;
    assert_eq!(shop.calls(&context).await, None);
    let service = Service { tokens: TokenTravel::Attach, ..resources::service("shop/cart") };
    shop.web.set(Resource::Service(service));
    assert_eq!(shop.calls(&context).await, Some(format!("Bearer {ada}")));
    let denied = DeniedToken { jti: Some("ada".into()), ..DeniedToken::default() };
    let list = Denylist { name: "shop/gone".parse().unwrap(), tokens: vec![denied], identities: vec![] };
    shop.web.set(Resource::Denylist(list));
    assert_eq!(shop.calls(&context).await, None);
}

#[tokio::test]
async fn no_token_of_the_mesh_leaves_it_and_those_of_others_do() {
    let shop = Shop::new(TokenTravel::Keep).await;
    let ada = shop.token("ada");
    let (context, _served) = shop.arrives(Some(&ada)).await;
    let place = Origin::start().await;
    // Plaintext, and so not a place to attach a token to, whatever is said of it.
    let open = |tokens| Service { tokens, ..open_service("shop/pay") };
    let calls = async |tokens: TokenTravel, own: Option<&str>| {
        shop.web.knows(open(tokens), [plain("shop/pay", "p-1", place.addr())]);
        let mut headers = context.clone();
        headers.extend(own.map(|own| (header::AUTHORIZATION, own.parse().unwrap())));
        assert_eq!(call(&shop.web, "pay", &headers).await.status, 200);
        let seen = place.seen().pop().unwrap();
        (seen.header("authorization").map(str::to_owned), seen.header("tracestate").map(str::to_owned))
    };
    assert_eq!(calls(TokenTravel::Attach, None).await.0, None);
    let bearer = format!("Bearer {ada}");
    for hidden in
        [&bearer, &format!("bearer  {ada}"), &format!("Token {ada}"), &format!("Bearer {}", shop.token("x"))]
    {
        assert_eq!(calls(TokenTravel::Strip, Some(hidden)).await.0, None, "{hidden}");
    }
    for own in ["Bearer sk-live-1234", "Basic YTpi"] {
        assert_eq!(calls(TokenTravel::Strip, Some(own)).await.0.as_deref(), Some(own));
    }
    assert_eq!(calls(TokenTravel::Keep, Some(&bearer)).await.0, Some(bearer));
    assert_eq!(calls(TokenTravel::Strip, None).await.1, None, "nor does a handle");
}

#[tokio::test]
async fn calls_are_routed_by_the_claims_of_a_verified_token_alone() {
    let (mint, mesh) = (Mint::new(), Mesh::new());
    let (all, ops) = (Origin::start().await, Origin::start().await);
    let sidecar = mesh.client();
    sidecar.set(issuer(login(), ISS, mint.keys()));
    let backend = |service: &str| Backend::to(service.parse().unwrap());
    let wanted = ClaimMatch { claim: "groups".parse().unwrap(), test: ClaimTest::OneOf(vec!["ops".into()]) };
    let route = |name: &str, matches, to| Route {
        matches,
        backends: vec![backend(to)],
        ..Route::new(RouteName::new(name).unwrap())
    };
    let by_claim = RouteMatch { claims: vec![wanted], ..RouteMatch::default() };
    let routes = vec![route("r/ops/0", vec![by_claim], "shop/ops"), route("r/all/0", vec![], "shop/cart")];
    sidecar.knows(Service { routes, ..open_service("shop/cart") }, [plain("shop/cart", "a", all.addr())]);
    sidecar.knows(open_service("shop/ops"), [plain("shop/ops", "o", ops.addr())]);
    let send = async |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        assert_eq!(call(&sidecar, "cart", &headers).await.status, 200);
        (all.requests(), ops.requests())
    };
    assert_eq!(send(&mint.token(&claims(json!({})))).await, (0, 1));
    assert_eq!(send(&mint.token(&claims(json!({"groups": "users"})))).await, (1, 1));
    // The very same words, and nobody's signature.
    assert_eq!(send(&Mint::new().token(&claims(json!({})))).await, (2, 1));
    assert_eq!(send(&mint.token(&claims(json!({"exp": 1, "iat": null, "nbf": null})))).await, (3, 1));
    assert_eq!(send("x.y.z").await, (4, 1));
}

#[tokio::test]
async fn keys_and_lists_hold_from_the_moment_they_are_pushed() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let (client, server) = pair(&mesh, origin.addr(), Some(rules(TokenNeed::Required)));
    // Another instance might have the keys, so a caller's sidecar would try again.
    let mut once = resources::service("shop/cart");
    once.policy.retry.retries = 0;
    client.set(Resource::Service(once));
    let mut headers = HeaderMap::new();
    let token = mint.token(&claims(json!({})));
    headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let reason = async || {
        let reply = call(&client, "cart", &headers).await;
        (reply.status.as_u16(), reply.header("x-outrigger-reason").map(str::to_owned))
    };
    let no_keys = (503, Some("jwt_keys_unavailable".to_owned()));
    assert_eq!(reason().await, no_keys, "not known at all");
    server.set(issuer(login(), ISS, vec![]));
    assert_eq!(reason().await, no_keys, "known without keys");
    server.set(issuer(login(), ISS, mint.keys()));
    assert_eq!(reason().await.0, 200);
    let denied =
        DeniedToken { iss: Some(ISS.into()), issued_before: Some(u64::MAX), ..DeniedToken::default() };
    let list = Denylist { name: "shop/gone".parse().unwrap(), tokens: vec![denied], identities: vec![] };
    server.set(Resource::Denylist(list));
    assert_eq!(reason().await.0, 401, "what is remembered is looked at again");
    server.live.tokens.remove_denylist(&"shop/gone".parse().unwrap());
    assert_eq!(reason().await.0, 200);
    server.set(issuer(login(), ISS, Mint::new().keys()));
    assert_eq!(reason().await.0, 401, "other keys under the same names");
    assert_eq!(server.live.tokens.take_wanted(), [login()], "newer keys were asked for when there were none");
}

/// At a port that nobody declared, bytes that only nearly are HTTP once reached the application around the token.
#[tokio::test]
async fn an_opaque_connection_does_not_lead_around_the_token_that_a_service_wants() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    for (need, gets_through) in
        [(TokenNeed::Nothing, true), (TokenNeed::Required, false), (TokenNeed::Optional, false)]
    {
        let server = mesh.server("shop/cart", app.addr());
        let issuers = if need == TokenNeed::Nothing { vec![] } else { vec![accepted(login())] };
        let rule = TokenRule { issuers, ..rules(need).rules.remove(0) };
        want(&server, "shop/cart", Some(TokenRules { rules: vec![rule], ..rules(need) }));
        let client = mesh.client_with(&["cart"], 1);
        client.knows(resources::service("shop/cart"), [server.endpoint("shop/cart", "i-1")]);
        let before = app.requests();
        let mut stream = tokio::net::TcpStream::connect(client.upstreams[0]).await.unwrap();
        // No request line, and yet one for many servers.
        stream.write_all(b"\r\nGET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _reset =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(
            (text.contains("200 OK"), app.requests() > before),
            (gets_through, gets_through),
            "{need:?}: {text}"
        );
    }
}
