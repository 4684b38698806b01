//! Client and server over in-memory connections.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use outrigger_mesh::{
    EndpointPort, EndpointState, FeatureSet, PortNumber, Report, ResourceKind, Transport, Weight,
};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::session::{Carried, DeltaRequest, DeltaResponse, Rejected};

#[derive(Default)]
struct Handler {
    hellos: Mutex<Vec<Hello>>,
    requests: Mutex<Vec<DeltaRequest>>,
    /// Responses to send at once.
    flood: usize,
    ended: Mutex<Vec<Result<(), RpcError>>>,
    answers: Mutex<Vec<PageAnswer>>,
}

impl ControlHandler for Handler {
    type Peer = SpiffeId;

    async fn sign(
        &self,
        caller: Caller<Option<SpiffeId>>,
        request: SignRequest,
    ) -> Result<SignReply, RpcError> {
        if caller.peer.is_none() && request.attestation.is_none() {
            return Err(RpcError::new(RpcErrorKind::Denied, "no token"));
        }
        let trust = Trust { trust_domain: "mesh.local".parse().unwrap(), roots: vec![[1].as_slice().into()] };
        Ok(SignReply { chain: vec![request.csr_der], trust })
    }

    async fn register(&self, _: Caller<SpiffeId>, _: Registration) -> Result<RegisterReply, RpcError> {
        Ok(RegisterReply { lease: Duration::from_millis(15_001) })
    }

    async fn withdraw(&self, _: Caller<SpiffeId>, withdrawal: Withdrawal) -> Result<WithdrawReply, RpcError> {
        assert_eq!(withdrawal.wait, Duration::from_secs(5));
        Ok(WithdrawReply { subscribers: 2, acknowledged: 1 })
    }

    async fn report(&self, caller: Caller<SpiffeId>, _: Report) -> Result<(), RpcError> {
        Err(RpcError::new(RpcErrorKind::Exhausted, format!("enough of {}", caller.peer)))
    }

    async fn exchange(
        &self,
        caller: Caller<SpiffeId>,
        request: ExchangeRequest,
    ) -> Result<ExchangeReply, RpcError> {
        let token = format!("{} for {} by {}", &*request.token, request.service, caller.peer);
        Ok(ExchangeReply { token: token.into(), expires: 7 })
    }

    async fn discover(
        &self,
        _: Caller<SpiffeId>,
        hello: Hello,
        mut stream: ServerStream,
    ) -> Result<(), RpcError> {
        self.hellos.lock().unwrap().push(hello);
        for _ in 0..self.flood {
            let sent = stream.send(response(vec![0; 256 * 1024])).await;
            if sent.is_err() {
                self.ended.lock().unwrap().push(sent.clone().map(drop));
                return sent.map(drop);
            }
        }
        while let Some(request) = stream.next().await? {
            self.requests.lock().unwrap().push(request);
            stream.send(response(vec![7])).await?;
        }
        Ok(())
    }

    /// Asks for two pages at once and tells what came.
    async fn inspect(
        &self,
        caller: Caller<SpiffeId>,
        node: String,
        mut call: Inspected,
    ) -> Result<(), RpcError> {
        assert_eq!((caller.peer, node.as_str()), (cart(), "cart-1"));
        for (id, page) in [(7, "config"), (8, "nothing")] {
            call.ask(PageAsk { id, page: page.into() }).await?;
        }
        while let Some(answer) = call.next().await? {
            let is_last = answer.id == 8;
            self.answers.lock().unwrap().push(answer);
            if is_last {
                return Err(RpcError::new(RpcErrorKind::Conflict, "that is all"));
            }
        }
        Ok(())
    }
}

fn response(payload: Vec<u8>) -> DeltaResponse {
    DeltaResponse {
        kind: ResourceKind::Service,
        revision: 42,
        nonce: "1".into(),
        resources: vec![
            Carried {
                name: "shop/cart".into(),
                version: "v".into(),
                payload: Some(payload.into()),
                aliases: vec!["cart.shop".into()],
            },
            Carried { name: "shop/web".into(), version: "w".into(), payload: None, aliases: Vec::new() },
        ],
        removed: vec!["x.shop".into()],
    }
}

