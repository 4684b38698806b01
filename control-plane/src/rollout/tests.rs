//! The machine and its gates, with facts and time made up.

use std::time::Duration;

use outrigger_mesh::{Histogram, TrafficStats};
use proptest::prelude::*;
use time::OffsetDateTime;

use super::*;
use crate::spec::rollout::{OnFailure, Strategy as How};

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn plan(shares: &[u32], on_failure: OnFailure) -> Plan {
    let gates = Gates { min_success: Some(9_900), ..Gates::default() };
    let step = |share: &u32| Step {
        share: *share,
        hold: Duration::from_secs(10),
        gates: gates.clone(),
        waits_for_requests: true,
    };
    Plan {
        service: "shop/cart".parse().unwrap(),
        strategy: How::Canary,
        stable: outrigger_mesh::Version::new("v1").unwrap(),
        candidate: outrigger_mesh::Version::new("v2").unwrap(),
        steps: shares.iter().map(step).collect(),
        preview: vec![],
        by: None,
        on_failure,
        ack_timeout: Duration::from_secs(30),
        ready_timeout: Duration::from_secs(60),
    }
}

fn blue_green() -> Plan {
    let mut plan = plan(&[10_000], OnFailure::Rollback);
    plan.strategy = How::BlueGreen;
    plan.steps[0].waits_for_requests = false;
    plan
}

fn run(plan: &Plan) -> Run {
    let key = crate::spec::Key::from_path("rollouts/shop/cart").unwrap();
    Run::new(&key, 1, 1, plan)
}

fn judged(verdict: Verdict) -> Judged {
    Judged { verdict, gates: vec![], candidate: Figures::default(), stable: Figures::default() }
}

/// Facts at so many seconds: everybody obeys, one endpoint is ready, and too little is known.
fn facts(seconds: i64) -> Facts {
    Facts {
        now: START + time::Duration::seconds(seconds),
        ready: 1,
        unwell: None,
        acknowledged: Acknowledgements { settled: true, holders: 2, missing: vec![] },
        judged: judged(Verdict::NotYet("0 of 20 requests".into())),
    }
}

fn unacknowledged(seconds: i64) -> Facts {
    let mut facts = facts(seconds);
    facts.acknowledged.missing.push(("web-1".into(), "has not answered".into()));
    facts
}

fn passing(seconds: i64) -> Facts {
    Facts { judged: judged(Verdict::Pass), ..facts(seconds) }
}

fn failing(seconds: i64) -> Facts {
    Facts { judged: judged(Verdict::Fail("success is 50 %, wanted at least 99 %".into())), ..facts(seconds) }
}

/// Goes on for as long as something comes of itself: where it was after each.
fn settle(plan: &Plan, progress: &mut Progress, facts: &Facts) -> Vec<&'static str> {
    let mut words = vec![];
    while let Some(change) = next(plan, progress, facts) {
        *progress = change.next;
        words.push(progress.word());
        assert!(words.len() < 20, "it goes in a circle: {words:?}");
    }
    words
}

fn begun(plan: &Plan) -> Progress {
    let mut progress = Progress::fresh(run(plan), START);
    settle(plan, &mut progress, &facts(0));
    progress
}

#[test]
fn a_healthy_candidate_goes_through_its_steps_to_the_end() {
    let plan = plan(&[100, 5_000, 10_000], OnFailure::Rollback);
    let mut progress = Progress::fresh(run(&plan), START);
    assert_eq!(settle(&plan, &mut progress, &facts(0)), ["Waiting", "Stepping", "Holding"]);
    assert_eq!((progress.step, progress.share), (Some(0), 100));
    assert!(settle(&plan, &mut progress, &passing(9)).is_empty(), "it is held");
    assert!(settle(&plan, &mut progress, &facts(11)).is_empty(), "nothing is known of it yet");
    assert_eq!(settle(&plan, &mut progress, &passing(12)), ["Stepping", "Holding"]);
    assert_eq!(progress.share, 5_000);
    assert_eq!(settle(&plan, &mut progress, &passing(23)), ["Stepping", "Holding"]);
    assert_eq!(settle(&plan, &mut progress, &passing(34)), ["Done"]);
    assert_eq!(progress.share, WHOLE);
    let told: Vec<_> = progress.past.iter().map(|p| (p.phase.as_str(), p.share)).collect();
    assert_eq!(told.first(), Some(&("Waiting", 0)));
    assert_eq!(told.last(), Some(&("Done", WHOLE)));
}

