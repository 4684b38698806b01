//! A Kubernetes API server that is played: it keeps objects, lists them in pages, tells watchers of changes, and goes wrong
//! where a test wants it to. It speaks enough of the protocol for the clients of others (the crate kube, kubectl).
//!
//! What it does not do: no defaulting, no controllers (no object is ever made by itself), no admission, no protobuf; a
//! strategic merge patch is taken as a merge patch, and so is an apply. Whom it lets in and what he may the test says.

mod answer;
mod discovery;
mod grants;
mod kinds;
mod patch;
mod question;
mod review;
mod schema;
mod shelf;
mod table;
mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch as signal};
use tokio::task::JoinSet;

use crate::outside::{OutsideAuthority, OutsideServer};
use crate::task::Owned;
pub use answer::faults_of;
pub use grants::Grant;
use grants::Grants;
use review::{Allowed, Rules};
use shelf::{Part, Shelf};

/// The API server. Dropped, it is gone.
pub struct KubernetesApi {
    inner: Arc<Inner>,
    plain: SocketAddr,
    authority: OutsideAuthority,
    tls: OutsideServer,
    _task: Owned,
}

/// What it keeps, and how it is to behave.
pub(crate) struct Inner {
    shelf: Mutex<Shelf>,
    rules: Mutex<Rules>,
    grants: Mutex<Grants>,
    faults: Mutex<Faults>,
    used: Mutex<BTreeSet<Used>>,
    changed: signal::Sender<u64>,
    say: broadcast::Sender<Say>,
}

/// A verb and what it was used on: its group, and its plural with a subresource.
pub type Used = (String, String, String);

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// The connection ends before an answer.
    Cut,
    /// The answer is not what was asked for.
    Garbage,
    /// There is no answer.
    Silence,
}

#[derive(Default)]
struct Faults {
    /// Nobody gets an answer.
    away: bool,
    /// Watches tell nothing.
    mute: bool,
    /// The next requests of a verb on a plural.
    next: Vec<(String, String, Fault, usize)>,
}

/// What watches are told beside changes.
#[derive(Clone, Debug)]
enum Say {
    /// Nothing more: the connection ends in the middle.
    Cut,
    /// Nothing more: the answer ends.
    End,
    /// This line.
    Line(String),
    /// Where they are.
    Bookmark,
}

