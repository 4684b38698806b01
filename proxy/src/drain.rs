//! How an instance ends without a failed request.
//!
//! The order is the whole point: withdraw, serve on until those who call us have taken note (5 s at most), then say
//! goodbye on open connections (GOAWAY, `Connection: close`), finish what is in flight, and only then say goodbye on the
//! outbound side, which the application may need to answer its last requests: it takes calls until the application has
//! gone. A deadline bounds all of it.
//!
//! [`Machine`] is the order, pure; [`drive`] walks it with real waiting; [`Drain`] is what everyone else holds. What
//! closing means on a connection is deliberately elsewhere: the data path watches [`Drain::phases`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// Where the end of this instance stands. Phases only ever go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not ending.
    Serving,
    /// Being withdrawn from discovery. Everything is served as before; only `/ready` says no.
    Withdrawing,
    /// Inbound connections are told to go; requests in flight are finished; new ones on them still answered.
    InboundClosing,
    /// The inbound side is closed, whatever was left there is cut. The outbound side serves on.
    InboundClosed,
    /// Outbound connections are told to go; calls are still taken until the application has gone.
    OutboundClosing,
    /// Everything is closed, whatever was left is cut. The process ends.
    Ended,
}

impl Phase {
    /// The phase's word, as `/ready` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Withdrawing => "withdrawing",
            Self::InboundClosing => "closing inbound connections",
            Self::InboundClosed => "inbound closed",
            Self::OutboundClosing => "closing outbound connections",
            Self::Ended => "ended",
        }
    }
}

/// What somebody asks for. A stronger wish replaces a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Nothing yet.
    Nothing,
    /// Take no more requests from the mesh; the application may go on calling (`POST /drain`).
    Inbound,
    /// End in order (SIGTERM, SIGINT, `POST /quitquitquit`).
    End,
    /// End at once: the second signal of somebody who does not want to wait.
    Now,
}

/// The way to ask for the end and to watch it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ask: watch::Sender<Ask>,
    phase: watch::Sender<Phase>,
}

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(Inner {
            ask: watch::Sender::new(Ask::Nothing),
            phase: watch::Sender::new(Phase::Serving),
        }))
    }
}

impl Drain {
    /// Nothing has been asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end. Asking for [`Ask::End`] a second time means [`Ask::Now`] only where the caller says so.
    pub fn ask(&self, ask: Ask) {
        self.0.ask.send_if_modified(|current| {
            let stronger = ask > *current;
            if stronger {
                *current = ask;
            }
            stronger
        });
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// To watch it.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Returns once `phase` or a later one has been reached.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.phases();
        // The sender lives in `self`: waiting can not fail.
        let _reached = phases.wait_for(|p| *p >= phase).await;
    }
}

/// What [`drive`] needs of the rest of the proxy.
pub trait Parts: Send + Sync {
    /// Withdraws the instance; returns once every subscriber has taken note, at the latest after `limit`, at once when
    /// there is nothing to withdraw or nobody to tell.
    fn withdraw(&self, limit: Duration) -> impl Future<Output = ()> + Send;
    /// Returns once no inbound request is in flight and no inbound connection is open.
    fn inbound_idle(&self) -> impl Future<Output = ()> + Send;
    /// Returns once the application has gone: no outbound connection is open, and none has come for a moment.
    fn outbound_idle(&self) -> impl Future<Output = ()> + Send;
}

/// Walks through the end of the instance whenever it is asked for; returns when it has ended. `limit` bounds the time
/// from an order to where the order leads.
pub async fn drive(drain: Drain, parts: impl Parts, limit: Duration) {
    let mut asks = drain.0.ask.subscribe();
    let mut machine = Machine::default();
    let mut deadline = None;
    loop {
        let asked = *asks.borrow_and_update();
        if machine.asked(asked) {
            deadline = Some(Instant::now() + limit);
        }
        let phase = machine.phase();
        if phase > drain.phase() {
            tracing::info!(phase = phase.as_str(), "drain");
            drain.0.phase.send_replace(phase);
        }
        if phase == Phase::Ended {
            return;
        }
        let event = tokio::select! {
            biased;
            _changed = asks.changed() => continue,
            () = until(deadline) => Event::Deadline,
            () = work(phase, &parts) => Event::Finished,
        };
        if event == Event::Deadline {
            deadline = None;
            tracing::warn!(phase = phase.as_str(), ?limit, "drain: the deadline cuts what is left");
        }
        machine.on(event);
    }
}

/// What a phase waits for. An order that comes meanwhile starts the wait anew; withdrawing twice is harmless.
async fn work(phase: Phase, parts: &impl Parts) {
    match phase {
        Phase::Withdrawing => {
            // The bound is also kept here: a hung control plane must not hold up the end.
            let _late = timeout(WITHDRAWAL, parts.withdraw(WITHDRAWAL)).await;
        }
        Phase::InboundClosing => parts.inbound_idle().await,
        Phase::OutboundClosing => parts.outbound_idle().await,
        Phase::Serving | Phase::InboundClosed | Phase::Ended => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How long subscribers get to take note of a withdrawal.
pub const WITHDRAWAL: Duration = Duration::from_secs(5);

/// The order of an end, without waiting.
#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    asked: Ask,
}

/// What happened to the phase the machine is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// What it waited for is done.
    Finished,
    /// Its time is over.
    Deadline,
}