#[test]
fn nothing_begins_before_the_candidate_has_an_endpoint_and_too_long_a_wait_is_a_pause() {
    let plan = plan(&[100, 10_000], OnFailure::Rollback);
    let mut progress = Progress::fresh(run(&plan), START);
    let empty = |seconds| Facts { ready: 0, ..facts(seconds) };
    assert_eq!(settle(&plan, &mut progress, &empty(0)), ["Waiting"]);
    assert!(settle(&plan, &mut progress, &empty(59)).is_empty());
    assert_eq!(settle(&plan, &mut progress, &empty(60)), ["Paused"]);
    assert!(progress.why.contains("v2 has had no ready endpoint"), "{}", progress.why);
    let change = order(&plan, &progress, &facts(70), Verb::Resume, None).unwrap();
    progress = change.next;
    assert_eq!(settle(&plan, &mut progress, &facts(70)), ["Stepping", "Holding"]);
}

#[test]
fn a_candidate_that_nobody_finds_well_does_not_begin_and_goes_back_when_it_has_begun() {
    let plan = plan(&[100, 10_000], OnFailure::Rollback);
    let unwell = |now, seconds| Facts { unwell: Some(Duration::from_secs(seconds)), ..facts(now) };
    let mut progress = Progress::fresh(run(&plan), START);
    assert_eq!(settle(&plan, &mut progress, &unwell(0, 0)), ["Waiting"]);
    assert!(settle(&plan, &mut progress, &unwell(59, 59)).is_empty(), "nothing has begun that could fail");
    assert_eq!(settle(&plan, &mut progress, &unwell(60, 60)), ["Paused"]);
    assert!(progress.why.contains("no endpoint of v2 is well"), "{}", progress.why);
    progress = order(&plan, &progress, &facts(70), Verb::Resume, None).unwrap().next;
    assert_eq!(settle(&plan, &mut progress, &facts(70)), ["Stepping", "Holding"]);
    assert!(settle(&plan, &mut progress, &unwell(79, 9)).is_empty(), "a breaker may open for a moment");
    assert_eq!(settle(&plan, &mut progress, &unwell(80, 10)), ["RollingBack", "RolledBack"]);
    assert!(progress.why.contains("at 1 %: no sidecar that calls v2 has found"), "{}", progress.why);
}

#[test]
fn a_step_that_is_not_acknowledged_is_a_pause_that_names_who_is_missing() {
    let plan = plan(&[100, 10_000], OnFailure::Rollback);
    let mut progress = begun(&plan);
    let change = next(&plan, &progress, &passing(11)).unwrap();
    progress = change.next;
    assert!(settle(&plan, &mut progress, &unacknowledged(40)).is_empty());
    let coming = Facts { acknowledged: Acknowledgements::default(), ..facts(40) };
    assert!(settle(&plan, &mut progress, &coming).is_empty(), "nobody has come back: that is not everybody");
    assert_eq!(settle(&plan, &mut progress, &unacknowledged(41)), ["Paused"]);
    assert!(progress.why.contains("1 of 2 have not: web-1 (has not answered)"), "{}", progress.why);
    let refused = order(&plan, &progress, &unacknowledged(42), Verb::Promote { full: false }, None);
    assert!(refused.unwrap_err().0.contains("web-1"));
}

