//! Keys from a server that fails on demand, through the state to what would be pushed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_certs::RootHash;
use outrigger_mesh::{IssuerKeys, Resource, ResourceName, TrustDomain};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::Keeper;
use crate::audit::Author;
use crate::compile::ResourceChange;
use crate::spec::Document;
use crate::state::{Publish, State, Write};
use crate::store::{EmbeddedStore, Expect};
use crate::testing::{object, service};

const ONE: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Answers every connection with what it was told last.
struct Server {
    at: std::net::SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(status: &str, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicU64::new(0)));
        let (told, count) = (answer.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let mut head = [0; 4_096];
                let _ = stream.read(&mut head).await;
                let answer = told.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let server = Self { at, answer, asked, task };
        server.answers(status, "", body);
        server
    }

    fn answers(&self, status: &str, headers: &str, body: &str) {
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Seen(Mutex<BTreeMap<ResourceName, Resource>>);

impl Publish for Seen {
    fn publish(&self, _: u64, changes: Vec<ResourceChange>) {
        let mut live = self.0.lock().unwrap();
        for change in changes {
            match change {
                ResourceChange::Set(resource) => drop(live.insert(resource.name(), resource)),
                ResourceChange::Remove(name) => drop(live.remove(&name)),
            }
        }
    }
}

impl Seen {
    fn keys(&self) -> Vec<String> {
        let live = self.0.lock().unwrap();
        let Some(Resource::Issuer(issuer)) =
            live.get(&ResourceName::Issuer("shop/users/login".parse().unwrap()))
        else {
            return vec!["not there".into()];
        };
        match &issuer.keys {
            IssuerKeys::Missing => vec![],
            IssuerKeys::Known(keys) => keys.iter().map(|k| k.kid.as_deref().unwrap().to_owned()).collect(),
        }
    }
}

async fn open(folder: &std::path::Path) -> (Arc<State>, Arc<Seen>) {
    let store = Arc::new(EmbeddedStore::open(folder).await.unwrap());
    let (seen, domain) = (Arc::new(Seen::default()), TrustDomain::new("mesh.local").unwrap());
    (State::open(store, domain, RootHash::of(b"root"), seen.clone()).await.unwrap(), seen)
}

async fn apply(state: &State, jwks: &str) {
    let policy = object(&format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: TokenPolicy, metadata: {{name: users, namespace: shop}}, spec: \
         {{targetRefs: [{{kind: MeshService, name: cart}}], issuers: [{{name: login, issuer: \"https://i\", \
         audiences: [shop], jwks: {{{jwks}}}}}]}}}}"
    ));
    let put = |object| Write::Put { document: Document::made(object), expect: Expect::Anything };
    let writes = vec![put(service("cart", "ports: [{port: 80}]")), put(policy)];
    state.apply(writes, &Author::new("tester", "127.0.0.1:1"), false).await.unwrap();
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn good_keys_survive_failures_garbage_and_a_restart_and_none_is_a_state() {
    let (server, folder) = (Server::start("503 Oh", "").await, tempfile::tempdir().unwrap());
    let (state, seen) = open(folder.path()).await;
    apply(&state, &format!("uri: \"http://{}/keys\", allowPrivate: true", server.at)).await;
    assert_eq!(seen.keys(), Vec::<String>::new(), "known, without keys");
    let keeper = Arc::new(Keeper::new(state.clone()));
    let running = keeper.clone();
    let task = tokio::spawn(async move { running.run().await });
    until("it was asked", || server.asked.load(Relaxed) >= 1).await;
    until("the failure is told", || keeper.to_json()[0]["error"].as_str().is_some()).await;
    assert_eq!(keeper.to_json()[0]["state"], "no keys");
    assert!(keeper.metrics().contains("outrigger_control_issuers{state=\"no_keys\"} 1"));

    server.answers("200 OK", "", ONE);
    until("the keys are there", || seen.keys() == ["one"]).await;
    assert_eq!(keeper.to_json()[0]["state"], "ok");

    // Everything that is no set with a usable key leaves them as they are.
    let before = server.asked.load(Relaxed);
    server.answers("200 OK", "", "{\"keys\":[]}");
    for _ in 0..20 {
        keeper.want(&["shop/users/login".parse().unwrap()]);
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(server.asked.load(Relaxed), before, "not asked again within the least interval");
    assert_eq!(seen.keys(), ["one"]);
    task.abort();
    drop((keeper, state));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_state, seen) = open(folder.path()).await;
    assert_eq!(seen.keys(), ["one"], "a control plane that starts takes no keys away");
}

#[tokio::test]
async fn a_fetch_stays_at_its_server_and_within_its_bounds() {
    let server = Server::start("200 OK", ONE).await;
    let source = |text: &str, allow_private| super::Source {
        place: super::Place::Uri { uri: text.into(), roots: vec![], allow_private },
        refresh: Duration::from_secs(300),
    };
    let at = format!("http://{}/keys", server.at);
    assert_eq!(super::fetch::fetch(&source(&at, true)).await.unwrap().len(), 1);
    let asked = server.asked.load(Relaxed);
    let why = async |text: &str, allow| super::fetch::fetch(&source(text, allow)).await.unwrap_err();
    assert!(why(&at, false).await.contains("allowPrivate"));
    for inside in ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"] {
        assert!(why(inside, true).await.contains("never asked"), "{inside}");
    }
    assert!(
        why(&format!("http://localhost:{}/keys", server.at.port()), false).await.contains("allowPrivate")
    );
    assert_eq!(server.asked.load(Relaxed), asked, "none of these reached it");
    let other = Server::start("200 OK", ONE).await;
    server.answers("302 Found", &format!("location: http://{}/keys\r\n", other.at), "");
    assert!(why(&at, true).await.contains("another server"));
    assert_eq!(other.asked.load(Relaxed), 0);
    server.answers("302 Found", "location: /keys\r\n", "");
    assert!(why(&at, true).await.contains("too often"));
    server.answers("200 OK", "", &" ".repeat(300_000));
    assert!(why(&at, true).await.contains("too long"));
    server.answers("200 OK", "", "<html>");
    assert!(why(&at, true).await.contains("not JSON"));
}
