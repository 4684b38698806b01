//! A sidecar without file descriptors, as a real process with a real limit: it does not spin, operators are answered, and
//! traffic goes on as soon as there are some again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use outrigger_testkit::{Behaviour, Client, Origin, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

mod process_common;
use process_common::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_descriptors_it_rests_answers_operators_and_recovers_within_a_second() {
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "ulimit -Sn 64; ulimit -Hn 160;", "--workers 2");
    assert_eq!(metric(sidecar.admin, "process_max_fds").await, 160, "the soft limit is raised");
    cart.behave(Behaviour { delay: Duration::from_secs(60), ..Behaviour::default() });

    // As many callers as are accepted, below number 100 of 160, and only then do they say what they want: connections are made
    // below number 140, which is not one for each. What can not be connected is refused with its own reason.
    let mut calls = JoinSet::new();
    let open = std::fs::read_dir(sidecar.folder_of_descriptors()).unwrap().count();
    let most = 97_usize.saturating_sub(open);
    assert!(open + 2 * most > 140, "{open} are open before anybody calls");
    let mut callers = Vec::new();
    for _ in 0..most {
        callers.push(Client::h1(sidecar.outbound).await);
    }
    eventually("they are accepted", || async {
        metric(sidecar.admin, "outrigger_connections{side=\"outbound\"}").await == most as u64
    })
    .await;
    for mut caller in callers {
        calls.spawn(async move { caller.post("cart", "/", "order").await });
    }
    // And more of them, until there is nothing to accept them with.
    for _ in most..150 {
        let outbound = sidecar.outbound;
        calls.spawn(async move { Client::h1(outbound).await.post("cart", "/", "order").await });
    }
    eventually("accepting pauses", || async {
        metric(sidecar.admin, "outrigger_accept_pauses_total").await > 0
    })
    .await;
    let refused = timeout(Duration::from_secs(5), calls.join_next()).await.unwrap().unwrap();
    let refused = refused.unwrap().unwrap();
    assert_eq!(refused.header("x-outrigger-reason"), Some("overloaded"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    sleep(Duration::from_secs(1)).await;

    rests(&sidecar).await;
    assert!(sidecar.log().contains("accepting pauses"));

    calls.abort_all();
    cart.behave(Behaviour::default());
    serves_soon(&sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_system_gives_no_descriptor_at_all_it_rests_answers_operators_and_recovers() {
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "", "--workers 2");
    let before = limit(&sidecar, metric(sidecar.admin, "process_open_fds").await);
    let mut waiting = Vec::new();
    for _ in 0..64 {
        waiting.push(TcpStream::connect(sidecar.outbound).await.unwrap());
    }
    eventually("accepting pauses", || async {
        metric(sidecar.admin, "outrigger_accept_pauses_total").await > 0
    })
    .await;
    rests(&sidecar).await;

    limit(&sidecar, before);
    serves_soon(&sidecar).await;
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room_for_who_wants_to_be_served() {
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "ulimit -n 160;", "--workers 1");
    let mut flood = JoinSet::new();
    for _ in 0..400 {
        let outbound = sidecar.outbound;
        flood.spawn(async move {
            let silent = TcpStream::connect(outbound).await.unwrap();
            let _until_closed = silent.readable().await;
        });
    }
    eventually("accepting pauses", || async {
        metric(sidecar.admin, "outrigger_accept_pauses_total").await > 0
    })
    .await;
    rests(&sidecar).await;
    let mut closed = 0;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match timeout(Duration::from_millis(700), flood.join_next()).await {
            Ok(Some(_)) => closed += 1,
            // Nobody leaves any more.
            _ if closed > 100 => break,
            _ => assert!(Instant::now() < end, "those who said nothing leave: {closed}"),
        }
    }
    serves_soon(&sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_connections_holds_and_is_told() {
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "", "--workers 2 --max-connections 4");
    cart.behave(Behaviour { delay: Duration::from_secs(60), ..Behaviour::default() });
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let outbound = sidecar.outbound;
        calls.spawn(async move { Client::h1(outbound).await.get("cart", "/").await });
    }
    eventually("the limit is reached", || async { cart.in_flight() >= 4 }).await;
    sleep(Duration::from_millis(200)).await;
    // Two workers may each have let one in at the same moment.
    assert!((4..=5).contains(&cart.in_flight()), "{}", cart.in_flight());
    let name = "outrigger_connections_limited_total{side=\"outbound\"}";
    assert!(metric(sidecar.admin, name).await > 0);
    assert!(sidecar.log().contains("the limit of connections is reached"), "{}", sidecar.log());
    calls.abort_all();
    cart.behave(Behaviour::default());
    serves_soon(&sidecar).await;
}

/// Answers operators, and costs next to nothing over the two seconds after that.
async fn rests(sidecar: &Process) {
    let mut client = Client::h1(sidecar.admin).await;
    let reply = timeout(Duration::from_secs(5), client.get("localhost", "/ready")).await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert!(metric(sidecar.admin, "outrigger_accept_pauses_total").await > 0);

    // Of the answers to operators nothing is counted: on a slow machine a program that is not optimized takes long for them.
    sleep(Duration::from_millis(200)).await;
    let (began, before) = (Instant::now(), sidecar.cpu());
    sleep(Duration::from_secs(2)).await;
    let share = sidecar.cpu().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    // A loop that spins takes whatever it gets, half a processor and more; alone on a machine this is 0.005, and what a busy
    // kernel does meanwhile for others is counted to whom it interrupts.
    assert!(share < 0.2, "{:.1} % of a processor while there is nothing to do", share * 100.0);
}

async fn serves_soon(sidecar: &Process) {
    let call = async { Client::h1(sidecar.outbound).await.get("cart", "/").await.unwrap() };
    let reply = timeout(Duration::from_secs(5), call)
        .await
        .unwrap_or_else(|_| panic!("no answer within five seconds: {}", sidecar.log()));
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = Client::h1(admin).await.get("localhost", "/stats/prometheus").await.unwrap().text();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Changes the limit of the running process; answers what it was.
fn limit(sidecar: &Process, to: u64) -> u64 {
    // The sidecar inherited the hard limit of this process, and only that can be set by everybody.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(Some(sidecar.pid()), Resource::Nofile, Rlimit { current: Some(to), maximum });
    before.unwrap().current.unwrap()
}