#[test]
fn a_candidate_that_fails_goes_back_or_stays_as_it_was_wanted() {
    for on_failure in [OnFailure::Rollback, OnFailure::Pause] {
        let plan = plan(&[1_000, 10_000], on_failure);
        let mut progress = begun(&plan);
        let words = settle(&plan, &mut progress, &failing(3));
        if on_failure == OnFailure::Pause {
            assert_eq!((words, progress.share), (vec!["Paused"], 1_000));
            assert!(settle(&plan, &mut progress, &failing(4)).is_empty());
            continue;
        }
        assert_eq!((words, progress.share), (vec!["RollingBack", "RolledBack"], 0));
        assert!(progress.why.contains("at 10 %: success is 50 %"), "{}", progress.why);
        assert!(order(&plan, &progress, &facts(5), Verb::Resume, None).is_err());
    }
}

#[test]
fn a_rollback_is_over_only_when_everybody_knows_of_it() {
    let plan = plan(&[1_000, 10_000], OnFailure::Rollback);
    let mut progress = begun(&plan);
    let mut late = failing(3);
    late.acknowledged = unacknowledged(3).acknowledged;
    assert_eq!(settle(&plan, &mut progress, &late), ["RollingBack"]);
    assert!(settle(&plan, &mut progress, &unacknowledged(1_000)).is_empty());
    assert_eq!(settle(&plan, &mut progress, &facts(1_001)), ["RolledBack"]);
}

#[test]
fn a_pause_that_somebody_asked_for_still_protects_the_callers() {
    let plan = plan(&[1_000, 10_000], OnFailure::Rollback);
    let progress = begun(&plan);
    let mut paused = order(&plan, &progress, &facts(1), Verb::Pause, Some(0)).unwrap().next;
    assert!(settle(&plan, &mut paused, &passing(100)).is_empty());
    assert!(order(&plan, &paused, &facts(2), Verb::Pause, None).is_err());
    assert_eq!(settle(&plan, &mut paused, &failing(101)), ["RollingBack", "RolledBack"]);
}

#[test]
fn two_people_who_promote_the_same_step_promote_it_once() {
    let plan = plan(&[100, 1_000, 10_000], OnFailure::Rollback);
    let progress = begun(&plan);
    let mut promoted =
        order(&plan, &progress, &facts(1), Verb::Promote { full: false }, Some(0)).unwrap().next;
    settle(&plan, &mut promoted, &facts(1));
    assert_eq!(promoted.share, 1_000);
    let second = order(&plan, &promoted, &facts(1), Verb::Promote { full: false }, Some(0)).unwrap_err();
    assert!(second.0.contains("step 2 of 3"), "{}", second.0);
    let full = order(&plan, &promoted, &facts(2), Verb::Promote { full: true }, Some(1)).unwrap().next;
    assert_eq!((full.share, full.step), (WHOLE, Some(2)));
}

#[test]
fn blue_green_switches_at_once_drains_and_goes_back_at_once_meanwhile() {
    let plan = blue_green();
    let mut progress = Progress::fresh(run(&plan), START);
    assert_eq!(settle(&plan, &mut progress, &facts(0)), ["Waiting", "Promoting", "Draining"]);
    let mut failed = progress.clone();
    assert_eq!(settle(&plan, &mut failed, &failing(5)), ["RollingBack", "RolledBack"]);
    let aborted = order(&plan, &progress, &facts(5), Verb::Abort, None).unwrap().next;
    assert_eq!((aborted.share, aborted.word()), (0, "RollingBack"));
    assert_eq!(
        settle(&plan, &mut progress, &facts(10)),
        ["Done"],
        "its time decides, not the number of requests"
    );
}

