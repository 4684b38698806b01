//! The push port as sidecars see it: over TCP and TLS, from the join token to the withdrawal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures_util::FutureExt;
use outrigger_certs::jwt::TokenSigner;
use outrigger_certs::{ControlConnector, JoinToken, WorkloadIdentity, WorkloadKey};
use outrigger_control::app::{self, App};
use outrigger_control::settings::Settings;
use outrigger_mesh::{
    Endpoint, EndpointPort, EndpointState, FeatureSet, PortNumber, Report, Resource, Selector, SpiffeId,
    Transport, Weight,
};
use outrigger_wire::rpc::{
    Attestation, ControlClient, DiscoverStream, ExchangeRequest, Hello, Registration, RpcErrorKind,
    SignRequest,
};
use outrigger_wire::session::{ClientSession, Delta};
use serde_json::json;
use zeroize::Zeroizing;

use common::{request, service};

struct Mesh {
    app: App,
    _folder: tempfile::TempDir,
}

async fn mesh() -> Mesh {
    mesh_with(&[]).await
}

async fn mesh_with(more: &[&str]) -> Mesh {
    let folder = tempfile::tempdir().unwrap();
    let data = common::data_folder(&folder);
    let args =
        ["outrigger-control", "--push", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lease", "1s", "--data"];
    let settings = Settings::parse_from(args.iter().chain(&[&*data.display().to_string()]).chain(more));
    let mesh = Mesh { app: app::build(settings).await.unwrap(), _folder: folder };
    for name in ["cart", "web"] {
        let items = json!({ "items": [service(name, json!({ "ports": [{ "port": 80 }] }))] });
        mesh.admin("POST", "/v1/apply", &items.to_string()).await;
    }
    mesh
}

impl Mesh {
    async fn admin(&self, method: &'static str, path: &'static str, body: &str) -> serde_json::Value {
        let (to, body) = (self.app.admin, body.to_owned());
        let answer =
            tokio::task::spawn_blocking(move || request(to, method, path, &[], &body)).await.unwrap();
        let answer = answer.unwrap();
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    }

    async fn token(&self, account: &str) -> JoinToken {
        let body = json!({ "namespace": "shop", "serviceAccount": account }).to_string();
        let answer = self.admin("POST", "/v1/join-tokens", &body).await;
        answer["token"].as_str().unwrap().parse().unwrap()
    }

    /// A workload with a certificate, got by a join token.
    async fn workload(&self, account: &str) -> Workload {
        let token = self.token(account).await;
        let key = WorkloadKey::generate().unwrap();
        let client = client(self.app.push, ControlConnector::pinned(token.root()).unwrap());
        let attestation = Some(Attestation::JoinToken(token.expose().to_string()));
        let csr_der = key.csr().unwrap();
        let reply = client.sign(SignRequest { csr_der, attestation }).await.unwrap();
        let identity = WorkloadIdentity::from_parts(&key, &reply.chain, &reply.trust).unwrap();
        let identity = Arc::new(identity);
        let client = client_of(self.app.push, &identity);
        Workload { identity, client }
    }
}

struct Workload {
    identity: Arc<WorkloadIdentity>,
    client: ControlClient,
}

fn client_of(to: SocketAddr, identity: &Arc<WorkloadIdentity>) -> ControlClient {
    client(to, ControlConnector::new(identity).unwrap())
}

fn client(to: SocketAddr, connector: ControlConnector) -> ControlClient {
    ControlClient::new(move || {
        let connector = connector.clone();
        async move {
            let tcp = tokio::net::TcpStream::connect(to).await?;
            let (stream, _) = connector.connect(tcp).await.map_err(std::io::Error::other)?;
            Ok(stream)
        }
        .boxed()
    })
}

impl Workload {
    fn hello(claimed: &SpiffeId) -> Hello {
        Hello {
            identity: claimed.clone(),
            node: format!("{}-1", claimed.service_account()),
            version: "0.1.0".into(),
            service: None,
            endpoint: None,
            features: FeatureSet::all(),
            elsewhere: false,
            requests: 1,
        }
    }

    async fn watch(&self, selectors: &[&str]) -> Watch {
        let stream = self.client.discover(Self::hello(self.identity.id())).await.unwrap();
        let mut session = ClientSession::new(FeatureSet::all());
        for text in selectors {
            let kind = if text.ends_with("/*") {
                outrigger_mesh::ResourceKind::Endpoint
            } else {
                outrigger_mesh::ResourceKind::Service
            };
            session.subscribe(Selector::parse(kind, text).unwrap());
        }
        session.on_connect();
        let mut watch = Watch { session, stream };
        watch.say().await;
        watch
    }
}

struct Watch {
    session: ClientSession,
    stream: DiscoverStream,
}

impl Watch {
    async fn say(&mut self) {
        while let Some(request) = self.session.next_request() {
            self.stream.send(request).await.unwrap();
        }
    }

    /// Takes the next response and answers it: what it set and what it removed.
    async fn next(&mut self) -> (Vec<Resource>, usize) {
        let response = tokio::time::timeout(Duration::from_secs(5), self.stream.next());
        let response = response.await.expect("nothing came").unwrap().expect("the stream ended");
        let Delta { set, removed, ticket, .. } = self.session.on_response(response);
        self.session.answer(ticket, Vec::new());
        self.say().await;
        (set.into_iter().map(|(resource, ..)| resource).collect(), removed.len())
    }
}

fn endpoint(service: &str, uid: &str) -> Registration {
    let port = PortNumber::HTTP;
    let endpoint = Endpoint {
        service: service.parse().unwrap(),
        uid: uid.parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: [EndpointPort { port, listen: PortNumber::new(15006).unwrap(), target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    };
    Registration { endpoint }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_joins_is_seen_and_leaves_when_everybody_knows() {
    let mesh = mesh().await;
    let (cart, web) = (mesh.workload("cart").await, mesh.workload("web").await);
    let mut watch = web.watch(&["cart.shop", "shop/cart/*"]).await;
    let (set, _) = watch.next().await;
    assert_eq!(set[0].name().to_string(), "shop/cart");
    assert_eq!(watch.next().await, (vec![], 1), "no endpoint yet");

    let registration = endpoint("shop/cart", "i-1");
    let reply = cart.client.register(registration.clone()).await.unwrap();
    assert_eq!(reply.lease, Duration::from_secs(1));
    assert_eq!(watch.next().await.0, [Resource::Endpoint(registration.endpoint.clone())]);

    let Endpoint { service, uid, .. } = registration.endpoint;
    let (gone, left) =
        tokio::join!(watch.next(), cart.client.withdraw(&service, &uid, Duration::from_secs(5)));
    let left = left.unwrap();
    assert_eq!((gone.1, left.subscribers, left.acknowledged), (1, 1, 1));
    mesh.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_says_nothing_more_is_gone_when_its_lease_ends() {
    let mesh = mesh().await;
    let (cart, web) = (mesh.workload("cart").await, mesh.workload("web").await);
    let mut watch = web.watch(&["shop/cart/*"]).await;
    watch.next().await;
    let begun = std::time::Instant::now();
    cart.client.register(endpoint("shop/cart", "i-1")).await.unwrap();
    assert_eq!(watch.next().await.0.len(), 1);
    assert_eq!(watch.next().await, (vec![], 1));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_who_it_says_is_refused_with_the_reason() {
    let mesh = mesh().await;
    let cart = mesh.workload("cart").await;
    let error = cart.client.register(endpoint("shop/web", "i-1")).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Denied, "{error}");

    let web: SpiffeId = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
    let mut stream = cart.client.discover(Workload::hello(&web)).await.unwrap();
    let mut session = ClientSession::new(FeatureSet::all());
    session.subscribe(Selector::All(outrigger_mesh::ResourceKind::Trust));
    session.on_connect();
    stream.send(session.next_request().unwrap()).await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Denied, "{error}");
    assert!(error.message.contains("the certificate is of"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_once_and_nothing_but_the_door_to_a_certificate() {
    let mesh = mesh().await;
    let token = mesh.token("cart").await;
    let client = client(mesh.app.push, ControlConnector::pinned(token.root()).unwrap());
    let error = client.register(endpoint("shop/cart", "i-1")).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unauthenticated, "{error}");
    let csr_der = WorkloadKey::generate().unwrap().csr().unwrap();
    let sign = || {
        let attestation = Some(Attestation::JoinToken(token.expose().to_string()));
        client.sign(SignRequest { csr_der: csr_der.clone(), attestation })
    };
    sign().await.unwrap();
    let error = sign().await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unauthenticated, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_by_itself_alone() {
    let mesh = mesh().await;
    let cart = mesh.workload("cart").await;
    let key = WorkloadKey::generate().unwrap();
    let request = SignRequest { csr_der: key.csr().unwrap(), attestation: None };
    let reply = cart.client.sign(request).await.unwrap();
    let renewed = WorkloadIdentity::from_parts(&key, &reply.chain, &reply.trust).unwrap();
    assert_eq!(renewed.id(), cart.identity.id());
}

/// Against a control plane as a process of its own, each use over a connection of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_parallel_uses_of_one_join_token_exactly_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let process = common::Process::start(&common::data_folder(&folder));
    let body = json!({ "namespace": "shop", "serviceAccount": "cart" }).to_string();
    let made = request(process.admin, "POST", "/v1/join-tokens", &[], &body).unwrap();
    let token: JoinToken = made.body["token"].as_str().unwrap().parse().unwrap();
    let uses: Vec<_> = (0..50)
        .map(|_| {
            let client = client(process.push, ControlConnector::pinned(token.root()).unwrap());
            let csr_der = WorkloadKey::generate().unwrap().csr().unwrap();
            let attestation = Some(Attestation::JoinToken(token.expose().to_string()));
            tokio::spawn(async move { client.sign(SignRequest { csr_der, attestation }).await })
        })
        .collect();
    let mut signed = 0;
    for one in uses {
        match one.await.unwrap() {
            Ok(_) => signed += 1,
            Err(refused) => {
                assert_eq!(refused.kind, RpcErrorKind::Unauthenticated, "{refused}");
                assert!(refused.message.contains("used"), "{refused}");
            }
        }
    }
    assert_eq!(signed, 1);
    let listed = request(process.admin, "GET", "/v1/certs", &[], "").unwrap();
    assert_eq!(listed.body["total"], json!(1), "and one certificate is in the account");
}

#[tokio::test]
async fn a_process_that_renews_without_end_is_stopped_and_no_other_is() {
    let mesh = mesh().await;
    let (greedy, modest) = (mesh.workload("cart").await, mesh.workload("cart").await);
    let renew = async |who: &Workload| {
        let csr_der = WorkloadKey::generate().unwrap().csr().unwrap();
        who.client.sign(SignRequest { csr_der, attestation: None }).await
    };
    let mut refused = None;
    for _ in 0..40 {
        if let Err(error) = renew(&greedy).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.expect("it is stopped").kind, RpcErrorKind::Exhausted);
    renew(&modest).await.expect("another process of the same identity");
}

/// A set of keys and a token that it verifies, of the issuer `i` for `shop`.
fn login() -> (String, Zeroizing<String>) {
    let (signer, _) = TokenSigner::generate().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iss": "i", "aud": "shop", "sub": "ada", "jti": "1", "iat": now, "exp": now + 600});
    let token = signer.sign(claims.to_string().as_bytes()).unwrap();
    (outrigger_control::jwks::to_json(&[signer.key().clone()]).to_string(), token)
}

#[tokio::test]
async fn a_token_is_exchanged_for_whom_the_certificate_proves_and_for_nobody_else() {
    let (mesh, (jwks, token)) = (mesh().await, login());
    let policy = |name: &str, spec: serde_json::Value| {
        json!({
            "apiVersion": "outrigger.dev/v1alpha1", "kind": "TokenPolicy",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        })
    };
    let issuers = json!([{"name": "login", "issuer": "i", "audiences": ["shop"], "jwks": {"inline": jwks}}]);
    let target = |name: &str| json!([{"kind": "MeshService", "name": name}]);
    let items = json!({"items": [
        policy("web", json!({"targetRefs": target("web"), "issuers": issuers})),
        policy("cart", json!({"targetRefs": target("cart"), "propagation": "exchange"})),
    ]});
    mesh.admin("POST", "/v1/apply", &items.to_string()).await;
    let (web, cart) = (mesh.workload("web").await, mesh.workload("cart").await);
    let ask = |service: &str| ExchangeRequest { token: token.clone(), service: service.parse().unwrap() };
    let reply = web.client.exchange(ask("shop/cart")).await.unwrap();
    assert!(reply.token.split('.').count() == 3 && !format!("{reply:?}").contains(&*reply.token));

    // Whoever has the token of another workload's user, and whoever has no certificate.
    let refused = async |who: &ControlClient, what: ExchangeRequest| who.exchange(what).await.unwrap_err();
    let thief = refused(&cart.client, ask("shop/cart")).await;
    assert_eq!(thief.kind, RpcErrorKind::Denied, "{thief}");
    assert_eq!(refused(&web.client, ask("shop/web")).await.kind, RpcErrorKind::Denied);
    assert_eq!(refused(&web.client, ask("shop/nothing")).await.kind, RpcErrorKind::NotFound);
    let root = mesh.token("web").await.root();
    let nobody = client(mesh.app.push, ControlConnector::pinned(root).unwrap());
    assert_eq!(refused(&nobody, ask("shop/cart")).await.kind, RpcErrorKind::Unauthenticated);

    // An identity that is revoked exchanges nothing, whatever its certificate proves.
    let list = json!({"items": [{
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "Denylist",
        "metadata": {"name": "gone", "namespace": "shop"}, "spec": {"identities": ["web"]},
    }]});
    mesh.admin("POST", "/v1/apply", &list.to_string()).await;
    assert_eq!(refused(&web.client, ask("shop/cart")).await.kind, RpcErrorKind::Denied);
    assert!(cart.client.exchange(ExchangeRequest { token: reply.token, ..ask("shop/cart") }).await.is_ok());
    mesh.app.shutdown().await;
}

/// A connection was once good for as long as it stayed open, for everything but a discovery stream. It may not lock anybody
/// out either: a sidecar that has a later certificate goes on over the next connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate_and_whoever_has_a_later_one_goes_on() {
    let mesh = mesh_with(&["--leaf-lifetime-for-tests", "10s"]).await;
    let web = mesh.workload("web").await;
    let left = || web.identity.expires_at().duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left() / 2).await;
    let key = WorkloadKey::generate().unwrap();
    let asked = SignRequest { csr_der: key.csr().unwrap(), attestation: None };
    let reply = web.client.sign(asked).await.unwrap();
    let later = Arc::new(WorkloadIdentity::from_parts(&key, &reply.chain, &reply.trust).unwrap());
    let shown = Arc::new(std::sync::Mutex::new(web.identity.clone()));
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let renewing = {
        let (shown, connections, to) = (shown.clone(), connections.clone(), mesh.app.push);
        ControlClient::new(move || {
            connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let connector = ControlConnector::new(&shown.lock().unwrap()).unwrap();
            async move {
                let tcp = tokio::net::TcpStream::connect(to).await?;
                Ok(connector.connect(tcp).await.map_err(std::io::Error::other)?.0)
            }
            .boxed()
        })
    };
    renewing.report(Report::default()).await.unwrap();
    *shown.lock().unwrap() = later;
    tokio::time::sleep(left() + Duration::from_millis(200)).await;

    renewing.report(Report::default()).await.expect("it connects again, and shows the later certificate");
    assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 2);
    let told = web.client.report(Report::default()).await.unwrap_err();
    assert_eq!(
        told.kind,
        RpcErrorKind::Unavailable,
        "nobody connects by a certificate that has expired: {told}"
    );
    mesh.app.shutdown().await;
}
