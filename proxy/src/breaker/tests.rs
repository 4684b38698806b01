//! Breakers under every order of results, cancellations and steps of the clock.

use proptest::prelude::*;

use super::*;

const FAILURE: Outcome = Outcome::Failure { connect: false, retry_after: None };
const SUCCESS: Outcome = Outcome::Success(Duration::from_millis(1));

fn single() -> Arc<Breaker> {
    let policy = outrigger_mesh::ServiceBreaker::default();
    Arc::new(Breaker::new(Arc::new(Group::new(Settings::from(&policy)))))
}

fn note(breaker: &Breaker, outcome: Outcome, now: u64) {
    breaker.note(&mut breaker.pass(), outcome, Millis(now), u64::MAX);
}

fn trip(breaker: &Breaker, now: u64) {
    (0..5).for_each(|_| note(breaker, FAILURE, now));
}

#[test]
fn five_failures_open_two_probes_close_and_the_share_grows() {
    let breaker = single();
    trip(&breaker, 0);
    assert_eq!((breaker.phase(), breaker.share(Millis(499))), (Phase::Open, Share::Shut));
    for at in [1_000, 1_001] {
        assert_eq!(breaker.share(Millis(at)), Share::Probe);
        let permit = breaker.try_probe(Millis(at)).expect("its turn");
        assert!(breaker.try_probe(Millis(at)).is_none() && breaker.share(Millis(at)) == Share::Shut);
        breaker.note(&mut permit.into(), SUCCESS, Millis(at), 0);
    }
    assert_eq!(breaker.share(Millis(1_001)), Share::Part(10));
    assert_eq!(breaker.share(Millis(6_001)), Share::Part(55));
    assert_eq!((breaker.share(Millis(11_001)), breaker.phase()), (Share::Full, Phase::Closed));
}

#[test]
fn a_failed_probe_opens_it_for_twice_as_long() {
    let breaker = single();
    trip(&breaker, 0);
    let permit = breaker.try_probe(Millis(1_000)).unwrap();
    breaker.note(&mut permit.into(), FAILURE, Millis(1_000), u64::MAX);
    assert!((1_000..=2_000).contains(&u64::try_from(breaker.wait(Millis(1_000)).as_millis()).unwrap()));
}

#[test]
fn an_answer_to_what_was_sent_before_the_trip_decides_nothing() {
    let breaker = single();
    let mut early: Vec<Pass> = (0..10).map(|_| breaker.pass()).collect();
    trip(&breaker, 0);
    let permit = breaker.try_probe(Millis(1_000)).unwrap();
    for pass in &mut early[..5] {
        breaker.note(pass, SUCCESS, Millis(1_000), 0);
    }
    assert_eq!(breaker.phase(), Phase::HalfOpen, "two early successes do not close it");
    for pass in &mut early[5..] {
        breaker.note(pass, FAILURE, Millis(1_000), 0);
    }
    assert_eq!(breaker.phase(), Phase::HalfOpen, "nor do early failures open it again");
    drop(permit);
}

#[test]
fn a_cancelled_probe_makes_room_at_once_and_a_silent_one_after_a_while() {
    let breaker = single();
    trip(&breaker, 0);
    drop(breaker.try_probe(Millis(1_000)).unwrap());
    let silent = breaker.try_probe(Millis(1_000)).unwrap();
    assert_eq!(breaker.share(Millis(5_999)), Share::Shut);
    let second = breaker.try_probe(Millis(6_000)).expect("the first is overdue");
    drop(silent);
    assert!(breaker.try_probe(Millis(6_001)).is_none(), "the overdue one does not give the other's back");
    drop(second);
    assert!(breaker.try_probe(Millis(6_002)).is_some());
}

#[test]
fn slow_answers_open_it_where_that_is_asked_for() {
    let slow = outrigger_mesh::SlowCalls { over: Duration::from_millis(100), percent: 80, min_requests: 10 };
    let trip = outrigger_mesh::Trip { slow: Some(slow), ..outrigger_mesh::Trip::default() };
    let breaker = Breaker::new(Arc::new(Group::new(Settings { trip: Some(trip), ..Settings::off() })));
    (0..2).for_each(|_| note(&breaker, SUCCESS, 0));
    (0..7).for_each(|_| note(&breaker, Outcome::Success(Duration::from_millis(200)), 0));
    assert_eq!(breaker.phase(), Phase::Closed);
    note(&breaker, Outcome::Success(Duration::from_millis(200)), 0);
    assert_eq!(breaker.phase(), Phase::Open);
}

#[test]
fn at_most_half_of_a_group_is_open_and_never_the_last_one() {
    for (members, percent, all, expected) in [
        (1, 50, false, 0),
        (2, 50, false, 1),
        (3, 50, false, 1),
        (6, 50, false, 3),
        (4, 100, false, 3),
        (3, 50, true, 3),
    ] {
        let policy = outrigger_mesh::EndpointBreaker {
            max_open_percent: percent,
            allow_all_open: all,
            ..outrigger_mesh::EndpointBreaker::default()
        };
        let group = Arc::new(Group::new(Settings::from(&policy)));
        let breakers: Vec<_> = (0..members).map(|_| Arc::new(Breaker::new(Arc::clone(&group)))).collect();
        group.set_members(breakers.iter());
        for breaker in &breakers {
            trip(breaker, 0);
        }
        let open = breakers.iter().filter(|b| b.phase() == Phase::Open).count();
        assert_eq!(open, expected, "of {members}");
        assert_eq!(group.is_well(), expected == 0);
    }
}

