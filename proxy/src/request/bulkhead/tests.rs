use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

type Entering = Pin<Box<dyn Future<Output = Result<Permit, Full>>>>;

fn settings(limit: u32, queue: u32, timeout_ms: u64) -> Settings {
    Settings { max_in_flight: limit, max_queue: queue, queue_timeout: Duration::from_millis(timeout_ms) }
}

fn entering(bulkhead: &Arc<Bulkhead>, deadline: Option<Instant>) -> Entering {
    let bulkhead = Arc::clone(bulkhead);
    Box::pin(async move { bulkhead.enter(deadline).await })
}

fn poll(entering: &mut Entering) -> Poll<Result<Permit, Full>> {
    entering.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Enters as far as that goes without waiting.
fn begin(bulkhead: &Arc<Bulkhead>) -> Result<Permit, Entering> {
    let mut entering = entering(bulkhead, None);
    match poll(&mut entering) {
        Poll::Ready(Ok(permit)) => Ok(permit),
        Poll::Ready(Err(full)) => panic!("{full}"),
        Poll::Pending => Err(entering),
    }
}

fn counts(bulkhead: &Bulkhead) -> (u32, u32) {
    let g = bulkhead.gauges();
    (g.in_flight, g.queued)
}

#[tokio::test(start_paused = true)]
async fn places_go_to_those_who_wait_in_their_order() {
    let bulkhead = Bulkhead::new(settings(1, 2, 1_000), 1);
    let first = begin(&bulkhead).ok().unwrap();
    let (mut second, mut third) = (begin(&bulkhead).unwrap_err(), begin(&bulkhead).unwrap_err());
    assert_eq!(counts(&bulkhead), (1, 2));
    let refused = entering(&bulkhead, None).await.unwrap_err();
    assert_eq!(refused, Full::Queue { limit: 1, waiting: 2 });
    drop(first);
    assert!(poll(&mut third).is_pending());
    let Poll::Ready(Ok(second)) = poll(&mut second) else { panic!("the second is next") };
    drop(second);
    assert!(poll(&mut third).is_ready());
    drop(third);
    assert_eq!((counts(&bulkhead), bulkhead.gauges().rejected), ((0, 0), 1));
}

#[tokio::test(start_paused = true)]
async fn in_an_overload_the_newest_goes_first_and_the_oldest_makes_room() {
    let bulkhead = Bulkhead::new(settings(1, 2, 1_000), 1);
    let first = begin(&bulkhead).ok().unwrap();
    let (mut older, mut old) = (begin(&bulkhead).unwrap_err(), begin(&bulkhead).unwrap_err());
    tokio::time::advance(Duration::from_millis(101)).await;
    let mut fresh = begin(&bulkhead).unwrap_err();
    let Poll::Ready(Err(Full::Displaced { waited })) = poll(&mut older) else { panic!("made room") };
    assert_eq!((waited, counts(&bulkhead)), (Duration::from_millis(101), (1, 2)));
    drop(first);
    let Poll::Ready(Ok(served)) = poll(&mut fresh) else { panic!("the newest is next") };
    assert!(poll(&mut old).is_pending());
    drop(served);
    assert!(poll(&mut old).is_ready());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_queue_allows_or_past_his_deadline() {
    let bulkhead = Bulkhead::new(settings(1, 9, 1_000), 1);
    let _inside = begin(&bulkhead).ok().unwrap();
    let began = Instant::now();
    let full = entering(&bulkhead, None).await.unwrap_err();
    assert_eq!(full, Full::TimedOut { waited: Duration::from_secs(1) });
    let deadline = Instant::now() + Duration::from_millis(30);
    let full = entering(&bulkhead, Some(deadline)).await.unwrap_err();
    assert_eq!(full, Full::Deadline { waited: Duration::from_millis(30) });
    assert_eq!(began.elapsed(), Duration::from_millis(1_030));
    assert_eq!((counts(&bulkhead), bulkhead.gauges().rejected), ((1, 0), 2));
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_keeps_the_counts_and_lets_in_those_who_wait() {
    let bulkhead = Bulkhead::new(settings(3, 9, 1_000), 1);
    let mut inside: Vec<_> = (0..3).map(|_| begin(&bulkhead).ok().unwrap()).collect();
    let mut waiting: Vec<_> = (0..3).map(|_| begin(&bulkhead).unwrap_err()).collect();
    bulkhead.configure(settings(1, 9, 1_000), 1);
    inside.truncate(1);
    assert_eq!(counts(&bulkhead), (1, 3));
    assert!(waiting.iter_mut().all(|w| poll(w).is_pending()));
    bulkhead.configure(settings(3, 9, 1_000), 1);
    assert_eq!(counts(&bulkhead), (3, 1));
    drop((inside, waiting));
    assert_eq!(counts(&bulkhead), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_long_lived_makes_room_and_is_bounded_by_itself() {
    let bulkhead = Bulkhead::new(settings(1, 1, 1_000), 1);
    let mut stream = begin(&bulkhead).ok().unwrap();
    let mut waiting = begin(&bulkhead).unwrap_err();
    stream.become_stream().unwrap();
    let Poll::Ready(Ok(mut next)) = poll(&mut waiting) else { panic!("there is room") };
    assert_eq!(next.become_stream(), Err(Full::Streams { limit: 1 }));
    assert!(bulkhead.enter_stream().is_err());
    drop(stream);
    drop(bulkhead.enter_stream().unwrap());
    drop(next);
    let g = bulkhead.gauges();
    assert_eq!((g.in_flight, g.queued, g.streams), (0, 0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Enter { deadline_ms: Option<u64> },
    Poll(usize),
    Cancel(usize),
    Leave(usize),
    Stream(usize),
    Advance(u64),
    Limit(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::option::of(1_u64..300).prop_map(|deadline_ms| Step::Enter { deadline_ms }),
        3 => any::<usize>().prop_map(Step::Poll),
        2 => any::<usize>().prop_map(Step::Cancel),
        3 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Stream),
        2 => (1_u64..150).prop_map(Step::Advance),
        1 => (1_u32..5).prop_map(Step::Limit),
    ]
}

proptest! {
    #[test]
    fn counts_hold_on_every_path_and_nobody_waits_where_there_is_room(
        limit in 1_u32..5, queue in 0_u32..5, steps in proptest::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bulkhead = Bulkhead::new(settings(limit, queue, 200), 2);
            let (mut waiting, mut inside): (Vec<Entering>, Vec<Permit>) = (Vec::new(), Vec::new());
            let (mut limit, mut most) = (limit, limit);
            for step in steps {
                match step {
                    Step::Enter { deadline_ms } => {
                        let deadline = deadline_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                        let before = counts(&bulkhead);
                        let mut entering = entering(&bulkhead, deadline);
                        match poll(&mut entering) {
                            Poll::Ready(Ok(permit)) => inside.push(permit),
                            Poll::Ready(Err(_)) => prop_assert!(before.0 >= limit || before.1 > 0),
                            Poll::Pending => waiting.push(entering),
                        }
                    }
                    Step::Poll(at) if !waiting.is_empty() => {
                        let at = at % waiting.len();
                        match poll(&mut waiting[at]) {
                            Poll::Ready(Ok(permit)) => {
                                inside.push(permit);
                                drop(waiting.swap_remove(at));
                            }
                            Poll::Ready(Err(_)) => drop(waiting.swap_remove(at)),
                            Poll::Pending => {}
                        }
                    }
                    Step::Cancel(at) if !waiting.is_empty() => drop(waiting.swap_remove(at % waiting.len())),
                    Step::Leave(at) if !inside.is_empty() => drop(inside.swap_remove(at % inside.len())),
                    Step::Stream(at) if !inside.is_empty() => {
                        let at = at % inside.len();
                        let _full = inside[at].become_stream();
                    }
                    Step::Advance(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
                    Step::Limit(new) => {
                        limit = new;
                        bulkhead.configure(settings(new, queue, 200), 2);
                    }
                    _ => {}
                }
                let g = bulkhead.gauges();
                // A limit that was lowered is kept to as soon as enough have left.
                most = limit.max(g.in_flight.min(most));
                prop_assert!(g.in_flight <= most, "{g:?}");
                prop_assert!(g.queued == 0 || g.in_flight >= limit, "somebody is forgotten: {g:?}");
                prop_assert!(g.queued <= queue && g.streams <= 2, "{g:?}");
                let requests = inside.iter().filter(|p| !p.is_stream()).count();
                prop_assert!(g.in_flight as usize >= requests);
                prop_assert!(g.in_flight as usize + g.queued as usize <= requests + waiting.len());
            }
            drop((waiting, inside));
            let g = bulkhead.gauges();
            prop_assert_eq!((g.in_flight, g.queued, g.streams), (0, 0, 0));
            Ok(())
        })?;
    }
}

#[test]
fn two_workers_never_exceed_the_limit_and_everybody_gets_through() {
    const LIMIT: u32 = 3;
    let bulkhead = Bulkhead::new(settings(LIMIT, 64, 20_000), 4);
    let (inside, exceeded) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let worker = |seed: u64| {
        let (bulkhead, inside, exceeded) =
            (Arc::clone(&bulkhead), Arc::clone(&inside), Arc::clone(&exceeded));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut served = 0;
            runtime.block_on(async {
                let requests = (0..16_u64).map(|i| {
                    let (bulkhead, inside, exceeded) = (&bulkhead, &inside, &exceeded);
                    async move {
                        let mut rng = fastrand::Rng::with_seed(seed * 100 + i);
                        let mut served = 0;
                        for _ in 0..300 {
                            if rng.u8(..) < 40 {
                                // Goes away while it waits.
                                let mut gone = Box::pin(bulkhead.enter(None));
                                let polled = std::future::poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx)));
                                drop(polled.await);
                                continue;
                            }
                            let permit = bulkhead.enter(None).await.unwrap();
                            if inside.fetch_add(1, AcqRel) >= LIMIT {
                                exceeded.store(true, Relaxed);
                            }
                            if rng.bool() {
                                tokio::task::yield_now().await;
                            }
                            inside.fetch_sub(1, AcqRel);
                            drop(permit);
                            served += 1;
                        }
                        served
                    }
                });
                served = futures_util::future::join_all(requests).await.into_iter().sum::<u32>();
            });
            served
        })
    };
    let both = [worker(1), worker(2)];
    let served: u32 = both.map(|w| w.join().unwrap()).into_iter().sum();
    assert!(served > 6_000 && !exceeded.load(Relaxed));
    assert_eq!(counts(&bulkhead), (0, 0));
}