#[test]
fn what_was_changed_of_the_steps_holds_from_where_it_is_and_other_versions_begin_anew() {
    let before = plan(&[1_000, 10_000], OnFailure::Rollback);
    let progress = begun(&before);
    let after = plan(&[500, 2_000, 10_000], OnFailure::Rollback);
    let changed = Run { changed: 2, ..run(&after) };
    let followed = follow(&after, Some(&progress), &changed, START).unwrap().next;
    assert_eq!((followed.share, followed.step, followed.phase), (1_000, Some(0), Phase::Holding));
    assert_eq!(follow(&after, Some(&followed), &changed, START), None);
    let other = Run { candidate: "v3".into(), ..changed.clone() };
    let anew = follow(&after, Some(&followed), &other, START).unwrap().next;
    assert_eq!((anew.share, anew.step, anew.phase), (0, None, Phase::Pending));
    let created_again = Run { created: 9, ..changed.clone() };
    assert_eq!(follow(&after, Some(&followed), &created_again, START).unwrap().next.share, 0);
    // What went back begins anew with any change; what is done stays done.
    let mut back = progress.clone();
    settle(&before, &mut back, &failing(1));
    assert_eq!(follow(&after, Some(&back), &changed, START).unwrap().next.phase, Phase::Pending);
    let done = Progress { phase: Phase::Done, share: WHOLE, step: Some(1), ..progress };
    let done = follow(&after, Some(&done), &changed, START).unwrap().next;
    assert_eq!((done.phase, done.share), (Phase::Done, WHOLE));
}

#[test]
fn what_is_left_of_an_unfinished_one_gives_the_candidate_nothing() {
    let plan = plan(&[1_000, 10_000], OnFailure::Rollback);
    let left = taken_away(&begun(&plan), START).unwrap().next;
    assert_eq!((left.share, left.phase), (0, Phase::Aborted));
    assert_eq!(taken_away(&Progress { phase: Phase::Done, ..left }, START), None);
}

#[derive(Clone, Debug)]
enum Event {
    Look { later: i64, ready: usize, missing: bool, verdict: u8 },
    Say(Verb),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let look = (0..40_i64, 0..2_usize, any::<bool>(), 0..8_u8)
        .prop_map(|(later, ready, missing, verdict)| Event::Look { later, ready, missing, verdict });
    let verb = prop_oneof![
        any::<bool>().prop_map(|full| Verb::Promote { full }),
        Just(Verb::Pause),
        Just(Verb::Resume),
        Just(Verb::Abort),
    ];
    let event = prop_oneof![12 => look, 3 => verb.prop_map(Event::Say), 1 => Just(Event::Restart)];
    proptest::collection::vec(event, 1..80)
}

fn plans() -> impl Strategy<Value = Plan> {
    let shares = proptest::collection::btree_set(1..10_000_u32, 0..4);
    (shares, any::<bool>(), any::<bool>()).prop_map(|(shares, pause, at_once)| {
        let on_failure = if pause { OnFailure::Pause } else { OnFailure::Rollback };
        let shares: Vec<u32> = shares.into_iter().chain([WHOLE]).collect();
        if at_once { Plan { on_failure, ..blue_green() } } else { plan(&shares, on_failure) }
    })
}