struct Mesh {
    client: ControlClient,
    handler: Arc<Handler>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

fn cart() -> SpiffeId {
    "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap()
}

fn mesh(peer: Option<SpiffeId>, handler: Handler) -> Mesh {
    let (accept, accepted) = mpsc::channel::<io::Result<Accepted<DuplexStream, SpiffeId>>>(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let handler = Arc::new(handler);
    let serving = serve(ReceiverStream::new(accepted), handler.clone(), stopped.map(|_| ()));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { serving.await.unwrap() });
    let client = ControlClient::new(move || {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let remote = SocketAddr::from(([127, 0, 0, 1], 9));
        let connection = Accepted::new(theirs, peer.clone(), remote);
        let accept = accept.clone();
        async move {
            accept.send(Ok(connection)).await.map_err(|_| io::Error::other("nobody listens"))?;
            Ok(ours)
        }
        .boxed()
    });
    Mesh { client, handler, stop: Some(stop), tasks }
}

fn hello() -> Hello {
    Hello {
        identity: cart(),
        node: "cart-1".into(),
        version: "0.1.0".into(),
        service: "shop/cart".parse().ok(),
        endpoint: "i-1".parse().ok(),
        features: FeatureSet::all().without(outrigger_mesh::Feature::Retry),
        elsewhere: true,
        requests: 7,
    }
}

fn request() -> DeltaRequest {
    DeltaRequest {
        kind: ResourceKind::Endpoint,
        subscribe: vec!["shop/cart/*".into()],
        unsubscribe: vec!["shop/web/*".into()],
        known: BTreeMap::from([("shop/cart/i-1".to_owned(), "v".to_owned())]),
        nonce: "7".into(),
        rejected: vec![Rejected { name: "shop/cart/i-2".into(), version: "v".into(), reason: "no".into() }],
    }
}

fn registration() -> Registration {
    let port = PortNumber::HTTP;
    let endpoint = Endpoint {
        service: "shop/cart".parse().unwrap(),
        uid: "i-1".parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: [EndpointPort { port, listen: port, target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    };
    Registration { endpoint }
}

#[tokio::test]
async fn calls_go_both_ways() {
    let mesh = mesh(Some(cart()), Handler::default());
    let request = SignRequest { csr_der: vec![1, 2], attestation: None };
    assert_eq!(mesh.client.sign(request).await.unwrap().chain, [[1, 2]]);
    let reply = mesh.client.register(registration()).await.unwrap();
    assert_eq!(reply.lease, Duration::from_millis(15_001));
    let Endpoint { service, uid, .. } = registration().endpoint;
    let reply = mesh.client.withdraw(&service, &uid, Duration::from_secs(5)).await.unwrap();
    assert_eq!((reply.subscribers, reply.acknowledged), (2, 1));
    let error = mesh.client.report(Report::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "enough of spiffe://mesh.local/ns/shop/sa/cart");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn without_an_identity_only_a_token_opens_a_door() {
    let mesh = mesh(None, Handler::default());
    let sign = |attestation: Option<Attestation>| {
        let request = SignRequest { csr_der: vec![1], attestation };
        assert!(!format!("{request:?}").contains("secret"), "{request:?}");
        mesh.client.sign(request)
    };
    for made in [Attestation::JoinToken, Attestation::Kubernetes] {
        assert!(sign(Some(made("secret".into()))).await.is_ok());
    }
    assert_eq!(sign(None).await.unwrap_err().kind, RpcErrorKind::Denied);
    let error = mesh.client.register(registration()).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unauthenticated);
    let error = mesh.client.discover(hello()).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unauthenticated);
    assert!(!error.is_retryable());
    assert!(mesh.handler.hellos.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_discovery_stream_carries_both_messages_whole() {
    let mesh = mesh(Some(cart()), Handler::default());
    let mut stream = mesh.client.discover(hello()).await.unwrap();
    stream.send(request()).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(response(vec![7])));
    stream.send(DeltaRequest { rejected: Vec::new(), ..request() }).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(response(vec![7])));
    assert_eq!(*mesh.handler.hellos.lock().unwrap(), [hello()]);
    let requests = mesh.handler.requests.lock().unwrap();
    assert_eq!(*requests, [request(), DeltaRequest { rejected: Vec::new(), ..request() }]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_for_ten_seconds_loses_its_connection() {
    let mesh = mesh(Some(cart()), Handler { flood: 100, ..Handler::default() });
    let stream = mesh.client.discover(hello()).await.unwrap();
    stream.send(request()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let ended = mesh.handler.ended.lock().unwrap().clone();
    assert_eq!(ended.len(), 1, "the sender was not given up");
    let text = ended[0].clone().unwrap_err().to_string();
    assert!(text.contains("does not take its messages"), "{text}");
}

#[tokio::test]
async fn a_shutdown_ends_open_streams() {
    let mut mesh = mesh(Some(cart()), Handler::default());
    let mut stream = mesh.client.discover(hello()).await.unwrap();
    stream.send(request()).await.unwrap();
    stream.next().await.unwrap();
    mesh.stop.take().unwrap().send(()).unwrap();
    let error = stream.next().await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (RpcErrorKind::Unavailable, "the control plane is stopping")
    );
    drop(stream);
    let wait = tokio::time::timeout(Duration::from_secs(3), mesh.tasks.join_next());
    assert!(wait.await.is_ok(), "the server is still there");
}

#[tokio::test]
async fn a_connection_that_can_not_be_made_says_why() {
    let client = ControlClient::new(|| {
        async { Err::<DuplexStream, _>(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody home")) }
            .boxed()
    });
    let error = client.report(Report::default()).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unavailable);
    assert!(error.message.contains("nobody home"), "{error}");
}

#[tokio::test]
async fn a_page_comes_in_pieces_and_one_that_is_not_there_with_its_reason() {
    let mesh = mesh(Some(cart()), Handler::default());
    let mut asked = mesh.client.inspect("cart-1").await.unwrap();
    let page = vec![b'x'; 600 * 1024];
    assert_eq!(asked.next().await.unwrap(), Some(PageAsk { id: 7, page: "config".into() }));
    asked.answer(7, Ok(page.clone())).await.unwrap();
    assert_eq!(asked.next().await.unwrap().unwrap().page, "nothing");
    asked.answer(8, Err("no such page".into())).await.unwrap();
    let end = asked.next().await.unwrap_err();
    assert_eq!((end.kind, end.message.as_str()), (RpcErrorKind::Conflict, "that is all"));

    let answers = mesh.handler.answers.lock().unwrap();
    let mut read = Vec::new();
    for answer in &answers[..answers.len() - 1] {
        let (Piece::More(piece) | Piece::Last(piece)) = &answer.piece else { panic!("{answer:?}") };
        assert!(piece.len() <= 256 * 1024);
        read.extend_from_slice(piece);
    }
    assert_eq!((read, answers.len()), (page, 4));
    assert_eq!(answers[3].piece, Piece::Failure("no such page".into()));
}

#[tokio::test]
async fn who_has_no_name_is_not_asked() {
    let mesh = mesh(Some(cart()), Handler::default());
    for node in [String::new(), "n".repeat(129)] {
        let mut asked = mesh.client.inspect(&node).await.unwrap();
        assert_eq!(asked.next().await.unwrap_err().kind, RpcErrorKind::Invalid);
    }
    let nobody = self::mesh(None, Handler::default());
    assert_eq!(nobody.client.inspect("cart-1").await.unwrap_err().kind, RpcErrorKind::Unauthenticated);
}
