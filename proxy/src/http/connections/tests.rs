use super::*;

const EDGES: Edges = Edges {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(600),
    unused: Duration::from_secs(60),
    stalled: Duration::from_secs(300),
    age: Duration::from_secs(3_600),
    finish: Duration::from_secs(1_800),
    closing: Duration::from_secs(10),
};

/// A connection that has been greeted.
fn open(http1: bool) -> (Connections, Guard, Arc<Live>) {
    let live = Arc::new(Live::default());
    let connections = Connections::new(EDGES, &live);
    let guard = connections.enter();
    guard.control.http1.set(http1);
    guard.control.head_since.set(None);
    (connections, guard, live)
}

async fn after(seconds: u64, connections: &Connections, guard: &Guard) -> State {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    connections.sweep();
    guard.control.state.get()
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_beyond_its_age_ends_in_order_and_is_cut_when_it_does_not() {
    let (all, guard, live) = open(false);
    let busy = Busy::new(&guard.control);
    assert_eq!(after(3_600 * 89 / 100, &all, &guard).await, State::Open);
    assert_eq!(after(3_600 * 22 / 100, &all, &guard).await, State::Ending);
    assert_eq!(after(EDGES.finish.as_secs(), &all, &guard).await, State::Ending, "what it has goes on");
    assert_eq!(after(1, &all, &guard).await, State::Cut);
    assert_eq!(live.counters.cuts(Cut::Lingering), 1);
    drop(busy);
}

#[tokio::test(start_paused = true)]
async fn an_http1_connection_has_no_age() {
    let (all, guard, _live) = open(true);
    let _busy = Busy::new(&guard.control);
    assert_eq!(after(100_000, &all, &guard).await, State::Open);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end_and_those_that_do_not_close_are_cut() {
    for (http1, used, idle) in [(true, false, 600), (true, true, 600), (false, true, 600), (false, false, 60)]
    {
        let (all, guard, _live) = open(http1);
        if used {
            drop(Busy::new(&guard.control));
            guard.control.head_since.set(None);
        }
        assert_eq!(after(idle, &all, &guard).await, State::Open);
        assert_eq!(after(1, &all, &guard).await, State::Ending);
        assert_eq!(after(10, &all, &guard).await, State::Ending);
        assert_eq!(after(1, &all, &guard).await, State::Cut, "http1 {http1}, used {used}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_cut_and_over_http2_also_beside_requests() {
    for (http1, busy, state) in [
        (true, false, State::Cut),
        (false, false, State::Cut),
        (false, true, State::Cut),
        (true, true, State::Open),
    ] {
        let (all, guard, live) = open(http1);
        let _busy = busy.then(|| Busy::new(&guard.control));
        guard.control.head_since.set(Some(Instant::now()));
        assert_eq!(after(10, &all, &guard).await, State::Open);
        assert_eq!(after(1, &all, &guard).await, state, "http1 {http1}, busy {busy}");
        assert_eq!(live.counters.cuts(Cut::SlowHead), u64::from(state == State::Cut));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() {
    let (all, guard, live) = open(true);
    let _busy = Busy::new(&guard.control);
    for _ in 0..5 {
        guard.control.wrote(&Poll::Pending);
        assert_eq!(after(250, &all, &guard).await, State::Open);
        guard.control.wrote(&Poll::Ready(Ok(1)));
    }
    guard.control.flushed(&Poll::Pending);
    guard.control.wrote(&Poll::Ready(Ok(1)));
    assert_eq!(after(301, &all, &guard).await, State::Cut);
    assert_eq!(live.counters.cuts(Cut::SlowReader), 1);

    let (all, guard, _live) = open(true);
    let _busy = Busy::new(&guard.control);
    guard.control.bear(Duration::from_secs(1_000));
    guard.control.wrote(&Poll::Pending);
    assert_eq!(after(999, &all, &guard).await, State::Open, "its service said that it may");
    assert_eq!(after(2, &all, &guard).await, State::Cut);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_finished_answers_can_not_stay_for_ever() {
    let (all, guard, _live) = open(false);
    let _busy = Busy::new(&guard.control);
    guard.control.leaves(2);
    assert_eq!(after(599, &all, &guard).await, State::Open);
    guard.control.left();
    assert_eq!(after(599, &all, &guard).await, State::Open, "one has moved");
    assert_eq!(after(600, &all, &guard).await, State::Open);
    assert_eq!(after(1, &all, &guard).await, State::Cut);
}