/// What must hold of every change.
fn sound(plan: &Plan, before: &Progress, facts: &Facts, after: &Progress, full: bool) {
    assert!(!before.has_ended(), "what has ended moved: {before:?} {after:?}");
    let goes_back = after.is_back() && after.share == 0;
    assert!(after.share >= before.share || goes_back, "a share fell: {before:?} {after:?}");
    assert!(!before.is_back() || after.is_back(), "what goes back does not turn: {before:?} {after:?}");
    if after.share > before.share {
        assert!(facts.acknowledged.are_complete(), "a step without acknowledgement: {before:?} {after:?}");
        assert!(facts.ready > 0, "a step to nowhere");
        let one = before.step.map_or(0, |s| s + 1);
        assert!(after.step == Some(one) || full, "more than one step: {before:?} {after:?}");
        assert_eq!(after.share, plan.steps[after.step.unwrap()].share);
    }
    if after.phase == Phase::Done {
        assert_eq!(after.share, WHOLE);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_shares_only_rise_by_acknowledged_steps_or_go_back_to_nothing(
        plan in plans(), events in events(),
    ) {
        let mut progress = Progress::fresh(run(&plan), START);
        let mut facts = facts(0);
        for event in events {
            match event {
                Event::Look { later, ready, missing, verdict } => {
                    facts.now += time::Duration::seconds(later);
                    facts.ready = ready;
                    facts.acknowledged.missing =
                        if missing { vec![("web".into(), "has not answered".into())] } else { vec![] };
                    facts.judged = judged(match verdict {
                        0 => Verdict::Fail("it fails".into()),
                        1 | 2 => Verdict::NotYet("too little".into()),
                        _ => Verdict::Pass,
                    });
                    let mut moves = 0;
                    while let Some(change) = next(&plan, &progress, &facts) {
                        sound(&plan, &progress, &facts, &change.next, false);
                        progress = change.next;
                        // What everybody acknowledged is not what comes after it.
                        facts.acknowledged.missing = if missing { vec![("web".into(), String::new())] } else { vec![] };
                        moves += 1;
                        prop_assert!(moves < 20, "it goes in a circle");
                    }
                }
                Event::Say(verb) => {
                    if let Ok(change) = order(&plan, &progress, &facts, verb, None) {
                        sound(&plan, &progress, &facts, &change.next, verb == Verb::Promote { full: true });
                        progress = change.next;
                    }
                }
                Event::Restart => {
                    let kept = serde_json::to_string(&progress).unwrap();
                    let read: Progress = serde_json::from_str(&kept).unwrap();
                    prop_assert_eq!(&read, &progress);
                    progress = read;
                }
            }
            prop_assert!(progress.past.len() <= Progress::MAX_PAST);
        }
        // From wherever it is, it can be ended; and what has not ended goes on when all is well.
        if !progress.has_ended() {
            facts = passing(1_000_000);
            if matches!(progress.phase, Phase::Paused { .. }) {
                progress = order(&plan, &progress, &facts, Verb::Resume, None).unwrap().next;
            }
            for _ in 0..20 {
                settle(&plan, &mut progress, &facts);
                facts.now += time::Duration::seconds(10);
            }
            prop_assert!(progress.has_ended(), "it is stuck: {:?}", progress);
        }
    }
}

fn traffic(requests: u64, failed: u64, millis: u64) -> Traffic {
    let mut latency = Histogram::default();
    latency.add(outrigger_mesh::bucket_of(Duration::from_millis(millis)), requests);
    let callers = TrafficStats { requests, success: requests - failed, latency, unanswered: 0 };
    Traffic { callers, own: TrafficStats::default() }
}

#[test]
fn a_gate_passes_fails_or_knows_too_little() {
    let gates = Gates {
        min_success: Some(9_950),
        success_below_stable: Some(-50),
        p99: Some(Duration::from_millis(100)),
        latency_of_stable: Some(150),
        ..Gates::default()
    };
    let stable = traffic(1_000, 0, 20);
    let verdict = |candidate: &Traffic| judge(&gates, 1_000, candidate, &stable).verdict;
    assert_eq!(verdict(&traffic(200, 1, 20)), Verdict::Pass);
    assert!(matches!(verdict(&traffic(19, 0, 20)), Verdict::NotYet(why) if why.contains("19 of 20")));
    assert!(
        matches!(verdict(&traffic(200, 2, 20)), Verdict::Fail(why) if why.contains("success is 99.00 %"))
    );
    assert!(matches!(verdict(&traffic(200, 0, 150)), Verdict::Fail(why) if why.starts_with("p99")));
    assert!(
        matches!(verdict(&traffic(200, 0, 40)), Verdict::Fail(why) if why.starts_with("latency beside stable"))
    );
    assert!(matches!(
        judge(&gates, 1_000, &traffic(200, 0, 20), &traffic(3, 0, 20)).verdict,
        Verdict::NotYet(_)
    ));
    // Where stable gets little or nothing, its figures are not waited for.
    assert_eq!(judge(&gates, WHOLE, &traffic(200, 0, 20), &Traffic::default()).verdict, Verdict::Pass);
    assert_eq!(judge(&Gates::default(), 100, &Traffic::default(), &stable).verdict, Verdict::Pass);
}

#[test]
fn what_can_no_longer_pass_fails_before_there_is_enough() {
    let gates = Gates { min_success: Some(9_000), min_requests: 20, ..Gates::default() };
    let verdict = |candidate: &Traffic| judge(&gates, 500, candidate, &Traffic::default()).verdict;
    assert!(matches!(verdict(&traffic(2, 2, 5)), Verdict::NotYet(_)), "18 more could succeed");
    assert!(matches!(verdict(&traffic(3, 3, 5)), Verdict::Fail(why) if why.contains("success is 0.00 %")));
    let beside = Gates { min_success: None, success_below_stable: Some(-1_000), ..gates };
    let verdict = |stable: &Traffic| judge(&beside, 500, &traffic(3, 3, 5), stable).verdict;
    assert!(matches!(verdict(&traffic(100, 0, 5)), Verdict::Fail(_)));
    assert!(matches!(verdict(&Traffic::default()), Verdict::NotYet(_)));
}

#[test]
fn a_retry_hides_nothing_and_few_do_not_speak_for_many() {
    let gates = Gates { min_success: Some(9_900), ..Gates::default() };
    let mut candidate = traffic(100, 0, 5);
    candidate.own = traffic(120, 20, 5).callers;
    assert!(matches!(judge(&gates, 100, &candidate, &Traffic::default()).verdict, Verdict::Fail(_)));
    candidate.own = traffic(2, 1, 5).callers;
    assert_eq!(judge(&gates, 100, &candidate, &Traffic::default()).verdict, Verdict::Pass);
}

#[test]
fn attempts_that_nobody_answered_count_as_failed_whoever_answered_in_the_end() {
    let gates = Gates { min_success: Some(9_900), ..Gates::default() };
    let verdict =
        |gates: &Gates, candidate: &Traffic| judge(gates, 100, candidate, &Traffic::default()).verdict;
    // None was answered by it: another version did, or its breaker lets nobody near it any more.
    let mut candidate = Traffic::default();
    candidate.callers.unanswered = 3;
    assert!(matches!(verdict(&gates, &candidate), Verdict::Fail(why) if why.contains("success is 0.00 %")));
    // Every request was answered by another endpoint of it.
    candidate = traffic(100, 0, 5);
    candidate.own = traffic(100, 0, 5).callers;
    assert_eq!(verdict(&gates, &candidate), Verdict::Pass);
    candidate.callers.unanswered = 2;
    assert!(matches!(verdict(&gates, &candidate), Verdict::Fail(why) if why.contains("success is 98.04 %")));
    // Who answers nothing is not quick.
    let quick = Gates { p99: Some(Duration::from_millis(100)), ..Gates::default() };
    candidate = Traffic::default();
    candidate.callers.unanswered = 20;
    assert!(matches!(verdict(&quick, &candidate), Verdict::Fail(why) if why.contains("p99 is -")));
}

#[test]
fn a_difference_of_a_millisecond_is_none() {
    let gates = Gates { latency_of_stable: Some(150), ..Gates::default() };
    let verdict = |own, other| judge(&gates, 1_000, &traffic(200, 0, own), &traffic(200, 0, other)).verdict;
    assert_eq!(verdict(4, 1), Verdict::Pass);
    assert!(matches!(verdict(20, 1), Verdict::Fail(_)));
}