#[test]
fn settings_change_without_forgetting_unless_nothing_shall_open() {
    let group = Arc::new(Group::new(Settings::from(&outrigger_mesh::EndpointBreaker::default())));
    let breakers = [0, 1].map(|_| Arc::new(Breaker::new(Arc::clone(&group))));
    group.set_members(breakers.iter());
    trip(&breakers[0], 0);
    let mut policy = outrigger_mesh::EndpointBreaker::default();
    policy.recovery.successes = 1;
    group.configure(Settings::from(&policy));
    assert_eq!(breakers[0].phase(), Phase::Open);
    let permit = breakers[0].try_probe(Millis(1_000)).unwrap();
    breakers[0].note(&mut permit.into(), SUCCESS, Millis(1_000), 0);
    assert_eq!(breakers[0].phase(), Phase::Ramping, "one is enough now");
    policy.trip = None;
    group.configure(Settings::from(&policy));
    assert_eq!(breakers[0].phase(), Phase::Closed);
    assert!(group.is_well());
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Ask(u64),
    Answer(usize, bool),
    Neutral(usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![0_u64..20, 0_u64..2_000, 0_u64..90_000].prop_map(Step::Wait),
        3 => any::<u64>().prop_map(Step::Ask),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, ok)| Step::Answer(i.index(1_000), ok)),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Neutral(i.index(1_000))),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Cancel(i.index(1_000))),
    ]
}

/// Runs `steps`; what is under way at the end, and when that is.
fn run(breaker: &Arc<Breaker>, steps: Vec<Step>) -> Result<(Vec<Pass>, u64), TestCaseError> {
    let (mut now, mut under_way) = (0, Vec::<(Pass, u64)>::new());
    for step in steps {
        let before = (breaker.phase(), generation_of(breaker.word.load(Relaxed)));
        match step {
            Step::Wait(pause) => now += pause,
            Step::Ask(chance) => {
                if let Ok(pass) = breaker.admit(Millis(now), chance) {
                    under_way.push((pass, now));
                }
            }
            Step::Answer(at, ok) if !under_way.is_empty() => {
                let at = at % under_way.len();
                let (mut pass, _) = under_way.swap_remove(at);
                let stale = pass.generation != before.1;
                breaker.note(&mut pass, if ok { SUCCESS } else { FAILURE }, Millis(now), now);
                if stale {
                    let after = (breaker.phase(), generation_of(breaker.word.load(Relaxed)));
                    prop_assert_eq!(before, after, "an old result decided");
                }
            }
            Step::Neutral(at) if !under_way.is_empty() => {
                let at = at % under_way.len();
                let (mut pass, _) = under_way.swap_remove(at);
                breaker.note(&mut pass, Outcome::Neutral, Millis(now), 0);
                prop_assert_eq!(before.0, breaker.phase());
            }
            Step::Cancel(at) if !under_way.is_empty() => {
                under_way.swap_remove(at % under_way.len());
                prop_assert_eq!(before.0, breaker.phase());
            }
            Step::Answer(..) | Step::Neutral(_) | Step::Cancel(_) => {}
        }
        let generation = generation_of(breaker.word.load(Relaxed));
        let probes = under_way.iter().filter(|(pass, since)| {
            pass.is_probe() && pass.generation == generation && now < since + machine::PROBE_TIMEOUT_MS
        });
        prop_assert!(probes.count() <= 1, "two probes");
    }
    Ok((under_way.into_iter().map(|(pass, _)| pass).collect(), now))
}

proptest! {
    #[test]
    fn it_never_wedges_never_admits_two_probes_and_never_heeds_an_old_result(
        steps in proptest::collection::vec(step(), 1..300), leak in any::<bool>(),
    ) {
        let breaker = single();
        let (under_way, mut now) = run(&breaker, steps)?;
        // Whatever was under way is never answered, or goes away; from here on all is well, and it has to close.
        let held = if leak { under_way } else { Vec::new() };
        let end = now + 60_000 + machine::PROBE_TIMEOUT_MS + 10_000 + 100;
        while breaker.phase() != Phase::Closed || breaker.share(Millis(now)) != Share::Full {
            prop_assert!(now <= end, "{:?} after {} ms", breaker.phase(), now);
            if let Ok(mut pass) = breaker.admit(Millis(now), now) {
                breaker.note(&mut pass, SUCCESS, Millis(now), 0);
            }
            now += 20;
        }
        prop_assert!(breaker.group().is_well());
        drop(held);
    }

    #[test]
    fn never_more_of_a_group_are_open_than_allowed(
        members in 1_usize..7, percent in 1_u32..=100,
        steps in proptest::collection::vec((0_usize..7, any::<bool>(), 0_u64..3_000), 1..300),
    ) {
        let policy = outrigger_mesh::EndpointBreaker {
            max_open_percent: percent, ..outrigger_mesh::EndpointBreaker::default()
        };
        let group = Arc::new(Group::new(Settings::from(&policy)));
        let breakers: Vec<_> = (0..members).map(|_| Arc::new(Breaker::new(Arc::clone(&group)))).collect();
        group.set_members(breakers.iter());
        let mut now = 0;
        for (which, ok, pause) in steps {
            now += pause / 10;
            let breaker = &breakers[which % members];
            let outcome = if ok { SUCCESS } else { FAILURE };
            for _ in 0..3 {
                if let Ok(mut pass) = breaker.admit(Millis(now), 0) {
                    breaker.note(&mut pass, outcome, Millis(now), now);
                }
            }
            let open = breakers.iter().filter(|b| matches!(b.phase(), Phase::Open | Phase::HalfOpen)).count();
            prop_assert!(open <= (members * percent as usize / 100).max(1) && open < members.max(1));
            let unwell = breakers.iter().filter(|b| b.phase() != Phase::Closed).count();
            prop_assert_eq!(group.is_well(), unwell == 0);
        }
    }
}
