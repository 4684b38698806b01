//! The outside client: users of the shop, who know nothing of the mesh and call `web` where it listens.
//!
//! It stands behind what a platform puts in front of a service that is reached from outside: a balancer over the
//! instances of `web`, from which one is taken out before its sidecar restarts. What it counts is what users saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use outrigger_mesh::Histogram;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::page::{Made, Shop, Visit};

/// Users at work. Dropped, they stop.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    users: JoinSet<()>,
}

/// What happened to the requests that began in one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) latency: Histogram,
    /// Answers by service and version, as the page tells who made its parts.
    pub(super) versions: BTreeMap<(&'static str, String), u64>,
    /// What went wrong, how often; only the first few kinds are kept.
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) lasted: Duration,
}

/// The phase in which a request begins is where it counts.
pub(super) type Phase = usize;

impl Load {
    /// Lets users come: so many at once, and no more requests a second than `rate`, over these instances of `web`.
    pub(super) fn begin(shop: Shop, webs: &[SocketAddr], users: usize, rate: u32) -> Self {
        let shared = Arc::new(Shared {
            shop,
            webs: webs.iter().map(|address| Web::new(*address)).collect(),
            phase: AtomicUsize::new(0),
            phases: Mutex::new(vec![Kept::default()]),
        });
        let pause = Duration::from_secs(1) * u32::try_from(users).unwrap_or(1) / rate.max(1);
        let mut tasks = JoinSet::new();
        for number in 0..users {
            let user = User {
                shared: Arc::clone(&shared),
                number,
                connections: webs.iter().map(|_| None).collect(),
            };
            tasks.spawn(user.work(pause));
        }
        Self { shared, users: tasks }
    }

    /// What begins from now on counts in a new phase.
    pub(super) fn phase(&self) -> Phase {
        let mut phases = self.shared.phases();
        let now = Instant::now();
        if let Some(last) = phases.last_mut() {
            last.ended = Some(now);
        }
        phases.push(Kept { began: now, ..Kept::default() });
        let phase = phases.len() - 1;
        self.shared.phase.store(phase, Ordering::SeqCst);
        phase
    }

    /// A view of it that shows while it lasts.
    pub(super) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// What was counted in a phase so far.
    pub(super) fn tally(&self, phase: Phase) -> Tally {
        let phases = self.shared.phases();
        phases.get(phase).map(Kept::tally).unwrap_or_default()
    }

