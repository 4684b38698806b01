use std::net::SocketAddr;

use outrigger_mesh::ConnectionLimits;
use outrigger_testkit::Origin;
use tokio::task::LocalSet;

use super::*;
use crate::config::snapshot::ServiceSnapshot;

const LIMITS: Limits = Limits { http1: 2, idle: 1, http2: 1, streams: 2, waiters: 1, ..Limits::MESH };

fn place(address: SocketAddr) -> Place {
    let traffic = Live::default().client_traffic(&"shop/cart".parse().unwrap(), None);
    let endpoint = Arc::new(EndpointLive::new("i-1".parse().unwrap(), traffic));
    Place {
        endpoint,
        address,
        secured: Secured::No,
        resolved: None,
        connect: Duration::from_secs(1),
        keep_case: false,
        limited: None,
    }
}

#[tokio::test]
async fn connections_and_those_who_wait_for_one_are_bounded() {
    let origin = Origin::start().await;
    let (pool, place) = (Rc::new(Pool::new(Arc::default(), None, LIMITS)), place(origin.addr()));
    let story = async {
        let first = pool.http1(&place).await.unwrap();
        let _second = pool.http1(&place).await.unwrap();
        assert_eq!(pool.in_use(&place), 2);
        let (waiting, waits_at) = (Rc::clone(&pool), place.clone());
        let waiter =
            tokio::task::spawn_local(async move { waiting.http1(&waits_at).await.unwrap().is_reused() });
        tokio::task::yield_now().await;
        let refused = pool.http1(&place).await.unwrap_err();
        assert_eq!(refused.reason, Reason::BulkheadFull);
        first.give_back();
        assert!(waiter.await.unwrap(), "the waiter got what was given back");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn one_connection_is_made_for_all_who_want_a_stream_and_all_learn_that_it_failed() {
    let mut origin = Origin::start().await;
    let (pool, place) = (Rc::new(Pool::new(Arc::default(), None, LIMITS)), place(origin.addr()));
    let story = async {
        let both = tokio::join!(pool.http2(&place), pool.http2(&place));
        assert!(!both.0.unwrap().is_reused() && both.1.unwrap().is_reused());
        pool.sweep();
        assert_eq!(pool.connections(), 1);
        origin.refuse().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let both = tokio::join!(pool.http2(&place), pool.http2(&place));
        assert_eq!(both.0.unwrap_err().reason, Reason::ConnectFailed);
        assert_eq!(both.1.unwrap_err().reason, Reason::ConnectFailed);
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn idle_connections_are_bounded_and_end_with_their_endpoint() {
    let origin = Origin::start().await;
    let (pool, place) = (Pool::new(Arc::default(), None, LIMITS), place(origin.addr()));
    let story = async {
        let two = (pool.http1(&place).await.unwrap(), pool.http1(&place).await.unwrap());
        two.0.give_back();
        two.1.give_back();
        assert_eq!(pool.connections(), 1);
        place.endpoint.removed.store(true, Relaxed);
        pool.sweep();
        assert_eq!(pool.connections(), 0);
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_connection_beyond_its_age_takes_nothing_new_and_ends_when_it_is_idle() {
    let origin = Origin::start().await;
    let (pool, place) = (Pool::new(Arc::default(), None, LIMITS), place(origin.addr()));
    let story = async {
        let (h1, h2) = (pool.http1(&place).await.unwrap(), pool.http2(&place).await.unwrap());
        tokio::time::pause();
        tokio::time::advance(LIMITS.age * 8 / 10).await;
        pool.sweep();
        assert_eq!(pool.connections(), 2, "they are young");
        tokio::time::advance(LIMITS.age * 4 / 10).await;
        pool.sweep();
        tokio::time::resume();
        h1.give_back();
        assert_eq!(pool.connections(), 0);
        let (Kind::H2(stream), newer) = (&h2.kind, pool.http2(&place).await.unwrap()) else { unreachable!() };
        assert!(!newer.is_reused(), "another takes what is new");
        let old = stream.conn.sender.clone();
        assert!(!old.is_closed(), "what it has goes on");
        drop((h2, newer));
        assert_eq!(pool.connections(), 1);
    };
    LocalSet::new().run_until(story).await;
}

fn limited(address: SocketAddr, limits: ConnectionLimits) -> Place {
    let service = outrigger_testkit::resources::service("shop/cart");
    let mut snapshot = ServiceSnapshot::new(service, |_| unreachable!("it has no routes"));
    snapshot.connections = limits;
    Place { limited: Some(Arc::new(snapshot)), ..place(address) }
}

#[tokio::test]
async fn at_the_limit_of_an_endpoint_a_connection_is_waited_for() {
    let origin = Origin::start().await;
    let pool = Rc::new(Pool::new(Arc::default(), None, Limits { waiters: 9, ..LIMITS }));
    let limits = ConnectionLimits { per_endpoint: Some(1), per_service: None };
    let place = limited(origin.addr(), limits);
    let story = async {
        let first = pool.http1(&place).await.unwrap();
        let (waiting, waits_at) = (Rc::clone(&pool), place.clone());
        let waiter =
            tokio::task::spawn_local(async move { waiting.http1(&waits_at).await.unwrap().is_reused() });
        tokio::task::yield_now().await;
        assert_eq!(pool.opaque(&place).await.unwrap_err().reason, Reason::BulkheadFull);
        first.give_back();
        assert!(waiter.await.unwrap(), "the waiter got what was given back");
        let h2 = pool.http2(&place).await.unwrap();
        assert_eq!(pool.connections(), 1, "what idled made room");
        drop(h2);
        assert!(pool.opaque(&place).await.is_ok());
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn at_the_limit_of_a_service_what_idles_elsewhere_makes_room() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let pool = Rc::new(Pool::new(Arc::default(), None, Limits { waiters: 9, ..LIMITS }));
    let limits = ConnectionLimits { per_endpoint: None, per_service: Some(1) };
    let (one, two) = (limited(one.addr(), limits), limited(two.addr(), limits));
    let story = async {
        pool.http1(&one).await.unwrap().give_back();
        let second = pool.http1(&two).await.unwrap();
        assert!(!second.is_reused());
        assert_eq!(pool.connections(), 1);
        let waiting = Rc::clone(&pool);
        let waiter = tokio::task::spawn_local(async move { waiting.http1(&one).await.map(|_| ()) });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        second.give_back();
        waiter.await.unwrap().unwrap();
    };
    LocalSet::new().run_until(story).await;
}