impl Default for Machine {
    fn default() -> Self {
        Self { phase: Phase::Serving, asked: Ask::Nothing }
    }
}

impl Machine {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes an order; says whether it was news, so that its time begins to run.
    pub fn asked(&mut self, ask: Ask) -> bool {
        if ask <= self.asked {
            return false;
        }
        self.asked = ask;
        match (ask, self.phase) {
            (Ask::Now, _) => self.phase = Phase::Ended,
            (_, Phase::Serving) => self.phase = Phase::Withdrawing,
            (Ask::End, Phase::InboundClosed) => self.phase = Phase::OutboundClosing,
            _ => {}
        }
        true
    }

    /// Goes on.
    pub fn on(&mut self, event: Event) {
        let all = self.asked >= Ask::End;
        self.phase = match (self.phase, event) {
            (Phase::Serving, _) => Phase::Serving,
            (Phase::Withdrawing, Event::Finished) => Phase::InboundClosing,
            (Phase::InboundClosing, Event::Finished) if all => Phase::OutboundClosing,
            (_, Event::Deadline) if all => Phase::Ended,
            (Phase::Withdrawing, Event::Deadline) | (Phase::InboundClosing | Phase::InboundClosed, _) => {
                Phase::InboundClosed
            }
            (Phase::OutboundClosing | Phase::Ended, _) => Phase::Ended,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::*;

    /// Each part takes a given time and notes when it was asked.
    struct Timed {
        withdraw: Duration,
        inbound: Duration,
        outbound: Duration,
        log: Arc<Mutex<Vec<(&'static str, Duration)>>>,
        start: Instant,
    }

    impl Timed {
        fn note(&self, what: &'static str) {
            self.log.lock().unwrap().push((what, self.start.elapsed()));
        }
    }

    impl Parts for Timed {
        async fn withdraw(&self, _limit: Duration) {
            self.note("withdraw");
            sleep(self.withdraw).await;
        }
        async fn inbound_idle(&self) {
            self.note("inbound");
            sleep(self.inbound).await;
        }
        async fn outbound_idle(&self) {
            self.note("outbound");
            sleep(self.outbound).await;
        }
    }

    async fn run(asks: &[(u64, Ask)], times: [u64; 3], limit: u64) -> (Vec<(&'static str, u64)>, u64) {
        let drain = Drain::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let [withdraw, inbound, outbound] = times.map(Duration::from_secs);
        let parts = Timed { withdraw, inbound, outbound, log: Arc::clone(&log), start };
        let driver = tokio::spawn(drive(drain.clone(), parts, Duration::from_secs(limit)));
        for (at, ask) in asks {
            sleep_until(start + Duration::from_secs(*at)).await;
            drain.ask(*ask);
        }
        driver.await.unwrap();
        assert_eq!(drain.phase(), Phase::Ended);
        let log = log.lock().unwrap().iter().map(|(what, at)| (*what, at.as_secs())).collect();
        (log, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_is_withdraw_then_inbound_then_outbound() {
        let (log, end) = run(&[(1, Ask::End)], [2, 3, 4], 30).await;
        assert_eq!((log, end), (vec![("withdraw", 1), ("inbound", 3), ("outbound", 6)], 10));
    }

    #[tokio::test(start_paused = true)]
    async fn subscribers_that_never_acknowledge_cost_five_seconds() {
        let (log, _) = run(&[(0, Ask::End)], [3600, 1, 1], 30).await;
        assert_eq!(log, [("withdraw", 0), ("inbound", 5), ("outbound", 6)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_end_is_cut_at_the_deadline() {
        let (_, end) = run(&[(0, Ask::End)], [1, 3600, 1], 30).await;
        assert_eq!(end, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_keeps_outbound_open_until_the_end_is_asked_for() {
        let (log, end) = run(&[(0, Ask::Inbound), (100, Ask::End)], [1, 2, 3], 30).await;
        assert_eq!((log, end), (vec![("withdraw", 0), ("inbound", 1), ("outbound", 100)], 103));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_want_to_wait_need_not() {
        let (_, end) = run(&[(0, Ask::End), (2, Ask::Now)], [1, 3600, 1], 30).await;
        assert_eq!(end, 2);
    }

    fn orders() -> impl Strategy<Value = Vec<(Ask, Option<Event>)>> {
        let ask = prop_oneof![Just(Ask::Nothing), Just(Ask::Inbound), Just(Ask::End), Just(Ask::Now)];
        let event = prop_oneof![Just(None), Just(Some(Event::Finished)), Just(Some(Event::Deadline))];
        prop::collection::vec((ask, event), 0..12)
    }

    proptest! {
        #[test]
        fn phases_only_go_forward_and_an_asked_for_end_comes(orders in orders()) {
            let mut machine = Machine::default();
            let mut asked = Ask::Nothing;
            for (ask, event) in orders {
                let before = machine.phase();
                machine.asked(ask);
                asked = asked.max(ask);
                if let Some(event) = event { machine.on(event); }
                prop_assert!(machine.phase() >= before);
                prop_assert_eq!(machine.phase() == Phase::Serving, asked == Ask::Nothing);
                prop_assert!(machine.phase() <= Phase::InboundClosed || asked >= Ask::End);
            }
            machine.asked(Ask::End);
            for _ in 0..4 { machine.on(Event::Finished); }
            prop_assert_eq!(machine.phase(), Phase::Ended);
        }
    }
}