    /// How many requests are on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.shared.webs.iter().map(|web| web.in_flight.load(Ordering::SeqCst)).sum()
    }

    /// Takes an instance of `web` out of the balancer and waits until nothing is on its way there.
    pub(super) async fn take_out(&self, web: SocketAddr) {
        let Some(web) = self.shared.webs.iter().find(|w| w.address == web) else { return };
        web.out.store(true, Ordering::SeqCst);
        while web.in_flight.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Puts it back.
    pub(super) fn put_back(&self, web: SocketAddr) {
        if let Some(web) = self.shared.webs.iter().find(|w| w.address == web) {
            web.out.store(false, Ordering::SeqCst);
        }
    }

    /// Waits until nothing is on its way that began before now.
    pub(super) async fn settle(&self) {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let phase = self.shared.phase.load(Ordering::SeqCst);
        let open = || {
            let phases = self.shared.phases();
            phases.iter().take(phase).map(|kept| kept.open).sum::<u64>()
        };
        while open() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets every user finish the request he is at, and sends them home.
    pub(super) async fn end(mut self) {
        self.phase();
        self.settle().await;
        self.users.shutdown().await;
    }
}

/// A view of what users see.
#[derive(Debug)]
pub(super) struct Watch(Arc<Shared>);

impl Watch {
    /// All that was counted so far.
    pub(super) fn all(&self) -> Tally {
        sum(self.0.phases().iter().map(Kept::tally))
    }
}

/// Merges the phases of one step.
pub(super) fn sum(tallies: impl IntoIterator<Item = Tally>) -> Tally {
    tallies.into_iter().fold(Tally::default(), |mut all, tally| {
        all.requests += tally.requests;
        all.failed += tally.failed;
        all.latency.merge(&tally.latency);
        all.lasted += tally.lasted;
        for (who, count) in tally.versions {
            *all.versions.entry(who).or_default() += count;
        }
        for (what, count) in tally.failures {
            *all.failures.entry(what).or_default() += count;
        }
        all
    })
}

#[derive(Debug)]
struct Shared {
    shop: Shop,
    webs: Vec<Web>,
    phase: AtomicUsize,
    phases: Mutex<Vec<Kept>>,
}

impl Shared {
    fn phases(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Web {
    address: SocketAddr,
    out: AtomicBool,
    in_flight: AtomicUsize,
}

impl Web {
    fn new(address: SocketAddr) -> Self {
        Self { address, out: AtomicBool::new(false), in_flight: AtomicUsize::new(0) }
    }
}

#[derive(Debug)]
struct Kept {
    tally: Tally,
    /// Begun and not yet answered.
    open: u64,
    began: Instant,
    ended: Option<Instant>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { tally: Tally::default(), open: 0, began: Instant::now(), ended: None }
    }
}

impl Kept {
    fn tally(&self) -> Tally {
        let lasted = self.ended.unwrap_or_else(Instant::now) - self.began;
        Tally { lasted, ..self.tally.clone() }
    }

    fn record(&mut self, result: Result<Vec<Made>, String>, latency: Duration) {
        self.open -= 1;
        self.tally.requests += 1;
        self.tally.latency.record(latency);
        match result {
            Ok(parts) => {
                for made in parts {
                    *self.tally.versions.entry((made.service, made.version)).or_default() += 1;
                }
            }
            Err(why) => {
                self.tally.failed += 1;
                let failures = &mut self.tally.failures;
                if failures.len() < KINDS_OF_FAILURE || failures.contains_key(&why) {
                    *failures.entry(why).or_default() += 1;
                }
            }
        }
    }
}

struct User {
    shared: Arc<Shared>,
    number: usize,
    connections: Vec<Option<Connection>>,
}

struct Connection {
    send: SendRequest<Full<Bytes>>,
    _driven: AbortOnDropHandle<()>,
}

impl User {
    async fn work(mut self, pause: Duration) {
        // Spread, so that they do not all come in the same millisecond.
        let spread = pause * u32::try_from(self.number % 16).unwrap_or(0) / 16;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + spread, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in self.number.. {
            ticks.tick().await;
            self.visit(turn).await;
        }
    }

    async fn visit(&mut self, turn: usize) {
        let web = self.choose(turn);
        let shared = Arc::clone(&self.shared);
        let phase = {
            let mut phases = shared.phases();
            let phase = phases.len() - 1;
            phases[phase].open += 1;
            phase
        };
        let began = Instant::now();
        let visit = shared.shop.visit(turn);
        let result = match tokio::time::timeout(ANSWER_WITHIN, self.fetch(web, &visit)).await {
            Ok(Ok((status, body))) => shared.shop.read(&visit, status, &body),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
        };
        if result.is_err() {
            self.connections[web] = None;
        }
        shared.phases()[phase].record(result, began.elapsed());
        shared.webs[web].in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// The next instance that is in, counted as on the way there.
    fn choose(&self, turn: usize) -> usize {
        let webs = &self.shared.webs;
        // Shifted every ten turns, so that no instance gets only visits of one kind.
        let turn = turn + turn / 10;
        for web in (turn..).take(webs.len()).map(|n| n % webs.len()) {
            webs[web].in_flight.fetch_add(1, Ordering::SeqCst);
            // Looked at after it was counted: whoever takes it out then waits for this request.
            if !webs[web].out.load(Ordering::SeqCst) {
                return web;
            }
            webs[web].in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        let web = turn % webs.len();
        webs[web].in_flight.fetch_add(1, Ordering::SeqCst);
        web
    }

    async fn fetch(&mut self, web: usize, visit: &Visit) -> Result<(u16, Bytes), String> {
        let address = self.shared.webs[web].address;
        let connection = &mut self.connections[web];
        let mut request = visit.request()?;
        // A kept connection may have been closed meanwhile. What was not written on it goes over a new one, as every
        // browser does; what was written and not answered is lost and counts.
        for fresh in [false, true] {
            if fresh || connection.as_ref().is_none_or(|c| c.send.is_closed()) {
                *connection = Some(Connection::to(address).await?);
            }
            let Some(open) = connection.as_mut() else { break };
            if open.send.ready().await.is_err() {
                continue;
            }
            match open.send.try_send_request(request).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let body = Limited::new(response.into_body(), LARGEST_PAGE).collect().await;
                    return Ok((status, body.map_err(|e| format!("the answer broke off: {e}"))?.to_bytes()));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(format!("the connection broke: {}", failed.into_error())),
                },
            }
        }
        Err("the connection closes at once".into())
    }
}

impl Connection {
    async fn to(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("can not connect: {e}"))?;
        let _ = stream.set_nodelay(true);
        let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| format!("the connection broke: {e}"))?;
        let driven = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { send, _driven: AbortOnDropHandle::new(driven) })
    }
}

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LARGEST_PAGE: usize = 1 << 20;
const KINDS_OF_FAILURE: usize = 16;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, StatusCode};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// An instance of `web` that answers every visit as version v1, and refuses while `failing`.
    async fn web(failing: Arc<AtomicBool>) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let failing = Arc::clone(&failing);
                let service = service_fn(move |_: Request<Incoming>| {
                    let fails = failing.load(Ordering::SeqCst);
                    let status = if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                    let ok = r#"{"status":"ok"}"#;
                    let page = format!(
                        r#"{{"version":"v1","lines":[],"pieces":1,"price":{{"version":"v1"}},
                            "dependencies":{{"prices":{ok},"reviews":{ok},"recommendations":{ok}}}}}"#
                    );
                    let response = Response::builder().status(status).body(Full::new(Bytes::from(page)));
                    async move { Ok::<_, Infallible>(response.unwrap()) }
                });
                connections.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (address, tasks)
    }

    fn shop() -> Shop {
        Shop::of_front_page(r#"<a href="/items/oar">"#, true)
    }

    async fn until(done: impl Fn() -> bool) {
        tokio::time::timeout(Duration::from_secs(10), async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_request_counts_in_the_phase_in_which_it_began() {
        let failing = Arc::new(AtomicBool::new(false));
        let (address, _web) = web(Arc::clone(&failing)).await;
        let load = Load::begin(shop(), &[address], 4, 2000);
        until(|| load.tally(0).requests >= 50).await;
        failing.store(true, Ordering::SeqCst);
        let bad = load.phase();
        load.settle().await;
        until(|| load.tally(bad).requests >= 50).await;
        let end = load.phase();
        load.settle().await;

        let (before, after) = (load.tally(0), load.tally(bad));
        assert!(before.failed <= 4, "at most what each user had under way: {before:?}");
        assert_eq!(after.failed, after.requests);
        assert!(after.failures.keys().any(|why| why.contains("answered 503")), "{after:?}");
        assert!(before.versions[&("prices", "v1".to_owned())] > 25);
        assert_eq!(sum([before.clone(), after]).requests, sum((0..end).map(|p| load.tally(p))).requests);
        load.end().await;
    }

    #[tokio::test]
    async fn nothing_goes_to_an_instance_that_was_taken_out() {
        let (failing, sound) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (first, _first) = web(Arc::clone(&failing)).await;
        let (second, _second) = web(sound).await;
        let load = Load::begin(shop(), &[first, second], 4, 2000);
        until(|| load.tally(0).requests >= 50).await;
        load.take_out(first).await;
        failing.store(true, Ordering::SeqCst);
        let phase = load.phase();
        until(|| load.tally(phase).requests >= 50).await;
        assert_eq!(load.tally(phase).failed, 0);
        load.put_back(first);
        until(|| load.tally(phase).failed > 0).await;
        load.end().await;
    }
}