impl KubernetesApi {
    /// One that keeps nothing but the namespace `default`, at a port of its own, with TLS and without.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let plain = listener.local_addr().expect("an address");
        let inner = Arc::new(Inner {
            shelf: Mutex::default(),
            rules: Mutex::default(),
            grants: Mutex::default(),
            faults: Mutex::default(),
            used: Mutex::default(),
            changed: signal::Sender::new(0),
            say: broadcast::Sender::new(256),
        });
        let task = Owned::spawn(accept(listener, Arc::clone(&inner)));
        let authority = OutsideAuthority::default();
        let tls = authority.server("127.0.0.1", &["h2", "http/1.1"], plain).await;
        let api = Self { inner, plain, authority, tls, _task: task };
        api.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "default" } }));
        api
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.tls.addr())
    }

    /// The URL without TLS.
    pub fn plain_url(&self) -> String {
        format!("http://{}", self.plain)
    }

    /// Who vouches for it, PEM.
    pub fn root_pem(&self) -> String {
        self.authority.root_pem()
    }

    /// Creates or replaces an object, status and all, as somebody else than the one who is tested.
    pub fn put(&self, object: &Value) -> Value {
        self.inner.put(object)
    }

    /// Takes an object away. Panics where there is none.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        let place = self.inner.place(api_version, kind, namespace, name);
        let gone = self.inner.shelf().delete(&place, &Value::Null, false);
        gone.unwrap_or_else(|(_, _, why)| panic!("{why}"));
        self.inner.tell();
    }

    /// An object.
    pub fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let place = self.inner.place(api_version, kind, namespace, name);
        self.inner.shelf().get(&place).cloned()
    }

    /// The objects of a kind, in the order of their names.
    pub fn all(&self, api_version: &str, kind: &str) -> Vec<Value> {
        let (id, ..) = self.inner.place(api_version, kind, "", "");
        self.inner.shelf().of_kind(&id, None).map(|(_, object)| object.clone()).collect()
    }

    /// The count of all changes until now.
    pub fn count(&self) -> u64 {
        self.inner.shelf().count()
    }

    /// Every verb that was used, and on what.
    pub fn used(&self) -> BTreeSet<Used> {
        lock(&self.inner.used).clone()
    }

    /// The next `times` requests of `verb` on `plural` (`*`: any) fail.
    pub fn fail(&self, verb: &str, plural: &str, fault: Fault, times: usize) {
        lock(&self.inner.faults).next.push((verb.into(), plural.into(), fault, times));
    }

    /// Nothing is failed on purpose any more.
    pub fn recover(&self) {
        *lock(&self.inner.faults) = Faults::default();
        self.inner.tell();
    }

    /// It is away: every connection ends, and every new one.
    pub fn go_away(&self) {
        lock(&self.inner.faults).away = true;
        self.say(Say::Cut);
    }

    /// Every watch ends in the middle.
    pub fn cut_watches(&self) {
        self.say(Say::Cut);
    }

    /// Every watch ends, as they do after some minutes.
    pub fn end_watches(&self) {
        self.say(Say::End);
    }

    /// Every watch tells this line.
    pub fn say_to_watches(&self, line: &str) {
        self.say(Say::Line(line.to_owned()));
    }

    /// Every watch that wants it tells where it is.
    pub fn bookmark(&self) {
        self.say(Say::Bookmark);
    }

    /// Watches say nothing any more, and do not end: as behind a firewall that has forgotten them.
    pub fn mute_watches(&self) {
        lock(&self.inner.faults).mute = true;
    }

    /// The history is forgotten: whoever asks for what came after an earlier count is told to list again (410).
    pub fn compact(&self) {
        self.inner.shelf().compact();
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.inner.say.receiver_count()
    }

    /// From now on everybody has to show a token. This one is `user`'s, who is in these groups; it is good for these
    /// audiences, the server's own where none is said.
    pub fn token(&self, token: &str, user: &str, groups: &[&str], audiences: &[&str]) {
        lock(&self.inner.rules).token(token, user, groups, audiences);
    }

    /// `who`, a user or a group, may `verb` the object `name` of `resource` of `group` (`*`: any) in `namespace` (none: in
    /// all). It is what SubjectAccessReviews are answered by.
    pub fn allow(
        &self,
        who: &str,
        verb: &str,
        group: &str,
        resource: &str,
        name: &str,
        namespace: Option<&str>,
    ) {
        let [who, verb, group, resource, name] = [who, verb, group, resource, name].map(str::to_owned);
        let namespace = namespace.map(str::to_owned);
        lock(&self.inner.rules).allow(Allowed { who, verb, group, resource, name, namespace });
    }

    /// Gives `user` a role. From now on he is held to those that he has; who has none may do everything.
    pub fn grant(&self, user: &str, grant: Grant) {
        lock(&self.inner.grants).give(user, grant);
    }

    /// What `user` may by his roles and has not done yet.
    pub fn unused(&self, user: &str) -> Vec<String> {
        lock(&self.inner.grants).unused(user)
    }

    /// What was tried by somebody whose roles do not let him.
    pub fn denied(&self) -> BTreeSet<String> {
        lock(&self.inner.grants).denied()
    }

    /// Nobody may `verb` on `plural` any more.
    pub fn forbid(&self, verb: &str, plural: &str) {
        lock(&self.inner.rules).forbid(verb, plural);
    }

    fn say(&self, say: Say) {
        // Nobody watches: nobody is told.
        let _ = self.inner.say.send(say);
    }
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }

    /// Tells watchers that something has changed.
    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    fn place(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> shelf::Place {
        let shelf = self.shelf();
        let of_kind = |r: &&kinds::Resource| r.kind == kind && r.api_version() == api_version;
        let resource = shelf.resources.iter().find(of_kind);
        let resource = resource.unwrap_or_else(|| panic!("no kind {kind} of {api_version}"));
        let namespace = if resource.namespaced { namespace } else { "" };
        (resource.id(), namespace.to_owned(), name.to_owned())
    }

    fn put(&self, object: &Value) -> Value {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let place = self.place(version, kind, text("/metadata/namespace"), text("/metadata/name"));
        let mut shelf = self.shelf();
        let mut anew = object.clone();
        shelf::without(&mut anew["metadata"], "resourceVersion");
        let mut done = if shelf.get(&place).is_some() {
            shelf.update(&place, anew.clone(), Part::Whole, "test", false)
        } else {
            shelf.create(place.clone(), anew.clone(), "test", false)
        };
        if anew.get("status").is_some() {
            done = shelf.update(&place, anew, Part::Status, "test", false);
        }
        drop(shelf);
        self.tell();
        done.unwrap_or_else(|(_, _, why)| panic!("{why}"))
    }

    /// How a request is to fail.
    fn fault(&self, verb: &str, plural: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        if faults.away {
            return Some(Fault::Cut);
        }
        let fits = |(v, p, _, left): &&mut (String, String, Fault, usize)| {
            *left > 0 && (v == verb || v == "*") && (p == plural || p == "*")
        };
        let found = faults.next.iter_mut().find(fits)?;
        found.3 -= 1;
        Some(found.2)
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // They end with the server.
    let mut open = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let inner = Arc::clone(&inner);
        open.spawn(async move {
            let service = service_fn(move |request| answer::answer(Arc::clone(&inner), request));
            let serving = auto::Builder::new(TokioExecutor::new());
            // A connection that is ended on purpose ends with an error.
            let _ended = serving.serve_connection(TokioIo::new(stream), service).await;
        });
        while open.try_join_next().is_some() {}
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
